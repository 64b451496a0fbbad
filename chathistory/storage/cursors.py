"""The cursor that stores ordered by (updated, id) can share: the place of the last head of a page, as text."""

from __future__ import annotations

import base64
import json

from chathistory.errors import InvalidInput
from chathistory.storage.values import LARGEST_NUMBER, Cursor, Head, Key, SortKey

__all__ = ["decode_cursor", "encode_cursor"]


def encode_cursor(head: Head) -> Cursor:
    """Return the cursor of the page that ended with `head`: text safe in a URL."""
    text = json.dumps(head.sort_key)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: Cursor) -> SortKey:
    """Return the sort key below which the next page begins.

    Raises:
        InvalidInput: `cursor` was not made by `encode_cursor`.
    """
    try:
        updated, id = json.loads(base64.b64decode(cursor + "==", altchars=b"-_", validate=False))
        if type(updated) is int and 0 <= updated <= LARGEST_NUMBER:
            return SortKey(updated, Key("default", id).id)
    except (ValueError, TypeError, RecursionError):  # binascii.Error and InvalidInput are among them
        pass
    raise InvalidInput("this is not a cursor that a page of this listing gave")
