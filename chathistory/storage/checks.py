"""What every store refuses, whatever it keeps its conversations in."""

from __future__ import annotations

from collections.abc import Sequence

from chathistory.checks import check_position, check_range
from chathistory.errors import Conflict, InvalidInput
from chathistory.storage.values import LARGEST_NUMBER, LONGEST_PAYLOAD, LONGEST_VERSION, Head, Key, Revision, Traits

__all__ = ["check_append", "check_position", "check_range", "check_version", "is_version"]


def check_append(bodies: Sequence[str], revision: Revision, traits: Traits, *, first: int = 0) -> list[str]:
    """Check what is about to be appended.

    Args:
        bodies: At least one line of text.
        revision: What takes the place of the stored revision.
        traits: Those of the store, with its limits.
        first: The position of the first body in a new conversation.

    Returns:
        The bodies, in a list of the store's own.

    Raises:
        InvalidInput: No bodies, or a lone string; a body or payload that is not one line of encodable text (no control
            characters); a payload that is too long; a malformed revision; more than the limits of the store.
    """
    if isinstance(bodies, str) or not bodies:
        raise InvalidInput("an append needs a list of at least one body")
    batch = list(bodies)
    sizes = [_measure_line(f"body {index}", body) for index, body in enumerate(batch)]
    _measure_line("the revision's payload", revision.payload)
    if len(revision.payload) > LONGEST_PAYLOAD:
        raise InvalidInput(
            f"the revision's payload must have at most {LONGEST_PAYLOAD} characters, not {len(revision.payload)}"
        )
    if not is_version(revision.version):
        raise InvalidInput(f"a version must be 1 to {LONGEST_VERSION} printable ASCII characters")
    expires = 0 if revision.expires is None else revision.expires
    for name, number in (("updated", revision.updated), ("expires", expires), ("first", first)):
        if type(number) is not int or not 0 <= number <= LARGEST_NUMBER:
            raise InvalidInput(f"{name} must be a whole number from 0 to 2**53 - 1")
    if traits.largest_record is not None and max(sizes) > traits.largest_record:
        raise InvalidInput(
            f"body {sizes.index(max(sizes))} has {max(sizes)} bytes; this store keeps at most {traits.largest_record}"
        )
    if traits.largest_batch is not None and sum(sizes) > traits.largest_batch:
        raise InvalidInput(f"the batch has {sum(sizes)} bytes; this store keeps at most {traits.largest_batch} at once")
    return batch


def is_version(value: object) -> bool:
    """Return whether a value can be the version of a revision."""
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_VERSION and value.isascii() and value.isprintable()


def check_version(key: Key, stored: Head | None, seen: Head | None) -> None:
    """Raise `Conflict` if the stored head is not of the version that a writer has seen.

    Args:
        key: The conversation.
        stored: The present head; None: there is no such conversation.
        seen: The head that the writer has seen; None: it expects that there is no such conversation.
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
        raise InvalidInput(f"{name} holds a lone surrogate")
    if len(encoded.translate(None, _CONTROLS)) != len(encoded):
        raise InvalidInput(f"{name} must be one line without control characters")
    return len(encoded)


_CONTROLS = bytes(range(0x20))  # C-speed over 30 MB, which a set or a loop is not
