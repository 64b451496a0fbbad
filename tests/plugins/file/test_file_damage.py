"""Damage is found, reported with its position, and stays where it is; nothing of it is ignored or overwritten."""

import json
import random
import tracemalloc
from collections import Counter

import file_random_damage
import pytest
from chathistory_file.schema import LONGEST_LINE, encode_record
from file_samples import KEY, bodies_of, fill_store, fresh, line_of, path_of, revision

from chathistory import Head, Key
from chathistory.errors import CorruptRecord

pytestmark = pytest.mark.usefixtures("no_sync")

BATCHES = (['{"a":1}'], ['{"b":"é"}', '{"c":[]}', '{"d":"\\u0009"}'], ['{"e":5}'], ['{"f":6}', '{"g":7}'])
BODIES = [body for batch in BATCHES for body in batch]


def _seen(store):
    """Return what a reader gets: bodies and head, or where the damage is."""
    with fresh(store) as other:
        try:
            return bodies_of(other), other.read(KEY).head
        except CorruptRecord as error:
            return error.position


def _places(whole):
    """Yield each byte's place, the position of the record in whose line it is, and whether it is in the last commit."""
    at, position = 0, 0
    for line in whole.splitlines(keepends=True):
        commit = line.startswith(b"{")
        for place in range(at, at + len(line)):
            yield place, None if commit else position, at + len(line) == len(whole)
        at, position = at + len(line), position + (not commit)


@pytest.mark.parametrize(
    "change",
    ["by turns", pytest.param("a byte", marks=pytest.mark.wide), pytest.param("a bit", marks=pytest.mark.wide)],
)
def test_no_changed_byte_is_passed_over(store, change):
    """One change of each byte: a flipped bit, or another byte. No reader reads a commit that is not the last one."""
    head = fill_store(store, *BATCHES)
    whole = path_of(store).read_bytes()
    dice = random.Random(change)
    wrong = []
    for at, position, last in _places(whole):
        byte = (
            whole[at] ^ (1 << dice.randrange(8))
            if change == "a bit" or (change == "by turns" and at % 2)
            else dice.choice(sorted({0, 10, 13, 32, 91, 255} - {whole[at]}))
        )
        path_of(store).write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        seen = _seen(store)
        end_of_line = whole[at] == 10
        if position is not None:
            is_right = seen == position or (end_of_line and seen == (BODIES, head))
        elif last:
            is_right = seen is None or (end_of_line and seen == (BODIES, head))
        else:
            is_right = seen == (BODIES, head)
        if not is_right:
            wrong.append((at, byte, position, seen))
    assert wrong == []


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(at, marks=pytest.mark.wide) for at in range(3, 16))])
def test_whatever_is_damaged_what_is_sound_can_be_read_or_repaired(seed):
    counts = Counter()
    file_random_damage.run(1_000_000 + seed, counts, cases=10)
    assert counts["all"] == 10


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_four_thousand_damages():
    counts = Counter()
    for seed in range(2_000_000, 2_000_160):
        file_random_damage.run(seed, counts)
    assert counts["all"] == 4000


@pytest.mark.parametrize("batch", [1, pytest.param(2, marks=pytest.mark.wide), 3, 300])
@pytest.mark.parametrize("place", ["first", "second", "middle", "last but one", "last"])
def test_one_damaged_line_costs_one_record(store, batch, place):
    count = 12 if batch < 300 else 900
    bodies = [json.dumps({"n": number, "text": "x" * (number % 50)}) for number in range(count)]
    head = fill_store(store, *(bodies[at : at + batch] for at in range(0, count, batch)))
    position = {"first": 0, "second": 1, "middle": count // 2, "last but one": count - 2, "last": count - 1}[place]
    whole, line = path_of(store).read_bytes(), line_of(path_of(store), position)
    middle = line.start + len(line) // 2
    for changed in (
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],  # a bit
        whole[: line.start] + whole[line.stop :],  # the line is gone
        whole[:middle] + whole[middle + 1 :],  # a byte is gone
        whole[:middle] + b"\n" + whole[middle:],  # it is two
        whole[: line.start] + b"\xff" * len(line) + whole[line.stop :],  # it is something else, without its line end
        whole[: line.start] + b"\r\n\r\n" + whole[line.start + 1 :],  # it begins with something else
    ):
        path_of(store).write_bytes(changed)
        with fresh(store) as other:
            assert other.read(KEY, stop=0).head == head
            with pytest.raises(CorruptRecord) as caught:
                other.read(KEY, start=position)
            assert caught.value.position == position
            for start, stop in ((0, position), (position + 1, count)):
                if start < stop:
                    records = other.read(KEY, start=start, stop=stop).records
                    assert [record.body for record in records] == bodies[start:stop]


@pytest.mark.parametrize("new", [b"", b"J", b"\0", b"\r", b"\r\n", b"\n\n", b"\xff", b"]", b" \n"])
def test_a_damaged_line_end_costs_no_record(store, new):
    head = fill_store(store, *BATCHES)
    whole = path_of(store).read_bytes()
    ends = [at for at, byte in enumerate(whole) if byte == 10]
    for at in ends[:-1]:
        path_of(store).write_bytes(whole[:at] + new + whole[at + 1 :])
        for position, body in enumerate(BODIES):
            line = whole[: at + 1].rpartition(b"\n")[0].rpartition(b"\n")[2]
            if not (line.startswith(b"[%d," % position) and new in {b"]", b" \n"}):  # it is part of the line before
                assert [record.body for record in store.read(KEY, start=position, stop=position + 1).records] == [body]
        assert store.read(KEY, stop=0).head == head


def test_no_reader_reads_commits_before_the_last(store):
    head = fill_store(store, *([f"body {number}"] for number in range(300)))
    whole = path_of(store).read_bytes()
    last = whole.rindex(b'{"commit":')
    for new in (b'{"commit":X', b"\n\n\n\n", b"\0" * 300, b"", b"[1,2,"):
        path_of(store).write_bytes(whole[:last].replace(b'{"commit":2', new) + whole[last:])
        assert bodies_of(store) == [f"body {number}" for number in range(300)]
        assert store.read(KEY, start=-1).head == head


@pytest.mark.parametrize(
    "change", ["doubled", "first and last exchanged", "reversed", "the first batch again at the end"]
)
def test_lines_that_were_moved_are_found(store, change):
    head = fill_store(store, *BATCHES)
    whole = path_of(store).read_bytes()
    lines = whole.splitlines(keepends=True)
    changed = {
        "doubled": [line for line in lines for _ in range(2)],
        "first and last exchanged": [lines[-1], *lines[1:-1], lines[0]],
        "reversed": lines[::-1],
        "the first batch again at the end": [*lines, *lines[:2]],
    }[change]
    path_of(store).write_bytes(b"".join(changed))
    assert _seen(store) == (BODIES, head)
    assert store.list_notes(KEY) != []
    head = store.append(KEY, ["new"], after=head, revision=revision())
    assert _seen(store) == ([*BODIES, "new"], head)
    assert all(path_of(store).read_bytes().count(b"[%d," % position) == 1 for position in range(head.end))


def test_a_file_with_records_of_another_conversation_at_its_end(store):
    head = fill_store(store, *BATCHES)
    other = Key("default", "other")
    fill_store(store, ["x"] * 20, ["y"], key=other)
    whole = path_of(store).read_bytes()
    path_of(store).write_bytes(whole + path_of(store, other).read_bytes())
    assert _seen(store) == (BODIES, head)
    head = store.append(KEY, ["new"], after=head, revision=revision())
    assert _seen(store) == ([*BODIES, "new"], head)
    assert path_of(store, suffix=".aside").read_bytes() == path_of(store, other).read_bytes()


def _of_two(store, *, batch):
    """Store two conversations alike but for their bodies; return their lines."""
    other = Key("other", KEY.id)
    for key, name in ((KEY, "own"), (other, "foreign")):
        bodies = [f"{name} {number}" for number in range(6)]
        fill_store(store, *(bodies[at : at + batch] for at in range(0, 6, batch)), key=key)
    return [path_of(store, key).read_bytes().splitlines(keepends=True) for key in (KEY, other)]


def _line_at(lines, position):
    return next(at for at, line in enumerate(lines) if line.startswith(b"[%d," % position))


@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize("position", range(6))
def test_a_line_that_was_pasted_displaces_no_record(store, batch, position):
    """Reading, an append and a new head take the same line of two; the other one is set aside."""
    own, foreign = _of_two(store, batch=batch)
    pasted = foreign[_line_at(foreign, position)]
    bodies = [f"own {number}" for number in range(6)]
    for at in {0, _line_at(own, (position + 3) % 6), len(own) - 1}:
        lines = [*own[:at], pasted, *own[at:]]
        next_to_itself = batch == 6 and at == position == 0
        for head_is_sound in (True, False)[: 1 if next_to_itself else 2]:
            path_of(store, suffix=".aside").unlink(missing_ok=True)
            path_of(store).write_bytes(b"".join(lines)[:-3] + (b'"}\n' if head_is_sound else b"xx\n"))
            with fresh(store) as other:
                found = other.find_records(KEY)
                assert [each.body for each in other.read_found(found, start=0, stop=9)] == bodies
                if head_is_sound:
                    assert bodies_of(other) == bodies
                    other.append(KEY, ["new"], after=other.read(KEY).head, revision=revision())
                else:
                    other.restore_head(found, Head(KEY, found.start, found.end, revision()))
                assert bodies_of(other) == [*bodies, "new"][: None if head_is_sound else 6]
            assert pasted in path_of(store, suffix=".aside").read_bytes()


def test_of_two_indistinguishable_lines_both_are_kept(store):
    own = _of_two(store, batch=1)[0]
    lines = [*own[:4], encode_record(2, b"OWN 2"), *own[4:]]
    path_of(store).write_bytes(b"".join(lines))
    seen = bodies_of(store)
    store.append(KEY, ["new"], after=store.read(KEY).head, revision=revision())
    assert bodies_of(store) == [*seen, "new"]
    kept = path_of(store).read_bytes() + path_of(store, suffix=".aside").read_bytes()
    assert all(line in kept for line in (lines[4], lines[5]))


@pytest.mark.parametrize("behind", [False, True])
def test_another_conversation_s_lines_are_not_shown_as_one_s_own(store, behind):
    own, foreign = _of_two(store, batch=2)
    both = [*own, *foreign] if behind else [*foreign, *own]
    path_of(store).write_bytes(b"".join(both))
    bodies = [f"own {number}" for number in range(6)]
    for start in range(6):
        assert [each.body for each in store.read(KEY, start=start).records] == bodies[start:]
    store.append(KEY, ["new"], after=store.read(KEY).head, revision=revision())
    assert bodies_of(store) == [*bodies, "new"]
    assert path_of(store, suffix=".aside").read_bytes() == b"".join(foreign)


def test_forgetting_keeps_records_that_changed_places(store):
    head = fill_store(store, *([f"body {number:02}"] for number in range(20)))
    lines = path_of(store).read_bytes().splitlines(keepends=True)
    lines[0], lines[36] = lines[36], lines[0]
    path_of(store).write_bytes(b"".join(lines))
    bodies = [f"body {number:02}" for number in range(20)]
    assert _seen(store) == (bodies, head)
    assert store.forget(KEY, before=10).start == 10
    assert bodies_of(store) == bodies[10:]
    assert b"body 00" not in path_of(store).read_bytes()


@pytest.mark.parametrize("where", ["behind", "before the last append"])
def test_what_is_too_long_for_a_line_is_not_loaded_as_a_whole(store, monkeypatch, where):
    """A hole of 64 MB, and lines of 4 MB at most for this test; one of 3 MB is read as any other."""
    monkeypatch.setattr("chathistory_file.files.LONGEST_LINE", 4 * 1024 * 1024)
    monkeypatch.setattr("chathistory_file.files._LARGEST_SEARCH_BUFFER", 1024 * 1024)
    monkeypatch.setattr("chathistory_file.read._LONGEST_COMMIT", 1024 * 1024)
    fill_store(store, ["1", "x" * 3_000_000], ["2"])
    whole = path_of(store).read_bytes()
    place = len(whole) if where == "behind" else line_of(path_of(store), 2).start
    with path_of(store).open("r+b") as file:
        file.truncate(place)
        file.truncate(place + 64 * 1024 * 1024)
        file.seek(0, 2)
        file.write(whole[place:])
    tracemalloc.start()
    try:
        assert [len(body) for body in bodies_of(store)] == [1, 3_000_000, 1]
        assert [head.key for head in store.heads("default").items] == [KEY]
        assert store.find_records(KEY).end == 3
        assert store.remove_leftovers("default").left == ("default/support=2f42.jsonl",)
        assert store.forget(KEY, before=1).start == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024 * 1024
    assert bodies_of(store)[1:] == ["2"]


def test_no_record_is_stored_that_is_too_long_for_a_line(store):
    assert store.traits.largest_record + len(encode_record(2**53, b"")) <= LONGEST_LINE


@pytest.mark.parametrize("line", [b"[" + b"9" * 5000, b"[" + b"9" * 5000 + b',"00000000",{}]', "[²,1]".encode()])
def test_a_number_of_any_length_in_a_damaged_line(store, line):
    fill_store(store, *([f"body {number}"] for number in range(6)))
    whole = path_of(store).read_bytes()
    place = line_of(path_of(store), 4)
    path_of(store).write_bytes(whole[: place.start] + line + whole[place.stop - 1 :])
    assert store.forget(KEY, before=2).start == 2
    assert [each.body for each in store.read(KEY, start=2, stop=4).records] == ["body 2", "body 3"]


def test_records_of_one_conversation_do_not_pass_for_another_s(store):
    fill_store(store, *BATCHES)
    other = Key("default", "other")
    fill_store(store, ["x"], key=other)
    path_of(store).write_bytes(path_of(store, other).read_bytes())
    assert _seen(store) is None


def test_sound_records_are_readable_next_to_damage(store):
    head = fill_store(store, *([f"body {number}"] for number in range(2000)))
    whole = path_of(store).read_bytes()
    path_of(store).write_bytes(whole.replace(b"body 1000]\n", b"body 1O00]\n"))
    assert [record.position for record in store.read(KEY, start=990, stop=1000).records] == [*range(990, 1000)]
    assert [record.body for record in store.read(KEY, start=1001, stop=1003).records] == ["body 1001", "body 1002"]
    assert store.read(KEY, start=-20).head == head
    with pytest.raises(CorruptRecord) as caught:
        store.read(KEY, start=995, stop=1005)
    assert (caught.value.position, caught.value.key) == (1000, KEY)
    assert "body" not in str(caught.value)
    head = store.append(KEY, ["more"], after=head, revision=revision())
    assert store.forget(KEY, before=500).start == 500
    assert [record.body for record in store.read(KEY, start=500, stop=502).records] == ["body 500", "body 501"]
    with pytest.raises(CorruptRecord) as caught:
        store.read(KEY, start=995, stop=1005)
    assert caught.value.position == 1000
    assert store.forget(KEY, before=1001).start == 1001
    assert bodies_of(store) == [*(f"body {n}" for n in range(1001, 2000)), "more"]
    assert b"1O00" not in path_of(store).read_bytes()


def test_a_warm_writer_notices_damage_at_the_end_and_not_further_up(store):
    """An append reads the end of the file and nothing more: that is what makes it cost the same at any length."""
    head = fill_store(store, *BATCHES)
    whole = path_of(store).read_bytes()
    path_of(store).write_bytes(whole.replace(b'{"a":1}', b'{"a":2}'))
    head = store.append(KEY, ["new"], after=head, revision=revision())
    end = path_of(store).read_bytes().rindex(b'"end"')
    path_of(store).write_bytes(path_of(store).read_bytes()[:end] + b'"enc"' + path_of(store).read_bytes()[end + 5 :])
    with pytest.raises(CorruptRecord):
        store.append(KEY, ["newer"], after=head, revision=revision())


def test_a_damaged_file_does_not_hide_the_keys(store):
    fill_store(store, ["1"], key=Key("default", "good"))
    fill_store(store, ["1"])
    path_of(store).write_bytes(path_of(store).read_bytes()[:-3] + b"xx\n")
    assert sorted(store.keys()) == [Key("default", "good"), KEY]
