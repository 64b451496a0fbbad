"""Entries of a conversation as the engine's tests compare them: without those of kind "setup"."""

from __future__ import annotations

from chathistory import Conversation, Entry


def list_entries(chat: Conversation) -> list[Entry]:
    """Return the entries of a conversation, except those of kind "setup"."""
    return [entry for entry in chat.entries() if entry.kind != "setup"]


def list_kinds(chat: Conversation) -> list[str]:
    """Return the kinds of these entries, in order."""
    return [entry.kind for entry in list_entries(chat)]
