"""Everything that can go wrong, as one tree.

    ChatHistoryError
    ├── ConfigError (ValueError)    what was asked for cannot be built: a URL, an option, a setting
    │   └── PluginError             a backend is missing, broken, doubled or made for another version
    ├── InvalidInput (ValueError)   what was handed in cannot be used or stored; names the field
    ├── ConversationChanged         somebody else has changed the conversation since it was looked at
    │   ├── Conflict                nothing was stored or removed
    │   ├── OrphanedReply           a paid reply is stored beside the conversation
    │   └── OutcomeUnknown          whether an append was stored cannot be told
    ├── ConversationExists          the name is taken by another conversation
    ├── ConversationNotFound (LookupError)  there is no conversation of this name
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
        ├── CorruptRecord           what is stored is damaged; `.position` says where
        └── UnsupportedRecord       a later version of this library wrote a record

No error carries message text or a credential: conversations end up in stores, not in logs.
A client library's own error is the `__cause__`. Errors of the Anthropic SDK pass through unwrapped.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from chathistory.storage.values import Head, Key

__all__ = [
    "ChatHistoryError",
    "ConfigError",
    "Conflict",
    "ConversationChanged",
    "ConversationExists",
    "ConversationNotFound",
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


class ConversationChanged(ChatHistoryError):
    """Somebody else has changed the conversation since it was looked at. What became of the call says the kind.

    Attributes:
        key: The conversation.
        head: Its present head; None: it does not exist.
    """

    _outcome = "look at it again"

    def __init__(self, key: Key, head: Head | None) -> None:
        self.key = key
        self.head = head
        seen = f"it now ends at position {head.end}" if head else "it does not exist"
        super().__init__(f"conversation {key.id!r} was changed by another writer: {seen}; {self._outcome}")

    def __reduce__(self) -> tuple[type[ConversationChanged], tuple[Any, ...]]:
        return type(self), (self.key, self.head)


class Conflict(ConversationChanged):
    """Somebody else wrote, forgot or deleted first: nothing was stored or removed. Look at it, and call again."""

    _outcome = "nothing was stored"


class OrphanedReply(ConversationChanged):
    """A reply came after somebody else had changed the conversation.

    It was paid for, so it is stored: as an `orphaned` record at `head.end - 1`, which is never sent to Claude.
    """

    _outcome = "the reply is stored beside it"


class OutcomeUnknown(ConversationChanged):
    """Whether an append was stored cannot be told: its answer was lost, and so are the records that would show it."""

    _outcome = "whether anything was stored cannot be determined"


class ConversationExists(ChatHistoryError):
    """The name is taken: a fork, a renamed or an imported conversation needs one that is free. Nothing was stored.

    Attributes:
        key: The conversation that exists.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        super().__init__(f"there is a conversation {key.id!r} in scope {key.scope!r} already; choose another id")

    def __reduce__(self) -> tuple[type[ConversationExists], tuple[Any, ...]]:
        return type(self), (self.key,)


class ConversationNotFound(ChatHistoryError, LookupError):
    """There is no conversation of this name, and the call needs one.

    Attributes:
        key: The name.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        super().__init__(f"there is no conversation {key.id!r} in scope {key.scope!r}")

    def __reduce__(self) -> tuple[type[ConversationNotFound], tuple[Any, ...]]:
        return type(self), (self.key,)


class TurnError(ChatHistoryError):
    """The engine will not start this turn; no tokens were paid for."""


class TurnInProgress(TurnError):
    """Another turn of this conversation is still open.

    Wait until it ends; or, if you know that no process works on it, send its message again with
    `resume(id, takeover=True)`, or close it with `abandon(id)`.

    Attributes:
        key: The conversation.
        turn: The id of the turn.
        until: When the turn counts as abandoned (UTC), unless its process renews that.
        host: The machine of the process that opened it; None: unknown.
        pid: The number of that process; None: unknown.
    """

    def __init__(
        self, key: Key, turn: str, until: datetime, *, host: str | None = None, pid: int | None = None
    ) -> None:
        self.key = key
        self.turn = turn
        self.until = until
        self.host = host
        self.pid = pid
        by = f", opened by process {pid} on {host!r}" if pid is not None else ""
        super().__init__(
            f"conversation {key.id!r} has an open turn ({turn}){by}; it counts as open until "
            f"{until:%Y-%m-%d %H:%M:%S} UTC, or longer if its process renews it. Wait for it; or, if you know that its "
            "process is gone, call resume(id, takeover=True) to send its message again, or abandon(id) to close it"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_progress, (self.key, self.turn, self.until, self.host, self.pid)


def _in_progress(key: Key, turn: str, until: datetime, host: str | None, pid: int | None) -> TurnInProgress:
    return TurnInProgress(key, turn, until, host=host, pid=pid)


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


class UnsupportedRecord(StoreError):
    """A later version of this library wrote a record. It is still readable as it is, and copied as it is.

    Attributes:
        key: The conversation.
        position: Where the record is.
        version: The format that it needs.
    """

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
