"""Stored text on its way to a terminal: it is shown, and must not be obeyed.

A message can hold anything. An escape sequence in it could move the cursor, change the window's title or fake a
prompt, and a character that turns the direction of writing could show something else than what is there.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import Any

__all__ = ["json_line", "one_line", "safe"]

# control characters but for tab and line feed; separators and marks of direction; what no encoding takes
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_PICTURES = 0x2400  # where Unicode has a visible picture of each control character
_SPACE, _DELETE = 0x20, 0x7F


def safe(text: str) -> str:
    """Return the text with every character that a terminal would obey made visible."""
    return _UNSAFE.sub(_visible, text.replace("\r\n", "\n"))


def _visible(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < _SPACE:
        return chr(_PICTURES + code)
    return "\u2421" if code == _DELETE else f"<U+{code:04X}>"


def one_line(text: str, longest: int | None = None) -> str:
    """Return the text, safe, on one line; with `longest`, cut to so many characters with an ellipsis."""
    line = " ".join(safe(text if longest is None else text[: 4 * longest]).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}\u2026"


def json_line(value: Any) -> str:
    """Return one line of JSON that is exact, with times as text; what a terminal would obey is escaped."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, separators=(",", ":"), default=datetime.isoformat)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
