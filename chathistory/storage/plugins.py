"""From a URL to a store: find the plugin that serves the scheme, import it, and let it build the store.

Built-in backends are plugins like all others. Plugins are found by the metadata of their distributions, and only the
one that serves the scheme is imported, so a broken plugin does not affect the others.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import pluggy

from chathistory.errors import ConfigError, PluginError
from chathistory.storage import hookspecs
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import Option, StoreURL, parse_lifetime, suggest_name

__all__ = ["Backend", "list_backends", "list_options", "load_store_class", "open_store"]

DISTRIBUTION = "chathistory"
GROUP_PREFIX = "chathistory.v"
ENTRY_POINT_GROUP = GROUP_PREFIX + "1"
COMMON_OPTIONS = {
    "ttl": Option(
        parse_lifetime,
        None,
        "time from the last message or turn until a conversation expires: seconds, or a duration such as 30d; "
        "unless given: never",
    )
}


def open_store(url: str | StoreURL, **options: Any) -> HistoryStore:
    """Open the store that a URL names.

    Opening does no input or output; call `store.check()` to make the first round trip.

    Args:
        url: The URL of the store, such as "file:./history" or "redis://localhost".
        **options: Options of the store, in addition to those of the URL.

    Returns:
        The store. Close it after use, or use it as a context manager.

    Raises:
        ConfigError: The URL or an option is wrong.
        PluginError: The backend cannot be used: it is missing, broken, or made for another version.
    """
    parsed = url.with_options(options) if isinstance(url, StoreURL) else StoreURL.parse(url, **options)
    cls = load_store_class(parsed.scheme)
    values = dict(parsed.parse_options({**COMMON_OPTIONS, **cls.options}).options)
    ttl = values.pop("ttl")
    store = cls.from_url(StoreURL(parsed.scheme, parsed.location, values))
    store.ttl = ttl
    return store


def list_options(scheme: str) -> Mapping[str, Option]:
    """Return the options of the stores of a scheme, by name.

    Args:
        scheme: The scheme, in lower case.

    Raises:
        PluginError: The plugin cannot be used; see `load_store_class`.
    """
    return {**COMMON_OPTIONS, **load_store_class(scheme).options}


def load_store_class(scheme: str) -> type[HistoryStore]:
    """Import the plugin that serves a scheme, and return its store class.

    Args:
        scheme: The scheme, in lower case.

    Raises:
        PluginError: No plugin serves the scheme, or the plugin cannot be used; the text names it and what to do.
    """
    point = _find_entry_point(scheme)
    cls = _call_hook(_import_plugin(point), point)
    if cls is None:
        raise PluginError(
            f"{scheme}: the plugin of {_distribution_name(point)} does not serve this scheme: its hook "
            "chathistory_store(scheme) returned None instead of a store class; report this to its authors"
        )
    if not (inspect.isclass(cls) and issubclass(cls, HistoryStore)):
        raise PluginError(
            f"{scheme}: the hook of {_distribution_name(point)} returned something that is not a HistoryStore class"
        )
    if inspect.isabstract(cls):
        raise PluginError(
            f"{scheme}: the store class of {_distribution_name(point)} must implement "
            f"{', '.join(sorted(cls.__abstractmethods__))}"
        )
    if not hasattr(cls, "traits"):
        raise PluginError(
            f"{scheme}: the store class of {_distribution_name(point)} must have a class attribute `traits`"
        )
    return cls


@dataclass(frozen=True, slots=True)
class Backend:
    """An installed backend.

    Attributes:
        scheme: The scheme of its URLs.
        distribution: The distribution that serves the scheme.
        problem: Why it cannot be used; None if it can.
    """

    scheme: str
    distribution: str
    problem: str | None


def list_backends() -> list[Backend]:
    """Return all installed backends, sorted by scheme. Each one is imported to see whether it works."""
    names = {point.name: _distribution_name(point) for point in entry_points(group=ENTRY_POINT_GROUP)}
    installed: list[Backend] = []
    for scheme in sorted(names):
        problem = None
        try:
            load_store_class(scheme)
        except ConfigError as error:
            problem = str(error)
        installed.append(Backend(scheme, names[scheme], problem))
    return installed


def _find_entry_point(scheme: str) -> EntryPoint:
    points = entry_points(group=ENTRY_POINT_GROUP)
    serving = [point for point in points if point.name == scheme]
    if len(serving) == 1:
        return serving[0]
    if serving:
        names = " and ".join(sorted(map(_distribution_name, serving)))
        raise PluginError(f"{scheme}: more than one distribution serves this scheme, {names}; uninstall all but one")
    for point in entry_points(name=scheme):
        if point.group.startswith(GROUP_PREFIX):
            name = _distribution_name(point)
            raise PluginError(
                f"{scheme}: the plugin of {name} uses the plugin interface {point.group}, but {DISTRIBUTION} "
                f"{version(DISTRIBUTION)} needs {ENTRY_POINT_GROUP}; to get versions that match, run: "
                f"pip install --upgrade {DISTRIBUTION} {name}"
            )
    raise PluginError(f"no installed backend serves {scheme}:{suggest_name(scheme, [point.name for point in points])}")


def _import_plugin(point: EntryPoint) -> object:
    try:
        return point.load()
    except ImportError as error:
        if (error.name or "").partition(".")[0] == DISTRIBUTION:
            problem, fix = f"{_describe_missing_api(point)}: {error}", f"pip install --upgrade {DISTRIBUTION}"
        else:
            extras = f"[{','.join(point.extras)}]" if point.extras else ""
            problem = f"the plugin of {_distribution_name(point)} cannot be imported: {error}"
            fix = f'pip install --upgrade "{_distribution_name(point)}{extras}"'
        raise PluginError(f"{point.name}: {problem}; to fix this, run: {fix}") from error
    except PluginError:  # the plugin itself says why it cannot be used here
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}{_describe_requirement(point)}"
        raise PluginError(
            f"{point.name}: the plugin of {_distribution_name(point)} fails on import: {reason}"
        ) from error


def _call_hook(plugin: object, point: EntryPoint) -> Any:
    """Call the hook of a plugin with its scheme, and return the result."""
    manager = pluggy.PluginManager("chathistory")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin)
        manager.check_pending()
        return manager.hook.chathistory_store(scheme=point.name)
    except pluggy.PluginValidationError as error:
        reason = " ".join(str(error).split())
        raise PluginError(f"{point.name}: {_describe_missing_api(point)}, or misspells a name: {reason}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}{_describe_requirement(point)}"
        raise PluginError(f"{point.name}: the hook of {_distribution_name(point)} fails: {reason}") from error


def _distribution_name(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _describe_missing_api(point: EntryPoint) -> str:
    return (
        f"the plugin of {_distribution_name(point)} needs something that {DISTRIBUTION} {version(DISTRIBUTION)} "
        "does not have"
        f"{_describe_requirement(point)}"
    )


def _describe_requirement(point: EntryPoint) -> str:
    """Return which version of chathistory a distribution requires, for an error; "" if its metadata do not say.

    The version is not compared: the plugin has failed already, and the person who reads the error can compare.
    """
    requirements = (point.dist.requires if point.dist is not None else None) or []
    ours = [text for text in requirements if re.match(rf"{DISTRIBUTION}\s*[<>=!~(]", text)]
    return f" (it requires {ours[0].partition(';')[0].strip()}; this is {version(DISTRIBUTION)})" if ours else ""
