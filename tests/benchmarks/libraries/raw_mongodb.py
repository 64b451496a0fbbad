"""The raw form of `mongodb:`: insert_one of the bytes of a turn, the same write concern; find, sort, limit; no guard.

On one conversation that many threads share it needs a number from a counter first: find_one_and_update + insert_one.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, ClassVar

import pymongo

from ..samples import INFO, Turn
from .library_base import MeasuredLibrary

__all__ = ["RawMongo"]


class RawMongo(MeasuredLibrary):
    """A program with a document for each turn."""

    name: ClassVar[str] = "raw"
    imports: ClassVar[str] = "import pymongo, json"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(place, w="majority", journal=True)
        self._turns = self._client["raw"]["turns"]
        self._turns.create_index([("chat", 1), ("n", 1)])
        self._numbers = itertools.count(10**6)

    def append(self, name: str, turn: Turn) -> object:
        return self._turns.insert_one(self._document(name, next(self._numbers), turn))

    def append_shared(self, name: str, turn: Turn) -> object:
        counters = self._client["raw"]["counters"]
        counted = counters.find_one_and_update({"_id": name}, {"$inc": {"n": 1}}, upsert=True)
        return self._turns.insert_one(self._document(name, counted["n"] if counted else 0, turn))

    def fill(self, name: str, turns: list[Turn]) -> None:
        self._turns.insert_many([self._document(name, number, turn) for number, turn in enumerate(turns)])

    def tail(self, name: str) -> list[Any]:
        found = self._turns.find({"chat": name}).sort("n", -1).limit(10)
        return [json.loads(line) for each in list(found)[::-1] for line in each["lines"]]

    def load(self, name: str) -> list[Any]:
        found = self._turns.find({"chat": name}).sort("n", 1)
        return [json.loads(line) for each in found for line in each["lines"]]

    def fill_conversations(self, count: int) -> None:
        collection = self._client["raw"][f"listing{count}"]
        collection.create_index([("scope", 1), ("updated", -1)])
        collection.insert_many([{"scope": "s", "id": f"chat-{n}", "updated": n, "info": INFO} for n in range(count)])

    def recent(self, count: int) -> list[Any]:
        return list(self._client["raw"][f"listing{count}"].find({"scope": "s"}).sort("updated", -1).limit(20))

    def close(self) -> None:
        self._client.close()

    def _document(self, name: str, number: int, turn: Turn) -> dict[str, Any]:
        return {"chat": name, "n": number, "lines": [json.dumps(message) for message in turn]}
