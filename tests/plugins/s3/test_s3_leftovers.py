"""Removal of leftovers: no text remains, and nothing of an active writer vanishes."""

import itertools
from functools import partial

import pytest
from s3_samples import (
    KEY,
    bodies,
    content_of,
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
from test_s3_failed_requests import CASES, SIZE

from chathistory import Key
from chathistory.errors import Conflict, CorruptRecord, StoreRejected

pytestmark = pytest.mark.wide

SECRET = '"text": "line'
"""A text in every record that these tests store."""


def erased(store, scope=KEY.scope):
    """Erase a scope as the core does, and return the report."""
    for key in list(store.scan_keys(scope)):
        store.delete(key)
    return store.remove_leftovers(scope)


def only_tombstones(client, bucket, prefix):
    """Check that there is nothing but tombstones; return how many."""
    names = objects(client, bucket, prefix)
    for name in names:
        assert content_of(client, bucket, name).startswith(b"deleted "), f"{name} is left"
    return len(names)


def counted(server, store, case):
    head = case.prepared(store)
    server.log.clear()
    case.do(store, head)
    return len(server.log)


@pytest.mark.parametrize("name", ["create", "create large", "spill that absorbs", "append large", "forget in a segment",
                                  "delete"])  # fmt: skip
def test_after_a_writer_that_died_an_erasure_is_complete_at_once(server, client, bucket, name):
    case = CASES[name]
    with open_s3_store(client, bucket, "dry") as store:
        total = counted(server, store, case)
    for at in range(total):
        place = {"bucket": bucket, "prefix": f"killed-{at}"}
        with open_s3_store(client, timeout=0.01, **place) as store:
            make_conversation(store, 1, key=Key("bystander", "c"))
            head = case.prepared(store)
            server.kill_after(at)
            tried(partial(case.do, store, head))
            server.stop_faults()
        with open_s3_store(client, **place) as other:
            report = erased(other)
            assert (report.left, report.complete) == ((), True), f"after request {at} of {total}"
            left = remains(client, bucket, SECRET, f"killed-{at}/")
            assert len(left) == 1, f"after request {at} of {total} text remains in {left}"
            assert bodies(other, Key("bystander", "c")) == texts(0, 1)
            erased(other, "bystander")
        only_tombstones(client, bucket, f"killed-{at}/")


@pytest.mark.parametrize("do", [lambda store: store.forget(KEY, before=99), lambda store: store.delete(KEY)])
def test_what_a_first_append_left_that_broke_off_goes_with_the_text(server, client, bucket, do):
    """The same messages were stored in a second try: the first one's segments have them too."""
    with open_s3_store(client, bucket, "history", timeout=0.01) as store:
        server.kill_after(2)
        assert isinstance(tried(lambda: make_conversation(store, 40, size=SIZE)), Exception)
        server.stop_faults()
    with open_s3_store(client, bucket, "history") as store:
        assert remains(client, bucket, SECRET)
        make_conversation(store, 40, size=SIZE)
        do(store)
        assert not remains(client, bucket, SECRET)


def _erase(other):
    erased(other)


def _make_and_delete(other):
    make_conversation(other, 40, size=SIZE)
    other.delete(KEY)


def _make_and_forget(other):
    make_conversation(other, 40, size=SIZE)
    other.forget(KEY, before=7)


def _make_damage_and_delete(other):
    make_conversation(other, 40, size=SIZE)
    other._bucket.put(other._names.head(KEY), b"noise")
    other.delete(KEY)


def _sweep(other):
    other.sweep(grace=3600)


MEANWHILE = {
    "erase": _erase,
    "make and delete": _make_and_delete,
    "make and forget": _make_and_forget,
    "make, damage and delete": _make_damage_and_delete,
    "delete": lambda other: other.delete(KEY),
    "make": lambda other: make_conversation(other, 2),
    "sweep": _sweep,
    "erase twice": lambda other: (_erase(other), _erase(other)),
    "erase and delete": lambda other: (_erase(other), other.delete(KEY)),
    "erase, make and delete": lambda other: (_erase(other), _make_and_delete(other)),
    "erase, make, forget and delete": lambda other: (_erase(other), _make_and_forget(other), other.delete(KEY)),
    "make, forget and delete": lambda other: (_make_and_forget(other), other.delete(KEY)),
    "erase, make, and erase twice": lambda other: (
        _erase(other),
        make_conversation(other, 2),
        _erase(other),
        _erase(other),
    ),
}


def meanwhile():
    """Combine concurrent operations with sizes and, in turn, kinds of DELETE; in the long tests each with each."""
    for (at, what), (size, count), deletes in itertools.product(
        enumerate(MEANWHILE), enumerate((1, 40)), (True, False)
    ):
        marks = [] if (at + size) % 2 == deletes else [pytest.mark.stress]
        name = f"{what}-{('small', 'large')[size]}" + ("" if deletes else "-without conditional DELETE")
        yield pytest.param(what, count, deletes, id=name, marks=marks)


@pytest.mark.parametrize(("what", "count", "deletes"), list(meanwhile()))
def test_nothing_vanishes_below_a_writer_who_makes_a_conversation(client, bucket, what, count, deletes):
    """All but the commit is done when somebody else comes: either it is whole after it, or it was refused."""
    with open_s3_store(client, bucket, "h") as store, open_s3_store(client, bucket, "h") as other:
        for each in (store, other):
            each._bucket.service = type(each._bucket.service)(conditional_delete=deletes)
        put, begun = store._heads.put, []

        def put_late(*given, **named):
            if not begun:
                begun.append(1)
                MEANWHILE[what](other)
            return put(*given, **named)

        store._heads.put = put_late
        result = tried(lambda: make_conversation(store, count, size=SIZE))
        assert begun
        assert not isinstance(result, CorruptRecord)
        head = head_of(other)
        if not isinstance(result, Exception):
            assert head == result
        else:
            assert isinstance(result, Conflict)
        if head is not None:
            assert bodies(other) == texts(head.start, head.end, SIZE if what != "make" or head == result else 60)
            assert list(other.heads(KEY.scope).items) == [head], "it is stored, and not listed"
        report = erased(other)
        assert (report.left, report.complete) == ((), True)
        assert not remains(client, bucket, SECRET)


@pytest.mark.parametrize("what", ["erase", "delete", "sweep"])
def test_nothing_vanishes_below_a_writer_who_fills_segments(client, bucket, server, what):
    """He is refused, or all of his conversation is there."""
    with open_s3_store(client, bucket, "h") as store, open_s3_store(client, bucket, "h") as other:
        head = make_conversation(store, 26, size=SIZE, batch=6)
        put, begun = store._heads.put, []

        def put_late(*given, **named):
            if not begun:
                begun.append(1)
                MEANWHILE[what](other)
            return put(*given, **named)

        store._heads.put = put_late
        result = tried(lambda: store.append(KEY, texts(26, 46, SIZE), after=head, revision=revision()))
        assert begun
        if what == "sweep":
            assert bodies(other) == texts(0, 46, SIZE)
        else:
            assert isinstance(result, Conflict)
            assert result.head is None
            assert head_of(other) is None
            assert not remains(client, bucket, SECRET)


def test_leftovers_of_every_kind_are_removed_and_counted(client, bucket, server, store):
    for at in range(3):
        make_conversation(store, 40, key=Key("scope", f"c{at}"), size=SIZE)
    make_conversation(store, 2, key=Key("scope", "ä" * 200))
    names = objects(client, bucket)
    segments = [name for name in names if "/s/" in name]
    client.put_object(Bucket=bucket, Key="history/c/scope/c0", Body=b"noise")
    client.put_object(Bucket=bucket, Key="history/c/scope/c1", Body=b"")
    client.delete_object(Bucket=bucket, Key="history/c/scope/c2")
    client.put_object(Bucket=bucket, Key=store._names.head(Key("scope", "ä" * 200)), Body=b"noise")
    client.put_object(Bucket=bucket, Key="history/m/scope/0000000000000000001/nobody/0123456789abcdef", Body=b"")
    client.put_object(Bucket=bucket, Key="history/s/scope/x/0123456789abcdef/0000000000000000000-0123456789abcdef",
                      Body=SECRET.encode())  # fmt: skip
    client.put_object(Bucket=bucket, Key="history/probe/0123456789abcdef", Body=b"1")
    assert len(segments) >= 3
    report = store.remove_leftovers("scope")
    assert (report.left, report.complete) == ((), True)
    assert report.removed >= 8
    assert not remains(client, bucket, SECRET)
    only_tombstones(client, bucket, "history/")
    assert store.remove_leftovers("scope").removed == 0
    store.sweep(now=4e9)
    assert objects(client, bucket) == []


def test_what_is_there_is_named_and_left(client, bucket, server, store):
    head = make_conversation(store, 40, size=SIZE)
    before = objects(client, bucket, "history/c/") + objects(client, bucket, "history/s/")
    report = store.remove_leftovers(KEY.scope)
    assert (report.removed, report.complete) == (0, False)
    assert set(before) <= set(report.left)
    assert bodies(store) == texts(0, 40, SIZE)
    assert head_of(store) == head
    assert store.remove_leftovers("another").complete


def test_another_scope_whose_name_begins_alike_is_left_alone(client, bucket, server, store):
    for scope in ("scope", "scope2", "scop", "Scope", "scope/x"):
        make_conversation(store, 2, key=Key(scope, "c"))
        client.put_object(Bucket=bucket, Key=store._names.head(Key(scope, "damaged")), Body=b"noise")
    assert erased(store).complete
    for scope in ("scope2", "scop", "Scope", "scope/x"):
        assert bodies(store, Key(scope, "c")) == texts(0, 2)
        with pytest.raises(CorruptRecord):
            store.read(Key(scope, "damaged"))


@pytest.mark.parametrize("kind", ["LIST", "DELETE", "DELETES", "GET"])
def test_without_the_right_to_it_is_a_refusal_and_never_complete(client, bucket, server, store, kind):
    for at in range(2):
        make_conversation(store, 40, key=Key("scope", f"c{at}"), size=SIZE)
        client.delete_object(Bucket=bucket, Key=f"history/c/scope/c{at}")
    server.fail("403", kind=kind, times=10**6)
    try:
        complete = store.remove_leftovers("scope").complete
    except StoreRejected:
        complete = False
    assert complete is (kind == "DELETES"), "where several cannot be removed at once, they are removed one by one"
    if kind == "LIST":
        for walk in (store.scan_keys, store.keys, store.damaged_keys):
            with pytest.raises(StoreRejected):
                list(walk("scope"))
    server.stop_faults()
    assert store.remove_leftovers("scope").complete


def test_the_traits_name_what_is_not_reached(store):
    assert "old object versions" in store.traits.not_reached
    assert any("replica" in name for name in store.traits.not_reached)


def test_old_versions_are_what_is_not_reached(client, bucket, server, store):
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    make_conversation(store, 3)
    assert erased(store).complete
    assert not remains(client, bucket, SECRET)
    versions = client.list_object_versions(Bucket=bucket, Prefix="history/c/")["Versions"]
    assert any(
        SECRET.encode() in client.get_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])["Body"].read()
        for each in versions
    ), "what docs/s3.md says of old versions is so"


def test_no_uploads_in_parts_are_made(client, bucket, server, store):
    """So none can be left over: each object is one PUT."""
    make_conversation(store, 2, size=10_000_000)
    assert set(server.kinds()) <= {"PUT", "GET", "DELETE"}
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert bodies(store)[1] == text(1, 10_000_000)
