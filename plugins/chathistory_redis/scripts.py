"""The scripts, which are what the server does in one step: see the `.lua` files beside this one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

__all__ = [
    "APPEND",
    "CHECK",
    "CLEAR",
    "DELETE",
    "FIND",
    "FORGET",
    "IDS",
    "KINDS",
    "PAGE",
    "READ",
    "REINDEX",
    "RESTORE",
    "RUNS",
    "SCOPES",
    "Script",
]


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that the server knows it by once it has seen it."""

    source: bytes = field(repr=False)
    sha: str


def _script(name: str, *before: str) -> Script:
    source = b"".join(files("chathistory_redis").joinpath(f"{part}.lua").read_bytes() for part in (*before, name))
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


APPEND = _script("append", "walk", "head", "listed")
CHECK = _script("check")
CLEAR = _script("clear", "head")
DELETE = _script("delete", "head")
FIND = _script("find", "token")
FORGET = _script("forget", "head")
IDS = _script("ids", "walk")
KINDS = _script("kinds")
PAGE = _script("page", "walk", "head")
READ = _script("read", "head")
REINDEX = _script("reindex", "head")
RESTORE = _script("restore", "head", "listed", "token")
RUNS = _script("runs", "token")
SCOPES = _script("scopes")
