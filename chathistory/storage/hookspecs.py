"""The plugin interface, version 1: one hook.

To serve a URL scheme, a distribution declares an entry point in its pyproject.toml:

    [project.entry-points."chathistory.v1"]
    myscheme = "my_package"

and implements the hook in `my_package`:

    from chathistory import hookimpl

    @hookimpl
    def chathistory_store(scheme):
        return MyStore if scheme == "myscheme" else None

The extras of an entry point name what must be installed for it: `redis = "chathistory_redis [redis]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from chathistory.storage.store import HistoryStore

__all__ = ["chathistory_store", "hookimpl"]

hookspec = pluggy.HookspecMarker("chathistory")
hookimpl = pluggy.HookimplMarker("chathistory")
"""A decorator that marks a function of a plugin as the implementation of the hook with the same name."""


@hookspec(firstresult=True)
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Return the store class for a scheme.

    Args:
        scheme: The scheme of a store URL, in lower case.

    Returns:
        A subclass of `HistoryStore`; None if this plugin does not serve the scheme.
    """
