"""From a URL to a store: find the one plugin that serves the scheme, load it, and let it build.

Built-in backends come through the same door as anybody else's. Plugins are found by the metadata of their
distributions, and only the one that is asked for is imported: a broken one harms nobody else.
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
    "ttl": Option(parse_lifetime, None, "seconds that a conversation lives after its last append; not given: for ever")
}


def open_store(url: str | StoreURL, **options: Any) -> HistoryStore:
    """Open the store that a URL names, without input or output: `store.check()` makes the first round trip.

    Args:
        url: Such as "file:./history".
        **options: Options of the store that are not in the URL.

    Raises:
        ConfigError: The URL or an option is wrong.
        PluginError: The backend cannot be used.
    """
    parsed = url.with_options(options) if isinstance(url, StoreURL) else StoreURL.parse(url, **options)
    cls = load_store_class(parsed.scheme)
    checked = parsed.parse_options({**COMMON_OPTIONS, **cls.options})
    values = dict(checked.options)
    ttl = values.pop("ttl")
    store = cls.from_url(StoreURL(checked.scheme, checked.location, values))
    store.ttl = ttl
    return store


def list_options(scheme: str) -> Mapping[str, Option]:
    """Return the options that a store of a scheme has, by name.

    Raises:
        PluginError: As `load_store_class` does.
    """
    return {**COMMON_OPTIONS, **load_store_class(scheme).options}


def load_store_class(scheme: str) -> type[HistoryStore]:
    """Import the plugin that serves a scheme, and return its class.

    Raises:
        PluginError: There is none, or it cannot be used; the message names the plugin and what to do.
    """
    point = _find_entry_point(scheme)
    cls = _call_hook(_import_plugin(point), point)
    if cls is None:
        raise PluginError(f"{scheme}: the plugin registered under this scheme has no hook that serves it")
    if not (inspect.isclass(cls) and issubclass(cls, HistoryStore)):
        raise PluginError(f"{scheme}: the plugin returned something that is not a HistoryStore class")
    if inspect.isabstract(cls):
        raise PluginError(f"{scheme}: the plugin's class lacks {', '.join(sorted(cls.__abstractmethods__))}")
    if not hasattr(cls, "traits"):
        raise PluginError(f"{scheme}: the plugin's class has no traits")
    return cls


@dataclass(frozen=True, slots=True)
class Backend:
    """What is known of a scheme.

    Attributes:
        scheme: The scheme of its URLs.
        distribution: The distribution that serves it.
        problem: Why it cannot be used; None if it can.
    """

    scheme: str
    distribution: str
    problem: str | None


def list_backends() -> list[Backend]:
    """Return every scheme that an installed distribution offers, in order; each is loaded to see whether it works."""
    names = {point.name: _distribution_name(point) for point in entry_points(group=ENTRY_POINT_GROUP)}
    found: list[Backend] = []
    for scheme in sorted(names):
        problem = None
        try:
            load_store_class(scheme)
        except ConfigError as error:
            problem = str(error)
        found.append(Backend(scheme, names[scheme], problem))
    return found


def _find_entry_point(scheme: str) -> EntryPoint:
    points = entry_points(group=ENTRY_POINT_GROUP)
    serving = [point for point in points if point.name == scheme]
    if len(serving) == 1:
        return serving[0]
    if serving:
        names = " and ".join(sorted(map(_distribution_name, serving)))
        raise PluginError(f"{scheme}: is served by more than one distribution, {names}; uninstall all but one")
    for point in entry_points(name=scheme):
        if point.group.startswith(GROUP_PREFIX):
            raise PluginError(
                f"{scheme}: the plugin of {_distribution_name(point)} is made for {point.group}, this chathistory "
                f"speaks {ENTRY_POINT_GROUP}; install versions of both that agree"
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
            problem = f"cannot be loaded, {error}"
            fix = f'pip install --upgrade "{_distribution_name(point)}{extras}"'
        raise PluginError(f"{point.name}: {problem}; mend it with: {fix}") from error
    except Exception as error:
        says = f"{type(error).__name__}: {error}{_describe_requirement(point)}"
        raise PluginError(f"{point.name}: the plugin of {_distribution_name(point)} fails on import: {says}") from error


def _call_hook(plugin: object, point: EntryPoint) -> Any:
    """Return what the hook of a plugin returns for its scheme."""
    manager = pluggy.PluginManager("chathistory")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin)
        manager.check_pending()
        return manager.hook.chathistory_store(scheme=point.name)
    except pluggy.PluginValidationError as error:
        reason = " ".join(str(error).split())
        raise PluginError(f"{point.name}: {_describe_missing_api(point)}, or misspells it: {reason}") from error
    except Exception as error:
        says = f"{type(error).__name__}: {error}{_describe_requirement(point)}"
        raise PluginError(f"{point.name}: the hook of {_distribution_name(point)} fails: {says}") from error


def _distribution_name(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _describe_missing_api(point: EntryPoint) -> str:
    return (
        f"the plugin of {_distribution_name(point)} asks for what {DISTRIBUTION} {version(DISTRIBUTION)} does not have"
        f"{_describe_requirement(point)}"
    )


def _describe_requirement(point: EntryPoint) -> str:
    """Return which version of ours a distribution requires, for the reader of an error; "" if it does not say.

    The version is not compared: whether an installer heeded it does not matter here, only that the plugin fails.
    """
    requirements = (point.dist.requires if point.dist is not None else None) or []
    ours = [text for text in requirements if re.match(rf"{DISTRIBUTION}\s*[<>=!~(]", text)]
    return f" (it requires {ours[0].partition(';')[0].strip()}; this is {version(DISTRIBUTION)})" if ours else ""
