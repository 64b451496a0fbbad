"""Conversations as files of lines, one file each: readable with `cat` and `jq`, safe against crashes and rivals.

    file:./history      file:/abs/dir      file:///abs/dir      file:~/dir

    store       what the store does, in terms of the rest
    listing     a scope's conversations, newest first, from one scan of its folder
    leftovers   what is stored beside conversations that can be read: naming it, removing it
    recovering  what is left of a conversation whose head is damaged, and a new head for it
    writing     appends, rewrites, and how a failed one is undone
    reading     where a record is, and the records from there
    states      where the last append of a file ends: what is behind it was torn by a crash, or is damaged
    source      the bytes of an open file
    lines       what a file's lines are: records and commits, each with its checksum
    locks       who may write
    layout      which folder and file a conversation has
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
