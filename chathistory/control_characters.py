"""Text that a terminal, or a page that shows it, must not obey: control characters made visible."""

from __future__ import annotations

import re

__all__ = ["get_picture", "neutralize"]

# control characters but for tab and line feed; what turns the direction of writing; what no encoding takes
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PICTURES = 0x2400  # where Unicode has a visible picture of each control character
_SPACE, _DELETE = 0x20, 0x7F


def neutralize(text: str) -> str:
    """Return text with each character replaced that a terminal would obey; line ends of any kind become line feeds.

    Escape sequences (CSI, OSC and the like) begin with such a character, also in their 8-bit forms, so none is left.
    """
    return _OBEYED.sub(lambda found: get_picture(found[0]) or "\ufffd", text.replace("\r\n", "\n"))


def get_picture(character: str) -> str | None:
    """Return the visible picture that Unicode has of a control character; None: it has none."""
    code = ord(character)
    if code < _SPACE:
        return chr(_PICTURES + code)
    return "\u2421" if code == _DELETE else None
