"""Encode and decode cursors: the end of a page of a listing, as text."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from chathistory.errors import InvalidInput
from chathistory.storage.values import LARGEST_NUMBER, Cursor, Head, Key, SortKey

__all__ = ["decode_cursor", "encode_cursor", "pack_cursor", "unpack_cursor"]


def pack_cursor(*parts: str | int | None) -> Cursor:
    """Return a cursor, which is text safe in a URL.

    Args:
        *parts: The values that say where the page ended.
    """
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def unpack_cursor(cursor: Cursor, is_valid: Callable[..., bool]) -> list[Any]:
    """Return the parts of a cursor.

    Args:
        cursor: The cursor; it comes from a caller, so it may be any text.
        is_valid: Called with the parts; returns True if they can be parts of a cursor. It may also raise `ValueError`,
            `TypeError`, `AttributeError` or `RecursionError`.

    Raises:
        InvalidInput: `pack_cursor` did not make the cursor, or its parts are not valid.
    """
    try:
        parts = json.loads(base64.b64decode(cursor + "==", altchars=b"-_", validate=False))
        if is_valid(*parts):
            return list(parts)
    except (ValueError, TypeError, AttributeError, RecursionError):  # binascii.Error and InvalidInput are among them
        pass
    raise InvalidInput("the cursor is not valid; pass the `next` of an earlier page of this listing")


def encode_cursor(head: Head) -> Cursor:
    """Return the cursor of a page.

    Args:
        head: The last head of the page.
    """
    return pack_cursor(*head.sort_key)


def decode_cursor(cursor: Cursor) -> SortKey:
    """Return the sort key below which the next page begins.

    Args:
        cursor: The cursor of the page before.

    Raises:
        InvalidInput: `encode_cursor` did not make it.
    """

    def is_valid(updated: Any, id: str) -> bool:
        return type(updated) is int and 0 <= updated <= LARGEST_NUMBER and Key("default", id).id == id

    return SortKey(*unpack_cursor(cursor, is_valid))
