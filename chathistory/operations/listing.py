"""A page of the listing: rows that are known without reading messages, all of them or those that fit a filter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chathistory.checks import check_count, check_text, check_type
from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.clock import to_datetime, to_microseconds
from chathistory.log.conversation_log import alive
from chathistory.log.entry import to_json
from chathistory.log.lease import lease_end
from chathistory.log.state import ConversationHead, ConversationState, OpenTurn, Origin, read_state
from chathistory.messages.json_values import to_plain_json
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Cursor, Damaged, Head, Page

__all__ = ["ConversationInfo", "Filter", "Origin", "TurnInfo", "describe", "list_page", "read_head"]

SCAN_LIMIT = 1000
"""Conversations that one call looks at, at most, for those that are asked for."""

_CHUNK = 320
_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class TurnInfo:
    """The last turn of a conversation, if it has no reply.

    Attributes:
        id: Its id.
        state: "open": a process waits for its reply. "interrupted": it broke off, was given up, or its lease is over;
            an engine's `resume` sends it again. "refused": the API did not accept it.
        since: When it was opened or, if it was closed, when that was; in UTC.
        host: The machine of the process that opened it; None: unknown.
        pid: The number of that process; None: unknown.
        until: When its lease ends, unless its process renews it, in UTC; None: it is not open.
    """

    id: str
    state: str
    since: datetime
    host: str | None = None
    pid: int | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConversationInfo:
    """What is known of a conversation without reading messages: a row of the listing, and what each change returns.

    Attributes:
        id: The caller's name for it.
        scope: Whose it is.
        title: As it was set; None: it has none.
        preview: The beginning of the first user text; None: there was none, or it is forgotten.
        tags: As they were set.
        metadata: The caller's own JSON values.
        messages: How many it has, without those that were taken back.
        usage: Token counts of all replies, summed, by the API's names.
        model: Of the last reply; None: there was none.
        created: When it was begun, in UTC.
        updated: When somebody said something last, in UTC.
        expires: When its time to live ends, in UTC; None: never.
        start: The position of the first record that is kept; above 0 once something was forgotten.
        end: The position behind its last record: where the next one will stand.
        origin: Of a fork: where it came from; else None.
        version: Of this state; see `Conversation.version`.
        turn: The last turn, if it has no reply; else None.
    """

    id: str
    scope: str
    title: str | None
    preview: str | None = field(repr=False)
    tags: tuple[str, ...]
    metadata: Mapping[str, Any] = field(repr=False)
    messages: int
    usage: Mapping[str, int]
    model: str | None
    created: datetime
    updated: datetime
    expires: datetime | None
    start: int = 0
    end: int = 0
    origin: Origin | None = None
    version: str = ""
    turn: TurnInfo | None = None

    @property
    def records(self) -> int:
        """How many records of all kinds are kept."""
        return self.end - self.start

    @property
    def tokens(self) -> int:
        """All tokens of all replies: of the input, cached or not, and of the output."""
        return sum(self.usage.get(name, 0) for name in _TOKENS)


def describe(head: ConversationHead) -> ConversationInfo:
    """Return what users are shown of a conversation that has this head; nothing is read or parsed."""
    state, revision = head.state, head.stored.revision
    annotations, totals = state.annotations, state.totals
    return ConversationInfo(
        id=head.key.id,
        scope=head.key.scope,
        title=annotations.title,
        preview=totals.preview,
        tags=annotations.tags,
        metadata=to_plain_json(annotations.metadata) if annotations.metadata else {},  # the caller may change it
        messages=totals.messages,
        usage=dict(totals.usage),
        model=totals.model,
        created=to_datetime(state.identity.created),
        updated=to_datetime(revision.updated),
        expires=None if revision.expires is None else to_datetime(revision.expires),
        start=head.start,
        end=head.end,
        origin=state.identity.origin,
        version=revision.version,
        turn=_describe_turn(state),
    )


def _describe_turn(state: ConversationState) -> TurnInfo | None:
    """Return the last turn of a conversation, if it has no reply."""
    turn = state.engine.open_turn or state.engine.unanswered
    if turn is None:
        return None
    until = lease_end(turn) if isinstance(turn, OpenTurn) else None
    return TurnInfo(
        turn.id,
        ("open" if until else "interrupted") if isinstance(turn, OpenTurn) else turn.state,
        to_datetime(turn.since),
        host=turn.process.host if turn.process else None,
        pid=turn.process.pid if turn.process else None,
        until=to_datetime(until) if until else None,
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """Which conversations are asked for; what is None asks for nothing. `of` checks and folds what callers give.

    title: folded text that is in the title, or in the preview of one without a title. tags: each must be there.
    metadata: names and JSON values that must be there. since, until: microseconds; updated is in [since, until).
    unanswered: the last turn has no reply.
    """

    title: str | None = None
    tags: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    since: int | None = None
    until: int | None = None
    unanswered: bool = False

    @classmethod
    def from_arguments(
        cls,
        *,
        title: str | None,
        tag: str | Iterable[str] | None,
        metadata: Mapping[str, Any] | None,
        model: str | None,
        since: datetime | None,
        until: datetime | None,
        unanswered: bool,
    ) -> Filter | None:
        """Return the filter, None if nothing is asked for. Raises `InvalidInput` for a value of another type.

        A time without a zone is one of those.
        """
        for name, text in (("title", title), ("model", model)):
            if text is not None:
                check_text(name, text)
        if metadata is not None:
            check_type("metadata", metadata, Mapping, "a dict")
        if tag is not None:
            check_type("tag", tag, Iterable, "text, or a list of texts")
        tags = [tag] if isinstance(tag, str) else list(tag or ())
        for each in tags:
            check_text("tag", each)
        values = {name: _to_sorted_json(value) for name, value in (metadata or {}).items()}
        made = cls(
            title=title.casefold() if title else None,
            tags=frozenset(tags),
            metadata=values,
            model=model or None,
            since=_check_time("since", since),
            until=_check_time("until", until),
            unanswered=unanswered,
        )
        return made if made != cls() else None

    def __call__(self, head: ConversationHead) -> bool:
        """Whether a conversation is one of those."""
        state = head.state
        shown = state.annotations.title or state.totals.preview or ""
        return (
            (self.title is None or self.title in shown.casefold())
            and self.tags.issubset(state.annotations.tags)
            and all(
                name in state.annotations.metadata and _to_sorted_json(state.annotations.metadata[name]) == value
                for name, value in self.metadata.items()
            )
            and self.model in {None, state.totals.model}
            and (self.since is None or head.stored.revision.updated >= self.since)
            and (self.until is None or head.stored.revision.updated < self.until)
            and not (self.unanswered and state.engine.open_turn is None and state.engine.unanswered is None)
        )


def _to_sorted_json(value: Any) -> str:
    """Return the JSON of a value, alike for values that are alike: the order of names does not matter."""
    return to_json(_sort_names(to_plain_json(value, "metadata")))


def _sort_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sort_names(value[name]) for name in sorted(value)}
    return [_sort_names(each) for each in value] if isinstance(value, list) else value


def _check_time(name: str, time: datetime | None) -> int | None:
    if time is None:
        return None
    check_type(name, time, datetime, "a time with a zone, such as datetime.now(UTC)")
    if time.utcoffset() is None:
        raise InvalidInput(f"{name}: must be a time with a zone, such as datetime.now(UTC)")
    return to_microseconds(time)


def list_page(
    store: HistoryStore, scope: str, *, limit: int, after: Cursor | None, row_filter: Filter | None
) -> Page[ConversationInfo]:
    """Return a page as `History.list` says."""
    check_count("limit", limit, least=1)
    rows: list[ConversationInfo] = []
    damaged: list[Damaged] = []
    left, size = SCAN_LIMIT, limit if row_filter is None else min(limit, _CHUNK)
    while True:
        page = store.heads(scope, after=after, limit=size)
        found = [read_head(head) for head in page.items]
        fitting = [
            (place, head)
            for place, head in enumerate(found)
            if isinstance(head, ConversationHead) and (row_filter is None or row_filter(head))
        ]
        if len(fitting) > limit - len(rows):  # where a page ends only the store can say: once more, and shorter
            size = fitting[limit - len(rows) - 1][0] + 1
            continue
        rows += [describe(head) for _, head in fitting]
        damaged += [*page.damaged, *(head for head in found if isinstance(head, Damaged))]
        after, left = page.next, left - len(page.items)
        if row_filter and row_filter.since is not None and store.traits.recency == "exact" and page.items:
            # all that follows is older
            after = None if page.items[-1].revision.updated < row_filter.since else after
        if after is None or len(rows) == limit or (row_filter and left <= 0):
            return Page(rows, after, damaged)
        size = min(2 * max(size, 10), _CHUNK, left) if row_filter else limit - len(rows)


def read_head(head: Head) -> ConversationHead | Damaged | None:
    """Return a head with its state; None: it has expired. One that cannot be read is a value, never an error."""
    if alive(head) is None:
        return None
    try:
        return ConversationHead(head, read_state(head))
    except (CorruptRecord, UnsupportedRecord) as error:
        return Damaged(head.key, head.key.id, error)
