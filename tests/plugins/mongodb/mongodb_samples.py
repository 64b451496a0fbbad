"""Keys, revisions and helpers for the tests of the MongoDB store."""

from __future__ import annotations

import itertools
import time
import uuid

from bson import encode
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from chathistory import Head, HistoryStore, Key, Revision
from chathistory.errors import StoreUnavailable

KEY = Key("default", "support/42")
BIG = 10_000  # characters of a body of which seven fill a tail

RAW = CodecOptions(
    document_class=RawBSONDocument,
    unicode_decode_error_handler="surrogateescape",
    datetime_conversion=DatetimeConversion.DATETIME_MS,
)

_numbers = itertools.count(1)


def revision(updated: int | None = None, *, expires: int | None = None, payload: str = '{"title":"T"}') -> Revision:
    """Return a revision with a version of its own."""
    return Revision(uuid.uuid4().hex, next(_numbers) if updated is None else updated, expires, payload)


def body(position: int, size: int = BIG) -> str:
    """Return the body of a position, which says what it is at both ends."""
    mark = f"<{position}>"
    return mark + "é" * ((size - 2 * len(mark)) // 2) + mark


def fill_store(store: HistoryStore, count: int, *, size: int = BIG, key: Key = KEY, head: Head | None = None) -> Head:
    """Append that many bodies, one by one."""
    for _ in range(count):
        head = store.append(key, [body(head.end if head else 0, size)], after=head, revision=revision())
    assert head is not None
    return head


def read_all(store: HistoryStore, key: Key = KEY) -> tuple[Head, list[str]] | None:
    """Return the head and all bodies, portion by portion; None if there is no such conversation."""
    found = store.read(key)
    if found is None:
        return None
    records = list(found.records)
    while found.head.start + len(records) < found.head.end:
        part = store.read(key, start=found.head.start + len(records))
        assert part.records[0].position == found.head.start + len(records)
        records += part.records
    return found.head, [record.body for record in records]


def retry_until_available(call):
    """Repeat a call until the server answers in the time that the store allows, which a busy machine may exceed."""
    late = time.monotonic() + 100
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() > late:
                raise


def stored_text(database) -> bytes:
    """Return everything that the store's collections hold, as bytes."""
    names = ("chathistory_conversations", "chathistory_segments")
    return b"".join(encode(document) for name in names for document in database[name].find())


def damage_record(database, key: Key, position: int) -> None:
    """Change a bit of a body, below the driver: it is no UTF-8 then, which MongoDB does not look at."""
    raw = database.with_options(codec_options=RAW)
    head = raw.chathistory_conversations.find_one({"_id": {"s": key.scope, "i": key.id}})
    if position >= head["from"]:
        at, collection, document, name = position - head["from"], "chathistory_conversations", head, "tail"
    else:
        place = {"of": head["born"], "first": {"$lte": position}, "end": {"$gt": position}}
        collection, name = "chathistory_segments", "bodies"
        document = raw[collection].find_one(place)
        at = position - document["first"]
    body = document[name][at]
    element = encode({str(at): body})[4:-1]
    broken = element[: -len(body.encode()) - 1] + bytes([body.encode()[0] ^ 0x80]) + body.encode()[1:] + b"\x00"
    assert element in bytes(document.raw)
    changed = RawBSONDocument(bytes(document.raw).replace(element, broken, 1), RAW)
    assert raw[collection].replace_one({"_id": document["_id"]}, changed).matched_count == 1
