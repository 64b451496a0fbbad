"""The scripts, which are what the server does in one step: see the `.lua` files beside this one."""

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
    """A script, and the name that the server knows it by once it has seen it."""

    source: bytes = field(repr=False)
    sha: str


def _load_script(name: str, *before: str) -> Script:
    source = b"".join(files("chathistory_redis").joinpath(f"{part}.lua").read_bytes() for part in (*before, name))
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


APPEND = _load_script("append", "walk", "head", "listed")
CHECK = _load_script("check")
REMOVE_LEFTOVER = _load_script("clear", "head")
DELETE = _load_script("delete", "head")
FIND_STORED = _load_script("find", "token")
FORGET = _load_script("forget", "head")
LIST_IDS = _load_script("ids", "walk")
KEY_TYPES = _load_script("kinds")
LIST_PAGE = _load_script("page", "walk", "head")
READ = _load_script("read", "head")
REINDEX = _load_script("reindex", "head")
RESTORE = _load_script("restore", "head", "listed", "token")
POSITION_RUNS = _load_script("runs", "token")
LIST_SCOPES = _load_script("scopes")
