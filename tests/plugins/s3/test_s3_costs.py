"""The cost of each call, counted at the server: requests, and rounds of requests that wait for one another."""

import pytest
from chathistory_s3 import S3Store
from chathistory_s3.schema import S3Segment
from chathistory_s3.segments import count_segments_to_merge
from s3_samples import HOUR, KEY, NOW, bodies, make_conversation, revision, text, texts

from chathistory import Key

SIZE = 1500


def call_in_two_rounds(server, call):
    """Make a call twice and return its result: it must make one request, and then all others at once.

    The second time, the server answers none of the others before all have come in, so no result depends on the time.
    """
    server.log.clear()
    call()
    count = len(server.log)
    server.log.clear()
    if count > 1:
        server.answer_together(count - 1)
    found = call()
    server.stop_faults()
    assert len(server.log) == count
    return found


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


@pytest.mark.parametrize(
    ("count", "size"),
    [
        (250, 1500),
        *(pytest.param(*each, marks=pytest.mark.wide) for each in ((600, 300), (1000, 1500), (400, 6000))),
    ],
)
def test_many_appends(server, store, count, size):
    """One in thirty seconds, so that the markers move too. The first size fills some segments."""
    head = make_conversation(store, 1)
    server.log.clear()
    for at in range(1, count + 1):
        head = store.append(KEY, [text(at, size)], after=head, revision=revision(updated=NOW + at * 30_000_000))
    assert len(server.log) <= count * 1.15
    assert max(request.size for request in server.log if request.path.endswith("/c/scope/conversation")) < 140_000
    assert bodies(store, start=count - 20) == texts(count - 20, count + 1, size)
    assert len(call_in_two_rounds(server, lambda: store.read(KEY, start=-20)).records) == 20
    assert len(server.log) <= 3


def test_a_load_of_five_thousand_messages(server, client, bucket, store):
    head = None
    for at in range(0, 5000, 25):
        head = store.append(KEY, texts(at, at + 25, SIZE), after=head, revision=revision())
    part = call_in_two_rounds(server, lambda: store.read(KEY))
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
        page = call_in_two_rounds(server, lambda: store.heads("s"))
        assert list(page.items) == heads[:-21:-1]
        assert sorted(server.kinds()) == ["GET"] * 20 + ["LIST"]


def test_a_page_by_hours_reads_whole_hours(server, client, bucket, store):
    for at in range(60):
        made_at(store, f"c{at:04d}", NOW + at * HOUR // 12)
    server.log.clear()
    page = store.heads("s")
    assert [head.key.id for head in page.items] == [f"c{at:04d}" for at in range(59, 39, -1)]
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


@pytest.mark.parametrize("spills", [10_000, pytest.param(100_000, marks=pytest.mark.wide)])
@pytest.mark.parametrize("size", [64_000, 120_000, 900_000])
def test_segments_stay_few(size, spills):
    """A conversation of many spills names few segments, in few bytes, and moves each record few times."""
    segments, moved, position = [], 0, 0
    for _ in range(spills):
        count = count_segments_to_merge(segments, size=size)
        merged = segments[len(segments) - count :]
        del segments[len(segments) - count :]
        total = size + sum(segment.size for segment in merged)
        moved += total
        first = merged[0].first if merged else position
        position += 25
        segments.append(S3Segment(position, "t", ((first, total),)))
    assert len(segments) < spills * size / 4_000_000 + 60
    assert moved / (spills * size) < 5
