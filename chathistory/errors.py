"""Everything that can go wrong, as one tree.

    ChatHistoryError
    ├── ConfigError (ValueError)    what was asked for cannot be built: a URL, an option, a setting
    │   └── PluginError             a backend is missing, broken, doubled or made for another version
    ├── InvalidInput (ValueError)   what was handed in cannot be used or stored; names the field
    ├── Conflict                    somebody else wrote first; nothing of this append was stored
    │   ├── OrphanedReply           the same, but a paid reply was kept beside the conversation
    │   └── OutcomeUnknown          the same, but it may have been stored, and what could tell is gone
    ├── UnsupportedRecord           a record was written by a later version of this library
    ├── TurnError                   the engine will not start this turn
    │   ├── TurnInProgress          another turn of this conversation is still open
    │   ├── TurnMismatch            a turn id came again with other content
    │   ├── TurnRefused             the API refused this turn before, and would refuse it again
    │   └── TurnTooLarge            one turn alone is over the token budget, and is not to be cut
    ├── IncompleteReply             the model's reply broke off; what had come is kept beside the conversation
    └── StoreError                  the backend's own troubles
        ├── StoreUnavailable        no usable answer; `.outcome` says what became of a write
        ├── StoreRejected           the backend refused: no space, no permission; nothing was stored
        ├── StoreClosed             the store was closed, or was used before a fork()
        └── CorruptRecord           what is stored is damaged; `.position` says where

No error carries message text or a credential: conversations end up in stores, not in logs.
A client library's own error is the `__cause__`. Errors of the Anthropic SDK pass through unwrapped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from chathistory.storage.store import Head, Key

__all__ = [
    "ChatHistoryError",
    "ConfigError",
    "Conflict",
    "CorruptRecord",
    "IncompleteReply",
    "InvalidInput",
    "OrphanedReply",
    "OutcomeUnknown",
    "PluginError",
    "StoreClosed",
    "StoreError",
    "StoreRejected",
    "StoreUnavailable",
    "TurnError",
    "TurnInProgress",
    "TurnMismatch",
    "TurnRefused",
    "TurnTooLarge",
    "UnsupportedRecord",
]


class ChatHistoryError(Exception):
    """The root: catch this for everything that chathistory itself raises."""

    reply: Any = None
    """The model's reply, if one had been paid for when the error struck: whoever catches this has it (a `Reply`)."""

    results: Any = None
    """The results of tools that had run when the error struck and are not stored: content for `run_tools` or `send`."""


class ConfigError(ChatHistoryError, ValueError):
    """What was asked for cannot be built: a URL, an option or a setting is wrong."""


class PluginError(ConfigError):
    """A backend is missing, broken, doubled or made for another version of the interface."""


class InvalidInput(ChatHistoryError, ValueError):
    """What was handed in cannot be used or stored; the text names the field, never its content."""


class Conflict(ChatHistoryError):
    """Somebody else wrote first; nothing was stored. `head` is the present one, None: there is none."""

    _stored = "nothing was stored"

    def __init__(self, key: Key, head: Head | None) -> None:
        self.key = key
        self.head = head
        seen = f"it now ends at position {head.end}" if head else "it does not exist (any more)"
        super().__init__(f"conversation {key.id!r} was changed by another writer: {seen}; {self._stored}")

    def __reduce__(self) -> tuple[type[Conflict], tuple[Any, ...]]:
        return type(self), (self.key, self.head)


class OrphanedReply(Conflict):
    """A reply arrived after another writer had changed the conversation.

    It was paid for, so it is not thrown away: it is stored as an `orphaned` record at `head.end - 1`,
    outside of what is replayed.
    """

    _stored = "the reply is kept beside it"


class OutcomeUnknown(Conflict):
    """No certain answer came to an append, and what could tell whether it was stored has been removed since."""

    _stored = "whether anything was stored cannot be told"


class UnsupportedRecord(ChatHistoryError):
    """A record was written by a later version of this library; `version` is the format it needs."""

    def __init__(self, key: Key, position: int, version: object) -> None:
        self.key = key
        self.position = position
        self.version = version
        super().__init__(
            f"record {position} of conversation {key.id!r} has format {version!r}, which this version of "
            "chathistory cannot interpret; update chathistory (the raw record is still readable)"
        )

    def __reduce__(self) -> tuple[type[UnsupportedRecord], tuple[Any, ...]]:
        return type(self), (self.key, self.position, self.version)


class TurnError(ChatHistoryError):
    """The engine will not start this turn; no tokens were paid for."""


class TurnInProgress(TurnError):
    """Another turn of this conversation is still open.

    `until` is when it counts as abandoned (µs since 1970, UTC), unless its process renews that. `host` and `pid` name
    the process that opened it; None: unknown. Wait until then; or, if you know that nobody is at it any longer, send
    its message again with `resume(id, takeover=True)`, or close it with `abandon(id)`.
    """

    def __init__(self, key: Key, turn: str, until: int, *, host: str | None = None, pid: int | None = None) -> None:
        self.key = key
        self.turn = turn
        self.until = until
        self.host = host
        self.pid = pid
        by = f", opened by process {pid} on {host!r}" if pid is not None else ""
        super().__init__(
            f"conversation {key.id!r} has an open turn ({turn}){by}; it counts as open until {_utc(until)}, or longer "
            "if its process renews it. Wait for it; or, if you know that its process is gone, call "
            "resume(id, takeover=True) to send its message again, or abandon(id) to close it"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_progress, (self.key, self.turn, self.until, self.host, self.pid)


def _in_progress(key: Key, turn: str, until: int, host: str | None, pid: int | None) -> TurnInProgress:
    return TurnInProgress(key, turn, until, host=host, pid=pid)


def _utc(microseconds: int) -> str:
    """Return a time in words; the last that there is for what lies behind it."""
    try:
        return f"{datetime.fromtimestamp(microseconds // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return "the end of the calendar"


class TurnMismatch(TurnError):
    """A turn id came again with other content: one id names one message."""


class TurnRefused(TurnError):
    """The API refused this turn when it was sent, and would refuse it again: say something else.

    `resume(id, force=True)` sends it again all the same.
    """


class TurnTooLarge(TurnError):
    """One turn alone has more tokens than the budget to cut down to, and the policy is not to cut within it."""

    def __init__(self, tokens: int, budget: int) -> None:
        self.tokens = tokens
        self.budget = budget
        super().__init__(f"one turn alone has about {tokens} tokens, which is over the budget of {budget}")

    def __reduce__(self) -> tuple[type[TurnTooLarge], tuple[Any, ...]]:
        return type(self), (self.tokens, self.budget)


class IncompleteReply(ChatHistoryError):
    """The model's reply ended before it was complete; what had come is stored as an `interrupted` record."""


class StoreError(ChatHistoryError):
    """The backend's own troubles."""


class StoreUnavailable(StoreError):
    """The backend gave no usable answer in time.

    `outcome` tells a writer what became of the write: "not stored" for certain, or "unknown" (it may land yet).
    """

    def __init__(self, message: str, *, outcome: Literal["not stored", "unknown"] = "unknown") -> None:
        self.outcome = outcome
        super().__init__(f"{message} (outcome: {outcome})")
        self._message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return _unavailable, (self._message, self.outcome)


def _unavailable(message: str, outcome: Literal["not stored", "unknown"]) -> StoreUnavailable:
    return StoreUnavailable(message, outcome=outcome)


class StoreRejected(StoreError):
    """The backend refused (no space, no permission, too large for it); nothing was stored."""


class StoreClosed(StoreError):
    """The store was closed, or was used by the process from which this one was forked: open another one here."""


class CorruptRecord(StoreError):
    """What is stored is damaged. `position` says where; None: not at one record but at the head itself.

    Only a call that names the conversation raises it; a walk over many reports it and goes on. At a record,
    `Conversation.repair(dry_run=False)` leads around it; at the head, `Conversation.restore(dry_run=False)` makes a new
    one; `Conversation.salvage()` gives out what can be read. `chathistory doctor` does the same.

    `key` is None where a walk found something damaged whose key cannot be told. `stop` is one above the last position
    that is missing together with `position`, where a store knows of more than one; else None.
    """

    def __init__(self, key: Key | None, position: int | None, reason: str, *, stop: int | None = None) -> None:
        self.key = key
        self.position = position
        self.reason = reason
        self.stop = stop
        where = "the head" if position is None else f"record {position}"
        whose = "a conversation whose key cannot be told" if key is None else f"conversation {key.id!r}"
        super().__init__(f"{where} of {whose} is damaged: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), stop=self.stop), (self.key, self.position, self.reason)
