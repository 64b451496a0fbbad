"""Make control characters visible, so that neither a terminal nor a web page interprets them."""

from __future__ import annotations

import re

__all__ = ["get_picture", "neutralize"]

# control characters except tab and line feed; characters that change the direction of writing; lone surrogates
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PICTURES = 0x2400  # Unicode block with a visible picture of each control character
_SPACE, _DELETE = 0x20, 0x7F


def neutralize(text: str) -> str:
    """Return `text` with each character replaced that a terminal would interpret.

    Escape sequences (CSI, OSC and the like) begin with such a character, also in their 8-bit forms, so none remains.

    Args:
        text: Any text. Line ends of Windows become line feeds; tabs and line feeds are kept.

    Returns:
        The text with the Unicode picture of each control character, or U+FFFD where Unicode has none.
    """
    return _UNSAFE.sub(lambda match: get_picture(match[0]) or "\ufffd", text.replace("\r\n", "\n"))


def get_picture(character: str) -> str | None:
    """Return the visible picture of a control character; None if Unicode has none.

    Args:
        character: One character.
    """
    code = ord(character)
    if code < _SPACE:
        return chr(_PICTURES + code)
    return "\u2421" if code == _DELETE else None
