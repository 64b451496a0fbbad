"""Values from outside, of any type and size: objects of callers', cursors, URLs, configuration files."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping

import pytest
from chathistory_memory import MemoryStore
from core_faults import chat_on, numbered, user
from hypothesis import given, settings
from hypothesis import strategies as st
from test_core_hostile import DEEP, HUGE, values

from chathistory import ChatEngine, History, StoreURL, open_store
from chathistory.config.load import load_settings
from chathistory.cursor import decode_cursor, encode_cursor
from chathistory.errors import ChatHistoryError, ConfigError, InvalidInput
from chathistory.testing import MessagesAPI

# Objects with `to_dict`.


class Odd:
    """Looks like an object of the SDK, and gives whatever it is made with."""

    model_fields_set = frozenset()

    def __init__(self, made):
        self.made = made

    def to_dict(self, **_):
        if isinstance(self.made, BaseException):
            raise self.made
        return self.made


def endless():
    odd = Odd(None)
    odd.made = {"role": "user", "content": [odd]}
    return odd


def circle():
    made = {"role": "user"}
    made["content"] = [made]
    return made


class Spiteful(Mapping):
    def __getitem__(self, name):
        raise OSError

    def __iter__(self):
        return iter(["role", "content"])

    def __len__(self):
        return 2


SECRET = "what nobody may see"
ODD = [
    *(lambda error=error: Odd(error) for error in (ValueError(SECRET), KeyError(SECRET), RecursionError(SECRET))),
    *(lambda made=made: Odd(made) for made in (None, 5, "text", [], b"x", [SECRET], float("nan"), Odd({}))),
    lambda: Odd({"role": "user", "content": float("nan")}),
    lambda: Odd({"role": "user", "content": [{"type": "text", "text": object()}]}),
    lambda: Odd({5: 6}),
    endless,
    circle,
    lambda: Odd(circle()),
    Spiteful,
    lambda: Odd(Spiteful()),
    lambda: user(Odd(ValueError(SECRET))),
    lambda: {"role": "user", "content": [{"type": "text", "text": "x", "more": Spiteful()}]},
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
            chat_on(store).annotate(metadata={"a": make()} if not isinstance(make(), dict) else {"a": Odd(5)})
        assert list(store.keys()) == []


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), RecursionError(SECRET), None, 5, []], ids=lambda error: type(error).__name__
)
def test_a_hostile_tool_is_refused_before_anything_is_stored(error):
    with MemoryStore() as store, MessagesAPI().client() as client:
        with pytest.raises(InvalidInput, match="tools"):
            ChatEngine(client, store, model="claude-sonnet-5-5", tools=[Odd(error)]).send("c", "hello")
        assert list(store.keys()) == []


# Cursors.


def cursor_of(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


NO_PAIRS = (None, 5, [], [1], [1, 2, 3], ["1", "a"], [1, 5], [True, "a"], {"a": 1}, [1.5, "a"])
CURSORS = [
    *map(cursor_of, NO_PAIRS),
    *(cursor_of([number, "a"]) for number in (-1, 2**53, HUGE)),
    *(cursor_of([1, name]) for name in ("", "x" * 256, "\x00", "a\nb", "\ud800", None)),
    *(base64.urlsafe_b64encode(text.encode()).decode() for text in (DEEP, "[1,", "NaN", '[NaN,"a"]')),
    *("", "=", "====", "%%%", "ü", "\ud800", "a b", "\x00"),
]


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda cursor: repr(cursor)[:50])
def test_a_cursor_of_somebody_elses_is_refused(cursor):
    with MemoryStore() as store:
        numbered(chat_on(store), 1)
        with pytest.raises(InvalidInput, match="cursor"):
            History(store).recent(after=cursor)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()) | values.map(cursor_of))
def test_any_text_is_a_cursor_or_refused(cursor):
    try:
        updated, name = decode_cursor(cursor)
    except InvalidInput:
        return
    assert 0 <= updated < 2**53
    assert 1 <= len(name) <= 255


def test_a_cursor_that_was_given_is_taken():
    with MemoryStore() as store:
        for name in ("a", "Ж" * 255, "\U0001f600 \u00a0\u202e"):
            head = chat_on(store, name).append(user("x"))
            assert decode_cursor(encode_cursor(head)) == (head.stamp.updated, name)


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
def test_what_is_no_url_is_refused(url):
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
                *("store", "scope", "model", "system", "max_tokens", "trimming", "context_editing", "stand_in"),
                *("profile", "profiles", "store_options", "store_options.ttl", "profiles.a.store", "profiles.a", "x"),
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
        "trimming = {}",
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


def test_every_error_of_these_is_ours():
    assert issubclass(ConfigError, ChatHistoryError)
    assert issubclass(InvalidInput, ChatHistoryError)
