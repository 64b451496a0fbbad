"""A conversation by its id, and what to say if there is none."""

from __future__ import annotations

import difflib

import click

from chathistory.cli.escape import safe
from chathistory.cli.target import Place
from chathistory.conversation import Conversation
from chathistory.history import History

__all__ = ["absent", "found"]

_NEAR = 200  # so many of the newest conversations are looked through for an id like the one that is not there


def found(history: History, place: Place, id: str) -> Conversation:
    """Return a conversation that exists. Raises `click.ClickException` with ids like this one otherwise."""
    conversation = history.conversation(id, scope=place.scope)
    if conversation.refresh() is not None:
        return conversation
    names = [row.id for row in history.list(scope=place.scope, limit=_NEAR).items]
    near = difflib.get_close_matches(id, names, n=3) or [name for name in names if name.startswith(id)][:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; {place.command('list')} shows those that are there"
    raise click.ClickException(safe(f"{absent(place, id)}{hint}"))


def absent(place: Place, id: str) -> str:
    """Return the words for a conversation that does not exist."""
    return f"there is no conversation {id} in {place}, scope {place.scope}"
