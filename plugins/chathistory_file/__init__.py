"""Conversations as files of lines, one file each: readable with `cat` and `jq`, safe with crashes and many writers.

    file:./history      file:/abs/dir      file:///abs/dir      file:~/dir

    store       the store: its hooks, and what an append, a forget and a delete do
    listing     the conversations of a scope, newest first, from one scan of its folder
    leftovers   files and bytes that belong to no readable conversation: naming them, removing them
    recovery    the records of a conversation with a damaged head, and a new head for it
    write       appends and rewrites, and how a failed one is undone
    read        the last commit of a file, and its records
    locks       one writer at a time for each conversation
    files       the folder and the files of a conversation: names, opening, bytes in chunks
    schema      the lines of a file: records and commits, each with its checksum
    errors      the errors of the operating system, translated

Each uses only those below it. `docs/format.md` describes the files for other programs.
"""

from __future__ import annotations

from chathistory import HistoryStore, hookimpl
from chathistory_file.store import FileStore

__all__ = ["FileStore"]


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Return the store class for `file:` URLs."""
    return FileStore if scheme == "file" else None
