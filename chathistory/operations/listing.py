"""A page of the shelf: rows that are known without reading messages, all of them or those that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from chathistory.checks import check_count, check_kind, check_text
from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.clock import EPOCH, to_datetime
from chathistory.log.conversation_log import alive
from chathistory.log.entry import to_json
from chathistory.log.lease import lease_end
from chathistory.log.state import ConversationState, OpenTurn, Origin, read_state
from chathistory.messages.json_values import plain
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Cursor, Damaged, Head, Page

__all__ = ["ConversationInfo", "Filter", "Origin", "TurnInfo", "read_row", "recent", "row_of"]

SCANNED = 1000
"""Conversations that one call looks at, at most, for those that are asked for."""

_CHUNK = 320
_MICROSECOND = timedelta(microseconds=1)
_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class TurnInfo:
    """The last turn of a conversation, if it has no reply.

    id: Its id.
    state: "open": a process waits for its reply. "interrupted": it broke off, was given up, or its lease is over; an
        engine's `resume` sends it again. "refused": the API did not accept it.
    since: When it was opened or, if it was closed, when that was.
    host, pid: The process that opened it; None: unknown.
    until: When its lease ends, unless its process renews it; None: it is not open.
    """

    id: str
    state: str
    since: datetime
    host: str | None = None
    pid: int | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConversationInfo:
    """A row of the listing; all of it is known without reading messages.

    title: as set; None: never. preview: the beginning of the first user text; None: there was none, or it is forgotten.
    messages: how many. usage: token counts of all replies, summed, by the API's names. model: of the last reply.
    created, updated, expires (None: never): aware datetimes in UTC. records: how many of all kinds are kept.
    origin: of a fork, where it came from; else None. version: of this state: see `Conversation.version`. turn: the last
    turn, if it has no reply; else None.
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
    records: int = 0
    origin: Origin | None = None
    version: str = ""
    turn: TurnInfo | None = None

    @property
    def tokens(self) -> int:
        """All tokens of all replies: of the input, cached or not, and of the output."""
        return sum(self.usage.get(name, 0) for name in _TOKENS)


def row_of(head: Head) -> ConversationInfo:
    """Return the row of a head. Raises `CorruptRecord` or `UnsupportedRecord`."""
    state = read_state(head)
    return ConversationInfo(
        id=head.key.id,
        scope=head.key.scope,
        title=state.annotations.title,
        preview=state.totals.preview,
        tags=state.annotations.tags,
        metadata=state.annotations.metadata,
        messages=state.totals.messages,
        usage=state.totals.usage,
        model=state.totals.model,
        created=to_datetime(state.identity.created),
        updated=to_datetime(head.revision.updated),
        expires=None if head.revision.expires is None else to_datetime(head.revision.expires),
        records=head.end - head.start,
        origin=state.identity.origin,
        version=head.revision.version,
        turn=_turn_of(state),
    )


def _turn_of(state: ConversationState) -> TurnInfo | None:
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
    def of(
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
            check_kind("metadata", metadata, Mapping, "a dict")
        if tag is not None:
            check_kind("tag", tag, Iterable, "text, or a list of texts")
        tags = [tag] if isinstance(tag, str) else list(tag or ())
        for each in tags:
            check_text("tag", each)
        values = {name: _canonical(value) for name, value in (metadata or {}).items()}
        made = cls(
            title=title.casefold() if title else None,
            tags=frozenset(tags),
            metadata=values,
            model=model or None,
            since=_microseconds("since", since),
            until=_microseconds("until", until),
            unanswered=unanswered,
        )
        return made if made != cls() else None

    def __call__(self, head: Head) -> bool:
        """Whether a conversation is one of those."""
        state = read_state(head)
        shown = state.annotations.title or state.totals.preview or ""
        return (
            (self.title is None or self.title in shown.casefold())
            and self.tags.issubset(state.annotations.tags)
            and all(
                name in state.annotations.metadata and _canonical(state.annotations.metadata[name]) == value
                for name, value in self.metadata.items()
            )
            and self.model in {None, state.totals.model}
            and (self.since is None or head.revision.updated >= self.since)
            and (self.until is None or head.revision.updated < self.until)
            and not (self.unanswered and state.engine.open_turn is None and state.engine.unanswered is None)
        )


def _canonical(value: Any) -> str:
    """Return the JSON of a value, alike for values that are alike: the order of names does not matter."""
    return to_json(_sorted(plain(value, "metadata")))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _microseconds(name: str, time: datetime | None) -> int | None:
    if time is None:
        return None
    check_kind(name, time, datetime, "a time with a zone, such as datetime.now(UTC)")
    if time.utcoffset() is None:
        raise InvalidInput(f"{name}: a time with a zone is due, such as datetime.now(UTC)")
    return (time - EPOCH) // _MICROSECOND


def recent(
    store: HistoryStore, scope: str, *, limit: int, after: Cursor | None, wanted: Filter | None
) -> Page[ConversationInfo]:
    """Return a page as `History.list` says."""
    check_count("limit", limit, least=1)
    rows: list[ConversationInfo] = []
    damaged: list[Damaged] = []
    left, size = SCANNED, limit if wanted is None else min(limit, _CHUNK)
    while True:
        part = _read_part(store, scope, after, size=size, most=limit - len(rows), wanted=wanted)
        rows += part.rows
        damaged += part.damaged
        after = None if wanted and _is_past(store, part.page, wanted) else part.page.next
        left -= len(part.page.items)
        if after is None or len(rows) == limit or (wanted and left <= 0):
            return Page(rows, after, damaged)
        size = min(2 * max(size, 10), _CHUNK, left) if wanted else limit - len(rows)


@dataclass(frozen=True, slots=True)
class _Part:
    """A page of a store, the rows that are wanted of it, and what of it is damaged."""

    page: Page[Head]
    rows: list[ConversationInfo]
    damaged: list[Damaged]


def _read_part(
    store: HistoryStore, scope: str, after: Cursor | None, *, size: int, most: int, wanted: Filter | None
) -> _Part:
    """Return the next part of a listing: of up to `size` heads, and so many that no more than `most` are wanted.

    Where a page ends only the store can say, so what holds too many is asked for once more, and shorter.
    """
    while True:
        page = store.heads(scope, after=after, limit=size)
        damaged = list(page.damaged)
        rows = []
        places = []
        for place, head in enumerate(page.items):
            row = read_row(head)
            if isinstance(row, Damaged):
                damaged.append(row)
            elif row is not None and (wanted is None or wanted(head)):
                rows.append(row)
                places.append(place)
        if len(rows) <= most:
            return _Part(page, rows, damaged)
        size = places[most - 1] + 1


def read_row(head: Head) -> ConversationInfo | Damaged | None:
    """Return the row of a head; None: it has expired. One that cannot be read is a row of its own, never an error."""
    if alive(head) is None:
        return None
    try:
        return row_of(head)
    except (CorruptRecord, UnsupportedRecord) as error:
        return Damaged(head.key, head.key.id, error)


def _is_past(store: HistoryStore, page: Page[Head], wanted: Filter) -> bool:
    """Whether all that follows is older than what is wanted; only an exact order can tell."""
    if wanted.since is None or store.traits.recency != "exact" or not page.items:
        return False
    return page.items[-1].revision.updated < wanted.since
