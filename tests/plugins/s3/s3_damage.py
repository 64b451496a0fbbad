"""Ways to damage stored objects, from a few rules and a seed: heads, segments, and stray objects.

A rule takes the bytes of an object and returns others; None removes the object. Whatever it returns, no call may end in
an error that is not typed, no walk may fail, and everything sound must stay readable.
"""

import gzip
import json
import random
import zlib

from s3_samples import flip


def resealed(fields):
    """Return the first line of a head with these fields, with a right checksum: as another program may write it."""
    line = fields if isinstance(fields, bytes) else json.dumps(fields, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(line), line)


def with_fields(change):
    """Return a rule that changes the fields of a head and leaves its records."""

    def do(data):
        line, _, tail = data.partition(b"\n")
        fields = json.loads(line[9:])
        change(fields)
        return resealed(fields) + tail

    return do


def with_line(line):
    """Return a rule that replaces the first line of a head."""
    return lambda data: resealed(line) + data.partition(b"\n")[2]


def _cut(share):
    return lambda data: data[: int(len(data) * share)]


def _overwrite(begin, size, what):
    def do(data):
        at = int(len(data) * begin)
        return data[:at] + what(size) + data[at + size :]

    return do


def _of_any(seed):
    """Return rules for any object with bytes."""
    chance = random.Random(seed)
    rules = {
        "empty": lambda data: b"",
        "one byte": lambda data: b"x",
        "nothing but a line end": lambda data: b"\n",
        "zeros": lambda data: bytes(len(data)),
        "noise": lambda data: random.Random(7).randbytes(len(data)),
        "packed": gzip.compress,
        "a byte order mark before it": lambda data: b"\xef\xbb\xbf" + data,
        "a line before it": lambda data: b"hello\n" + data,
        "line ends of an editor": lambda data: data.replace(b"\n", b"\r\n"),
        "no line ends": lambda data: data.replace(b"\n", b""),
        "twice": lambda data: data + data,
        "backwards": lambda data: data[::-1],
        "upper case": bytes.upper,
        "html": lambda data: b"<html><body>Not Found</body></html>\n",
        "a line end at its end is lost": lambda data: data[:-1],
        "more behind it": lambda data: data + b"deadbeef more\n",
        "as small as a tombstone": lambda data: b"x" * 62,
        "a tombstone with wrong tokens": lambda data: b"deleted " + b"z" * 53 + b"\n",
    }
    for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.97):
        rules[f"cut at {share}"] = _cut(share)
    for begin in (0.0, 0.2, 0.6, 0.9):
        rules[f"a hole at {begin}"] = _overwrite(begin, 40, bytes)
    for _ in range(12):
        share, bit = chance.random(), 1 << chance.randrange(8)
        rules[f"bit {bit} at {share:.3f}"] = lambda data, share=share, bit=bit: flip(data, int(len(data) * share), bit)
    for _ in range(6):
        share, size = chance.random(), chance.choice((1, 7, 90))
        rules[f"{size} bytes less at {share:.3f}"] = lambda data, share=share, size=size: (
            data[: int(len(data) * share)] + data[int(len(data) * share) + size :]
        )
        rules[f"{size} bytes more at {share:.3f}"] = lambda data, share=share, size=size: (
            data[: int(len(data) * share)] + random.Random(size).randbytes(size) + data[int(len(data) * share) :]
        )
    return rules


FIELDS = ("v", "scope", "id", "start", "end", "version", "updated", "expires", "info", "incarnation", "marker", "tail",
          "segments")  # fmt: skip
STRANGE = (None, True, -1, 1.5, "x", "", [], {}, [[]], 10**30, "\ud800", [[[[]]]], "x" * 300, [1, 2, 3], {"a": 1})


def _of_fields(seed):
    """Return rules for the fields of a head; its checksum stays right."""
    chance = random.Random(seed)
    rules = {
        "of a later version": with_fields(lambda fields: fields.update(v=3)),
        "of an earlier version": with_fields(lambda fields: fields.update(v=1)),
        "of a much later version, without fields": with_line({"v": 99}),
        "of a version that is no number": with_fields(lambda fields: fields.update(v="2")),
        "no object": with_line([1, 2]),
        "no JSON": with_line(b"{"),
        "not a number": with_line(b'{"v":NaN}'),
        "too deep": with_line(b"[" * 100_000),
        "too large a number": with_line(b'{"v":' + b"9" * 5000 + b"}"),
        "not UTF-8": with_line(b'{"v":2,"scope":"\xff"}'),
        "more records than there can be": with_fields(lambda fields: fields.update(end=10**12)),
        "begins behind its end": with_fields(lambda fields: fields.update(start=fields["end"] + 1)),
        "of another conversation": with_fields(lambda fields: fields.update(id="another")),
        "of another scope": with_fields(lambda fields: fields.update(scope="another")),
    }
    for name in FIELDS:
        rules[f"without {name}"] = with_fields(lambda fields, name=name: fields.pop(name))
        value = chance.choice([value for value in STRANGE if not (name == "expires" and value is None)])
        rules[f"{name} is {str(value)[:12]!r}"] = with_fields(
            lambda fields, name=name, value=value: fields.update({name: value})
        )
    return rules


HEADS = {"gone": lambda data: None, **_of_any(1), **_of_fields(2)}
SEGMENTS = {"gone": lambda data: None, **_of_any(3)}
STRAYS = (
    "c/readme.TXT", "c/SCOPE/conversation", "c/scope/A B", "c/scope/a/b/c", "c/scope/ä", "c/scope/=zz", "c//x",
    "s/x", "s/scope/victim/notes", "s/scope/victim/0123456789abcdef/x", "s/scope/A B/0123456789abcdef/1-2",
    "m/scope/notes", "m/scope/1/x/y", "m/scope/0123456789012345678/victim/zz", "m/x y/z", "m/scope/٣/x/y",
)  # fmt: skip
