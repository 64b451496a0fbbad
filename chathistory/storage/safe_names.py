"""Safe names: what an id or a scope is called as a file, a folder or an object key.

Different texts never share a name, on case-insensitive file systems too, and no name is hidden, reserved or a path.
Lower-case letters, digits, `-`, `_` and inner dots stand for themselves, every other byte of the UTF-8 text becomes
`=xx`. What would be long ends in `~` and a hash instead, so the true text cannot always be read back from the name:
a store keeps it inside.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["safe_name"]

LONGEST = 120
_KEPT = 80
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")  # device names of Windows, in any folder


def safe_name(text: str) -> str:
    """Return the name of `text`: 1 to 120 characters of ASCII, the same on every machine and for ever."""
    name = "".join(chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in text.encode())
    if name[0] in ".-" or _RESERVED.match(name):
        name = f"={ord(name[0]):02x}{name[1:]}"
    if name[-1] == ".":
        name = f"{name[:-1]}=2e"
    if len(name) <= LONGEST:
        return name
    return f"{name[:_KEPT]}~{hashlib.sha256(text.encode()).hexdigest()[: LONGEST - _KEPT - 1]}"
