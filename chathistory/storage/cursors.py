"""The cursor that stores ordered by (updated, id) can share: the place of the last head of a page, as text."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TypeGuard

from chathistory.errors import InvalidInput
from chathistory.storage.values import LARGEST_NUMBER, Cursor, Head, Key, SortKey

__all__ = ["decode_cursor", "encode_cursor"]


def encode_cursor(head: Head) -> Cursor:
    """Return the cursor of the page that ended with `head`: text safe in a URL."""
    text = json.dumps(head.sort_key)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: Cursor) -> SortKey:
    """Return the sort key below which the next page begins; `InvalidInput` for what is no cursor."""
    try:
        updated, name = json.loads(base64.b64decode(cursor + "==", altchars=b"-_", validate=False))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        updated, name = None, None
    if type(updated) is not int or not 0 <= updated <= LARGEST_NUMBER or not _is_id(name):
        raise InvalidInput("this is not a cursor that a page of this listing gave")
    return SortKey(updated, str(name))


def _is_id(name: object) -> TypeGuard[str]:
    try:
        Key("default", name)  # type: ignore[arg-type]  # it is what finds out
    except InvalidInput:
        return False
    return True
