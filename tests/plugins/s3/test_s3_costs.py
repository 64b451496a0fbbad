"""The cost of each call, counted at the server: requests, and rounds of requests that wait for one another."""

import pytest
from chathistory_s3 import S3Store
from chathistory_s3.schema import S3Segment
from chathistory_s3.segments import count_segments_to_merge
from s3_samples import HOUR, KEY, NOW, bodies, make_conversation, revision, text, texts

from chathistory import Key

SIZE = 1500


def rounds(log):
    """Return how many of the requests had to wait for the answer to one before."""
    count, ended = 0, float("-inf")
    for request in sorted(log, key=lambda request: request.begun):
        if request.begun >= ended:
            count, ended = count + 1, request.ended
    return count


def call_in_rounds(server, call, *, most):
    """Make a call and return its result; fail if its requests take more rounds than `most` in each of five tries.

    On a busy machine a thread may begin only when another one's request has ended, which looks like a further round.
    """
    for delay in (0.05, 0.1, 0.2, 0.5, 1):
        server.log.clear()
        server.delay = delay
        found = call()
        server.delay = 0
        if rounds(server.log) <= most:
            return found
    raise AssertionError(f"more than {most} rounds, also with a delay of a second")


def test_a_warm_append_is_one_put(server, store):
    head = make_conversation(store, 2)
    server.log.clear()
    store.append(KEY, [text(2)], after=head, revision=revision())
    assert server.kinds() == ["PUT"]


def test_a_cold_append_is_one_get_more(server, client, bucket, store):
    head = make_conversation(store, 2)
    with S3Store(client, bucket=bucket, prefix="history") as cold:
        cold._ensure_probed()
        server.log.clear()
        cold.append(KEY, [text(2)], after=head, revision=revision())
        assert server.kinds() == ["GET", "PUT"]


def test_a_new_conversation_is_a_marker_and_a_head(server, store):
    store._ensure_probed()
    server.log.clear()
    make_conversation(store, 1)
    assert server.kinds() == ["PUT", "PUT"]


def test_a_look_at_the_head_is_one_request_and_warms_the_append(server, client, bucket, store):
    make_conversation(store, 2)
    with S3Store(client, bucket=bucket, prefix="history") as other:
        other._ensure_probed()
        server.log.clear()
        head = other.read(KEY, stop=0).head
        assert server.kinds() == ["GET"]
        other.append(KEY, [text(2)], after=head, revision=revision())
        assert server.kinds() == ["GET", "PUT"]


@pytest.mark.parametrize(("count", "size"), [(600, 300), (1000, 1500), (400, 6000)])
def test_a_thousand_appends(server, store, count, size):
    """One in thirty seconds, so that the markers move too."""
    head = make_conversation(store, 1)
    server.log.clear()
    for at in range(1, count + 1):
        head = store.append(KEY, [text(at, size)], after=head, revision=revision(updated=NOW + at * 30_000_000))
    assert len(server.log) <= count * 1.15
    assert max(request.size for request in server.log if request.path.endswith("/c/scope/conversation")) < 140_000
    assert bodies(store, start=count - 20) == texts(count - 20, count + 1, size)
    server.log.clear()
    assert len(store.read(KEY, start=-20).records) == 20
    assert len(server.log) <= 3
    assert rounds(server.log) <= 2


def test_a_load_of_five_thousand_messages(server, client, bucket, store):
    head = None
    for at in range(0, 5000, 10):
        head = store.append(KEY, texts(at, at + 10, SIZE), after=head, revision=revision())
    part = call_in_rounds(server, lambda: store.read(KEY), most=2)
    assert [record.body for record in part.records] == texts(0, 5000, SIZE)
    assert len(server.log) <= 60


def test_an_exact_append_is_two_requests_more(server, client, bucket):
    with S3Store(client, bucket=bucket, recency="exact") as store:
        head = make_conversation(store, 2)
        server.log.clear()
        store.append(KEY, [text(2)], after=head, revision=revision())
        assert server.kinds() == ["PUT", "PUT", "DELETE"]


def test_a_page_of_an_exact_listing(server, client, bucket):
    with S3Store(client, bucket=bucket, recency="exact") as store:
        heads = [make_conversation(store, 1, key=Key("s", f"c{at:04d}")) for at in range(150)]
        page = call_in_rounds(server, lambda: store.heads("s"), most=2)
        assert list(page.items) == heads[:-21:-1]
        assert sorted(server.kinds()) == ["GET"] * 20 + ["LIST"]


def test_a_page_by_hours_reads_whole_hours(server, client, bucket, store):
    for at in range(150):
        made_at(store, f"c{at:04d}", NOW + at * HOUR // 12)
    server.log.clear()
    page = store.heads("s")
    assert [head.key.id for head in page.items] == [f"c{at:04d}" for at in range(149, 129, -1)]
    assert server.kinds().count("LIST") == 1
    assert server.kinds().count("GET") <= 20 + 12


def made_at(store, name, updated):
    return store.append(Key("s", name), ["x"], after=None, revision=revision(updated=updated))


def test_a_message_of_30_mb_and_what_follows(server, store):
    large = "x" * 30_000_000
    head = store.append(KEY, ["before", large], after=None, revision=revision())
    head = store.append(KEY, ["after"], after=head, revision=revision())
    server.log.clear()
    assert store.read(KEY, start=-1).records[0].body == "after"
    assert server.kinds() == ["GET"]
    assert max(request.size for request in server.log) < 2000
    assert store.read(KEY, start=1).records[0].body == large


@pytest.mark.parametrize("recency", ["bucket", "exact"])
def test_an_append_that_says_nothing_new_moves_no_marker(server, client, bucket, recency):
    """A title, a cut or a repair keeps the time of the last message: one PUT, and the place in the listing stays."""
    with S3Store(client, bucket=bucket, recency=recency) as store:
        heads = [made_at(store, f"c{at}", NOW + at * HOUR // 2) for at in range(5)]
        server.log.clear()
        for at in (0, 3):
            heads[at] = store.append(
                heads[at].key, ["a title"], after=heads[at], revision=revision(updated=NOW + at * HOUR // 2)
            )
        assert server.kinds() == ["PUT", "PUT"]
        assert list(store.heads("s").items) == heads[::-1]
        pages = [store.heads("s", limit=2)]
        while pages[-1].next:
            heads[1] = store.append(
                heads[1].key, ["x"], after=heads[1], revision=revision(updated=heads[1].revision.updated)
            )
            pages.append(store.heads("s", limit=2, after=pages[-1].next))
        assert [head.key.id for page in pages for head in page.items] == ["c4", "c3", "c2", "c1", "c0"]


@pytest.mark.parametrize("recency", ["bucket", "exact"])
def test_many_with_one_time_are_ordered_by_their_ids(client, bucket, recency):
    """Stamps with the very same time, in the same append or in later ones."""
    with S3Store(client, bucket=bucket, recency=recency) as store:
        heads = [made_at(store, f"c{at}", NOW) for at in range(9)]
        for at in (2, 5):
            heads[at] = store.append(heads[at].key, ["x"], after=heads[at], revision=revision(updated=NOW))
        walked, cursor = [], None
        while True:
            page = store.heads("s", limit=4, after=cursor)
            walked, cursor = [*walked, *page.items], page.next
            if cursor is None:
                break
        assert walked == heads[::-1]


@pytest.mark.parametrize("size", [64_000, 120_000, 900_000])
def test_segments_stay_few(size):
    """A conversation of 100,000 spills names few segments, in few bytes, and moves each record few times."""
    segments, moved, position = [], 0, 0
    for _ in range(100_000):
        count = count_segments_to_merge(segments, size=size)
        merged = segments[len(segments) - count :]
        del segments[len(segments) - count :]
        total = size + sum(segment.size for segment in merged)
        moved += total
        first = merged[0].first if merged else position
        position += 25
        segments.append(S3Segment(position, "t", ((first, total),)))
    limit = 100_000 * size / 4_000_000 + 60
    assert len(segments) < limit
    assert moved / (100_000 * size) < 5
