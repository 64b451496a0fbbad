"""Names that stores are known to confuse, to lose or to misinterpret."""

from __future__ import annotations

__all__ = ["LOOKALIKES", "NAMES", "NEIGHBOURS"]

_LONG = "n" * 254

NAMES = [
    *("../x", "..", ".", "/", "a/b", "/etc/passwd", "a/../b", "a\\b", "..\\x", "C:\\x", "c:", "~", "~root", "//host/x"),
    *("con", "CON", "nul", "aux.txt", "com1", "x.", "x ", " x", " ", "  ", ".hidden", "-rf", "x..", "x"),
    *("A", "a", "Stra\u00dfe", "strasse", "STRASSE", "\u0130", "i", "\u212a", "k", "\uff21", "\ufb01", "fi"),
    *("caf\u00e9", "cafe\u0301", "\u00c5", "\u212b", "A\u030a", "\u1100\u1161", "\uac00"),
    *("%2f", "%2F", "%", "%00", "%s", "=2f", "=2e=2e", "+", "a+b", "a b", "a%20b", "#", "?", "&x=y", "a?b#c"),
    *("*", "**", "a*", "[a]", "[!a]", "{x}", "{", "}", "(.*)", "^", "$", "|", "'", '"', "`", ";", ","),
    *("a:b", "a::b", ":", "a.b", "$where", "_id", "null", "None", "0", "-1", "1e5", "01", "true", "\ufeff", "\ufeffx"),
    *("head", "records", "index", "lock", ".lock", "x.lock", "x.jsonl", "x.jsonl.tmp", "x~", "tmp", "seg", "default"),
    *("foo", "foobar", "foo/bar", "foo:bar", "foo*", "foo.bar", "fo", "oo", "FOO"),
    *(
        "a\u2028b",
        "a\u200bb",
        "ab",
        "\u202ex",
        "\U000e0001",
        "\uffff",
        "\U0010ffff",
        "\u05d0",
        "\U0001f469\u200d\U0001f467",
    ),
    *(_LONG, _LONG + "a", _LONG + "b", "é" * 255, "😀" * 255, "😀" * 254 + "😁", "/" * 255, "." * 255, "A" * 255),
]
"""Names that are all different and all allowed."""

NEIGHBOURS = [
    *(("foo", "foobar"), ("foo", "foo/bar"), ("foo", "foo:bar"), ("foo", "foo.bar"), ("foo", "FOO"), ("foo", "foo ")),
    *(("*", "foo"), ("?", "a"), ("[a]", "a"), ("f*", "foo"), ("{foo}", "foo"), ("%", "foo"), ("fo.", "foo")),
    *(("..", "foo"), (".", "foo"), ("../scope", "foo"), ("/", "foo"), ("", "foo")),
    *(("caf\u00e9", "cafe\u0301"), ("a/b", "a%2fb"), (_LONG, _LONG + "a"), ("😀" * 255, "😀" * 254 + "😁")),
]
NEIGHBOURS = [(one, other) for one, other in NEIGHBOURS if one]
"""Pairs of names; a call on the first must never reach the second."""

LOOKALIKES = [
    *(("a/b", "c"), ("a", "b/c"), ("a:b", "c"), ("a", "b:c"), ("ab", "c"), ("a", "bc"), ("a.b", "c"), ("a", "b.c")),
    *(("a", "a"), ("a a", "a"), ("a", "a a"), ("b", "a"), ("a-b", "c"), ("a", "b-c"), ("a_b", "c"), ("a", "b_c")),
]
"""Pairs of scope and id that give the same text when they are joined."""
