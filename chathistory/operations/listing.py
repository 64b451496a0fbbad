"""Lists conversations, all or those that match a filter, from their heads: no message is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chathistory.checks import check_count, check_text, check_type
from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.clock import to_datetime, to_microseconds
from chathistory.log.conversation_log import unless_expired
from chathistory.log.entry import to_json
from chathistory.log.lease import lease_end
from chathistory.log.state import ConversationHead, ConversationState, OpenTurn, Origin, read_state
from chathistory.messages.json_values import to_plain_json
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Cursor, Damaged, Head, Page

__all__ = ["ConversationInfo", "Filter", "Origin", "TurnInfo", "describe", "list_page", "read_head"]

SCAN_LIMIT = 1000
"""How many conversations one call with a filter looks at, at most."""

_CHUNK = 320
_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class TurnInfo:
    """The last turn of a conversation, if it has no reply.

    Attributes:
        id: The id of the turn.
        state: "open": a process waits for its reply. "interrupted": it failed, was abandoned, or its lease has ended;
            `resume` of an engine sends it again. "refused": the API did not accept it.
        since: When the turn was opened or, if it is closed, when it was closed (UTC).
        host: The host name of the machine on which the turn was opened; None if unknown.
        pid: The id of the process that opened it; None if unknown.
        until: When its lease ends unless the process renews it (UTC); None if the turn is not open.
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
        id: The id of the conversation, as its caller chose it.
        scope: The scope that it belongs to, such as a user or a tenant.
        title: The title as it was set; None if it has none.
        preview: The beginning of the first user text; None without one, or if it was forgotten.
        tags: The tags as they were set.
        metadata: The caller's own JSON values.
        messages: How many messages it has, not counting those that a rewind took back.
        usage: Token counts summed over all replies, by the names of the API, such as "input_tokens".
        model: The model of the last reply; None if there is no reply.
        created: When it was created (UTC).
        updated: When a message or a turn was stored last (UTC).
        expires: When its time to live ends (UTC); None: never.
        start: The position of the first record that is kept; above 0 after `forget`.
        end: The position after the last record, which the next record gets.
        origin: For a fork, where it came from; else None.
        version: The version of this state; see `Conversation.version`.
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
        """The number of records of all kinds that are kept."""
        return self.end - self.start

    @property
    def tokens(self) -> int:
        """The number of all tokens of all replies: input, cached or not, and output."""
        return sum(self.usage.get(name, 0) for name in _TOKENS)


def describe(head: ConversationHead) -> ConversationInfo:
    """Return the row of a conversation; nothing is read or parsed.

    Args:
        head: The head of the conversation, with its state.
    """
    state, revision = head.state, head.stored.revision
    annotations, totals = state.annotations, state.totals
    return ConversationInfo(
        id=head.key.id,
        scope=head.key.scope,
        title=annotations.title,
        preview=totals.preview,
        tags=annotations.tags,
        metadata=to_plain_json(annotations.metadata)
        if annotations.metadata
        else {},  # a copy: the caller may change it
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
    turn = state.engine.open_turn or state.engine.unanswered_turn
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
    """Which conversations a listing shows. A field that is None or empty does not filter.

    `from_arguments` checks what callers give.

    Attributes:
        title: Case-folded text that the title contains, or the preview if there is no title.
        tags: Tags that must all be set.
        metadata: Values that must be set, by name, as JSON with sorted names.
        model: The model of the last reply.
        since: The lowest time of the newest activity (microseconds since 1970 UTC).
        until: The first time above it (microseconds since 1970 UTC).
        unanswered: Only conversations whose last turn has no reply.
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
        """Return the filter for the arguments of `History.list`, which explains them; None if it would filter nothing.

        Raises:
            InvalidInput: An argument has the wrong type, or a time has no zone.
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
        result = cls(
            title=title.casefold() if title else None,
            tags=frozenset(tags),
            metadata=values,
            model=model or None,
            since=_check_time("since", since),
            until=_check_time("until", until),
            unanswered=unanswered,
        )
        return result if result != cls() else None

    def __call__(self, head: ConversationHead) -> bool:
        """Return True if the conversation with this head matches."""
        state = head.state
        visible_title = state.annotations.title or state.totals.preview or ""
        return (
            (self.title is None or self.title in visible_title.casefold())
            and self.tags.issubset(state.annotations.tags)
            and all(
                name in state.annotations.metadata and _to_sorted_json(state.annotations.metadata[name]) == value
                for name, value in self.metadata.items()
            )
            and self.model in {None, state.totals.model}
            and (self.since is None or head.stored.revision.updated >= self.since)
            and (self.until is None or head.stored.revision.updated < self.until)
            and not (self.unanswered and state.engine.open_turn is None and state.engine.unanswered_turn is None)
        )


def _to_sorted_json(value: Any) -> str:
    """Return the JSON of a value with sorted names, so that equal values have equal text."""
    return to_json(_sort_names(to_plain_json(value, "metadata")))


def _sort_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sort_names(value[name]) for name in sorted(value)}
    return [_sort_names(each) for each in value] if isinstance(value, list) else value


def _check_time(name: str, time: datetime | None) -> int | None:
    if time is None:
        return None
    check_type(name, time, datetime, "a timezone-aware datetime, such as datetime.now(UTC)")
    if time.utcoffset() is None:
        raise InvalidInput(f"{name}: must be a timezone-aware datetime, such as datetime.now(UTC), not a naive one")
    return to_microseconds(time)


def list_page(
    store: HistoryStore, scope: str, *, limit: int, after: Cursor | None, row_filter: Filter | None
) -> Page[ConversationInfo]:
    """Return a page of the listing, as `History.list` describes it.

    Args:
        store: The store.
        scope: The scope to list.
        limit: How many rows the page has, at most; at least 1.
        after: The cursor of the page before; None: the first page.
        row_filter: Which conversations to show; None: all.

    Raises:
        InvalidInput: `limit` is below 1, or `after` is a cursor of another listing.
    """
    check_count("limit", limit, least=1)
    rows: list[ConversationInfo] = []
    damaged: list[Damaged] = []
    scans_left, size = SCAN_LIMIT, limit if row_filter is None else min(limit, _CHUNK)
    while True:
        page = store.heads(scope, after=after, limit=size)
        heads = [read_head(head) for head in page.items]
        matches = [
            (index, head)
            for index, head in enumerate(heads)
            if isinstance(head, ConversationHead) and (row_filter is None or row_filter(head))
        ]
        if len(matches) > limit - len(rows):
            # only the store can make a cursor, so the page is read again and ends at the last row that fits
            size = matches[limit - len(rows) - 1][0] + 1
            continue
        rows += [describe(head) for _, head in matches]
        damaged += [*page.damaged, *(head for head in heads if isinstance(head, Damaged))]
        after, scans_left = page.next, scans_left - len(page.items)
        if row_filter and row_filter.since is not None and store.traits.recency == "exact" and page.items:
            # the listing is ordered by time, so all that follows is older
            after = None if page.items[-1].revision.updated < row_filter.since else after
        if after is None or len(rows) == limit or (row_filter and scans_left <= 0):
            return Page(rows, after, damaged)
        size = min(2 * max(size, 10), _CHUNK, scans_left) if row_filter else limit - len(rows)


def read_head(head: Head) -> ConversationHead | Damaged | None:
    """Return a head with its state, or the damage if its state cannot be read; None if it has expired.

    Args:
        head: The head as the store returned it.
    """
    if unless_expired(head) is None:
        return None
    try:
        return ConversationHead(head, read_state(head))
    except (CorruptRecord, UnsupportedRecord) as error:
        return Damaged(head.key, head.key.id, error)
