"""What a crash leaves half-written: never shown, never in the way, set aside, and gone with the conversation."""

import os

import pytest
from file_samples import KEY, bodies_of, filled, fresh, path_of, stamp

from chathistory.errors import CorruptRecord

BODIES = ['{"a":"é"}', '{"b":2}']


@pytest.fixture
def history(store):
    """A store with two batches, and the bytes of its file before and after the second."""
    first = filled(store, ['{"first":1}'])
    whole = path_of(store).read_bytes()
    second = store.append(KEY, BODIES, after=first, stamp=stamp())
    return store, first, second, whole, path_of(store).read_bytes()


def test_at_every_cut_of_a_batch_the_state_before_it_stands(history):
    store, first, _, whole, longer = history
    for cut in range(len(whole), len(longer)):
        path_of(store).write_bytes(longer[:cut])
        with fresh(store) as other:
            assert other.read(KEY).head == first
            assert [record.body for record in other.read(KEY).records] == ['{"first":1}']
            assert other.heads("default").items == [first]
            assert path_of(store).read_bytes() == longer[:cut]
            again = other.append(KEY, ["next"], after=first, stamp=stamp())
            assert bodies_of(other) == ['{"first":1}', "next"]
            assert other.read(KEY).head == again
            torn = path_of(store, suffix=".torn")
            assert (torn.read_bytes() if torn.exists() else b"") == longer[len(whole) : cut]
            assert other.delete(KEY)
        assert list(path_of(store).parent.iterdir()) == []
        assert store.read(KEY) is None


def test_at_every_cut_of_the_first_batch_there_is_no_conversation(history):
    store, _, _, whole, _ = history
    for cut in range(len(whole)):
        path_of(store).write_bytes(whole[:cut])
        with fresh(store) as other:
            assert other.read(KEY) is None
            assert other.heads("default").items == list(other.keys()) == []
            assert other.forget(KEY, before=1) is None
            filled(other, ["new"])
            assert bodies_of(other) == ["new"]
            assert other.delete(KEY)
        assert list(path_of(store).parent.iterdir()) == []


def test_delete_removes_what_is_torn_where_there_is_no_conversation(history):
    store, _, _, whole, _ = history
    path_of(store).write_bytes(whole[:20])
    path_of(store, suffix=".torn").write_bytes(b"older")
    assert store.delete(KEY) is False
    assert list(path_of(store).parent.iterdir()) == []


@pytest.mark.parametrize(
    "tail", [b"\0" * 10, b"\0" * 9000, b'{"half', b"a line\n" * 3, b"x" * 100_000, b"\t", b"\t\0\0"]
)
def test_any_tail_without_a_seal_is_set_aside(history, tail):
    store, _, second, _, longer = history
    path_of(store).write_bytes(longer + tail)
    assert store.read(KEY).head == second
    store.append(KEY, ["next"], after=second, stamp=stamp())
    assert path_of(store, suffix=".torn").read_bytes() == tail
    assert bodies_of(store) == ['{"first":1}', *BODIES, "next"]


def test_torn_bytes_of_several_crashes_are_all_kept(history):
    store, _, head, _, _ = history
    for tail in (b"one", b"two"):
        with path_of(store).open("ab") as file:
            file.write(tail)
        head = store.append(KEY, ["next"], after=head, stamp=stamp())
    assert path_of(store, suffix=".torn").read_bytes() == b"onetwo"


def test_a_long_batch_that_was_cut_is_torn_as_a_whole(store):
    first = filled(store, ["first"])
    whole = path_of(store).read_bytes()
    store.append(KEY, ["x" * 1000] * 1000, after=first, stamp=stamp())
    longer = path_of(store).read_bytes()
    blocks = [at + 1 for at in range(len(whole), len(longer)) if longer[at : at + 1] == b"\n" and longer[:at].rfind(b"\t") > longer[:at].rfind(b"\n")]  # fmt: skip  # noqa: E501
    assert len(blocks) == 4
    for cut in (blocks[0] - 1, blocks[0], blocks[0] + 1, blocks[1], blocks[2] + 5000, blocks[3] - 1):
        path_of(store).write_bytes(longer[:cut])
        assert store.read(KEY).head == first
    head = store.append(KEY, ["next"], after=first, stamp=stamp())
    assert bodies_of(store) == ["first", "next"]
    assert store.read(KEY, start=-1).head == head


def test_a_body_that_imitates_a_commit_is_not_believed(store):
    first = filled(store, ["first"])
    offset = path_of(store).stat().st_size
    filled_line = path_of(store).read_text().split("\n")[1]
    for imitation in (filled_line.lstrip("\t"), " " + filled_line.lstrip("\t")):
        path_of(store).write_bytes(path_of(store).read_bytes()[:offset] + imitation.encode() + b"\n" + b"{")
        assert store.read(KEY).head == first


def test_forget_removes_what_is_torn(history):
    store, _, second, _, longer = history
    path_of(store).write_bytes(longer + b"torn: secret")
    path_of(store, suffix=".torn").write_bytes(b"older: secret")
    path_of(store, suffix=".tmp").write_bytes(b"a rewrite that a crash stopped: secret")
    head = store.forget(KEY, before=1)
    assert (head.start, head.end, head.stamp) == (1, 3, second.stamp)
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
        lambda: store.append(KEY, ["x"], after=first, stamp=stamp()),
        lambda: store.forget(KEY, before=1),
        lambda: store.delete(KEY, version=first.stamp.version),
        lambda: store.heads("default"),
    ):
        with pytest.raises(CorruptRecord) as caught:
            call()
        assert caught.value.position is None
        assert caught.value.key == KEY
    assert list(store.keys()) == [KEY]
    assert path_of(store).read_bytes() == damaged
    assert store.delete(KEY) is True
