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

from chathistory.control_characters import get_picture

__all__ = ["show_controls", "to_json_line", "to_one_line"]

# control characters but for tab and line feed; separators and marks of direction; what no encoding takes
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def show_controls(text: str) -> str:
    """Return the text with every character that a terminal would obey made visible."""
    return _UNSAFE.sub(lambda found: get_picture(found[0]) or f"<U+{ord(found[0]):04X}>", text.replace("\r\n", "\n"))


def to_one_line(text: str, longest: int | None = None) -> str:
    """Return the text, safe, on one line; with `longest`, cut to so many characters with an ellipsis."""
    line = " ".join(show_controls(text if longest is None else text[: 4 * longest]).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}\u2026"


def to_json_line(value: Any) -> str:
    """Return one line of JSON that is exact, with times as text; what a terminal would obey is escaped."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, separators=(",", ":"), default=datetime.isoformat)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
