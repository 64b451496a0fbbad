"""Every error that chathistory raises, as one tree.

    ChatHistoryError
    ├── ConfigError (ValueError)    a URL, an option or a setting is wrong
    │   └── PluginError             a backend is missing, broken, installed twice or made for another version
    ├── InvalidInput (ValueError)   an argument cannot be used or stored; the text names the field
    ├── ConversationChanged         another writer changed the conversation in the meantime
    │   ├── Conflict                nothing was stored or removed
    │   ├── OrphanedReply           the reply was stored, but is not part of the conversation
    │   └── OutcomeUnknown          nobody can determine whether the append was stored
    ├── ConversationExists          another conversation has this name already
    ├── ConversationNotFound (LookupError)  no conversation has this name
    ├── TurnError                   the engine does not start this turn
    │   ├── TurnInProgress          another turn of this conversation is still open
    │   ├── TurnMismatch            a turn id or a tool call was used before with other content
    │   ├── TurnRefused             the API refused this turn before, and would refuse it again
    │   └── TurnTooLarge            one turn alone exceeds the token budget, and the policy must not cut within it
    ├── IncompleteReply             the reply was interrupted; the part that arrived is stored separately
    └── StoreError                  the backend failed
        ├── StoreUnavailable        no usable answer; `.outcome` says whether a write may have been stored
        ├── StoreRejected           the backend refused: no space, no permission; nothing was stored
        ├── StoreClosed             the store was closed, or was used before a fork()
        ├── CorruptRecord           stored data is damaged; `.position` says where
        └── UnsupportedRecord       this version of chathistory cannot interpret the format of a record

The text and the `repr` of an error contain no message text and no credential: conversations belong in stores, not in
logs. Its attributes `reply` and `results` do contain content.
The `__cause__` of an error is the client library's own error.

Errors of the Anthropic SDK are raised unchanged. If the API refused what was sent, an engine adds what it refused as
`error.refusal` (a `Refusal`). Warnings are `SetupChangedWarning`, `CutFailedWarning` and `TextReplacedWarning`.
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
    """The base class of all errors of chathistory; catch it to handle any of them.

    What is saved after an error of an engine's call is in its notes (`error.__notes__`), which a traceback shows.

    Attributes:
        reply: The model's reply (a `Reply`), if one was received and paid for before the error; else None.
        results: The results of tools that ran before the error and are not stored yet: pass them to `run_tools` or
            `send`; else None.
    """

    reply: Any = None
    results: Any = None


class ConfigError(ChatHistoryError, ValueError):
    """A store URL, an option or a setting is wrong. Nothing was opened or stored; correct what the text names."""


class PluginError(ConfigError):
    """A backend cannot be used: it is missing, broken, installed twice, or made for another version of the interface.

    The text names the scheme and the distribution, and says what to install or to uninstall.
    """


class InvalidInput(ChatHistoryError, ValueError):
    """An argument cannot be used or stored; the text names the field, never its content.

    Nothing was stored, with one exception: a reply of the API that cannot be a message is stored as JSON text in a
    `reply_orphaned` entry, and is the error's `reply`.
    """


class ConversationChanged(ChatHistoryError):
    """Another writer changed the conversation after this call had read it; the subclass says what was stored.

    Read the conversation again before you repeat the call.

    Attributes:
        key: The name of the conversation.
        head: The present head of the conversation; None if it does not exist.
    """

    _outcome = "read it again"

    def __init__(self, key: Key, head: Head | None) -> None:
        self.key = key
        self.head = head
        present = f"it now ends at position {head.end}" if head else "it does not exist"
        super().__init__(f"conversation {key.id!r} was changed by another writer: {present}; {self._outcome}")

    def __reduce__(self) -> tuple[type[ConversationChanged], tuple[Any, ...]]:
        return type(self), (self.key, self.head)


class Conflict(ConversationChanged):
    """Another writer appended, forgot or deleted first. Nothing was stored or removed; read again, then repeat."""

    _outcome = "nothing was stored; read it again, and repeat the call"


class OrphanedReply(ConversationChanged):
    """A reply arrived after another writer had changed the conversation.

    The reply was paid for, so it is stored as a `reply_orphaned` entry at `head.end - 1`, and it is in `reply`. It is
    not part of the conversation: it is never sent to Claude. Send the message again if you still want an answer.
    """

    _outcome = "the reply is stored in a reply_orphaned entry, which is never sent; send the message again"


class OutcomeUnknown(ConversationChanged):
    """Nobody can determine whether an append was stored.

    The store gave no definite answer, and the records that would show the outcome have been removed. Read the
    conversation, and repeat the call only if its content is missing.
    """

    _outcome = "whether anything was stored cannot be determined; read it before you repeat the call"


class ConversationExists(ChatHistoryError):
    """Another conversation has this name already. Nothing was stored: choose another id.

    A fork, a renamed conversation and an imported one need a name that is free.

    Attributes:
        key: The name of the conversation that exists.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        super().__init__(f"conversation {key.id!r} in scope {key.scope!r} exists already; choose another id")

    def __reduce__(self) -> tuple[type[ConversationExists], tuple[Any, ...]]:
        return type(self), (self.key,)


class ConversationNotFound(ChatHistoryError, LookupError):
    """No conversation has this name, and the call needs one.

    It was never stored, was deleted, or has expired. Compare the id and the scope with `History.list`.

    Attributes:
        key: The name that was given.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        super().__init__(f"there is no conversation {key.id!r} in scope {key.scope!r}")

    def __reduce__(self) -> tuple[type[ConversationNotFound], tuple[Any, ...]]:
        return type(self), (self.key,)


class TurnError(ChatHistoryError):
    """The engine does not start this turn. No request was sent, so no tokens were paid for."""


class TurnInProgress(TurnError):
    """Another turn of this conversation is still open.

    Wait until it ends. If you know that no process works on it, call `resume(id, takeover=True)` to send its message
    again, or `abandon(id)` to close it.

    Attributes:
        key: The name of the conversation.
        turn: The id of the open turn.
        until: The time (UTC) from which the turn counts as abandoned, unless its process renews its lease.
        host: The machine of the process that opened the turn; None if unknown.
        pid: The process id of that process; None if unknown.
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
        return _make_in_progress, (self.key, self.turn, self.until, self.host, self.pid)


def _make_in_progress(key: Key, turn: str, until: datetime, host: str | None, pid: int | None) -> TurnInProgress:
    return TurnInProgress(key, turn, until, host=host, pid=pid)


class TurnMismatch(TurnError):
    """A `turn_id` was used again with another message, or a tool call was given another result.

    One id names one message, and one tool call has one result. Use a new `turn_id` for a new message.
    """


class TurnRefused(TurnError):
    """The API refused this turn when it was sent, and would refuse it again: send another message.

    `resume(id, force=True)` sends the refused message again.
    """


class TurnTooLarge(TurnError):
    """One turn alone exceeds the token budget, and the policy must not cut within a turn. Nothing was sent.

    Raised by `TokenBudget(..., oversized="raise")`. Increase `high`, or use `oversized="rounds"` to cut between rounds
    of tool calls.

    Attributes:
        tokens: The estimated tokens of the turn.
        budget: The tokens that the policy allows (`high`).
    """

    def __init__(self, tokens: int, budget: int) -> None:
        self.tokens = tokens
        self.budget = budget
        super().__init__(
            f"one turn alone has about {tokens} tokens, which is over the budget of {budget}; increase the budget, or "
            'use oversized="rounds" to cut within the turn'
        )

    def __reduce__(self) -> tuple[type[TurnTooLarge], tuple[Any, ...]]:
        return type(self), (self.tokens, self.budget)


class IncompleteReply(ChatHistoryError):
    """The model's reply ended before it was complete.

    In a turn, the part that arrived is stored as a `reply_interrupted` entry, which is never sent to Claude; call
    `resume(id)` to send the message again.
    """


class StoreError(ChatHistoryError):
    """The backend failed; the subclass says how, and the text names the operation."""


class StoreUnavailable(StoreError):
    """The backend gave no usable answer in time. Check that it runs and can be reached, then repeat the call.

    Args:
        message: What failed, without message text.
        outcome: See the attribute.

    Attributes:
        outcome: What happened to a write: "not stored" for certain, or "unknown" (it may still be stored later).
    """

    def __init__(self, message: str, *, outcome: Literal["not stored", "unknown"] = "unknown") -> None:
        self.outcome = outcome
        super().__init__(f"{message} (outcome: {outcome})")
        self._message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_unavailable, (self._message, self.outcome)


def _make_unavailable(message: str, outcome: Literal["not stored", "unknown"]) -> StoreUnavailable:
    return StoreUnavailable(message, outcome=outcome)


class StoreRejected(StoreError):
    """The backend refused: no space, no permission, or too large. Nothing was stored; the text says what it refused."""


class StoreClosed(StoreError):
    """The store was closed, or the parent process used it before the fork. Open another store in this process."""


class CorruptRecord(StoreError):
    """Stored data is damaged: a record, or the head of a conversation.

    Only a call that names the conversation raises it; a call that reads many conversations reports it and continues.
    If a record is damaged, `Conversation.repair(dry_run=False)` leaves it out of what is sent. If the head is damaged,
    `Conversation.restore(dry_run=False)` makes a new one. `Conversation.salvage()` returns everything that can be read.
    `chathistory doctor` does the same on the command line.

    Attributes:
        key: The name of the conversation; None if it cannot be determined.
        position: The position of the damaged record; None if the head is damaged.
        reason: What is wrong, without message text; after a semicolon what to do, if that is special.
        stop: One above the last position that is missing together with `position`, if the store knows of more than
            one; else None.
    """

    def __init__(self, key: Key | None, position: int | None, reason: str, *, stop: int | None = None) -> None:
        self.key = key
        self.position = position
        self.reason = reason
        self.stop = stop
        where = "the head" if position is None else f"record {position}"
        name = "a conversation with an unknown name" if key is None else f"conversation {key.id!r}"
        repair = "`restore` can make a new one" if position is None else "`repair` can leave it out"
        advice = "" if "; " in reason else f"; {repair}, and `chathistory doctor` shows what is damaged"
        super().__init__(f"{where} of {name} is damaged: {reason}{advice}")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), stop=self.stop), (self.key, self.position, self.reason)


_FROZEN_FORMAT = 2  # the first number of the stored format that later versions keep reading


class UnsupportedRecord(StoreError):
    """A record has a format that this version of chathistory cannot interpret.

    If a later version of chathistory wrote it, update chathistory to use the conversation; the raw record can still be
    read and copied unchanged. If a development version wrote it before the format was frozen (format 1), read it with
    that version; such a record is not copied.

    Attributes:
        key: The name of the conversation; None: the format of an export file is not supported.
        position: The position of the record.
        version: The format version of the record.
    """

    def __init__(self, key: Key | None, position: int, version: object) -> None:
        self.key = key
        self.position = position
        self.version = version
        where = "the file" if key is None else f"record {position} of conversation {key.id!r}"
        if isinstance(version, int) and version < _FROZEN_FORMAT:
            problem = (
                f"written by a development version of chathistory before the format was frozen; expected format "
                f"{_FROZEN_FORMAT}. Read the messages with the version that wrote them, and append them to a new "
                "conversation"
            )
        else:
            problem = (
                "which this version of chathistory cannot interpret; update chathistory (the raw record is still "
                "readable)"
            )
        super().__init__(f"{where} has format {version!r}, {problem}")

    def __reduce__(self) -> tuple[type[UnsupportedRecord], tuple[Any, ...]]:
        return type(self), (self.key, self.position, self.version)
