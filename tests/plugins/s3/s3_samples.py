"""Samples for the tests of the S3 store, and helpers to inspect and damage its objects."""

import itertools
import uuid

from chathistory_s3 import S3Store
from chathistory_s3.segments import SegmentStore

from chathistory import Key, Revision
from chathistory.errors import Conflict, StoreError

KEY = Key("scope", "conversation")
NOW = 1_760_000_000_000_000
HOUR = 3_600_000_000
_ticks = itertools.count()


def open_s3_store(client, bucket, prefix, **options):
    """Open a store that does not probe the service, which is known to be moto: other tests check the probing.

    It repeats requests for longer than the default, so that a busy machine makes no difference.
    """
    store = S3Store(client, bucket=bucket, prefix=prefix, **{"timeout": 60, **options})
    store._is_probed = True
    return store


def revision(*, updated=None, expires=None, version=None):
    return Revision(version or uuid.uuid4().hex, NOW + next(_ticks) if updated is None else updated, expires, "info")


def text(position, size=60):
    return f'{{"text": "line {position}"}}'.ljust(size)


def texts(first, end, size=60):
    return [text(at, size) for at in range(first, end)]


def make_conversation(store, count, *, key=KEY, size=60, batch=None):
    """Make a conversation of `count` records, in batches of `batch` records."""
    head, batch = None, batch or count
    for at in range(0, count, batch):
        head = store.append(key, texts(at, min(at + batch, count), size), after=head, revision=revision())
    return head


def bodies(store, key=KEY, *, start=0):
    part = store.read(key, start=start)
    if part is None:
        return None
    found = list(part.records)
    while found and found[-1].position + 1 < part.head.end:
        found += store.read(key, start=found[-1].position + 1).records
    assert [record.position for record in found] == list(range(max(part.head.start, start), part.head.end))
    return [record.body for record in found]


def head_of(store, key=KEY):
    part = store.read(key, stop=0)
    return part.head if part else None


def objects(client, bucket, prefix=""):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def content_of(client, bucket, name):
    return client.get_object(Bucket=bucket, Key=name)["Body"].read()


def change(client, bucket, name, do):
    """Put what `do` makes of the bytes of an object in its place."""
    client.put_object(Bucket=bucket, Key=name, Body=do(content_of(client, bucket, name)))


def head_object(store, key=KEY):
    return store._names.head(key)


def line_place(store, key, position):
    """Return where the line of a record is: the name of its object, and its first and last byte there."""
    content = store._heads.load(key).content
    names = SegmentStore(store._heads, key, content.incarnation)
    for segment in content.segments:
        if segment.first <= position < segment.end:
            name, first = names.name_of(segment), segment.first
            data, before = store._bucket.get(name)[0], 0
            break
    else:
        name, first = head_object(store, key), content.tail_start
        data = store._bucket.get(name)[0]
        before = data.index(b"\n") + 1
    for _ in range(position - first):
        before = data.index(b"\n", before) + 1
    return name, before, data.index(b"\n", before)


def flip(data, at, bit=1):
    """Change one bit, but so that no line begins or ends there."""
    bit = bit if data[at] ^ bit != 0x0A else bit << 1
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def damage_record(client, bucket, store, key, position):
    name, begin, end = line_place(store, key, position)
    change(client, bucket, name, lambda data: flip(data, (begin + end) // 2))


def damage_head(client, bucket, store, key=KEY):
    change(client, bucket, head_object(store, key), lambda data: flip(data, data.index(b"\n") // 2))


def remains(client, bucket, text, prefix=""):
    """Return the names of all objects that contain a text."""
    return [name for name in objects(client, bucket, prefix) if text.encode() in content_of(client, bucket, name)]


def lose_markers(client, bucket, store, key):
    for name in objects(client, bucket, store._names.markers(key.scope)):
        if store._names.parse_marker(name).id == store._names.head(key).rpartition("/")[2]:
            client.delete_object(Bucket=bucket, Key=name)


def tried(call):
    """Do it; return its result, or the error if it is one that a caller has to expect."""
    try:
        return call()
    except (StoreError, Conflict) as error:
        return error
