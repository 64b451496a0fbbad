"""Conversations as files of lines, one file each: readable with `cat` and `jq`, safe against crashes and rivals.

    file:./history      file:/abs/dir      file:///abs/dir      file:~/dir

    store       what the store does, in terms of the rest
    listing     a scope's conversations, newest first, from one scan of its folder
    writing     appends, rewrites, and how a failed one is undone
    reading     where the last batch ends, where a position is, and the records from there
    blocks      what a file's lines are: bodies, and the seals that vouch for them
    layout      which folder and file a conversation has
    locks       who may write
    faults      what an operating system's error is called here

Each uses only those below it. `docs/file-format.md` is the format's description for other programs.
"""

from __future__ import annotations

from chathistory import HistoryStore, hookimpl
from chathistory_file.store import FileStore

__all__ = ["FileStore"]


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Serve `file:`."""
    return FileStore if scheme == "file" else None
