"""What the engine's tests look at."""

from __future__ import annotations

from chathistory import Conversation, Entry


def told(chat: Conversation) -> list[Entry]:
    """Return the records of a conversation, without those that say what it is held with."""
    return [entry for entry in chat.entries() if entry.kind != "setup"]


def kinds(chat: Conversation) -> list[str]:
    return [entry.kind for entry in told(chat)]
