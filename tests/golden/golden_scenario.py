"""The conversations of the golden corpus: every kind of entry, odd text, odd names, and every operation.

They are made once, in memory. The calls of the storage contract are recorded and then repeated on each backend, so that
all backends hold the same conversations, each in its own layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from chathistory_memory import MemoryStore
from entry_factory import make_entry
from message_kinds import KINDS

from chathistory import ChatEngine, Conversation, Head, History, HistoryStore, Key, Revision, WrappedStore
from chathistory.log import clock, process
from chathistory.log.clock import Clock, use_clock
from chathistory.testing.fake_api import FakeMessagesAPI
from chathistory.trimming import LastTurns

START = 1_800_000_000_000_000
"""The time of the first conversation, in microseconds since 1970 UTC: 15 January 2027."""
READ_TIME = START + 3_600_000_000
"""The time at which the corpus is read: the lease of the open turn has not ended yet."""
CENTURY = 100 * 365 * 24 * 3600
MODEL = "claude-sonnet-5-5"
TOOLS = [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}]

ODD_JSON = {
    "z": 1,
    "a": None,
    "": {},
    "a.b": [2**64 + 1, -(2**53) - 1, 10**30],
    "$set": {"$inc": -0.0},
    "__proto__": [1.0, 1, True],
    "NUL": "a\x00b",
    "lines": "\u2028\u2029\x85\r\n\x1c",
    "half": "\ud83d",
    "emoji": "👩‍👩‍👧‍👦 e\u0301",
    "small": 5e-324,
}
FUTURE = {"from_the_future": {"nested": [None, {"$k": 1}]}}
HOSTILE = [
    ("../..", "../../etc/passwd"), ("a:b", "c"), ("a", "b:c"), ("{x}", "{y}*?[z]"), ("A", "CON"), ("a", "con"),
    ("%3A", "%25"), ("$where", "_id"), ("\U0001f600" * 255, "é" * 255), (" ", "."), ("x" * 200, "caf\u00e9"),
    ("x" * 200, "cafe\u0301"), ("\ufeff", "a\u2028b"),
]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A call of the storage contract that changed something."""

    method: str
    arguments: dict[str, Any]


class RecordingStore(WrappedStore):
    """Records the calls that changed something."""

    def __init__(self, inner: HistoryStore) -> None:
        super().__init__(inner)
        self.calls: list[Call] = []

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        head = super().append(key, bodies, after=after, revision=revision, first=first)
        given = {"key": key, "bodies": list(bodies), "after": after, "revision": revision, "first": first}
        self.calls.append(Call("append", given))
        return head

    def forget(self, key: Key, *, before: int) -> Head | None:
        head = super().forget(key, before=before)
        self.calls.append(Call("forget", {"key": key, "before": before}))
        return head

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self.calls.append(Call("delete", {"key": key, "version": version}))
        return super().delete(key, version=version)


class FixedTime:
    """A clock that stands still until it is moved."""

    def __init__(self, time: int) -> None:
        self.time = time

    def move(self, seconds: float = 1) -> None:
        self.time += int(seconds * 1_000_000)

    def as_clock(self) -> Clock:
        return Clock(wall=lambda: self.time, elapsed=lambda: self.time)


@contextmanager
def fixed_process(time: FixedTime, first_token: int = 0) -> Iterator[None]:
    """Let this process have a known clock, a known name, and tokens that are counted instead of random."""
    count = iter(range(first_token, 2**62))
    own = (process._own, process.os, clock.os)
    process._own = process.Process("machine", 4321, "3a0f0c5e-0000-4000-8000-000000000000", "1-2", 234866)
    process.os = SimpleNamespace(getpid=lambda: 4321, kill=process.os.kill)
    clock.os = SimpleNamespace(urandom=lambda size: next(count).to_bytes(size, "big"))
    try:
        with use_clock(time.as_clock()):
            yield
    finally:
        process._own, process.os, clock.os = own


def record_scenario() -> list[Call]:
    """Return the calls that store all conversations of the corpus."""
    time = FixedTime(START)
    with fixed_process(time), MemoryStore() as memory:
        store = RecordingStore(memory)
        history = History(store)
        for build in SCENARIOS:
            time.move(60)
            build(history, time)
        return store.calls


def repeat_calls(calls: Sequence[Call], store: HistoryStore) -> None:
    """Make recorded calls on another store."""
    for call in calls:
        getattr(store, call.method)(**call.arguments)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "id": f"msg_{text}",
        "model": MODEL,
        "content": [{"type": "thinking", "thinking": "so", "signature": "EqQ="}, {"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
        **more,
    }


def append_raw(chat: Conversation, *lines: str) -> None:
    """Append lines that the core did not write, as they are."""
    store, key = chat.log.store, chat.log.key
    head = store.read(key, start=0, stop=0).head
    store.append(key, lines, after=head, revision=replace(head.revision, version=clock.fresh_token()))


def build_every_block(history: History, time: FixedTime) -> None:
    chat = history.conversation("every block")
    for kind in KINDS:
        time.move()
        chat.append(kind.given())


def build_odd_text(history: History, time: FixedTime) -> None:
    chat = history.conversation("odd text")
    chat.append({**user([{"type": "text", "text": "\x00\u2028👩‍👧", **FUTURE}]), "own": ODD_JSON}, key="once")
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": ODD_JSON}
    chat.append({"role": "assistant", "content": [{"type": "hologram", "k": ODD_JSON}, call]})
    time.move()
    chat.append(user([{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "ok"}]}]))
    chat.append(said("done", **FUTURE, container={"id": "container_1", "expires_at": "2027-02-01T00:00:00Z"}))
    chat.annotate(title="a\x00b \u2028 👩‍👧 \ud83d", tags=["ü", "a.b", "\x00"], metadata=ODD_JSON)


def build_annotated(history: History, time: FixedTime) -> None:
    chat = history.conversation("annotated")
    chat.annotate(title="before any message")
    chat.append([user("Hello"), said("Hi")])
    time.move()
    chat.annotate(title="Title", tags=["b", "a"], metadata={"k": [1]})
    chat.annotate(title=None)
    chat.set_tags([])
    removed = history.conversation("annotations removed")
    removed.append(user("Hello"))
    removed.annotate(title="t", tags=["a"], metadata={"k": 1})
    removed.annotate(title=None, tags=[], metadata={})


def build_rewound(history: History, time: FixedTime) -> None:
    chat = history.conversation("rewound")
    for number in range(4):
        chat.append([user(f"question {number}"), said(f"answer {number}")])
        time.move()
    chat.rewind(to=5)
    chat.append(said("another answer"))
    chat.rewind(to=3)
    chat.append(said("a third answer"))
    chat.fork("fork of rewound")
    chat.fork("fork in the middle", at=6, scope="forks")
    chat.choose(1)


def build_forgotten(history: History, time: FixedTime) -> None:
    chat = history.conversation("forgotten")
    for number in range(4):
        chat.append([user(f"question {number}"), said(f"answer {number}")])
        time.move()
    chat.annotate(title="kept", metadata={"k": 1})
    chat.forget(before=4)
    chat.append([user("more"), said("more said")])
    chat.fork("fork of forgotten", scope="forks")
    chat.forget(before=8)
    everything = history.conversation("all forgotten")
    everything.append([user("gone"), said("gone too")])
    everything.forget(before=10**6)


def build_trimmed(history: History, time: FixedTime) -> None:
    chat = history.conversation("trimmed")
    for number in range(6):
        chat.append([user(f"question {number}"), said(f"answer {number}")])
        time.move()
    chat.trim(LastTurns(4, 3))
    chat.append([user("after the cut"), said("answer after")])
    chat.set_drop_stale_thinking(drop=True)
    chat.leave_out(10)
    chat.leave_out(thinking=True)
    view = chat.state().view
    cut = {"view_start": 12, "hidden_turns": 6, "view_since": view.view_since, "tokens": 9, "preamble_tokens": 1}
    chat.log.append([make_entry("cut", user("Summary: five questions"), cut)])
    compacted = history.conversation("compacted")
    compacted.append([user("a"), said("b"), user("c"), said("d")])
    summary = {"role": "assistant", "content": [{"type": "compaction", "content": "a, b"}]}
    response = {"id": "msg_c", "model": MODEL, "stop_reason": "compaction", "usage": {"input_tokens": 5}}
    data = {"view_start": 2, "hidden_turns": 1, "view_since": START, "tokens": 7, "preamble_tokens": 0}
    compacted.log.append([make_entry("compaction", summary, {**data, "response": response, "request_id": "req_1"})])
    compacted.append([user("e"), said("f")])
    compacted.fork("fork of compacted", at=3, scope="forks")


def build_turns(history: History, time: FixedTime) -> None:
    """Store what an engine stores for turns that get a reply, are interrupted, refused, taken over, or stay open."""
    api = FakeMessagesAPI(["Hi", "Again"])
    engine = ChatEngine(api.client(), history.store, model=MODEL, system="Be brief.", tools=TOOLS, max_tokens=100)
    engine.send("engine", "Hello", turn_id="turn-1")
    time.move()
    engine.send("engine", "Hello again")
    engine.close()
    chat = history.conversation("turns")
    chat.append([user("a"), said("b")])
    own = process.this_process().to_dict()
    opened = {"lease_until": READ_TIME + 10**9, "opened_by": own}

    def open_turn(turn: str, text: str) -> str:
        entry = make_entry("message", user(text), opened, turn)
        chat.log.append([entry])
        return entry.id

    lease = open_turn("t1", "interrupted")
    partial = {"role": "assistant", "content": [{"type": "text", "text": "half a"}]}
    response = {"response": {"id": "msg_x", "model": MODEL, "usage": {"output_tokens": 9}}, "request_id": "req_2"}
    data = {**response, "reason": "APIConnectionError", "lease": lease}
    chat.log.append([make_entry("reply_interrupted", partial, data, "t1")])
    chat.log.append([make_entry("reply_orphaned", partial, {**data, "raw": '{"odd":1}'}, "t1")])
    lease = open_turn("t2", "refused")
    refusal = {"kind": "turn", "problem": "no", "path": "messages.4", "locations": [[5, None, None]], "certain": True}
    refused = {"locations": [[5, None, None]], "tokens": 3, "problem": "no", "reason": "BadRequestError"}
    chat.log.append([make_entry("turn_refused", None, {**refused, "refusal": {**refusal, "status": 400}}, "t2")])
    lease = open_turn("t3", "abandoned")
    chat.log.append([make_entry("lease_renewed", None, {"lease_until": READ_TIME + 2 * 10**9, "lease": lease}, "t3")])
    chat.log.append([make_entry("turn_abandoned", None, {"reason": "timeout", "lease": lease}, "t3")])
    chat.log.append([make_entry("turn_opened", None, {**opened, "question_position": 7}, "t3")])
    chat.log.append([make_entry("message", said("answered at last"), {}, "t3")])
    omitted = {"locations": [[1, 0, None]], "tokens": 1, "invalidates_thinking": True, "omits_all_thinking": False}
    chat.log.append([make_entry("content_omitted", None, omitted)])
    chat.log.append([make_entry("thinking_policy", None, {"drop_stale_thinking": True})])
    chat.fork("fork of turns", scope="forks")
    open_turn("t4", "still open")
    lost = history.conversation("lease has ended")
    lost.log.append([make_entry("message", user("Hello"), {**opened, "lease_until": time.time + 10**6}, "t1")])


def build_big(history: History, time: FixedTime) -> None:
    """Append so much that S3 merges segments, and that MongoDB moves bodies out of the tail and splits one."""
    chat = history.conversation("big")
    for number in range(12):
        chat.append([user(f"{number} " + "é" * 60), said(f"answer {number}")])
        time.move()
    chat.append([user("long " + "ü" * 1600), said("read it")])
    chat.append([user("and"), said("yes")])
    for number in range(12):
        history.conversation("deleted").append([user(f"{number} " + "x" * 200), said(f"answer {number}")])
    history.delete("deleted")
    history.conversation("created again").append(user("first"))
    history.delete("created again")
    history.conversation("created again").append([user("second"), said("yes")])
    shortened = history.conversation("big and forgotten")
    for number in range(10):
        shortened.append([user(f"{number} " + "ö" * 60), said(f"answer {number}")])
    shortened.forget(before=9)


def build_unknown(history: History, time: FixedTime) -> None:
    chat = history.conversation("unknown but optional")
    chat.append([user("a"), said("b")])
    chat.log.append([make_entry("hologram", user("?"), {"depth": 3, "k": ODD_JSON}, optional=True)])
    chat.log.append([make_entry("message", user("c"), {"key": "k", **FUTURE})])
    chat.log.append([make_entry("annotation", None, {"title": "t", "colour": ODD_JSON})])
    chat.append(said("d"))
    unsupported = history.conversation("unknown and needed")
    unsupported.append([user("a"), said("b")])
    unsupported.log.append([make_entry("hologram", user("?"), {"depth": 3})])
    unsupported.append(user("c"))
    repaired = history.conversation("unknown and repaired")
    repaired.append([user("a"), said("b")])
    repaired.log.append([make_entry("hologram", user("?"), {"depth": 3})])
    repaired.append([user("c"), said("d")])
    repaired.repair(dry_run=False)
    time.move()
    repaired.append([user("e"), said("f")])


def build_damaged(history: History, time: FixedTime) -> None:
    history.conversation("damaged and repaired").append([user("a"), said("b")])
    append_raw(history.conversation("damaged and repaired"), "not the line of an entry")
    chat = history.conversation("damaged and repaired")
    chat.append([user("c"), said("d")])
    chat.repair(dry_run=False)
    time.move()
    chat.append([user("e"), said("f")])
    chat.fork("fork of damaged", scope="forks")


def build_expiring(history: History, time: FixedTime) -> None:
    history.store.ttl = CENTURY
    history.conversation("expires", scope="expiring").append([user("a"), said("b")])
    history.store.ttl = None


def build_hostile(history: History, time: FixedTime) -> None:
    for scope, id in HOSTILE:
        time.move()
        history.conversation(id, scope=scope).append([user(f"{scope[:9]} {id[:9]}"), said("Hi")])


SCENARIOS: list[Callable[[History, FixedTime], None]] = [
    build_every_block, build_odd_text, build_annotated, build_rewound, build_forgotten, build_trimmed, build_turns,
    build_big, build_unknown, build_damaged, build_expiring, build_hostile,
]  # fmt: skip
