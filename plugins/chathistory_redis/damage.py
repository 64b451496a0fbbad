"""What is damaged, in words: what a script reports, and what a walk shows of it."""

from __future__ import annotations

from typing import Any

from chathistory.errors import ChatHistoryError, CorruptRecord
from chathistory.storage.store import Damaged, Key
from chathistory_redis.heads import damage_of

__all__ = ["damaged_conversation", "is_damage", "is_wrong_listing", "place_of", "reported", "unnamed"]


def is_damage(reply: Any) -> bool:
    """Tell whether a script reports damage: {'!', what, more about it}."""
    return isinstance(reply, list) and len(reply) > 0 and reply[0] == b"!"


def is_wrong_listing(reply: Any) -> bool:
    """Tell whether a script reports that a key of the listing is damaged; else the reply is a list."""
    if not isinstance(reply, list):
        raise TypeError
    return is_damage(reply)


def reported(key: Key, reply: list[bytes]) -> ChatHistoryError:
    """Return the error for what a script reports of a conversation."""
    _, what, more = reply
    if what == b"type":
        return CorruptRecord(key, None, f"its key holds a {more.decode()} instead of a list")
    if what == b"length":
        return CorruptRecord(key, None, f"its list holds {more.decode()}")
    return damage_of(key, more)


def damaged_conversation(key: Key, name: bytes, error: ChatHistoryError) -> Damaged:
    """Return what a walk shows of a conversation that cannot be read."""
    return Damaged(key, place_of(name), error)


def unnamed(name: bytes, reason: str) -> Damaged:
    """Return what a walk shows of something that belongs to no conversation."""
    return Damaged(None, place_of(name), CorruptRecord(None, None, reason))


def place_of(name: bytes) -> str:
    """Return the name of a key as text that can be printed."""
    text = name.decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
