"""The Lua scripts of this package, each of which the server runs in one step: see the `.lua` files in this folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

__all__ = [
    "APPEND",
    "CHECK",
    "DELETE",
    "FIND_STORED",
    "FORGET",
    "KEY_TYPES",
    "LIST_IDS",
    "LIST_PAGE",
    "LIST_SCOPES",
    "POSITION_RUNS",
    "READ",
    "REINDEX",
    "REMOVE_LEFTOVER",
    "RESTORE",
    "Script",
]


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and its SHA-1, by which a server knows it once it has run it."""

    source: bytes = field(repr=False)
    sha: str


def _load_script(name: str, *before: str) -> Script:
    source = b"".join(files("chathistory_redis").joinpath(f"{part}.lua").read_bytes() for part in (*before, name))
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


APPEND = _load_script("append", "index_order", "open_head", "add_to_index")
CHECK = _load_script("check")
REMOVE_LEFTOVER = _load_script("remove_leftover", "open_head")
DELETE = _load_script("delete", "open_head")
FIND_STORED = _load_script("find_stored", "compute_token")
FORGET = _load_script("forget", "open_head")
LIST_IDS = _load_script("list_ids", "index_order")
KEY_TYPES = _load_script("key_types")
LIST_PAGE = _load_script("list_page", "index_order", "open_head")
READ = _load_script("read", "open_head")
REINDEX = _load_script("reindex", "open_head")
RESTORE = _load_script("restore", "open_head", "add_to_index", "compute_token")
POSITION_RUNS = _load_script("position_runs", "compute_token")
LIST_SCOPES = _load_script("list_scopes")
