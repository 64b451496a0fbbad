"""Connections that break at any read or write of a client library: only our errors are raised, and nothing is lost.

python -m tests.campaigns broken_connections --backend redis --count 2000 --state reads-redis.json

Each round makes one call of the storage contract, with large and small answers, and lets one read or write of the
network fail in it: an error of the socket or of TLS, a connection that ends, a wrong byte. What the call raises must be
an error of `chathistory.errors`. Then the store is read through another client: what was acknowledged must be there,
once and in order, and what was "not stored" must not. The counts are saved in the state file after each hundred rounds;
the same command continues from there. Exits with an error at the first fault.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chathistory import Head, HistoryStore, Key, Revision, open_store
from chathistory.errors import ChatHistoryError, Conflict, StoreUnavailable
from chathistory.testing.contract.every_method import check_no_message_text
from chathistory.testing.contract.samples import MARKER
from tests.campaigns.failing_sockets import KINDS, Faults, failing_sockets
from tests.campaigns.store_urls import store_url

BACKENDS = ("redis", "mongodb")
SHORT: dict[str, dict[str, Any]] = {
    "redis": {"socket_timeout": 1, "socket_connect_timeout": 1},
    "mongodb": {
        "socketTimeoutMS": 1000,
        "serverSelectionTimeoutMS": 2000,
        "heartbeatFrequencyMS": 500,
        "serverMonitoringMode": "poll",  # a streaming monitor gives up only after half a second
        "retryWrites": False,  # or the driver repeats nearly everything, and hides what it would have raised
        "retryReads": False,
    },
}
KEY = Key("reads", "conversation")
MOST = 400  # records in the conversation, before it is deleted and created again


@dataclass
class Campaign:
    """What is known of the store: the bodies that are certainly stored, and the last head.

    Attributes:
        late: Bodies that may be stored instead: an append without an answer may be carried out after the check.
    """

    backend: str
    broken: HistoryStore
    sound: HistoryStore
    faults: Faults
    chance: random.Random
    bodies: list[str] = field(default_factory=list)
    head: Head | None = None
    late: list[str] | None = None
    outcomes: Counter[str] = field(default_factory=Counter)

    def round(self) -> None:
        """Make one call in which a read or write fails."""
        name = self.chance.choice(list(CALLS))
        kind = self.chance.choice(KINDS)
        if kind == "wrong byte" and name.startswith("append") and self.backend == "mongodb":
            kind = "end"  # compaction moves records through the client, where only TLS protects them
        self.faults.arm(kind, self.chance.choice((1, 1, 2, 3, 5, 9, 30)))
        try:
            if name.startswith("append"):
                self._append(60 if name == "append, large" else 1)
            else:
                CALLS[name](self.broken)
            outcome = "returned"
        except ChatHistoryError as error:
            outcome = type(error).__name__
            check_no_message_text(error)
        struck = self.faults.disarm()
        self.outcomes[f"{kind}: {outcome}" if struck else "nothing failed"] += 1
        self.check()

    def _append(self, count: int) -> None:
        batch = [
            f"{len(self.bodies) + at} {MARKER} {uuid.uuid4().hex} {'.' * self.chance.choice((0, 500, 9000))}"
            for at in range(count)
        ]
        revision = Revision(uuid.uuid4().hex, len(self.bodies) + 1, None, "info")
        said = "it returned"
        try:
            self.broken.append(KEY, batch, after=self.head, revision=revision)
            allowed = [[*self.bodies, *batch]]
        except StoreUnavailable as error:
            said = f"{error} from {error.__cause__!r}"
            allowed = [self.bodies] if error.outcome == "not stored" else [self.bodies, [*self.bodies, *batch]]
        except Conflict:  # the client library has retried by itself
            allowed = [self.bodies, [*self.bodies, *batch]]
        finally:
            self.faults.disarm()
        stored = self._read_stored()
        allowed += [] if self.late is None else [self.late]
        assert stored in allowed, f"{len(stored)} are stored, {len(self.bodies)} were, after {count} more: {said}"
        whole = [*self.bodies, *batch]
        self.late = whole if stored == self.bodies and whole in allowed else None
        self.bodies = stored

    def _read_stored(self) -> list[str]:
        found: list[str] = []
        self.head = None
        while (part := self.sound.read(KEY, start=len(found))) is not None:
            self.head = part.head
            found += [record.body for record in part.records]
            if len(found) >= part.head.end:
                break
        return found

    def check(self) -> None:
        """Compare what is stored with what must be."""
        stored = self._read_stored()
        if stored == self.late:
            self.bodies, self.late = stored, None
        assert stored == self.bodies, "something was lost, doubled or changed"
        if len(self.bodies) > MOST:
            self.sound.delete(KEY)
            self.bodies, self.head, self.late = [], None, None


def _find_records(store: HistoryStore) -> None:
    recovery = store.get_recovery()
    assert recovery is not None
    found = recovery.find_records(KEY)
    if found is not None:
        recovery.read_found(found, start=found.start, stop=found.end)


CALLS: dict[str, Callable[[HistoryStore], object]] = {
    "append": lambda store: None,
    "append, large": lambda store: None,
    "read": lambda store: store.read(KEY),
    "read a range": lambda store: store.read(KEY, start=10, stop=300),
    "read a tail": lambda store: store.read(KEY, start=-20),
    "read the head": lambda store: store.read(KEY, stop=0),
    "heads": lambda store: store.heads("many", limit=300),
    "keys": lambda store: list(store.keys()),
    "keys of a scope": lambda store: list(store.keys("many")),
    "scan_keys": lambda store: list(store.scan_keys()),
    "damaged_keys": lambda store: list(store.damaged_keys()),
    "remove_leftovers": lambda store: store.remove_leftovers("nobody"),
    "is_index_complete": lambda store: store.is_index_complete(),
    "check": lambda store: store.check(),
    "forget nothing": lambda store: store.forget(KEY, before=0),
    "delete nothing": lambda store: store.delete(Key("reads", "nobody")),
    "find_records": _find_records,
}


def run(backend: str, url: str, *, count: int, seed: int) -> Counter[str]:
    """Make `count` rounds, and return how many had each outcome."""
    chance = random.Random(seed)
    if backend == "mongodb":
        from pymongo import common  # loads the client library

        common.MIN_HEARTBEAT_INTERVAL = 0.01  # a driver that lost its server tries again at once
    with open_store(url) as sound, failing_sockets(seed) as faults, open_store(url, **SHORT[backend]) as broken:
        sound.delete(KEY)
        if not list(sound.keys("many")):
            for number in range(200):
                revision = Revision(uuid.uuid4().hex, number, None, "i" * 500)
                sound.append(Key("many", f"c{number}"), ["x"], after=None, revision=revision)
        campaign = Campaign(backend, broken, sound, faults, chance)
        for _ in range(count):
            campaign.round()
    return campaign.outcomes


def main(arguments: list[str] | None = None) -> int:
    """Run rounds until `--count` is reached in the state file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--count", type=int, required=True, help="rounds in all, those of earlier runs included")
    parser.add_argument("--state", type=Path, required=True, help="where the counts are kept between runs")
    given = parser.parse_args(arguments)
    state = json.loads(given.state.read_text()) if given.state.exists() else {"rounds": 0, "outcomes": {}}
    outcomes = Counter(state["outcomes"])
    with store_url(given.backend) as url:
        for done in range(state["rounds"], given.count, 100):
            rounds = min(100, given.count - done)
            outcomes += run(given.backend, url, count=rounds, seed=done)
            given.state.write_text(json.dumps({"rounds": done + rounds, "outcomes": dict(outcomes)}))
    struck = sum(count for name, count in outcomes.items() if name != "nothing failed")
    sys.stdout.write(f"{given.backend}: {given.count} rounds, {struck} broken, only our errors, nothing lost\n")
    return 0
