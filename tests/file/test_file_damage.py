"""Damage is found, told with its position, and never passed over or overwritten."""

import random

import pytest
from file_samples import KEY, bodies_of, filled, fresh, path_of, stamp

from chathistory import Key
from chathistory.errors import CorruptRecord

BATCHES = (['{"a":1}'], ['{"b":"é"}', '{"c":[]}', '{"d":"\\u0009"}'], ['{"e":5}'], ['{"f":6}', '{"g":7}'])
BODIES = [body for batch in BATCHES for body in batch]


def _seen(store):
    """Return what a reader gets: bodies and head, or where the damage is."""
    with fresh(store) as other:
        try:
            return bodies_of(other), other.read(KEY).head
        except CorruptRecord as error:
            return error.position


def _lines(whole):
    """Yield, for every line of a file, its range and the position of its body (None: a seal)."""
    at, position = 0, 0
    for line in whole.split(b"\n")[:-1]:
        seal = line.startswith(b"\t")
        yield range(at, at + len(line) + 1), None if seal else position
        at, position = at + len(line) + 1, position + (not seal)


def test_no_flipped_bit_is_passed_over(store):
    head = filled(store, *BATCHES)
    whole = path_of(store).read_bytes()
    wrong = []
    for place, position in _lines(whole):
        for at in place:
            for bit in range(8):
                path_of(store).write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
                seen = _seen(store)
                if seen == (BODIES, head):
                    wrong += [(at, bit, "unnoticed")] if position is not None else []
                elif isinstance(seen, tuple):
                    wrong.append((at, bit, seen))
                elif position is not None and seen != position:
                    wrong.append((at, bit, f"record {seen} instead of {position}"))
    assert wrong == []


def test_no_changed_byte_is_passed_over(store):
    head = filled(store, *BATCHES)
    whole = path_of(store).read_bytes()
    dice = random.Random(4)
    for at in range(len(whole)):
        for byte in {0, 9, 10, 13, 32, 123, 255, dice.randrange(256)} - {whole[at]}:
            path_of(store).write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            seen = _seen(store)
            assert seen is None or isinstance(seen, int) or seen == (BODIES, head), (at, byte)


def test_no_flipped_bit_in_what_is_long_is_passed_over(store):
    bodies = [f"{number:05d}" * 40 for number in range(2500)]
    filled(store, bodies)
    whole = path_of(store).read_bytes()
    dice = random.Random(5)
    for at in (dice.randrange(whole.rindex(b"\t")) for _ in range(60)):
        path_of(store).write_bytes(whole[:at] + bytes([whole[at] ^ (1 << dice.randrange(8))]) + whole[at + 1 :])
        line = whole[whole.rfind(b"\n", 0, at) + 1 : at + 1]
        seen = _seen(store)
        assert isinstance(seen, int)
        if not line.startswith(b"\t"):
            assert (
                seen == sum(not one.startswith(b"\t") for one in whole[: at + 1].split(b"\n")) - (whole[at] == 10) - 1
            )


def test_what_is_missing_in_the_middle_is_damage(store):
    filled(store, *BATCHES)
    whole = path_of(store).read_bytes()
    lines = whole.splitlines(keepends=True)
    for index in range(len(lines) - 1):
        path_of(store).write_bytes(b"".join(lines[:index] + lines[index + 1 :]))
        assert not isinstance(_seen(store), tuple)
        path_of(store).write_bytes(b"".join([*lines[:index], lines[index], *lines[index:]]))
        assert not isinstance(_seen(store), tuple)


def test_a_batch_that_stands_there_twice_is_damage(store):
    filled(store, *BATCHES)
    whole = path_of(store).read_bytes()
    path_of(store).write_bytes(whole + whole[whole.index(b'{"f":6}') :])
    assert _seen(store) is None


def test_records_of_one_conversation_do_not_pass_for_another_s(store):
    filled(store, *BATCHES)
    other = Key("default", "other")
    filled(store, ["x"], key=other)
    path_of(store).write_bytes(path_of(store, other).read_bytes())
    assert _seen(store) is None


def test_what_is_sound_is_readable_beside_damage(store):
    head = filled(store, *([f"body {number}"] for number in range(2000)))
    whole = path_of(store).read_bytes()
    path_of(store).write_bytes(whole.replace(b"body 1000\n", b"body 1O00\n"))
    assert [record.position for record in store.read(KEY, start=990, stop=1000).records] == [*range(990, 1000)]
    assert [record.body for record in store.read(KEY, start=1001, stop=1003).records] == ["body 1001", "body 1002"]
    assert store.read(KEY, start=-20).head == head
    with pytest.raises(CorruptRecord) as caught:
        store.read(KEY, start=995, stop=1005)
    assert (caught.value.position, caught.value.key) == (1000, KEY)
    assert "body" not in str(caught.value)
    with pytest.raises(CorruptRecord):
        store.forget(KEY, before=500)
    assert path_of(store).read_bytes() == whole.replace(b"body 1000\n", b"body 1O00\n")
    head = store.append(KEY, ["more"], after=head, stamp=stamp())
    assert store.forget(KEY, before=1001).start == 1001
    assert bodies_of(store) == [*(f"body {n}" for n in range(1001, 2000)), "more"]


def test_a_damaged_seal_costs_no_more_than_the_records_it_may_concern(store):
    filled(store, *([f"body {number}"] for number in range(2000)))
    whole = path_of(store).read_bytes()
    path_of(store).write_bytes(whole.replace(b'"end":1001,', b'"end":9001,'))
    for low in range(950, 1050):
        if low in (1000, 1001):
            with pytest.raises(CorruptRecord) as caught:
                store.read(KEY, start=low, stop=low + 1)
            assert caught.value.position == 1000
        else:
            assert [record.body for record in store.read(KEY, start=low, stop=low + 1).records] == [f"body {low}"]


def test_a_damaged_file_does_not_hide_the_keys(store):
    filled(store, ["1"], key=Key("default", "good"))
    filled(store, ["1"])
    path_of(store).write_bytes(path_of(store).read_bytes()[:-3] + b"xx\n")
    assert sorted(store.keys()) == [Key("default", "good"), KEY]
