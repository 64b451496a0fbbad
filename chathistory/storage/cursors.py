"""Cursors: the place where a page of a listing ended, as text, for stores ordered by (updated, id) and for others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from chathistory.errors import InvalidInput
from chathistory.storage.values import LARGEST_NUMBER, Cursor, Head, Key, SortKey

__all__ = ["decode_cursor", "encode_cursor", "pack_cursor", "unpack_cursor"]


def pack_cursor(*parts: str | int | None) -> Cursor:
    """Return a cursor of these parts: text safe in a URL."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def unpack_cursor(cursor: Cursor, is_valid: Callable[..., bool]) -> list[Any]:
    """Return the parts of a cursor, which anybody may have made up.

    Args:
        cursor: The cursor.
        is_valid: Tells whether the parts can be those of a place; it may also raise what they give rise to.

    Raises:
        InvalidInput: It was not made by `pack_cursor`, or the parts are not right.
    """
    try:
        parts = json.loads(base64.b64decode(cursor + "==", altchars=b"-_", validate=False))
        if is_valid(*parts):
            return list(parts)
    except (ValueError, TypeError, AttributeError, RecursionError):  # binascii.Error and InvalidInput are among them
        pass
    raise InvalidInput("this is not a cursor that a page of this listing gave")


def encode_cursor(head: Head) -> Cursor:
    """Return the cursor of the page that ended with `head`."""
    return pack_cursor(*head.sort_key)


def decode_cursor(cursor: Cursor) -> SortKey:
    """Return the sort key below which the next page begins.

    Raises:
        InvalidInput: `cursor` was not made by `encode_cursor`.
    """

    def is_right(updated: Any, id: str) -> bool:
        return type(updated) is int and 0 <= updated <= LARGEST_NUMBER and Key("default", id).id == id

    return SortKey(*unpack_cursor(cursor, is_right))
