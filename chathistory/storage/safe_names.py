"""Safe names for files, folders and object keys, made from an id or a scope.

Two different texts never get the same name, not even on a case-insensitive file system, and no name is hidden,
reserved or a path. Lower-case letters, digits, `-`, `_` and inner dots are kept; every other byte of the UTF-8 text
becomes `=xx`. A name that would be too long ends in `~` and a hash, so the text cannot always be read back from the
name: a store also keeps it inside.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["safe_name"]

LONGEST = 120
_KEPT_OF_LONG = 80
_UNESCAPED = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")  # device names of Windows, in any folder


def safe_name(text: str) -> str:
    """Return the safe name of a text.

    Args:
        text: An id or a scope; not empty.

    Returns:
        1 to 120 ASCII characters; the same on every machine and in every version, because stored data depends on it.
    """
    name = "".join(chr(byte) if byte in _UNESCAPED else f"={byte:02x}" for byte in text.encode())
    if name[0] in ".-" or _RESERVED.match(name):
        name = f"={ord(name[0]):02x}{name[1:]}"
    if name[-1] == ".":
        name = f"{name[:-1]}=2e"
    if len(name) <= LONGEST:
        return name
    return f"{name[:_KEPT_OF_LONG]}~{hashlib.sha256(text.encode()).hexdigest()[: LONGEST - _KEPT_OF_LONG - 1]}"
