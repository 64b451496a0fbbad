"""How commands tell of what a walk over many conversations could not read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import click

from chathistory.cli.escape import one_line
from chathistory.cli.target import Place
from chathistory.errors import ChatHistoryError
from chathistory.storage.store import Damaged, HistoryStore, Key

__all__ = ["damaged_fields", "damaged_json", "damaged_name", "notes_of", "tell_damaged"]


def damaged_name(damaged: Damaged) -> str:
    """Return what to call something that is damaged: the id of the conversation, or its place in the storage."""
    return one_line(damaged.key.id if damaged.key else damaged.where)


def damaged_fields(damaged: Damaged, empty: int) -> tuple[str, ...]:
    """Return the fields of a row: the id, "damaged", so many empty fields, and the reason."""
    return (damaged_name(damaged), "damaged", *("" for _ in range(empty)), one_line(str(damaged.error)))


def damaged_json(damaged: Damaged) -> dict[str, Any]:
    """Return what is known of something that is damaged, for JSON; `id` and `scope` are null if they cannot be told."""
    key = damaged.key
    return {
        "id": key.id if key else None,
        "scope": key.scope if key else None,
        "damaged": str(damaged.error),
        "where": damaged.where,
    }


def tell_damaged(place: Place, damaged: Sequence[Damaged], done: str = "shown as damaged") -> None:
    """Say on standard error how many are damaged, what was done with them, and what to do next."""
    if damaged:
        click.echo(f"{len(damaged)} {done}; look at them with: {place.command('doctor')}", err=True)


def notes_of(store: HistoryStore, keys: Iterable[Key]) -> list[str]:
    """Return what is stored beside the records of conversations, as far as the store can tell."""
    notes: list[str] = []
    storage_notes = store.get_storage_notes()
    if storage_notes is not None:
        for key in keys:
            with suppress(ChatHistoryError):  # it is damaged, or gone, which is told elsewhere
                notes += storage_notes.notes(key)
    return [f"note: {one_line(note)}" for note in notes]
