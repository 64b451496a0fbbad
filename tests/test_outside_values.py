"""Arguments, cursors, URLs and configuration files with values of any type and size."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import Mapping

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import chat_on, numbered, user
from hostile_values import DEEP, HUGE, values
from hypothesis import given, settings
from hypothesis import strategies as st

from chathistory import AsyncChatEngine, ChatEngine, Entry, History, StoreURL, open_store
from chathistory.config.load import load_settings
from chathistory.errors import ChatHistoryError, ConfigError, InvalidInput
from chathistory.log.entry import encode
from chathistory.log.events import Cut, MessageAdded, Rewind, TurnOpened
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.testing import FakeMessagesAPI
from chathistory.trimming import LastTurns, MaxAge, TokenBudget

# Objects with `to_dict`.


class FakeSDKObject:
    """Looks like an object of the SDK, and returns or raises the value that it is created with."""

    model_fields_set = frozenset()

    def __init__(self, made):
        self.made = made

    def to_dict(self, **_):
        if isinstance(self.made, BaseException):
            raise self.made
        return self.made


def make_endless_object():
    sdk_object = FakeSDKObject(None)
    sdk_object.made = {"role": "user", "content": [sdk_object]}
    return sdk_object


def make_circle():
    made = {"role": "user"}
    made["content"] = [made]
    return made


class FailingMapping(Mapping):
    def __getitem__(self, name):
        raise OSError

    def __iter__(self):
        return iter(["role", "content"])

    def __len__(self):
        return 2


SECRET = "what nobody may see"
ODD = [
    *(
        lambda error=error: FakeSDKObject(error)
        for error in (ValueError(SECRET), KeyError(SECRET), RecursionError(SECRET))
    ),
    *(
        lambda made=made: FakeSDKObject(made)
        for made in (None, 5, "text", [], b"x", [SECRET], float("nan"), FakeSDKObject({}))
    ),
    lambda: FakeSDKObject({"role": "user", "content": float("nan")}),
    lambda: FakeSDKObject({"role": "user", "content": [{"type": "text", "text": object()}]}),
    lambda: FakeSDKObject({5: 6}),
    make_endless_object,
    make_circle,
    lambda: FakeSDKObject(make_circle()),
    FailingMapping,
    lambda: FakeSDKObject(FailingMapping()),
    lambda: user(FakeSDKObject(ValueError(SECRET))),
    lambda: {"role": "user", "content": [{"type": "text", "text": "x", "more": FailingMapping()}]},
]


@pytest.mark.parametrize("make", ODD)
def test_a_hostile_object_is_refused(make):
    with MemoryStore() as store:
        for given in (make(), [user("x"), make()]):
            with pytest.raises(InvalidInput) as caught:
                chat_on(store).append(given)
            seen = caught.value
            while seen is not None:
                assert SECRET not in str(seen)
                seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        with pytest.raises(InvalidInput):
            chat_on(store).annotate(metadata={"a": make()} if not isinstance(make(), dict) else {"a": FakeSDKObject(5)})
        assert list(store.keys()) == []


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), RecursionError(SECRET), None, 5, []], ids=lambda error: type(error).__name__
)
def test_a_hostile_tool_is_refused_before_anything_is_stored(error):
    with MemoryStore() as store, FakeMessagesAPI().client() as client:
        with pytest.raises(InvalidInput, match="tools"):
            ChatEngine(client, store, model="claude-sonnet-5-5", tools=[FakeSDKObject(error)]).send("c", "hello")
        assert list(store.keys()) == []


# Arguments of another type.

NOT_INTS = (True, 1.0, 1.5, "1", b"1", [1], {}, uuid.UUID(int=1), 10**30, -(10**5000))
NOT_TEXTS = (5, True, 1.5, b"x", ["x"], {"x": 1}, uuid.UUID(int=1))
NUMBERS = [
    ("to", lambda chat, value: chat.rewind(to=value)),
    ("before", lambda chat, value: chat.forget(before=value)),
    ("at", lambda chat, value: chat.fork("other", at=value)),
    ("start", lambda chat, value: chat.entries(value)),
    ("stop", lambda chat, value: chat.entries(0, value)),
    ("count", lambda chat, value: chat.last_entries(value)),
    ("count", lambda chat, value: chat.last_messages(value)),
    ("before", lambda chat, value: chat.last_entries(1, before=value)),
    ("position", lambda chat, value: chat.variants(value)),
    ("position", lambda chat, value: chat.choose(value)),
    ("position", lambda chat, value: chat.leave_out(value)),
    ("block", lambda chat, value: chat.leave_out(1, block=value)),
    ("limit", lambda chat, value: History(chat.log.store).list(limit=value)),
]


@pytest.fixture(params=["memory", "file"])
def stored(request, tmp_path):
    """A conversation of six messages."""
    with open_store("memory:" if request.param == "memory" else f"file:{tmp_path}/store") as store:
        numbered(chat_on(store), 6)
        yield chat_on(store)


def read_lines(chat):
    return [record.body for record in chat.log.store.read(chat.log.key).records]


@pytest.mark.parametrize(("name", "call"), NUMBERS)
def test_a_value_that_is_not_an_int_is_refused_and_nothing_changes(stored, name, call):
    before = read_lines(stored)
    for value in NOT_INTS:
        with pytest.raises(InvalidInput, match=rf"^{name}: must be an int"):
            call(stored, value)
    assert read_lines(stored) == before
    assert len(stored.messages()) == 6
    assert stored.repair() == ()


def test_none_is_refused_where_an_int_is_required(stored):
    for call in (
        lambda: stored.rewind(to=None),
        lambda: stored.forget(before=None),
        lambda: stored.entries(None),
        lambda: stored.last_entries(None),
        lambda: stored.variants(None),
        lambda: stored.choose(None),
        lambda: History(stored.log.store).list(limit=None),
    ):
        with pytest.raises(InvalidInput, match=r": must be an int"):
            call()


def test_an_error_does_not_quote_the_value(stored):
    with pytest.raises(InvalidInput) as caught:
        stored.leave_out(SECRET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", NOT_TEXTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["turn_id", "expected"])
def test_a_value_that_is_not_text_is_refused_before_anything_is_stored_or_sent(value, name):
    with MemoryStore() as store, FakeMessagesAPI(["hi", "there"]).client() as client:
        engine = ChatEngine(client, store, model="claude-sonnet-5-5")
        engine.send("a", "hello")
        before = read_lines(chat_on(store, "a"))
        for call in (
            lambda: engine.send("a", "x", **{name: value}),
            lambda: engine.send("new", "x", **{name: value}),
            lambda: engine.regenerate("a", **{name: value}),
            lambda: engine.stream("a", "x", **{name: value}).__enter__(),
            lambda: engine.stream_regenerated("a", **{name: value}).__enter__(),
        ):
            with pytest.raises(InvalidInput, match=rf"^{name}: must be text, not "):
                call()
        assert read_lines(chat_on(store, "a")) == before
        assert list(store.keys()) == [chat_on(store, "a").log.key]


@pytest.mark.parametrize("value", NOT_TEXTS, ids=lambda value: type(value).__name__)
def test_a_version_or_key_that_is_not_text_is_refused(stored, value):
    history, before = History(stored.log.store), read_lines(stored)
    for call in (
        lambda: stored.append(user("x"), expected=value),
        lambda: stored.rewind(to=2, expected=value),
        lambda: stored.choose(1, expected=value),
        lambda: stored.forget(before=2, expected=value),
        lambda: history.delete(stored.id, expected=value),
    ):
        with pytest.raises(InvalidInput, match=r"^expected: must be text, not "):
            call()
    with pytest.raises(InvalidInput, match=r"^key: must be text"):
        stored.append(user("x"), key=value)
    assert read_lines(stored) == before


WRONG_ARGUMENTS = {
    "tools": lambda chat: chat.view(tools=1),
    "policy": lambda chat: chat.trim(None),
    "policy: must be a policy": lambda chat: chat.trim(LastTurns),
    "title": lambda chat: History(chat.log.store).list(title=5),
    "model": lambda chat: History(chat.log.store).list(model=5),
    "metadata": lambda chat: History(chat.log.store).list(metadata=5),
    "since": lambda chat: History(chat.log.store).list(since=5),
    "tag": lambda chat: History(chat.log.store).list(tag=5),
    "tag: must be text": lambda chat: History(chat.log.store).list(tag=[["a"]]),
    "file": lambda chat: History(chat.log.store).import_from(None),
    "file: must be a path": lambda chat: History(chat.log.store).export_to(None),
    "LastTurns": lambda _: LastTurns("5", 2),
    "LastTurns: low": lambda _: LastTurns(5, 1.5),
    "TokenBudget": lambda _: TokenBudget(None, 2),
    "MaxAge": lambda _: MaxAge(high=True, low=True),
}


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_an_argument_of_another_type_is_refused_with_its_name(stored, name):
    with pytest.raises(InvalidInput, match=f"^{name}"):
        WRONG_ARGUMENTS[name](stored)


class UnprintableError(Exception):
    def __str__(self):
        raise OSError(SECRET)


def test_results_of_another_type_are_refused_and_an_error_without_text_is_sent_by_its_name():
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    api = FakeMessagesAPI([[call], "done"])
    with MemoryStore() as store, api.client() as client:
        engine = ChatEngine(client, store, model="claude-sonnet-5-5", tools=[{"name": "f", "input_schema": {}}])
        reply = engine.send("c", "hello")
        for given, name in (((reply, None), "results"), ((reply, [1]), "results"), ((None, {"a": "x"}), "reply")):
            with pytest.raises(InvalidInput, match=f"^{name}: must be"):
                engine.submit("c", *given)
        assert engine.submit("c", reply, {"a": UnprintableError()}).text == "done"
        [block] = chat_on(store, "c").messages()[2]["content"]
        assert (block["content"], block["is_error"]) == ("UnprintableError", True)


LOOP = []
LOOP.append(LOOP)
WRONG_SETTINGS = [
    *(
        ("turn_timeout", value)
        for value in (-1e30, -(2**70), 0, float("inf"), float("nan"), 10**400, "600", None, True)
    ),
    *(("max_tokens", value) for value in ("x", None, -1, 0, 1.5, True)),
    *(("model", value) for value in (b"x", None, 5, LOOP)),
    *(("tools", value) for value in (1, LOOP)),
    ("system", LOOP),
    ("options", {"thinking": LOOP}),
]


@pytest.mark.parametrize(("name", "value"), WRONG_SETTINGS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("engine", [ChatEngine, AsyncChatEngine])
def test_settings_that_cannot_work_are_refused_when_an_engine_is_created(engine, name, value):
    api = FakeMessagesAPI()
    client = api.client() if engine is ChatEngine else api.async_client()
    with MemoryStore() as store, pytest.raises(InvalidInput, match=f"^{name}"):
        engine(client, store, **{"model": "claude-sonnet-5-5", name: value})


@pytest.mark.parametrize(
    "entry",
    [
        make_entry("message", message=user("x"), turn=5),
        Entry(MessageAdded({"role": "user", "content": 5})),
        Entry(Rewind(to=1, path=((0, 1.0),), tokens=0, messages=1, turns=1)),
        Entry(TurnOpened(lease_until=-1)),
        Entry(
            Cut(view_start=0, hidden_turns=0, view_since=0, tokens=0, preamble_tokens=0, trimmed_turn_ids=3),
        ),
    ],
    ids=lambda entry: entry.kind,
)
def test_an_entry_that_would_be_read_as_damaged_is_not_stored(stored, entry):
    before = read_lines(stored)
    with pytest.raises(InvalidInput):
        encode(entry)
    with pytest.raises(InvalidInput):
        stored.log.append([entry])
    assert read_lines(stored) == before


# Cursors.


def make_cursor(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


NO_PAIRS = (None, 5, [], [1], [1, 2, 3], ["1", "a"], [1, 5], [True, "a"], {"a": 1}, [1.5, "a"])
CURSORS = [
    *map(make_cursor, NO_PAIRS),
    *(make_cursor([number, "a"]) for number in (-1, 2**53, HUGE)),
    *(make_cursor([1, name]) for name in ("", "x" * 256, "\x00", "a\nb", "\ud800", None)),
    *(base64.urlsafe_b64encode(text.encode()).decode() for text in (DEEP, "[1,", "NaN", '[NaN,"a"]')),
    *("", "=", "====", "%%%", "ü", "\ud800", "a b", "\x00"),
]


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda cursor: repr(cursor)[:50])
def test_a_cursor_of_another_origin_is_refused(cursor):
    with MemoryStore() as store:
        numbered(chat_on(store), 1)
        with pytest.raises(InvalidInput, match="cursor"):
            History(store).list(after=cursor)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()) | values.map(make_cursor))
def test_any_text_is_decoded_as_a_cursor_or_refused(cursor):
    try:
        updated, name = decode_cursor(cursor)
    except InvalidInput:
        return
    assert 0 <= updated < 2**53
    assert 1 <= len(name) <= 255


def test_the_cursor_of_a_page_is_accepted():
    with MemoryStore() as store:
        for name in ("a", "Ж" * 255, "\U0001f600 \u00a0\u202e"):
            chat = chat_on(store, name)
            chat.append(user("x"))
            head = chat.log.last_head
            assert decode_cursor(encode_cursor(head)) == (head.revision.updated, name)


# URLs.

SCHEMES = ("memory", "file", "redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "mongodb", "s3", "nobody")
urls = st.one_of(
    st.text(max_size=60),
    st.builds(
        lambda scheme, rest: f"{scheme}:{rest}",
        st.sampled_from(SCHEMES),
        st.text(alphabet=st.sampled_from("abz09/:@?&=%#[].,;+-_ \x00\ud800ü\n"), max_size=50),
    ),
    st.builds(
        lambda scheme, host, name, value: f"{scheme}://{host}?{name}={value}",
        st.sampled_from(SCHEMES),
        st.sampled_from(["localhost", "localhost:99999", "a:b@c", "[::1", "h:x", "h:-1", ""]),
        st.sampled_from(["ttl", "prefix", "lock_timeout", "endpoint_url", "timeout", "bucket", "w"]),
        st.text(max_size=12) | st.sampled_from(["nan", "inf", "-1", "1e999", "9" * 5000, "%00", "\ud800"]),
    ),
)


@settings(max_examples=400, deadline=None)
@given(urls)
def test_any_url_is_opened_or_refused(url):
    with contextlib.suppress(ConfigError):
        assert isinstance(str(StoreURL.parse(url)), str)
        open_store(url).close()


@pytest.mark.parametrize("url", [None, 5, b"memory:", [], {}, object()], ids=lambda url: type(url).__name__)
def test_a_value_that_is_not_a_url_is_refused(url):
    with pytest.raises(ConfigError):
        open_store(url)


# Configuration.

toml_scalars = st.one_of(
    st.booleans().map(lambda value: "true" if value else "false"),
    st.integers().map(str),
    st.floats().map(lambda value: {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), str(value))),
    st.text(alphabet="ab:=${}/@?&%1., ", max_size=20).map(json.dumps),
    st.sampled_from(
        ["2026-01-31", "2026-01-31T12:00:00Z", "12:00:00", "[]", "{}", "[1, [2]]", '{a = "b"}', "9" * 5000]
    ),
)
documents = st.lists(
    st.builds(
        lambda name, value: f"{name} = {value}",
        st.sampled_from(
            [
                *("store", "scope", "model", "system", "max_tokens", "trimming", "context_editing"),
                *("profile", "profiles", "store_options", "store_options.ttl", "profiles.a.store", "profiles.a", "x"),
                *("trimming.enabled", "trimming.trigger_tokens", "trimming.keep_tokens", "trimming.trigger_age"),
                *("trimming.keep_age", "trimming.compaction", "context_editing.compact"),
                *("context_editing.clear_thinking", "profiles.a.trimming.keep_turns"),
            ]
        ),
        toml_scalars,
    ),
    max_size=4,
).map("\n".join)


@settings(max_examples=300, deadline=None)
@given(documents | st.text(max_size=80))
def test_any_configuration_is_read_or_refused(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("config") / "chathistory.toml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    with contextlib.suppress(ConfigError):
        load_settings(config=file)


@pytest.mark.parametrize(
    "text",
    [
        f"scope = {'[' * 5000}",
        f"scope = {'[' * 5000}{']' * 5000}",
        "a." * 5000 + "b = 1",
        f"max_tokens = {'9' * 5000}",
        "max_tokens = 1e400",
        "profile = 5",
        "profiles = 5",
        "profiles.a = 5",
        "store_options = 5",
        "trimming = {x = 1}",
        "trimming = []",
        "trimming.keep_tokens = {}",
        "trimming = {compaction = 2026-01-31}",
        "context_editing.compact = [{}]",
        "context_editing = [[]]",
        "\x00",
    ],
    ids=lambda text: text[:30],
)
def test_a_hostile_configuration_is_refused(tmp_path, text):
    file = tmp_path / "chathistory.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_settings(config=file)


def test_all_these_errors_are_errors_of_chathistory():
    assert issubclass(ConfigError, ChatHistoryError)
    assert issubclass(InvalidInput, ChatHistoryError)
