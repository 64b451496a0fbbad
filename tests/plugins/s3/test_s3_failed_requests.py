"""Every fault of every request of a write: nothing is lost, stored twice or unreadable."""

from dataclasses import dataclass
from functools import partial

import boto3
import pytest
from botocore.config import Config
from chathistory_s3.names import object_path
from chathistory_s3.segments import SegmentStore
from s3_samples import (
    HOUR,
    KEY,
    NOW,
    bodies,
    head_of,
    make_conversation,
    objects,
    open_s3_store,
    revision,
    text,
    texts,
    tried,
)
from s3_server import CREDENTIALS

from chathistory import open_store
from chathistory.errors import Conflict, StoreUnavailable
from chathistory.log.commit import commit

pytestmark = pytest.mark.wide

SIZE = 10_000  # 13 of them fill the head's object


@dataclass(frozen=True)
class Case:
    """A write: the content before it, the operation, and the possible content after it."""

    records: int
    do: object
    after: tuple  # (start, end) of the finished write, or None

    def prepared(self, store):
        return make_conversation(store, self.records, size=SIZE, batch=6) if self.records else None


def _append(store, head, *, count=1, updated=None, size=SIZE):
    end = head.end if head else 0
    return commit(store, KEY, texts(end, end + count, size), after=head, revision=revision(updated=updated))


CASES = {
    "create": Case(0, _append, (0, 1)),
    "create large": Case(0, partial(_append, count=40), (0, 40)),
    "append": Case(6, _append, (0, 7)),
    "append in the next hour": Case(6, partial(_append, updated=NOW + 2 * HOUR), (0, 7)),
    "spill": Case(12, partial(_append, count=6), (0, 18)),
    "spill that absorbs": Case(24, partial(_append, count=6), (0, 30)),
    "append large": Case(12, partial(_append, count=40), (0, 52)),
    "forget in the tail": Case(12, lambda store, head: store.forget(KEY, before=4), (4, 12)),
    "forget in a segment": Case(30, lambda store, head: store.forget(KEY, before=4), (4, 30)),
    "forget all": Case(30, lambda store, head: store.forget(KEY, before=99), (30, 30)),
    "delete": Case(30, lambda store, head: store.delete(KEY, version=head.revision.version), None),
}
BOUNDS = {name: ((0, case.records) if case.records else None, case.after) for name, case in CASES.items()}


def counted(server, store, case):
    """Return how many requests the write makes when nothing happens."""
    head = case.prepared(store)
    server.log.clear()
    case.do(store, head)
    count = len(server.log)
    store.delete(KEY)
    store.check()
    return count


def look(store):
    head = head_of(store)
    if head is None:
        return None
    assert bodies(store) == texts(head.start, head.end, SIZE), "a record is lost, doubled or altered"
    assert [item.key for item in store.heads(KEY.scope).items] == [KEY]
    assert store.heads(KEY.scope).items[0] == head
    return head.start, head.end


@pytest.mark.parametrize("name", CASES)
def test_a_writer_that_dies_after_any_request(server, client, bucket, name):
    case = CASES[name]
    with open_s3_store(client, bucket, "dry") as store:
        total = counted(server, store, case)
    assert total >= 1
    for at in range(total):
        place = {"bucket": bucket, "prefix": f"killed-{at}"}
        with open_s3_store(client, timeout=0.01, **place) as store:
            head = case.prepared(store)
            server.kill_after(at)
            outcome = tried(partial(case.do, store, head))
            server.stop_faults()
        with open_s3_store(client, **place) as other:
            due = BOUNDS[name] if isinstance(outcome, Exception) else (case.after,)
            assert look(other) in due, f"after request {at} of {total}: {outcome!r}"
            assert list(other.keys()) == ([KEY] if look(other) else [])
            _goes_on(other)
            other.sweep(now=4e9)
            _only_named_ones(other, client, place)
            assert other.delete(KEY) is True
            other.sweep(now=4e9)
            assert not objects(client, bucket, f"{place['prefix']}/"), "a delete left something"


def _goes_on(store):
    """Let the next writer append, across a full head too."""
    for _ in range(3):
        head = head_of(store)
        end = head.end if head else 0
        store.append(KEY, texts(end, end + 6, SIZE), after=head, revision=revision(updated=NOW + 5 * HOUR))
    look(store)


def _only_named_ones(store, client, place):
    content = store._heads.load(KEY).content
    marker = store._names.marker(object_path(KEY), content.marker, content.incarnation)
    segments = SegmentStore(store._heads, KEY, content.incarnation)
    due = {store._names.head(KEY), marker, *segments.names_of(content.segments)}
    assert set(objects(client, place["bucket"], f"{place['prefix']}/")) == due, "the sweep left something, or took it"


FAILURES = ("reset after", "reset before", "503", "500", "409")


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.stress) for turn in range(1, 5))])
@pytest.mark.parametrize("name", CASES)
def test_any_request_of_a_write_may_fail_once(server, client, bucket, name, turn):
    """Each request in one way, which goes round; the long tests have each in every way."""
    case = CASES[name]
    with open_s3_store(client, bucket, "dry") as store:
        total = counted(server, store, case)
    for at in range(total):
        what = FAILURES[(at + turn + list(CASES).index(name)) % len(FAILURES)]
        with open_s3_store(client, bucket, f"failed-{at}") as store:
            head = case.prepared(store)
            server.fail(what, skip=at)
            case.do(store, head)
            server.stop_faults()
            assert look(store) == case.after, f"after {what} of request {at} of {total}"


@pytest.mark.parametrize("what", ["503", "500", "409", "reset before"])
def test_a_storm_ends_in_our_error_and_harms_nothing(server, client, bucket, what):
    with open_s3_store(client, bucket, "storm", timeout=0.3) as store:
        head = make_conversation(store, 6, size=SIZE)
        server.fail(what, kind="PUT", times=10**6)
        with pytest.raises(StoreUnavailable) as caught:
            store.append(KEY, [text(6, SIZE)], after=head, revision=revision())
        assert caught.value.outcome == ("not stored" if what in {"503", "409"} else "unknown")
        server.stop_faults()
        assert look(store) == (0, 6)
        store.append(KEY, [text(6, SIZE)], after=head, revision=revision())
        assert look(store) == (0, 7)


def test_a_short_storm_is_waited_out(server, store):
    head = make_conversation(store, 1)
    for what in ("503", "409", "500", "reset before", "reset after"):
        server.fail(what, kind="PUT")
    assert store.append(KEY, [text(1)], after=head, revision=revision()).end == 2
    assert bodies(store) == texts(0, 2)


def test_a_lost_reply_and_another_writer_behind_it(server, client, bucket, store):
    """The first try was stored and another writer appended, and the repetition is refused: the core settles it."""
    head = make_conversation(store, 1)
    given = revision()
    server.fail("reset after", kind="PUT")
    with open_s3_store(client, bucket, "history") as other:
        original = store._heads.load

        def look_late(key):
            found = other._heads.load(key)
            other.append(KEY, ["of the other"], after=found.content.head, revision=revision())
            store._heads.__class__.load(store._heads, key)
            store._heads.load = original
            return original(key)

        store._heads.load = look_late
        assert commit(store, KEY, ["ours"], after=head, revision=given).end == 2
    assert bodies(store) == [text(0), "ours", "of the other"]


@pytest.mark.parametrize("what", ["500", "reset before"])
def test_a_twin_of_an_append_does_not_take_it_for_its_own(server, client, bucket, store, what):
    """Two writers with the very same append: one has made it, whatever the other met on the way."""
    head = make_conversation(store, 1)
    given = revision()
    with open_s3_store(client, bucket, "history") as other:
        seen = other._heads.load(KEY)
        store.append(KEY, ["ours"], after=head, revision=given)
        server.fail(what, kind="PUT")
        assert seen == other._heads.get_cached(KEY)
        with pytest.raises(Conflict) as caught:
            other.append(KEY, ["ours"], after=head, revision=given)
        assert caught.value.head.revision == given
    assert bodies(store) == [text(0), "ours"]


def test_boto3s_own_retry_makes_a_false_refusal_that_the_core_settles(server, bucket, running):
    retrying = boto3.session.Session(**CREDENTIALS).client(
        "s3", endpoint_url=running.url, config=Config(retries={"total_max_attempts": 3})
    )
    with open_s3_store(retrying, bucket, "history") as store:
        head = make_conversation(store, 1)
        given = revision()
        server.fail("reset after", kind="PUT")
        with pytest.raises(Conflict) as caught:
            store.append(KEY, ["ours"], after=head, revision=given)
        assert caught.value.head.revision == given
        server.fail("reset after", kind="PUT")
        assert commit(store, KEY, ["more"], after=caught.value.head, revision=revision()).end == 3
        assert bodies(store) == [text(0), "ours", "more"]
    retrying.close()


def test_a_slow_answer_is_given_up(running, bucket, server):
    """The server never answers, so the time-out ends the call on a busy machine as well."""
    url = f"s3://{bucket}/slow?endpoint_url={running.url}"
    with open_store(f"{url}&timeout=60") as store, open_store(f"{url}&timeout=0.3") as hasty:
        make_conversation(store, 1)
        server.fail("hang", kind="GET", times=10**6)
        with pytest.raises(StoreUnavailable):
            hasty.read(KEY)
        server.stop_faults()
        assert bodies(store) == texts(0, 1)
