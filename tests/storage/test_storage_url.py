"""Store URLs: they are split by one rule, options are converted, and secrets are never shown."""

from __future__ import annotations

import pytest

from chathistory import Option, StoreURL, open_store
from chathistory.errors import ConfigError
from chathistory.storage.url import parse_boolean, parse_seconds

SECRET = "pa55word"

URLS = [
    f"redis://user:{SECRET}@host:6379/0",
    f"redis://:{SECRET}@host",
    f"REDIS://user:{SECRET}@host",
    f"redis://user:a@{SECRET}@host",
    f"redis://user:{SECRET}@@host",
    f"redis://user:{SECRET}/x@host",
    f"redis://user:a/{SECRET}@host/0",
    f"redis://user:{SECRET}#x@host",
    f"redis://user:a#{SECRET}@host",
    f"redis://user:a?{SECRET}@host",
    f"redis://user:{SECRET}?x@host/0?ttl=3",
    f"redis://user:a&{SECRET}@host",
    f"redis://user:a?b&{SECRET}=c@host",
    f"redis://user:{SECRET}\n@host",
    f"redis://user:a\n{SECRET}@host",
    f"redis://user:{SECRET}%40@host",
    f"redis://{SECRET}@host",
    f"redis:user:{SECRET}@host",
    f"redis:/user:{SECRET}@host",
    f"redis:///user:{SECRET}@host",
    f"redis+cluster://a:{SECRET}@h1,b:{SECRET}@h2/0",
    f"mongodb://u:{SECRET}@[::1]:27017/db",
    f"redis://host?password={SECRET}",
    f"redis://host?ttl={SECRET}",
    f"redis://host?a={SECRET}&a={SECRET}",
    f"memory:?ttl={SECRET}",
    f"memory:?password={SECRET}",
    f"memory:?ttl=1&ttl={SECRET}",
    f"://user:{SECRET}@host",
    f"user:{SECRET}@host",
    f"//user:{SECRET}@host",
    f" redis://user:{SECRET}@host",
    f"re dis://user:{SECRET}@host",
    f"no-such-backend://user:{SECRET}@host?x={SECRET}",
    SECRET,
]


def collect_texts(url):
    """Return all texts that show a URL: its own text, and the errors of opening it."""
    texts = []
    try:
        parsed = StoreURL.parse(url)
        texts += [str(parsed), repr(parsed), f"{parsed}", f"{[parsed]}"]
    except ConfigError as error:
        texts += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    try:
        open_store(url).close()
    except ConfigError as error:
        texts += [str(error), repr(error), repr(error.__cause__)]
    return texts


@pytest.mark.parametrize("url", URLS)
def test_a_secret_is_never_shown(url):
    texts = collect_texts(url)
    assert texts
    assert [text for text in texts if SECRET in text] == []


def test_the_error_of_an_option_does_not_quote_its_value():
    with pytest.raises(ConfigError) as wrong:
        StoreURL.parse("x:", port=SECRET).parse_options({"port": Option(int, 1, "a number")})
    assert SECRET not in str(wrong.value)
    assert "port" in str(wrong.value)
    assert wrong.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "scheme", "location", "path"),
    [
        ("file:./a", "file", "./a", "./a"),
        ("FILE:./A", "file", "./A", "./A"),
        ("file:///a/b", "file", "///a/b", "/a/b"),
        ("file:/a b/ü", "file", "/a b/ü", "/a b/ü"),
        ("file:C:\\a", "file", "C:\\a", "C:\\a"),
        ("file:a%3Fb%23", "file", "a%3Fb%23", "a?b#"),
        ("file:a#b@c", "file", "a#b@c", "a#b@c"),
        ("memory:", "memory", "", ""),
        ("redis+cluster://h:1,h:2/0", "redis+cluster", "//h:1,h:2/0", "h:1,h:2/0"),
    ],
)
def test_a_url_is_split_into_its_parts(text, scheme, location, path):
    url = StoreURL.parse(text)
    assert (url.scheme, url.location, url.path, url.options) == (scheme, location, path, {})
    assert str(url) == f"{scheme}:{location}" or "@" in location


def test_options_of_the_url_and_of_the_code_are_joined():
    url = StoreURL.parse("x:a?ttl=1&b=%26%3D&c&d=e=f&&", g=7)
    assert url.location == "a"
    assert url.options == {"ttl": "1", "b": "&=", "c": "", "d": "e=f", "g": 7}
    for text, more in (("x:?a=1&a=2", {}), ("x:?a=1", {"a": 1})):
        with pytest.raises(ConfigError, match="twice"):
            StoreURL.parse(text, **more)


@pytest.mark.parametrize("text", ["", ":", "memory", "1x:", "-x:", "a b:", ":memory", "ü:", "./history", "/a:b"])
def test_text_without_a_scheme_is_refused(text):
    with pytest.raises(ConfigError):
        StoreURL.parse(text)


def test_options_are_converted_and_get_their_defaults():
    declared = {
        "ttl": Option(parse_seconds, None, ""),
        "sync": Option(parse_boolean, default=True, help=""),
        "size": Option(int, 5, ""),
    }
    converted = StoreURL.parse("x:?ttl=1.5&sync=No").parse_options(declared)
    assert converted.options == {"ttl": 1.5, "sync": False, "size": 5}
    with pytest.raises(ConfigError, match="'tll'; did you mean 'ttl'") as unknown:
        StoreURL.parse("x:?tll=1").parse_options(declared)
    assert "size, sync, ttl" in str(unknown.value)
    with pytest.raises(ConfigError, match="known: none"):
        StoreURL.parse("x:?zz=1").parse_options({})


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "nan", "inf", "-inf", "", "1x", None, [], 10**400, "1" * 400],
    ids=lambda value: repr(value)[:9],
)
def test_seconds_are_positive_and_finite(value):
    with pytest.raises(ConfigError, match="ttl"):
        open_store("memory:", ttl=value)


@pytest.mark.parametrize(("value", "expected"), [("1", 1.0), (2, 2.0), ("0.001", 0.001), (1e6, 1e6), ("12h", 43_200.0)])
def test_the_time_to_live_is_converted(value, expected):
    with open_store("memory:", ttl=value) as store:
        assert store.ttl == expected


@pytest.mark.parametrize("value", ["maybe", "", "2", None, 2, "truee"])
def test_a_value_that_is_neither_true_nor_false_is_refused(value):
    with pytest.raises(ValueError):
        parse_boolean(value)
    assert [parse_boolean(word) for word in ("YES", "on", 1, True)] == [True] * 4
    assert [parse_boolean(word) for word in ("No", "off", 0, False)] == [False] * 4


@pytest.mark.parametrize("url", [None, 5, b"memory:"])
def test_a_value_that_is_not_a_url_is_refused(url):
    with pytest.raises(ConfigError):
        open_store(url)
