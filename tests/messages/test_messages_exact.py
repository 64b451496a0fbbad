"""Messages are read back exactly as they were passed in, or refused with the name of the field."""

from __future__ import annotations

import copy
import enum
import json
import math
import re
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from anthropic.types import Message, TextBlock, ToolUseBlock
from draw_examples import draw_examples
from entry_factory import make_entry
from faulty_stores import chat_on
from hypothesis import given, settings
from hypothesis import strategies as st
from message_kinds import KINDS, RESPONSE, same, sdk_message
from platforms import needs_posix

from chathistory import History, Key, Record, open_store
from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.entry import compute_checksum, decode, encode
from chathistory.messages.json_text import to_json_text
from chathistory.messages.json_values import is_storable, to_plain_json

KEY = Key("default", "c")


@pytest.fixture(params=["memory", pytest.param("file", marks=needs_posix)])
def store(request, tmp_path):
    url = "memory:" if request.param == "memory" else f"file:{tmp_path / 'history'}"
    with open_store(url) as store:
        yield store


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_message_is_read_back_unchanged(store, kind):
    given_in = kind.given()
    before = copy.deepcopy(given_in)
    chat_on(store).append(given_in)
    assert given_in == before
    [entry] = History(store).conversation("c").entries()
    assert same(entry.message, kind.stored())
    assert (entry.kind, entry.position) == ("message", 0)


def test_all_kinds_in_one_batch_are_read_back_in_order(store):
    chat_on(store).append([kind.given() for kind in KINDS])
    found = [entry.message for entry in chat_on(store).entries()]
    assert all(same(one, kind.stored()) for one, kind in zip(found, KINDS, strict=True))
    assert [entry.position for entry in chat_on(store).entries()] == list(range(len(KINDS)))


def test_the_other_fields_of_a_response_are_stored_next_to_the_message(store):
    reply = sdk_message()
    reply._request_id = "req_1"
    chat_on(store).append(reply)
    [entry] = chat_on(store).entries()
    dumped = reply.to_dict(mode="json", warnings=False)
    rebuilt = {"type": "message"} | entry.data["response"] | entry.message
    assert rebuilt == dumped
    assert entry.data["response"].keys().isdisjoint({"content", "role", "type"})
    assert entry.data["request_id"] == "req_1"
    assert entry.message.keys() == {"role", "content"}


def test_a_validated_sdk_message_is_stored_as_it_was_received(store):
    wire = {**RESPONSE, "content": RESPONSE["content"][:3], "container": None}
    chat_on(store).append(Message.model_validate(wire))
    [entry] = chat_on(store).entries()
    assert entry.message == {"role": "assistant", "content": wire["content"]}
    assert entry.data["response"]["usage"] == wire["usage"]


def test_a_lone_surrogate_in_an_sdk_object_is_kept(store):
    block = TextBlock.construct(type="text", text="half \ud83d")
    chat_on(store).append({"role": "assistant", "content": [block]})
    [entry] = chat_on(store).entries()
    assert entry.message["content"] == [{"type": "text", "text": "half \ud83d"}]


def test_changes_of_a_message_after_the_append_do_not_change_the_store(store):
    message = {"role": "user", "content": [{"type": "text", "text": "before"}]}
    chat = chat_on(store)
    chat.append(message)
    message["content"][0]["text"] = "after"
    chat.messages()[0]["content"][0]["text"] = "mine"
    chat.last_messages(1)[0]["content"].clear()
    assert chat.messages() == [{"role": "user", "content": [{"type": "text", "text": "before"}]}]


def test_tuples_and_mappings_are_lists_and_dicts():
    values = to_plain_json(MappingProxyType({"a": (1, MappingProxyType({"b": ()}))}))
    assert same(values, {"a": [1, {"b": []}]})
    assert type(values) is dict
    assert type(values["a"]) is list


class Colour(str, enum.Enum):  # noqa: UP042  # not StrEnum: the str() of this kind is not its value
    RED = "red"


class Size(enum.IntEnum):
    BIG = 7


class Weight(float, enum.Enum):
    HEAVY = 1.5


def test_enumerations_that_are_text_or_numbers_are_their_values():
    values = to_plain_json({"colour": Colour.RED, Colour.RED: Size.BIG, "weight": Weight.HEAVY})
    assert same(values, {"colour": "red", "red": 7, "weight": 1.5})
    assert {type(value) for value in values.values()} == {str, int, float}


def test_times_of_the_sdk_are_written_as_the_api_writes_them():
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert to_json_text({"at": [time]}) == '{"at":["2026-01-02T03:04:05Z"]}'


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**5000], ids=["NaN", "infinity", "5,001 digits"])
def test_a_value_with_a_number_that_is_not_json_is_not_storable(value):
    assert not is_storable({"a": [1, value]})
    assert is_storable({"a": [1, 2.5, 10**3800]})


SECRET = "the-words-nobody-may-see"


def _tool(value):
    return {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": SECRET, "input": {"a": [value]}}]}


def _nested(depth):
    value = [SECRET]
    for _ in range(depth):
        value = [value]
    return value


def _cycle():
    value = [SECRET]
    value.append(value)
    return value


class NotOfTheSDK:
    def to_dict(self):
        return {"role": "user", "content": SECRET}


TEXT = {"type": "text", "text": SECRET}
REFUSED = {
    "NaN": (_tool(math.nan), "message.content[0].input.a[0]"),
    "infinity": (_tool(math.inf), "message.content[0].input.a[0]"),
    "minus infinity": (_tool(-math.inf), "message.content[0].input.a[0]"),
    "number as key": (_tool({1: SECRET}), "message.content[0].input.a[0]"),
    "None as key": (_tool({None: SECRET}), "message.content[0].input.a[0]"),
    "bytes as key": (_tool({b"x": SECRET}), "message.content[0].input.a[0]"),
    "bytes": (_tool(SECRET.encode()), "message.content[0].input.a[0]"),
    "datetime": (_tool(datetime.now(UTC)), "message.content[0].input.a[0]"),
    "set": (_tool({SECRET}), "message.content[0].input.a[0]"),
    "object": (_tool(object()), "message.content[0].input.a[0]"),
    "class": (_tool(TextBlock), "message.content[0].input.a[0]"),
    "object with a to_dict of its own": (_tool(NotOfTheSDK()), "message.content[0].input.a[0]"),
    "too deep": (_tool(_nested(250)), "message.content[0].input.a"),
    "far too deep": (_tool(_nested(50_000)), "message.content[0].input.a"),
    "cycle": (_tool(_cycle()), "message.content[0].input.a"),
    "5,000 digits": (_tool(10**4999), "message.content[0].input.a[0]"),
    "minus 5,000 digits": (_tool(-(10**4999)), "message.content[0].input.a[0]"),
    "no role": ({"content": SECRET}, "message.role"),
    "bad role": ({"role": SECRET, "content": SECRET}, "message.role"),
    "role that is no text": ({"role": ["user"], "content": SECRET}, "message.role"),
    "no content": ({"role": "user"}, "message.content"),
    "content None": ({"role": "user", "content": None}, "message.content"),
    "content of a number": ({"role": "user", "content": 5}, "message.content"),
    "content as a dict": ({"role": "user", "content": {"type": "text", "text": SECRET}}, "message.content"),
    "block that is text": ({"role": "user", "content": [TEXT, SECRET]}, "message.content[1]"),
    "block without type": ({"role": "user", "content": [TEXT, {"text": SECRET}]}, "message.content[1]"),
    "block of type 5": ({"role": "user", "content": [TEXT, {"type": 5}]}, "message.content[1]"),
    "text": (SECRET, "message"),
    "None": (None, "message"),
    "tuple of text": ((SECRET,), "message"),
    "empty list": ([], "messages: must hold at least one message"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_cannot_be_stored_is_refused_with_its_field(store, name):
    message, field = REFUSED[name]
    chat = chat_on(store)
    batches = [message] if message == [] else [message, [{"role": "user", "content": "fine"}, message]]
    for batch in batches:
        with pytest.raises(InvalidInput) as refused:
            chat.append(batch)
        assert field in str(refused.value)
        assert SECRET not in str(refused.value)
    assert store.read(KEY) is None
    assert list(store.keys()) == []
    assert chat.state() is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_json_is_refused_within_an_sdk_object_too(value):
    """The SDK's own dump turns it into null, which would be stored silently."""
    block = ToolUseBlock.construct(type="tool_use", id="t", name="f", input={"x": value})
    with open_store("memory:") as store, pytest.raises(InvalidInput):
        chat_on(store).append({"role": "assistant", "content": [block]})


def test_an_error_stays_readable_whatever_a_key_is():
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"k" * 100_000: math.nan}}
    with open_store("memory:") as store, pytest.raises(InvalidInput) as refused:
        chat_on(store).append({"role": "assistant", "content": [block]})
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("value", [True, False, None, 1, 1.0, 10**3800, "", [], {}])
def test_every_json_value_is_accepted(value):
    assert same(decode(Record(0, encode(make_entry("annotation", data={"v": value}))), KEY).data["v"], value)


SPECIAL = st.sampled_from(["\ud800", "\udfff", "😀", "\u2028", "\x00", "\\ud800", '"', "\\", "\x7f", "\x85", "\ufeff"])
TEXTS = st.lists(st.one_of(SPECIAL, st.characters(codec=None, exclude_categories=())), max_size=8).map("".join)
TEXTS = TEXTS.filter(lambda text: not re.search("[\ud800-\udbff][\udc00-\udfff]", text))  # has its own test
NUMBERS = st.one_of(st.integers(-(2**200), 2**200), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


@draw_examples(150, 600, st.dictionaries(TEXTS, VALUES, max_size=4))
def test_any_json_is_read_back_from_its_line_or_refused(values):
    message = {"role": "user", "content": [{"type": "any", "value": values}]}
    try:
        line = encode(make_entry("message", message=to_plain_json(message), turn="t"))
    except InvalidInput:
        return
    line.encode()
    assert not any(ord(char) < 32 for char in line)
    found = decode(Record(3, line), KEY)
    assert same(found.message, message)
    assert found.position == 3
    assert found.surrogates or not any("\ud800" <= char <= "\udfff" for char in json.dumps(values, ensure_ascii=False))


@pytest.mark.parametrize(("text", "stored"), [("😀", "😀"), ("\ud83d", "\ud83d"), ("\ud83d\ude00", "😀")])
def test_a_lone_surrogate_is_kept_and_a_pair_becomes_its_character(text, stored):
    """Two surrogates in a row are two characters in Python and one in JSON, which cannot express them separately."""
    line = encode(make_entry("message", message=to_plain_json({"role": "user", "content": text})))
    assert decode(Record(0, line), KEY).message["content"] == stored


def _line(text="Grüße, 😀!"):
    message = {"role": "user", "content": text}
    return encode(make_entry("message", message=message, data={"a": [1, 2.5]}, turn="turn-1", id="0" * 28, time_us=1))


def decode_changed(body):
    """Return the entry that is read from a line; None if the damage is detected, as it should be."""
    try:
        return decode(Record(7, body), KEY)
    except CorruptRecord as error:
        corrupt = error
    assert corrupt.position == 7
    assert "Grüße" not in str(corrupt)
    return None


def test_every_change_of_one_character_is_detected():
    line = _line()
    alphabet = [chr(code) for code in range(0x100)] + ["\u2028", "ü", "😀", "\ud800", "\uffff"]
    for index, char in enumerate(line):
        for other in alphabet:
            if other != char:
                assert decode_changed(line[:index] + other + line[index + 1 :]) is None


def test_every_lost_doubled_or_swapped_character_is_detected():
    line = _line()
    for index in range(len(line)):
        assert decode_changed(line[:index] + line[index + 1 :]) is None
        assert decode_changed(line[:index] + line[index] + line[index:]) is None
        assert decode_changed(line[:index]) is None
        swapped = line[:index] + line[index + 1 : index + 2] + line[index] + line[index + 2 :]
        assert swapped == line or decode_changed(swapped) is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_burst_of_32_bits_is_detected(data):
    """A CRC-32 guarantees this at any place, even if the result is not valid text."""
    raw = bytearray(_line().encode())
    index = data.draw(st.integers(0, len(raw) - 4))
    burst = data.draw(st.binary(min_size=4, max_size=4))
    if raw[index : index + 4] == burst:
        return
    raw[index : index + 4] = burst
    assert decode_changed(raw.decode("utf-8", "surrogateescape")) is None


@pytest.mark.parametrize(
    "line", ["", "{}", "null", "[]", '{"sum":"', '{"sum":"00000000"}', "x" * 50, '{"sum":"00000000",']
)
def test_a_line_of_another_program_counts_as_damaged(line):
    assert decode_changed(line) is None


def with_checksum(rest):
    return f'{{"sum":"{compute_checksum(rest)}"{rest}'


@pytest.mark.parametrize(
    "rest",
    [
        ',"v":2}',
        ',"v":2,"id":"x","kind":"message"',
        ",nonsense",
        "}",
        ',"v":2,"id":"x","kind":"message","at":0,"message":5}',
    ],
)
def test_a_line_with_the_right_checksum_and_the_wrong_form_counts_as_damaged(rest):
    assert decode_changed(with_checksum(rest)) is None


def test_a_line_of_a_later_version_can_be_read_raw_and_not_sent(store):
    chat = chat_on(store)
    chat.append({"role": "user", "content": "old"})
    chat.log.append([make_entry("hologram", version=3, data={"x": 1})])
    *_, entry = chat.entries()
    assert (entry.kind, entry.version, entry.position) == ("unknown", 3, 1)
    assert entry.data["data"] == {"x": 1}
    with pytest.raises(UnsupportedRecord) as refused:
        chat.messages()
    assert (refused.value.version, refused.value.position) == (3, 1)
    with pytest.raises(UnsupportedRecord):
        chat.last_messages(1)
