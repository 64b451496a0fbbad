"""A conversation with a damaged head: the records that are found, and a new head, guarded and complete."""

import random
from functools import partial

import pytest
from chathistory_s3.lines import encode_lines
from chathistory_s3.names import object_path
from chathistory_s3.segments import SegmentStore
from s3_damage import HEADS
from s3_samples import (
    KEY,
    bodies,
    change,
    content_of,
    damage_head,
    damage_record,
    head_object,
    head_of,
    make_conversation,
    objects,
    open_s3_store,
    remains,
    revision,
    text,
    texts,
    tried,
)

from chathistory import History, Key, open_store
from chathistory.cli.app import run
from chathistory.errors import Conflict, CorruptRecord
from chathistory.storage.values import Head

pytestmark = pytest.mark.wide

SIZE = 10_000
HEAD = "history/c/scope/conversation"
LEFT = "{:019d}-0123456789abcdef"


def found_of(store, key=KEY):
    found = store.find_records(key)
    records = [] if found is None else store.read_found(found, start=found.start, stop=found.end)
    return found, {record.position: record.body for record in records}


def restored(store, key=KEY):
    found = store.find_records(key)
    return store.restore_head(found, Head(key, found.start, found.end, revision()))


@pytest.mark.parametrize("seed", range(4))
def test_any_byte_of_the_object_may_be_another(client, bucket, server, store, seed):
    """Whatever one byte becomes, in the head or in its records: all other records are found, at their positions."""
    head = make_conversation(store, 16, size=SIZE, batch=4)
    head = store.append(KEY, texts(16, 23, 40), after=head, revision=revision())
    sizes = [SIZE] * 16 + [40] * 7
    data = content_of(client, bucket, HEAD)
    begin = data.index(b"\n") + 1
    in_head = data[begin:].count(b"\n")
    chance = random.Random(seed)
    for _ in range(20):
        at = chance.choice((chance.randrange(begin + 20), chance.randrange(len(data)), begin - 1))
        other = chance.choice([byte for byte in range(256) if byte != data[at]])
        client.put_object(Bucket=bucket, Key=HEAD, Body=data[:at] + bytes([other]) + data[at + 1 :])
        victim = head.end - in_head + data[begin:at].count(b"\n") if at >= begin else None
        due = {at: text(at, size) for at, size in enumerate(sizes) if at != victim}
        found, seen = found_of(store)
        assert {**seen, **due} == seen, f"byte {at} of {begin}/{len(data)} as {other:#x}"
        assert found.start == 0
        assert found.end >= max(due) + 1
        assert all(body == text(at, sizes[at]) for at, body in seen.items())


@pytest.mark.parametrize("what", ["zeros", "empty", "html", "noise", "gone"])
@pytest.mark.parametrize("batch", [1, 2, 3, 30])
def test_records_in_segments_outlive_any_head(client, bucket, store, what, batch):
    make_conversation(store, 30, size=SIZE, batch=batch)
    due = {at: body for at, body in enumerate(texts(0, 30, SIZE)) if remains(client, bucket, body[:20], "history/s/")}
    left = HEADS[what](content_of(client, bucket, HEAD))
    client.delete_object(Bucket=bucket, Key=HEAD)
    if left is not None:
        client.put_object(Bucket=bucket, Key=HEAD, Body=left)
    found, seen = found_of(store)
    assert (found.start, found.end, seen) == (0, len(due), due)
    assert found.problem
    head = restored(store)
    assert bodies(store) == list(due.values())
    assert list(store.heads(KEY.scope).items) == [head]
    assert store.append(KEY, ["more"], after=head, revision=revision()).end == len(due) + 1


def test_records_after_holes_are_kept(client, bucket, server, store):
    """A segment is gone, another has a damaged record, and so have the tail and the head."""
    head = make_conversation(store, 90, size=5000, batch=3)
    content = store._heads.load(KEY).content
    gone, hurt = content.segments[0], content.segments[-1]
    assert len(content.segments) >= 3
    lost = {*range(gone.first, gone.end), hurt.end - 1, 88}
    for at in (hurt.end - 1, 88):
        damage_record(client, bucket, store, KEY, at)
    client.delete_object(Bucket=bucket, Key=SegmentStore(store._heads, KEY, content.incarnation).name_of(gone))
    damage_head(client, bucket, store)
    found, seen = found_of(store)
    assert sorted(seen) == [at for at in range(90) if at not in lost]
    assert (found.start, found.end) == (0, 90), "the head still tells where it began"
    new = store.restore_head(found, Head(KEY, 0, 90, revision(expires=4_000_000_000_000_000)))
    assert head_of(store) == new
    for at in range(head.end):
        part = tried(partial(store.read, KEY, start=at, stop=at + 1))
        assert isinstance(part, CorruptRecord) is (at in lost)
        assert at in lost or part.records[0].body == text(at, 5000)
    store.append(KEY, texts(90, 120, 5000), after=new, revision=revision())
    store.forget(KEY, before=89)
    assert bodies(store) == texts(89, 120, 5000)


def test_a_head_that_was_removed_is_found_by_its_name_only(client, bucket, server, store):
    """As a deleted conversation may have left something, no walk brings it back; whoever asks for it can."""
    make_conversation(store, 30, size=SIZE)
    client.delete_object(Bucket=bucket, Key=HEAD)
    assert list(store.keys()) == list(store.scan_keys()) == list(store.damaged_keys()) == []
    found, seen = found_of(store)
    assert (found.token, len(seen)) == ("", 30)
    assert "removed" in found.problem
    assert bodies(store) is None
    head = restored(store)
    assert bodies(store) == texts(0, 30, SIZE)
    with pytest.raises(Conflict) as caught:
        store.restore_head(found, Head(KEY, 0, 30, revision()))
    assert caught.value.head == head


def test_nothing_of_a_deleted_conversation_is_found(client, bucket, server, store):
    make_conversation(store, 30, size=SIZE)
    store._bucket.service = type(store._bucket.service)(conditional_delete=False)
    store.delete(KEY)
    assert objects(client, bucket) == [HEAD], "a tombstone"
    assert store.find_records(KEY) is None


@pytest.mark.parametrize("named", [True, False])
def test_leftovers_of_unfinished_appends_do_not_mix_in(client, bucket, server, store, named):
    """A segment that the head does not name has other records at the same positions."""
    head = make_conversation(store, 30, size=SIZE, batch=6)
    content = store._heads.load(KEY).content
    place = store._names.segments_at(object_path(KEY), content.incarnation)
    for first in (0, content.tail_start):
        lines = encode_lines([f"never acknowledged {at}" for at in range(first, first + 9)], first)
        if named or first:
            client.put_object(Bucket=bucket, Key=place + LEFT.format(first), Body=b"".join(lines))
    damage_head(client, bucket, store)
    _, seen = found_of(store)
    assert seen == dict(enumerate(texts(0, 30, SIZE))) | {at: body for at, body in seen.items() if at >= head.end}
    new = store.restore_head(store.find_records(KEY), Head(KEY, 0, head.end, revision()))
    assert bodies(store) == texts(0, new.end, SIZE)
    assert not remains(client, bucket, "never acknowledged")


def test_a_copy_of_another_head_gives_nothing_of_it_away(client, bucket, server, store):
    secret = Key("another", "secret")
    store.append(secret, ["s3cr3t"], after=None, revision=revision())
    make_conversation(store, 30, size=SIZE)
    client.put_object(Bucket=bucket, Key=HEAD, Body=content_of(client, bucket, head_object(store, secret)))
    _, seen = found_of(store)
    assert seen == dict(enumerate(texts(0, 30, SIZE)))
    restored(store)
    assert bodies(store) == texts(0, 30, SIZE)
    assert len(remains(client, bucket, "s3cr3t", "history/c/another/")) == 1
    assert not remains(client, bucket, "s3cr3t", "history/c/scope/")


def _write(other, head):
    other.append(KEY, ["meanwhile"], after=head, revision=revision())


MEANWHILE = {
    "an append": (False, _write),
    "a forget": (False, lambda other, head: other.forget(KEY, before=3)),
    "a restoration": (True, lambda other, head: restored(other)),
    "a delete": (True, lambda other, head: other.delete(KEY)),
    "a delete and another conversation": (True, lambda other, head: (other.delete(KEY), make_conversation(other, 2))),
    "an erasure": (True, lambda other, head: other.remove_leftovers(KEY.scope)),
    "other damage": (True, lambda other, head: other._bucket.put(HEAD, b"other noise")),
}


@pytest.mark.parametrize("late", [False, True], ids=["before the look", "after the segments"])
@pytest.mark.parametrize("what", MEANWHILE)
def test_whoever_came_meanwhile_is_not_written_over(client, bucket, store, what, late):
    """Between the look and the new head, and while the records are stored for it."""
    is_damaged, do = MEANWHILE[what]
    head = make_conversation(store, 30, size=SIZE)
    if is_damaged:
        damage_head(client, bucket, store)
    with open_s3_store(client, bucket, "history") as other:
        found = store.find_records(KEY)
        put, seen = store._heads.put, []

        def put_late(*given, **named):
            do(other, head)
            seen.append(content_of(client, bucket, HEAD) if HEAD in objects(client, bucket) else None)
            return put(*given, **named)

        if late:
            store._heads.put = put_late
        else:
            do(other, head)
            seen.append(content_of(client, bucket, HEAD) if HEAD in objects(client, bucket) else None)
        with pytest.raises(Conflict) as caught:
            store.restore_head(found, Head(KEY, 0, 29, revision()))
        assert [content_of(client, bucket, HEAD) if HEAD in objects(client, bucket) else None] == seen
        present = tried(lambda: head_of(other))
        assert caught.value.head == (present if isinstance(present, Head) else None)
        if isinstance(present, Head) and present.end != 2:
            assert len(bodies(other)) == present.end - present.start
        if what == "other damage":
            assert len(found_of(other)[1]) == 30, "what the refused one had read was taken away"
        store._heads.put = put
        for key in list(other.scan_keys()):
            other.delete(key)
        assert other.remove_leftovers(KEY.scope).complete
        assert not remains(client, bucket, '"line')


@pytest.mark.parametrize("damaged", [True, False], ids=["damaged", "gone"])
def test_who_dies_while_restoring_loses_nothing(server, client, bucket, damaged):
    def prepared(prefix):
        store = open_s3_store(client, bucket, prefix, timeout=0.01)
        make_conversation(store, 30, size=SIZE, batch=6)
        name = head_object(store)
        if damaged:
            change(client, bucket, name, lambda data: b"noise" + data[5:])
        else:
            client.delete_object(Bucket=bucket, Key=name)
        due = found_of(store)[1]
        server.log.clear()
        return store, due

    store, due = prepared("dry")
    restored(store)
    total = len(server.log)
    assert total >= 5
    for at in range(total):
        store, due = prepared(f"killed-{at}")
        server.kill_after(at)
        tried(lambda store=store: restored(store))
        server.stop_faults()
        with open_s3_store(client, bucket, f"killed-{at}") as other:
            if isinstance(tried(lambda other=other: head_of(other)), CorruptRecord) or (
                head_of(other) is None and other.find_records(KEY) is not None
            ):
                assert found_of(other)[1] == due, f"after request {at} of {total}"
                restored(other)
            if head_of(other) is None:
                assert not damaged, "a tombstone is the fence now, and the segments are there"
                continue
            assert bodies(other) == list(due.values())
            assert [head.key for head in other.heads(KEY.scope).items] == [KEY]
            other.sweep(now=4e9)
            assert bodies(other) == list(due.values())


def test_a_new_revision_for_a_sound_head_moves_no_record(client, bucket, server, store):
    head = make_conversation(store, 30, size=SIZE)
    before = objects(client, bucket, "history/s/")
    found = store.find_records(KEY)
    server.log.clear()
    new = Head(KEY, 0, 30, revision(updated=head.revision.updated))
    assert store.restore_head(found, new) == new
    assert [kind for kind in server.kinds() if kind == "PUT"] == ["PUT", "PUT"]
    assert objects(client, bucket, "history/s/") == before
    assert bodies(store) == texts(0, 30, SIZE)
    assert list(store.heads(KEY.scope).items) == [new]


def test_what_a_restoration_costs(client, bucket, server, store):
    """Each segment is read once and stored once, however many records it has."""
    head = None
    for at in range(0, 3000, 300):
        head = store.append(KEY, texts(at, at + 300, 1500), after=head, revision=revision())
    segments = len(objects(client, bucket, "history/s/"))
    damage_head(client, bucket, store)
    server.log.clear()
    restored(store)
    assert bodies(store) == texts(0, 3000, 1500)
    assert len(server.log) <= 6 * segments + 40


def test_what_the_commands_make_of_damage(client, bucket, server, capsys):
    """One damaged head among three, and a damaged record: listed, repaired, and then erased to the last object."""
    url = f"s3://{bucket}/h?timeout=60&endpoint_url={server.url}"
    with History(open_store(url)) as history:
        for name in ("one", "two", "three"):
            for at in range(4):
                history.conversation(name).append(
                    {"role": ("user", "assistant")[at % 2], "content": f"{name} {at} said"}
                )
        damage_head(client, bucket, history.store, Key("default", "two"))
        damage_record(client, bucket, history.store, Key("default", "three"), 3)
    assert run(["list", "--store", url]) in {0, 1}
    output = capsys.readouterr()
    assert all(name in output.out + output.err for name in ("one", "two", "three"))
    assert run(["doctor", "--store", url]) == 1
    assert run(["doctor", "--repair", "--store", url]) == 0
    capsys.readouterr()
    assert run(["doctor", "--store", url]) == 0
    with History(open_store(url)) as history:
        said = [message["content"] for message in history.conversation("two").messages()]
        assert said == [f"two {at} said" for at in range(4)]
        assert len(history.conversation("three").messages()) == 3
        damage_head(client, bucket, history.store, Key("default", "one"))
        report = history.erase("default")
    assert (report.complete, report.left) == (True, ())
    assert "old object versions" in report.not_reached
    assert not remains(client, bucket, "said")
