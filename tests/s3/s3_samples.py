"""What the tests of the s3 store write, and how they look at what is there."""

import itertools
import uuid

from chathistory import Key, Stamp
from chathistory.errors import Conflict, StoreError

KEY = Key("scope", "conversation")
NOW = 1_760_000_000_000_000
HOUR = 3_600_000_000
_ticks = itertools.count()


def stamp(*, updated=None, expires=None, version=None):
    return Stamp(version or uuid.uuid4().hex, NOW + next(_ticks) if updated is None else updated, expires, "info")


def text(position, size=60):
    return f'{{"text": "line {position}"}}'.ljust(size)


def texts(first, end, size=60):
    return [text(at, size) for at in range(first, end)]


def made(store, count, *, key=KEY, size=60, batch=None):
    """Make a conversation of that many records, in batches."""
    head, batch = None, batch or count
    for at in range(0, count, batch):
        head = store.append(key, texts(at, min(at + batch, count), size), after=head, stamp=stamp())
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


def tried(call):
    """Do it; return its result, or the error if it is one that a caller has to expect."""
    try:
        return call()
    except (StoreError, Conflict) as error:
        return error
