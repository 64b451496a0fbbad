"""The plugin interface, version 1: one hook.

A distribution serves a URL scheme with two things. In its pyproject.toml:

    [project.entry-points."chathistory.v1"]
    myscheme = "my_package"

and in `my_package`:

    from chathistory import hookimpl

    @hookimpl
    def chathistory_store(scheme):
        return MyStore if scheme == "myscheme" else None

An entry point's extras name what has to be installed for it: `redis = "chathistory_redis [redis]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from chathistory.storage.store import HistoryStore

__all__ = ["chathistory_store", "hookimpl"]

hookspec = pluggy.HookspecMarker("chathistory")
hookimpl = pluggy.HookimplMarker("chathistory")
"""Marks a function of a plugin as the implementation of the hook of that name."""


@hookspec(firstresult=True)
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Return the store class that serves `scheme` (lower case), or None if this plugin does not serve it."""
