"""An append that a crash interrupted: never shown, never in the way, set aside, and gone with the conversation."""

import os

import pytest
from chathistory_file.schema import COMMIT, encode_batch
from file_samples import KEY, bodies_of, fill_store, fresh, path_of, revision

from chathistory import Head
from chathistory.errors import CorruptRecord

pytestmark = pytest.mark.usefixtures("no_sync")

BODIES = ['{"a":"é"}', '{"b":2}']


@pytest.fixture
def history(store):
    """A store with two batches, and the bytes of its file before and after the second."""
    first = fill_store(store, ['{"first":1}'])
    whole = path_of(store).read_bytes()
    second = store.append(KEY, BODIES, after=first, revision=revision())
    return store, first, second, whole, path_of(store).read_bytes()


def test_at_every_cut_of_a_batch_the_state_before_it_is_read(history):
    store, first, _, whole, longer = history
    for cut in range(len(whole), len(longer) - 1):
        path_of(store).write_bytes(longer[:cut])
        with fresh(store) as other:
            assert other.read(KEY).head == first
            assert [record.body for record in other.read(KEY).records] == ['{"first":1}']
            assert other.heads("default").items == [first]
            assert path_of(store).read_bytes() == longer[:cut]
            again = other.append(KEY, ["next"], after=first, revision=revision())
            assert bodies_of(other) == ['{"first":1}', "next"]
            assert other.read(KEY).head == again
            aside = path_of(store, suffix=".aside")
            assert (aside.read_bytes() if aside.exists() else b"") == longer[len(whole) : cut]
            assert other.delete(KEY)
        assert list(path_of(store).parent.iterdir()) == []
        assert store.read(KEY) is None


def test_an_append_that_lacks_only_the_last_line_feed_is_whole(history):
    store, _, second, _, longer = history
    path_of(store).write_bytes(longer[:-1])
    with fresh(store) as other:
        assert other.read(KEY).head == second
        assert other.heads("default").items == [second]
        other.append(KEY, ["next"], after=second, revision=revision())
        assert bodies_of(other) == ['{"first":1}', *BODIES, "next"]
        assert other.list_notes(KEY) == []


def test_at_every_cut_of_the_first_batch_there_is_no_conversation(history):
    store, _, _, whole, _ = history
    for cut in range(len(whole) - 1):
        path_of(store).write_bytes(whole[:cut])
        with fresh(store) as other:
            assert other.read(KEY) is None
            assert other.heads("default").items == list(other.keys()) == []
            assert other.forget(KEY, before=1) is None
            fill_store(other, ["new"])
            assert bodies_of(other) == ["new"]
            assert other.delete(KEY)
        assert list(path_of(store).parent.iterdir()) == []


def test_delete_removes_an_uncommitted_first_append(history):
    store, _, _, whole, _ = history
    path_of(store).write_bytes(whole[:20])
    path_of(store, suffix=".aside").write_bytes(b"older")
    assert store.delete(KEY) is False
    assert list(path_of(store).parent.iterdir()) == []


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 10,
        b"\0" * 9000,
        b'{"half',
        b"a line\n" * 3,
        b"x" * 100_000,
        b'{"commit":2,"at"',
        b"[3",
        b'[3,"00000000",',
    ],
)
def test_any_tail_without_a_commit_is_set_aside(history, tail):
    store, _, second, _, longer = history
    path_of(store).write_bytes(longer + tail)
    assert store.read(KEY).head == second
    store.append(KEY, ["next"], after=second, revision=revision())
    assert path_of(store, suffix=".aside").read_bytes() == tail
    assert bodies_of(store) == ['{"first":1}', *BODIES, "next"]


def test_uncommitted_bytes_of_several_crashes_are_all_kept(history):
    store, _, head, _, _ = history
    for tail in (b"one", b"two"):
        with path_of(store).open("ab") as file:
            file.write(tail)
        head = store.append(KEY, ["next"], after=head, revision=revision())
    assert path_of(store, suffix=".aside").read_bytes() == b"onetwo"


def test_a_long_batch_that_was_cut_is_uncommitted_as_a_whole(store):
    first = fill_store(store, ["first"])
    whole = path_of(store).read_bytes()
    store.append(KEY, ["x" * 1000] * 1000, after=first, revision=revision())
    longer = path_of(store).read_bytes()
    line = longer.index(b"[501,")
    for cut in (line - 1, line, line + 1, line + 500, longer.index(b"[1000,"), longer.rindex(COMMIT), len(longer) - 2):
        path_of(store).write_bytes(longer[:cut])
        assert store.read(KEY).head == first
        assert f"{cut - len(whole)} bytes after the last append" in store.list_notes(KEY)[0]
    head = store.append(KEY, ["next"], after=first, revision=revision())
    assert bodies_of(store) == ["first", "next"]
    assert store.read(KEY, start=-1).head == head
    assert f"{len(longer) - 2 - len(whole)} bytes that were set aside" in store.list_notes(KEY)[0]


def _imitations(store, places):
    """Return bodies that hold the lines that would go on at a place, as they are and as text of JSON."""
    size = path_of(store).stat().st_size
    later = Head(KEY, 0, 3, revision())
    for at in (size + place for place in places):
        batch = encode_batch([b"forged"], later, first=2, at=at)
        record, commit = (line.decode().rstrip("\n") for line in (batch.records, batch.commit))
        yield from (commit, record, f'{{"a":{commit}}}', f'{{"a":[{record}]}}', f"[{record}]", f"{record} {commit}")


IN_A_LINE = len('[1,"00000000",')
STARTS = [0, *(IN_A_LINE + len(before) for before in ("", "[", '{"a":', '{"a":['))]
"""Where the line begins, and where the imitation begins in it."""


@pytest.mark.parametrize("places", [STARTS, pytest.param(range(60), marks=pytest.mark.wide)], ids=["starts", "all"])
def test_a_body_that_imitates_a_line_is_not_believed(store, places):
    first = fill_store(store, ["first"])
    for body in _imitations(store, places):
        head = store.append(KEY, [body], after=first, revision=revision())
        whole = path_of(store).read_bytes()
        with fresh(store) as other:
            assert (bodies_of(other), other.read(KEY).head) == (["first", body], head)
            for end in (b"", b"\n", b"}", b"]", b"]}"):  # cut at its end, and with a commit of which nothing is left
                stop = whole.index(body.encode()) + len(body)
                path_of(store).write_bytes(whole[:stop].removesuffix(b"]") + end)
                assert "forged" not in str(_seen(other))
            path_of(store).write_bytes(whole.replace(b"[1,", b"[x,", 1))
            assert "forged" not in str(_seen(other))
        store.delete(KEY)
        first = fill_store(store, ["first"])


def _seen(store):
    try:
        return bodies_of(store)
    except CorruptRecord as error:
        return error


def test_forget_removes_an_uncommitted_tail(history):
    store, _, second, _, longer = history
    path_of(store).write_bytes(longer + b"torn: secret")
    path_of(store, suffix=".aside").write_bytes(b"older: secret")
    path_of(store, suffix=".tmp").write_bytes(b"a rewrite that a crash stopped: secret")
    head = store.forget(KEY, before=1)
    assert (head.start, head.end, head.revision) == (1, 3, second.revision)
    assert [path.name for path in path_of(store).parent.iterdir()] == [path_of(store).name]
    assert b"secret" not in path_of(store).read_bytes()
    assert b"first" not in path_of(store).read_bytes()


@pytest.mark.parametrize("then", [b"", b"x" * 5000])
def test_an_append_that_is_undone_while_it_is_read_is_no_damage(history, monkeypatch, then):
    store, first, _, whole, _ = history
    undone = []

    def pread(fd, count, offset, pread=os.pread):
        if not undone:
            undone.append(path_of(store).write_bytes(whole + then))
        return pread(fd, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    found = store.read(KEY)
    assert undone
    assert (found.head, [record.position for record in found.records]) == (first, [0])


def test_a_line_that_claims_to_be_the_last_commit_but_is_unsound_is_damage(history):
    store, first, _, _, longer = history
    damaged = longer.replace(b'"end":3', b'"end":4')
    path_of(store).write_bytes(damaged)
    for call in (
        lambda: store.read(KEY),
        lambda: store.append(KEY, ["x"], after=first, revision=revision()),
        lambda: store.forget(KEY, before=1),
        lambda: store.delete(KEY, version=first.revision.version),
        lambda: store.list_notes(KEY),
    ):
        with pytest.raises(CorruptRecord) as caught:
            call()
        assert caught.value.position is None
        assert caught.value.key == KEY
    assert list(store.keys()) == [KEY]
    assert path_of(store).read_bytes() == damaged
    assert store.delete(KEY) is True
