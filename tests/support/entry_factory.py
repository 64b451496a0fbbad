"""Entries for tests, made from stored kinds and field names, as reading a line makes them."""

from __future__ import annotations

from typing import Any

from chathistory import Entry
from chathistory.errors import InvalidInput
from chathistory.log.entry import FORMAT, load_event
from chathistory.log.events import UnknownEvent
from chathistory.log.stored_fields import WrongField, stored_names


def make_entry(
    kind: str,
    message: Any = None,
    data: dict[str, Any] | None = None,
    turn: str | None = None,
    *,
    optional: bool = False,
    **envelope: Any,
) -> Entry:
    """Return an entry.

    Args:
        kind: The kind of its event.
        message: The message of the event, if it has one.
        data: The event's fields; names that the kind does not have become `extra`.
        turn: The id of the turn that it belongs to.
        optional: Whether a reader that does not know the kind may skip it.
        envelope: Other fields of `Entry`.
    """
    data = data or {}
    event = load_event(kind, data, message, is_optional=optional)
    if isinstance(event, WrongField):
        raise InvalidInput(f"{event.name}: has a wrong type or value, or is missing")
    if envelope.get("version", FORMAT) != FORMAT:
        event = UnknownEvent(kind, optional, data, message)
    known = data if isinstance(event, UnknownEvent) else stored_names(type(event))
    extra = {name: value for name, value in data.items() if name not in known}
    return Entry(event, turn, extra=extra, **envelope)
