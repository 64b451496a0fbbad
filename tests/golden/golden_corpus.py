"""The golden corpus: where it is, and what a version of chathistory must read from it.

Each folder `format-N` has the stores of all backends with the same conversations (`golden_stores`), exports of them,
and in `expected/` what a caller must get: a file for each conversation, and `listing.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from golden_scenario import READ_TIME, FixedTime, fixed_process
from golden_stores import to_json

from chathistory import Entry, History, HistoryStore, Key
from chathistory.errors import ChatHistoryError
from chathistory.log.events import UnknownEvent
from chathistory.log.state import Origin
from chathistory.view import ViewRepair

HERE = Path(__file__).parent
CORPORA = sorted(HERE.glob("format-*"))
"""The folders of all versions of the corpus; all of them must be read."""
NEWEST = CORPORA[-1] if CORPORA else HERE / "format-2"


def at_read_time() -> Any:
    """Return a context in which the clock shows the time at which the corpus is read."""
    return fixed_process(FixedTime(READ_TIME), first_token=10**9)


def describe_store(store: HistoryStore, names: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a caller can read from a store: a name, and the JSON object of each conversation and of the listing.

    Args:
        store: The store.
        names: Only these parts of each conversation; (): all.
    """
    history = History(store)
    for number, key in enumerate(sorted(store.keys())):
        yield f"{number:02}", describe_conversation(history, key, names)
    yield "listing", describe_listing(history)


def describe_conversation(history: History, key: Key, names: Collection[str] = ()) -> dict[str, Any]:
    """Return what a caller can read of a conversation. Where a call fails, its error is the result."""
    chat = history.conversation(key.id, scope=key.scope)
    calls: dict[str, Callable[[], Any]] = {
        "head": lambda: history.store.read(key, start=0, stop=0).head,
        "lines_sha256": lambda: hash_lines(record.body for record in read_records(history.store, key)),
        "info": chat.info,
        "state": lambda: chat.state().to_dict(),
        "messages": chat.messages,
        "report": lambda: chat.view().report,
        "last_messages": lambda: len(chat.last_messages(1000)),
        "entries": lambda: list(map(describe_entry, chat.entries())),
        "salvage": lambda: [each.kind if isinstance(each, Entry) else "lost" for each in chat.salvage()],
        "setup": chat.setup,
        "usage": chat.usage,
        "check": chat.repair,
    }
    return {"scope": key.scope, "id": key.id} | {
        name: attempt(call) for name, call in calls.items() if name in (names or calls)
    }


def hash_lines(lines: Iterable[str]) -> str:
    """Return a checksum of all lines of a conversation."""
    return sha256("\n".join(lines).encode()).hexdigest()


def describe_entry(entry: Entry) -> dict[str, Any]:
    """Return all that a caller can read of an entry."""
    event = entry.event
    unknown = {"unknown": event.message, "optional": event.is_optional} if isinstance(event, UnknownEvent) else {}
    return {**entry.to_dict(), "extra": entry.extra, **unknown}


def describe_listing(history: History) -> dict[str, Any]:
    """Return the ids of each scope in the order of its listing, a page of three at a time."""
    scopes = sorted({key.scope for key in history.store.keys()})  # noqa: SIM118 - a method, not a dict
    return {scope: list(_list_ids(history, scope)) for scope in scopes}


def _list_ids(history: History, scope: str) -> Iterator[str]:
    page = history.list(scope=scope, limit=3)
    while True:
        yield from (row.id for row in page.items)
        yield from (f"damaged: {each.key.id}" for each in page.damaged)
        if page.next is None:
            return
        page = history.list(scope=scope, limit=3, after=page.next)


def read_records(store: HistoryStore, key: Key) -> list[Any]:
    """Return all records of a conversation."""
    part = store.read(key)
    records = list(part.records)
    while records and records[-1].position + 1 < part.head.end:
        records += store.read(key, start=records[-1].position + 1).records
    return records


def attempt(call: Callable[[], Any]) -> Any:
    """Return the result of a call as a JSON value; of a call that fails, its error."""
    try:
        return to_plain(call())
    except ChatHistoryError as error:
        return {"error": type(error).__name__}


def to_plain(value: Any) -> Any:
    """Return a value as JSON. Of a change of the view only the position counts, because its words may change."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, ViewRepair):
        return value.position
    if isinstance(value, Origin):
        return value.to_dict()
    if is_dataclass(value):
        return {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(each) for name, each in value.items()}
    return list(map(to_plain, value)) if isinstance(value, list | tuple) else value


def read_expected(corpus: Path) -> dict[str, str]:
    """Return the expected JSON texts of a corpus by name: "00", "01" and so on, and "listing"."""
    paths = sorted((corpus / "expected").glob("*.json"))
    return {path.stem: to_json(json.loads(path.read_bytes())) for path in paths}


def expected_conversations(corpus: Path) -> dict[Key, dict[str, Any]]:
    """Return what is expected of each conversation of a corpus, by key."""
    found = {name: json.loads(text) for name, text in read_expected(corpus).items() if name != "listing"}
    return {Key(each["scope"], each["id"]): each for each in found.values()}


def keep_expected(found: Any, expected: Any) -> Any:
    """Return a found object without the fields of our own classes that did not exist when the corpus was written."""
    if isinstance(found, dict) and isinstance(expected, dict) and "error" not in expected:
        return {name: value for name, value in found.items() if name in expected}
    return found
