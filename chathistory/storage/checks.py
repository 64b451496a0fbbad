"""Checks of arguments that every store makes, whatever its backend."""

from __future__ import annotations

from collections.abc import Sequence

from chathistory.checks import check_position, check_range
from chathistory.errors import Conflict, InvalidInput
from chathistory.storage.values import LARGEST_NUMBER, LONGEST_PAYLOAD, LONGEST_VERSION, Head, Key, Revision, Traits

__all__ = ["check_append", "check_position", "check_range", "check_version", "is_version"]


def check_append(bodies: Sequence[str], revision: Revision, traits: Traits, *, first: int = 0) -> list[str]:
    """Check the arguments of an append.

    Args:
        bodies: The lines to append; at least one.
        revision: The revision that replaces the stored one.
        traits: The traits of the store, with its limits.
        first: The position of the first body in a new conversation.

    Returns:
        The bodies, in a new list.

    Raises:
        InvalidInput: `bodies` is empty or a single str; a body or the payload is not one line of encodable text (no
            control characters); the payload is too long; the revision is malformed; a limit of the store is exceeded.
    """
    if isinstance(bodies, str):
        raise InvalidInput("bodies: must be a list with the text of each record, not a single str")
    if not bodies:
        raise InvalidInput("bodies: must hold the text of at least one record; the list is empty")
    batch = list(bodies)
    sizes = [_measure_line(f"body {index}", body) for index, body in enumerate(batch)]
    _measure_line("the revision's payload", revision.payload)
    if len(revision.payload) > LONGEST_PAYLOAD:
        raise InvalidInput(
            f"the revision's payload must have at most {LONGEST_PAYLOAD} characters, not {len(revision.payload)}"
        )
    if not is_version(revision.version):
        raise InvalidInput(f"the revision's version must be 1 to {LONGEST_VERSION} printable ASCII characters")
    expires = 0 if revision.expires is None else revision.expires
    for name, number in (("updated", revision.updated), ("expires", expires), ("first", first)):
        if type(number) is not int or not 0 <= number <= LARGEST_NUMBER:
            raise InvalidInput(f"{name} must be an int from 0 to 2**53 - 1")
    if traits.largest_record is not None and max(sizes) > traits.largest_record:
        raise InvalidInput(
            f"record {sizes.index(max(sizes))} of the append has {max(sizes)} bytes; this store takes at most "
            f"{traits.largest_record} in a record"
        )
    if traits.largest_batch is not None and sum(sizes) > traits.largest_batch:
        raise InvalidInput(
            f"the records have {sum(sizes)} bytes together; this store takes at most {traits.largest_batch} in one "
            "append"
        )
    return batch


def is_version(value: object) -> bool:
    """Return True if a value can be the version of a revision: 1 to 32 printable ASCII characters.

    Args:
        value: Any value.
    """
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_VERSION and value.isascii() and value.isprintable()


def check_version(key: Key, stored: Head | None, seen: Head | None) -> None:
    """Compare the stored version with the one that a writer has seen.

    Args:
        key: The name of the conversation.
        stored: The present head; None if there is no such conversation.
        seen: The head that the writer has seen; None if it expects no such conversation.

    Raises:
        Conflict: The versions differ; with the stored head.
    """
    if (stored and stored.revision.version) != (seen and seen.revision.version):
        raise Conflict(key, stored)


def _measure_line(name: str, line: object) -> int:
    if not isinstance(line, str):
        raise InvalidInput(f"{name} must be text, not {type(line).__name__}")
    try:
        encoded = line.encode()
    except UnicodeEncodeError:
        encoded = None
    if encoded is None:  # not raised in the handler: the context would carry the text
        raise InvalidInput(f"{name} must not contain a lone surrogate")
    if len(encoded.translate(None, _CONTROLS)) != len(encoded):
        raise InvalidInput(f"{name} must be one line without control characters")
    return len(encoded)


_CONTROLS = bytes(range(0x20))  # for bytes.translate, which is fast over 30 MB; a set or a loop is not
