"""Every damage to every kind of object, and every call after it: it affects nothing else."""

import itertools
import zlib
from dataclasses import replace

import pytest
from s3_damage import HEADS, SEGMENTS, STRAYS, with_fields
from s3_samples import (
    KEY,
    NOW,
    change,
    content_of,
    head_object,
    lose_markers,
    make_conversation,
    objects,
    open_s3_store,
    revision,
    text,
    texts,
)

from chathistory import Key
from chathistory.errors import Conflict, CorruptRecord, StoreRejected, UnsupportedRecord
from chathistory.storage.abilities import HeadRecovery
from chathistory.storage.values import Damaged, Head, ReadResult

pytestmark = pytest.mark.wide

SCOPE = "scope"
TYPED = (CorruptRecord, UnsupportedRecord, Conflict)
LONG = "ü" * 52
_numbers = itertools.count()


@pytest.fixture
def place(client, bucket):
    """Give a client, a bucket and a prefix of its own."""
    return client, bucket, f"p{next(_numbers)}"


def fill_store(store, victim, *, large):
    """Make a victim between two others, and one in another scope; return its head."""
    for name in ("before", "behind"):
        if name == "behind":
            head = (
                make_conversation(store, 14, key=victim, size=12_000)
                if large
                else make_conversation(store, 9, key=victim, batch=4)
            )
            head = store.append(victim, texts(head.end, head.end + 3), after=head, revision=revision())
        make_conversation(store, 2, key=Key(SCOPE, name))
    make_conversation(store, 2, key=Key("other", victim.id))
    return head


def damage(place, name, rule):
    client, bucket, _ = place
    data = content_of(client, bucket, name)
    left = rule(data)
    if left is None:
        client.delete_object(Bucket=bucket, Key=name)
    else:
        client.put_object(Bucket=bucket, Key=name, Body=left)
    return left


def ends(call):
    """Return what a call gives, or its error if that is one that damage may have."""
    try:
        return call()
    except TYPED as error:
        return error


def walked(store, scope, limit):
    rows, damaged, cursor = [], [], None
    while True:
        page = store.heads(scope, after=cursor, limit=limit)
        rows += page.items
        damaged += page.damaged
        cursor = page.next
        if cursor is None:
            return rows, damaged


def check_walks(store, victim, *, head=None, lost=False, limits=(1, 50)):
    """Check that no walk fails: the others are found, and the victim, as a head or as damaged, unless it is lost."""
    others = {Key(SCOPE, "before"), Key(SCOPE, "behind")}
    for limit in limits:
        rows, damaged = walked(store, SCOPE, limit)
        assert {row.key for row in rows} - {victim} == others
        assert len(rows) == len({row.key for row in rows}), "a conversation is listed twice"
        assert not damaged if head or lost else [_reported(each, victim) for each in damaged] == [True]
        assert [row for row in rows if row.key == victim] == ([head] if head else [])
    nameless = list(store.damaged_keys(SCOPE))
    assert all(isinstance(each, Damaged) and each.key is None for each in nameless)
    for walk in (store.keys, store.scan_keys):
        listed = list(walk(SCOPE))
        assert len(listed) + len(nameless) == (2 if lost else 3)
        assert set(listed) - {victim} == others
    assert {*store.keys()} == {*listed, Key("other", victim.id)}
    assert store.sweep(grace=10**6).expired == 0


def _reported(each, victim):
    assert isinstance(each.error, CorruptRecord | UnsupportedRecord)
    assert each.key in {victim, None}
    assert each.error.key == each.key
    assert "/c/" in each.where
    return True


def positions(store, key, *, head):
    """Return which records can be read one by one; all ranges without the others must be readable too."""
    sound = []
    for at in range(head.start, head.end):
        part = ends(lambda at=at: store.read(key, start=at, stop=at + 1))
        if isinstance(part, CorruptRecord):
            assert (part.key, part.position) == (key, at)
        else:
            assert [record.body for record in part.records] == [text(at, len(part.records[0].body))]
            sound.append(at)
    for _, group in itertools.groupby(enumerate(sound), lambda pair: pair[1] - pair[0]):
        run = [at for _, at in group]
        assert [record.position for record in store.read(key, start=run[0], stop=run[-1] + 1).records] == run
        if run[-1] + 1 < head.end:
            part = ends(lambda start=run[0]: store.read(key, start=start))
            assert part.position == run[-1] + 1, "the first damaged record of a range is not the one in the error"
    return sound


def check_calls(store, victim, head):
    """Check that every call that names the victim, and changes nothing, ends in a value or in an error of ours."""
    for call in (
        lambda: store.read(victim, stop=0),
        lambda: store.read(victim),
        lambda: store.read(victim, start=-1),
        lambda: store.read(victim, start=2, stop=4),
        lambda: store.append(victim, ["late"], after=replace(head, revision=revision()), revision=revision()),
        lambda: store.delete(victim, version="another"),
        lambda: store.find_records(victim),
    ):
        ends(call)


def check_restored(store, victim, sound):
    """Check that all of these records are found, and are there under a new head; returns that."""
    found = store.find_records(victim)
    assert isinstance(store, HeadRecovery)
    if not sound and found is None:
        return None
    records = store.read_found(found, start=found.start, stop=found.end)
    seen = [record.position for record in records]
    assert set(seen) >= set(sound)
    assert seen == sorted(set(seen))
    bodies = [record.body for record in records]
    assert bodies == [text(at, len(body)) for at, body in zip(seen, bodies, strict=True)]
    head = Head(victim, found.start, found.end, revision())
    assert store.restore_head(found, head) == head
    grown = store.append(victim, texts(head.end, head.end + 2), after=head, revision=revision())
    assert positions(store, victim, head=grown) == [*seen, head.end, head.end + 1]
    return grown


def check_erased(store, place, victim):
    for key in list(store.scan_keys(SCOPE)):
        store.delete(key)
    report = store.remove_leftovers(SCOPE)
    assert (report.left, report.complete) == ((), True)
    client, bucket, prefix = place
    for name in objects(client, bucket, f"{prefix}/"):
        assert "/other/" in name or content_of(client, bucket, name).startswith(b"deleted ")
    assert [head.key for head in store.heads("other").items] == [Key("other", victim.id)]


def sound_lines(data, bodies):
    """Return the positions with complete lines in the rest of an object."""
    lines = set((data or b"").split(b"\n"))
    return [at for at, line in bodies.items() if line in lines]


OTHER_VERSIONS = {"of an earlier version", "of a later version", "of a much later version, without fields"}
ANOTHER = {"of another conversation", "of another scope"}
"""A head of another conversation, with a right checksum, is a copy of that: none of its text is given out."""


def some_of(names, step):
    """Return every `step`-th for the ordinary tests, and leave the others to the long ones."""
    return [name if at % step == 0 else pytest.param(name, marks=pytest.mark.stress) for at, name in enumerate(names)]


@pytest.mark.parametrize("what", some_of(HEADS, 2))
def test_a_damaged_head(place, what):
    """Its records are in the head's object."""
    check_damaged_head(place, what, Key(SCOPE, "victim"))


@pytest.mark.parametrize("what", some_of(HEADS, 8))
def test_a_damaged_head_under_a_name_that_is_cut(place, what):
    """Its key is known only as far as its head still has it."""
    check_damaged_head(place, what, Key(SCOPE, LONG))


def check_damaged_head(place, what, victim):
    with open_s3_store(*place) as store:
        head = fill_store(store, victim, large=False)
        name = head_object(store, victim)
        _, _, tail = content_of(place[0], place[1], name).partition(b"\n")
        lines = dict(enumerate(tail.splitlines()))
        left = damage(place, name, HEADS[what])
    with open_s3_store(*place) as store:
        check_calls(store, victim, head)
        part = ends(lambda: store.read(victim, stop=0))
        if isinstance(part, ReadResult):  # the damage is after the head, among the records
            assert set(sound_lines(left, lines)) <= set(positions(store, victim, head=head))
            check_walks(store, victim, head=part.head)
        elif what == "gone":
            check_walks(store, victim, lost=True)
        else:
            check_walks(store, victim)
            check_refused(store, victim, head)
            assert content_of(place[0], place[1], name) == left, "a damaged head was written over"
            sound = [] if what in ANOTHER else sound_lines(left, lines)
            grown = None if what in OTHER_VERSIONS else check_restored(store, victim, sound)
            check_walks(store, victim, head=grown, limits=(50,))
        check_erased(store, place, victim)


def check_refused(store, victim, head):
    """Check that nobody overwrites a damaged head, or a head of another version."""
    for call in (
        lambda: store.append(victim, ["x"], after=head, revision=revision()),
        lambda: store.append(victim, ["x"], after=None, revision=revision()),
        lambda: store.forget(victim, before=1),
        lambda: store.restore_head(
            replace(store.find_records(victim), token="another"), Head(victim, 0, 1, revision())
        ),
    ):
        error = ends(call)
        assert isinstance(error, TYPED)
        assert error.key == victim
    if isinstance(ends(lambda: store.read(victim)), UnsupportedRecord):
        found = store.find_records(victim)
        assert "another version" in found.problem
        with pytest.raises(UnsupportedRecord):
            store.restore_head(found, Head(victim, found.start, found.end, revision()))


@pytest.mark.parametrize("what", some_of(SEGMENTS, 3))
def test_a_damaged_segment(place, what):
    victim = Key(SCOPE, "victim")
    with open_s3_store(*place) as store:
        head = fill_store(store, victim, large=True)
        [name] = objects(place[0], place[1], f"{place[2]}/s/")
        lines = dict(enumerate(content_of(place[0], place[1], name).splitlines()))
        left = damage(place, name, SEGMENTS[what])
    with open_s3_store(*place) as store:
        check_walks(store, victim, head=head)
        seen = positions(store, victim, head=head)
        assert set(seen) >= {*sound_lines(left, lines), 14, 15, 16}
        found = store.find_records(victim)
        assert (found.start, found.end, found.problem) == (0, 17, None)
        assert [record.position for record in store.read_found(found, start=0, stop=17)] == seen
        head = store.append(victim, texts(17, 30, 12_000), after=head, revision=revision())
        head = store.forget(victim, before=5)
        kept = [at for at in [*seen, *range(17, 30)] if at >= 5]
        assert positions(store, victim, head=head) == kept
        damage(place, head_object(store, victim), HEADS["zeros"])
        assert check_restored(store, victim, kept).start == 5
        check_erased(store, place, victim)


@pytest.mark.parametrize(("batch", "count", "size"), [(1, 16, 20_000), (2, 8, 60), (3, 18, 12_000), (300, 600, 4000)])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_one_damaged_record_at_any_position(place, batch, count, size, share):
    """In the tail, in a segment of many blocks, at its ends."""
    with open_s3_store(*place) as store:
        head = make_conversation(store, count, size=size, batch=batch)
        victim = int(head.end * share)
        wanted = f'"line {victim}"'.encode()
        for name in objects(place[0], place[1], f"{place[2]}/"):  # whichever has it
            change(*place[:2], name, lambda data: data.replace(wanted, wanted.replace(b"line", b"lime")))
    with open_s3_store(*place) as store:
        low, high = max(victim - 4, 0), min(victim + 5, head.end)
        for start, stop in ((0, victim), (low, victim), (victim + 1, high), (victim + 1, head.end)):
            assert bodies_of_range(store, start, stop) == texts(start, stop, size)
        for start, stop in ((victim, victim + 1), (victim, head.end), (low, high), (0, head.end)):
            with pytest.raises(CorruptRecord) as caught:
                store.read(KEY, start=start, stop=stop)
            assert (caught.value.key, caught.value.position) == (KEY, victim)


def bodies_of_range(store, start, stop):
    return [record.body for record in store.read(KEY, start=start, stop=stop).records]


def test_damage_of_several_conversations_and_pages(place):
    """A page has its limit of heads whatever is damaged, and each damaged one is reported once."""
    for recency in ("bucket", "exact"):
        where = (*place[:2], f"{place[2]}-{recency}")
        with open_s3_store(*where, recency=recency) as store:
            heads = [
                store.append(Key(SCOPE, f"c{at:02d}"), ["x"], after=None, revision=revision(updated=NOW + at * 10**8))
                for at in range(30)
            ]
            for at in range(0, 30, 7):
                damage(where, head_object(store, heads[at].key), HEADS["zeros"])
            for limit in (1, 7, 30):
                rows, damaged = walked(store, SCOPE, limit)
                assert rows == [head for at, head in enumerate(heads) if at % 7][::-1]
                assert sorted(each.key.id for each in damaged) == [f"c{at:02d}" for at in range(0, 30, 7)]


def test_strays_are_reported_and_left_alone(place):
    client, bucket, prefix = place
    with open_s3_store(*place) as store:
        head = fill_store(store, Key(SCOPE, "victim"), large=True)
        for name in STRAYS:
            client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=b"not ours")
        check_walks_with_strays(store, head)
        listed = {each.where.removeprefix(f"{prefix}/") for each in store.damaged_keys()}
        assert listed == set(STRAYS)
        listed = {each.where.removeprefix(f"{prefix}/") for each in store.damaged_keys(SCOPE)}
        assert {name for name in STRAYS if f"/{SCOPE}/" in name} <= listed
        assert all(any(name.startswith(where) for name in STRAYS) for where in listed)
        for key in list(store.scan_keys(SCOPE)):
            store.delete(key)
        report = store.remove_leftovers(SCOPE)
        assert not report.complete
        assert set(report.left) == {f"{prefix}/{where}" for where in listed}
        assert {name.removeprefix(f"{prefix}/") for name in objects(client, bucket, f"{prefix}/")} >= set(STRAYS)


def check_walks_with_strays(store, head):
    assert [row.key.id for row in store.heads(SCOPE).items] == ["behind", "victim", "before"]
    assert store.heads(SCOPE).damaged == ()
    assert sorted(key.id for key in store.keys(SCOPE)) == ["before", "behind", "victim"]
    assert positions(store, head.key, head=head) == list(range(17))


def test_a_scan_creates_lost_markers_again(place):
    with open_s3_store(*place) as store:
        heads = [make_conversation(store, 2, key=Key(scope, f"c{at}")) for scope in ("one", "two") for at in range(4)]
        for head in heads[1::2]:
            lose_markers(*place[:2], store, head.key)
        assert len(store.heads("one").items) == 2
        assert set(store.keys()) == {head.key for head in heads}, (
            "the keys are of the conversations, not of the markers"
        )
        assert set(store.scan_keys("one")) == {head.key for head in heads[:4]}
        assert list(store.heads("one").items) == heads[3::-1]
        assert len(store.heads("two").items) == 2
        assert set(store.scan_keys()) == {head.key for head in heads}
        assert list(store.heads("two").items) == heads[:3:-1]


def test_a_scan_without_the_right_to_write_is_as_complete(place, server):
    with open_s3_store(*place) as store:
        heads = [make_conversation(store, 2, key=Key("one", f"c{at}")) for at in range(3)]
        lose_markers(*place[:2], store, heads[1].key)
        server.fail("403", kind="PUT", times=100)
        assert set(store.scan_keys("one")) == {head.key for head in heads}
        server.stop_faults()


def test_damaged_markers_harm_no_conversation(place):
    """With content, doubled, of other times, and leading nowhere."""
    client, bucket, prefix = place
    with open_s3_store(*place) as store:
        heads = [make_conversation(store, 2, key=Key(SCOPE, f"c{at}")) for at in range(3)]
        [marker] = [name for name in objects(client, bucket, f"{prefix}/m/") if "/c1/" in name]
        client.put_object(Bucket=bucket, Key=marker, Body=b"noise")
        for time in ("0" * 19, "9" * 19):
            client.put_object(Bucket=bucket, Key=marker.replace(marker.split("/")[3], time), Body=b"")
        client.put_object(Bucket=bucket, Key=marker.replace("/c1/", "/nobody/"), Body=b"")
        for limit in (1, 20):
            rows, damaged = walked(store, SCOPE, limit)
            assert (rows, damaged) == (heads[::-1], [])


def test_what_the_service_does_not_give_out_is_damage_of_that_one(place, server):
    """An object that a lifecycle rule has put into an archive; not a refusal of everything."""
    with open_s3_store(*place) as store:
        heads = [make_conversation(store, 2, key=Key(SCOPE, f"c{at}")) for at in range(3)]
        name = head_object(store, heads[1].key)
        server.fail("archived", kind="GET", path=f"{name}$", times=10**6)
        rows, damaged = walked(store, SCOPE, 20)
        assert rows == [heads[2], heads[0]]
        assert [(each.key, each.where) for each in damaged] == [(heads[1].key, name)]
        with pytest.raises(CorruptRecord, match="does not return"):
            store.read(heads[1].key)
        assert store.delete(heads[1].key) is True
        server.stop_faults()
        assert store.read(heads[1].key) is None


def test_an_archived_segment_is_damage_of_its_records(place, server):
    with open_s3_store(*place) as store:
        head = fill_store(store, Key(SCOPE, "victim"), large=True)
        server.fail("archived", kind="GET", path="/s/", times=10**6)
        assert positions(store, head.key, head=head) == [14, 15, 16]


def test_an_archived_object_never_counts_as_lost(place, server):
    """No forget and no repair puts marks in the place of records that are in an archive."""
    with open_s3_store(*place) as store:
        head = fill_store(store, Key(SCOPE, "victim"), large=True)
        names = objects(place[0], place[1], f"{place[2]}/s/")
        server.fail("archived", kind="GET", path="/s/", times=10**6)
        with pytest.raises(StoreRejected, match="restore it first"):
            store.forget(head.key, before=3)
        name = head_object(store, head.key)
        before = content_of(*place[:2], name)
        damage(place, name, lambda data: data[:40] + data[41:])
        for call in (
            lambda: store.read_found(store.find_records(head.key), start=0, stop=17),
            lambda: store.restore_head(store.find_records(head.key), Head(head.key, 0, 17, revision())),
        ):
            with pytest.raises(StoreRejected, match="restore it first"):
                call()
        place[0].put_object(Bucket=place[1], Key=name, Body=before)
        server.stop_faults()
        assert objects(place[0], place[1], f"{place[2]}/s/") == names
        assert positions(store, head.key, head=head) == list(range(17))
        server.fail("archived", kind="GET", path=f"{name}$", times=10**6)
        with pytest.raises(StoreRejected, match="restore it first"):
            store.find_records(head.key)


def test_no_text_of_a_damaged_head_is_quoted(place):
    secret = "s3cr3t words"
    with open_s3_store(*place) as store:
        store.append(KEY, [secret], after=None, revision=replace(revision(), payload=secret))
        for rule in (with_fields(lambda fields: fields.update(updated="x")), lambda data: data[:-20], bytes.upper):
            damage(place, head_object(store, KEY), rule)
            with pytest.raises(CorruptRecord) as caught:
                store.read(KEY)
            error = caught.value
            while error is not None:
                assert secret not in repr(error) + repr(vars(error)) + str(error.args)
                error = error.__cause__ or error.__context__
            assert secret not in repr(store.heads(KEY.scope).damaged) + repr(store.find_records(KEY))


def test_a_tail_that_lost_a_line_end_takes_further_appends(place):
    """A line that is appended after a damaged one never becomes a part of it."""
    with open_s3_store(*place) as store:
        head = make_conversation(store, 5)
        damage(place, head_object(store, KEY), lambda data: data[:-1])
    with open_s3_store(*place) as store:
        for _ in range(4):
            end = head.end
            head = store.append(KEY, texts(end, end + 3, 20_000), after=head, revision=revision())
        assert set(positions(store, KEY, head=head)) >= {*range(4), *range(5, 17)}


def test_a_record_that_is_no_text_is_damaged(place):
    """Its checksum is right, so this library has not written it."""
    body = b"\xff\xfe"
    with open_s3_store(*place) as store:
        head = make_conversation(store, 2)
        line = b"%08x %b\n" % (zlib.crc32(body, 1), body)
        damage(place, head_object(store, KEY), lambda data: b"\n".join(data.split(b"\n")[:2]) + b"\n" + line)
        assert positions(store, KEY, head=head) == [0]


def test_the_number_of_damages():
    """In the ordinary tests; the long ones have all of them."""
    assert len(HEADS) // 2 + len(HEADS) // 8 + len(SEGMENTS) // 3 + len(STRAYS) >= 80
    assert len(HEADS) + len(SEGMENTS) >= 140
