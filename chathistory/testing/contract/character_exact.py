"""Guarantee 5, character-exact: bodies, payloads, names and revisions come back unchanged."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key, Revision
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import (
    check_bodies,
    check_head,
    check_heads,
    list_heads,
    read_bodies,
    read_head,
    read_records,
)
from chathistory.testing.contract.samples import (
    CLOCK_CHANGES,
    EPOCH,
    EXACT,
    FAR,
    KEY,
    check_same_text,
    create_conversation,
    make_lines,
    make_revision,
)

__all__ = ["CharacterExact"]

_LONG = 1_000_000
_LARGEST = 30_000_000
_AN_HOUR = 3_600_000_000
_EXACTLY_100_YEARS = 36_525 * 24 * _AN_HOUR


def _size_within_limits(store: HistoryStore, size: int) -> int:
    return min(size, store.traits.largest_record or size, store.traits.largest_batch or size)


class CharacterExact(ContractTest, guarantee=5):
    """Nothing is changed and nothing is truncated."""

    @pytest.mark.parametrize("body", EXACT.values(), ids=EXACT)
    def test_read_returns_each_body_unchanged(self, store: HistoryStore, body: str) -> None:
        head = store.append(KEY, [body], after=None, revision=make_revision())
        store.append(KEY, ["between", body, body], after=head, revision=make_revision())
        seen = read_bodies(store, KEY)
        assert len(seen) == 4, f"4 bodies were stored, read() returned {len(seen)}"  # noqa: PLR2004
        for text, expected in zip(seen, [body, "between", body, body], strict=True):
            check_same_text(text, expected, "a body")
        check_same_text(read_records(store, KEY, start=-1)[0].body, body, "the last body")

    def test_read_returns_a_batch_of_tricky_bodies_unchanged(self, store: HistoryStore) -> None:
        store.append(KEY, list(EXACT.values()), after=None, revision=make_revision())
        check_bodies(store, KEY, list(EXACT.values()))

    @pytest.mark.parametrize("payload", EXACT.values(), ids=EXACT)
    def test_every_method_returns_the_payload_unchanged(self, store: HistoryStore, payload: str) -> None:
        head = store.append(KEY, make_lines(1), after=None, revision=make_revision(payload=payload))
        check_same_text(head.revision.payload, payload, "the payload that append() returned")
        read = read_head(store, KEY)
        assert read is not None
        check_same_text(read.revision.payload, payload, "the payload that read() returned")
        check_same_text(list_heads(store, KEY.scope)[0].revision.payload, payload, "the payload that heads() returned")
        forgotten = store.forget(KEY, before=1)
        assert forgotten is not None
        check_same_text(forgotten.revision.payload, payload, "the payload that forget() returned")

    def test_read_returns_a_long_payload_unchanged(self, store: HistoryStore) -> None:
        payload = '{"title": "' + "é" * 40_000 + '"}'
        store.append(KEY, make_lines(1), after=None, revision=make_revision(payload=payload))
        read = read_head(store, KEY)
        assert read is not None
        check_same_text(read.revision.payload, payload, "a long payload")

    def test_read_returns_a_body_of_a_megabyte_unchanged(self, store: HistoryStore) -> None:
        body = ("0123456789 é 👋 " * (_size_within_limits(store, _LONG) // 20))[: _size_within_limits(store, _LONG)]
        store.append(KEY, ["before", body], after=None, revision=make_revision())
        assert [len(text) for text in read_bodies(store, KEY)] == [6, len(body)]
        check_same_text(read_bodies(store, KEY)[1], body, "a long line")

    def test_read_returns_a_body_of_30_mb_unchanged(self, store: HistoryStore) -> None:
        body = "QUJD" * (_size_within_limits(store, _LARGEST) // 4)
        head = store.append(KEY, [body], after=None, revision=make_revision())
        store.append(KEY, ["after"], after=head, revision=make_revision())
        check_same_text(read_records(store, KEY, stop=1)[0].body, body, "the largest line")
        check_same_text(read_records(store, KEY, start=-1)[0].body, "after", "the line after the largest")

    @pytest.mark.parametrize(
        "given",
        [
            Revision("v", 1),
            Revision("v", EPOCH, FAR, "info"),
            Revision("v", EPOCH + 999_999),
            Revision("v", EPOCH, FAR + 1),
        ],
        ids=["small", "full", "microseconds", "expiring"],
    )
    def test_every_method_returns_the_revision_unchanged(self, store: HistoryStore, given: Revision) -> None:
        head = store.append(KEY, make_lines(1), after=None, revision=given)
        assert head.revision == given
        check_head(store, KEY, head)
        check_heads(store, list_heads(store, KEY.scope), [head])

    def test_times_around_daylight_saving_come_back_unchanged(self, store: HistoryStore) -> None:
        for moment in CLOCK_CHANGES:
            key = Key(KEY.scope, str(moment))
            given = make_revision(updated=moment, expires=moment + _EXACTLY_100_YEARS)
            head = store.append(key, make_lines(1), after=None, revision=given)
            assert head.revision == given
            check_head(store, key, head)
        for head in list_heads(store, KEY.scope):
            assert (str(head.revision.updated), head.revision.expires) == (
                head.key.id,
                head.revision.updated + _EXACTLY_100_YEARS,
            )

    def test_append_replaces_the_whole_revision(self, store: HistoryStore) -> None:
        head = store.append(KEY, make_lines(1), after=None, revision=make_revision(expires=FAR, payload="info"))
        plain = make_revision()
        head = store.append(KEY, make_lines(1), after=head, revision=plain)
        read = read_head(store, KEY)
        assert read is not None
        assert read.revision == plain, "read() returned a part of the previous revision; append must replace all of it"
        again = make_revision(expires=FAR, payload="more")
        assert store.append(KEY, make_lines(1), after=head, revision=again).revision == again
        check_head(store, KEY, replace(head, end=3, revision=again))

    def test_expires_is_in_microseconds(self, store: HistoryStore) -> None:
        soon = time.time_ns() // 1000 + _AN_HOUR
        head = store.append(KEY, make_lines(1), after=None, revision=make_revision(expires=soon))
        assert read_head(store, KEY) == head, (
            "a conversation that expires in an hour is absent; `expires` is in microseconds"
        )

    def test_two_conversations_keep_separate_revisions(self, store: HistoryStore) -> None:
        other = Key(KEY.scope, "other")
        head = store.append(KEY, make_lines(1), after=None, revision=make_revision(payload="one"))
        create_conversation(store, other)
        check_head(store, KEY, head)
