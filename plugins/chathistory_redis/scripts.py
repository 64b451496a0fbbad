"""The scripts, which are what the server does in one step: see the `.lua` files beside this one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

__all__ = ["APPEND", "CHECK", "DELETE", "FORGET", "IDS", "PAGE", "READ", "SCOPES", "Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that the server knows it by once it has seen it."""

    source: bytes = field(repr=False)
    sha: str


def _script(name: str, *before: str) -> Script:
    source = b"".join(files("chathistory_redis").joinpath(f"{part}.lua").read_bytes() for part in (*before, name))
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


APPEND = _script("append", "walk", "head")
CHECK = _script("check")
DELETE = _script("delete", "head")
FORGET = _script("forget", "head")
IDS = _script("ids", "walk")
PAGE = _script("page", "walk")
READ = _script("read", "head")
SCOPES = _script("scopes")
