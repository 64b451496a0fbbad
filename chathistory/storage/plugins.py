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
from chathistory.storage.url import Option, StoreURL, lifetime, near_match

__all__ = ["Backend", "backends", "declared_options", "open_store", "store_class"]

OURS = "chathistory"
PREFIX = "chathistory.v"
GROUP = PREFIX + "1"
COMMON_OPTIONS = {
    "ttl": Option(lifetime, None, "seconds that a conversation lives after its last append; not given: for ever")
}


def open_store(url: str | StoreURL, **options: Any) -> HistoryStore:
    """Return the store that `url` names, such as "file:./history"; `options` join those of the URL.

    Checks scheme, options and the backend's client library, without input or output: `store.check()` makes the first
    round trip. Raises `ConfigError` for a wrong URL or option, and `PluginError` if the backend cannot be used.
    """
    parsed = url.joined(options) if isinstance(url, StoreURL) else StoreURL.parse(url, **options)
    cls = store_class(parsed.scheme)
    checked = parsed.checked({**COMMON_OPTIONS, **cls.options})
    values = dict(checked.options)
    ttl = values.pop("ttl")
    store = cls.from_url(StoreURL(checked.scheme, checked.location, values))
    store.ttl = ttl
    return store


def declared_options(scheme: str) -> Mapping[str, Option]:
    """Return the options that a store of this scheme has, by name. Raises `PluginError` as `store_class` does."""
    return {**COMMON_OPTIONS, **store_class(scheme).options}


def store_class(scheme: str) -> type[HistoryStore]:
    """Return the class that serves `scheme`. Raises `PluginError` that names the plugin and what would mend it."""
    point = _find(scheme)
    return _served(_load(point), point)


@dataclass(frozen=True, slots=True)
class Backend:
    """What is known of a scheme: its distribution, and what stands in the way of its use (None: nothing)."""

    scheme: str
    distribution: str
    problem: str | None


def backends() -> list[Backend]:
    """Return every scheme that an installed distribution offers, in order; each is loaded to see whether it works."""
    points = entry_points(group=GROUP)
    names = {point.name: _distribution(point) for point in points}
    return [Backend(scheme, names[scheme], _problem(scheme)) for scheme in sorted(names)]


def _problem(scheme: str) -> str | None:
    try:
        store_class(scheme)
    except ConfigError as error:
        return str(error)
    return None


def _find(scheme: str) -> EntryPoint:
    points = [point for point in entry_points(group=GROUP) if point.name == scheme]
    if len(points) > 1:
        names = " and ".join(sorted(_distribution(point) for point in points))
        raise PluginError(f"{scheme}: is served by more than one distribution, {names}; uninstall all but one")
    if not points:
        raise PluginError(_absent(scheme))
    return points[0]


def _absent(scheme: str) -> str:
    for point in entry_points(name=scheme):
        if point.group.startswith(PREFIX):
            return (
                f"{scheme}: the plugin of {_distribution(point)} is made for {point.group}, this chathistory speaks "
                f"{GROUP}; install versions of both that agree"
            )
    known = [point.name for point in entry_points(group=GROUP)]
    return f"no installed backend serves {scheme}:{near_match(scheme, known)}"


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except ImportError as error:
        if (error.name or "").partition(".")[0] == OURS:
            msg = f"{point.name}: {_made_for_newer(point)}: {error}; mend it with: pip install --upgrade {OURS}"
        else:
            msg = f"{point.name}: cannot be loaded, {error}; mend it with: {_remedy(point)}"
        raise PluginError(msg) from error
    except Exception as error:
        says = f"{type(error).__name__}: {error}{_requirement(point)}"
        raise PluginError(f"{point.name}: the plugin of {_distribution(point)} fails on import: {says}") from error


def _remedy(point: EntryPoint) -> str:
    extras = f"[{','.join(point.extras)}]" if point.extras else ""
    return f'pip install --upgrade "{_distribution(point)}{extras}"'


def _made_for_newer(point: EntryPoint) -> str:
    return (
        f"the plugin of {_distribution(point)} asks for what {OURS} {version(OURS)} does not have{_requirement(point)}"
    )


def _requirement(point: EntryPoint) -> str:
    """Return what its distribution says of the version of ours that it needs, for whoever reads that it does not work.

    Not compared: whether an installer heeded it is not for us to judge, only that it does not work.
    """
    requirements = (point.dist.requires if point.dist is not None else None) or []
    ours = [text for text in requirements if re.match(rf"{OURS}\s*[<>=!~(]", text)]
    return f" (it requires {ours[0].partition(';')[0].strip()}; this is {version(OURS)})" if ours else ""


def _served(plugin: object, point: EntryPoint) -> type[HistoryStore]:
    scheme = point.name
    manager = pluggy.PluginManager("chathistory")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin)
        manager.check_pending()
        cls = manager.hook.chathistory_store(scheme=scheme)
    except pluggy.PluginValidationError as error:
        raise PluginError(
            f"{scheme}: {_made_for_newer(point)}, or misspells it: {' '.join(str(error).split())}"
        ) from error
    except Exception as error:
        says = f"{type(error).__name__}: {error}{_requirement(point)}"
        raise PluginError(f"{scheme}: the hook of {_distribution(point)} fails: {says}") from error
    _check_class(cls, scheme)
    return cls  # type: ignore[no-any-return]  # checked above; pluggy's hooks are untyped


def _check_class(cls: object, scheme: str) -> None:
    if cls is None:
        msg = f"{scheme}: the plugin registered under this scheme has no hook that serves it"
    elif not (inspect.isclass(cls) and issubclass(cls, HistoryStore)):
        msg = f"{scheme}: the plugin returned something that is not a HistoryStore class"
    elif inspect.isabstract(cls):
        msg = f"{scheme}: the plugin's class lacks {', '.join(sorted(cls.__abstractmethods__))}"
    elif not hasattr(cls, "traits"):
        msg = f"{scheme}: the plugin's class has no traits"
    else:
        return
    raise PluginError(msg)
