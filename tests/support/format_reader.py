"""A reader of stored conversations, written from docs/format.md alone: it uses nothing of chathistory.

If the page is complete and true, it reads the golden corpus of every backend, and rebuilds each state from the records.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

UNKNOWN = object()
"""The number of tokens after a message whose size had to be estimated."""


@dataclass(frozen=True)
class Stored:
    """A conversation as it is stored: its head by the names on the page, and the lines of its records by position."""

    head: dict[str, Any]
    lines: dict[int, bytes]

    @property
    def name(self) -> tuple[str, str]:
        """Scope and id."""
        return self.head["scope"], self.head["id"]


HEAD = ("scope", "id", "start", "end", "version", "updated", "expires")


def make_stored(values: dict[str, Any], payload: str, lines: dict[int, bytes]) -> Stored:
    head = {name: values[name] for name in HEAD} | {"payload": payload}
    return Stored(head, {at: line for at, line in lines.items() if head["start"] <= at < head["end"]})


def parse_record(line: bytes) -> dict[str, Any] | None:
    """Return the values of a record; None if it is damaged."""
    if line[:17] != b'{"sum":"%08x"' % crc32(line[17:]):
        return None
    return json.loads(line)


# Layouts.


def read_files(folder: Path) -> Iterator[Stored]:
    """Read the layout of `file:`."""
    for path in sorted(folder.glob("*/*.jsonl")):
        *_, last = read_commits(path)
        assert safe_name(last.head["scope"]) == path.parent.name
        assert safe_name(last.head["id"]) == path.stem
        yield last


def read_commits(path: Path) -> Iterator[Stored]:
    """Yield a conversation as it was after each append that its file shows."""
    lines: dict[int, bytes] = {}
    for line in path.read_bytes().split(b"\n"):
        if line.startswith(b"["):
            position, checksum = line[1:].split(b",")[:2]
            body = line[len(position) + len(checksum) + 3 : -1]
            if checksum == b'"%08x"' % crc32(body, int(position) & 0xFFFFFFFF):
                lines[int(position)] = body
        elif line:
            assert line[-10:-2] == b"%08x" % crc32(line[:-10])
            values = json.loads(line)
            assert values["commit"] == 2
            payload = line[line.index(b',"info":') + 8 : line.rindex(b',"crc":')].decode()
            yield make_stored(values, payload if payload.startswith("{") else json.loads(payload), lines)


def safe_name(text: str) -> str:
    kept = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
    name = "".join(chr(byte) if byte in kept else f"={byte:02x}" for byte in text.encode())
    devices = {"con", "prn", "aux", "nul"} | {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
    if name[0] in ".-" or name.split(".")[0] in devices:
        name = f"={ord(name[0]):02x}{name[1:]}"
    if name.endswith("."):
        name = f"{name[:-1]}=2e"
    return name if len(name) <= 120 else f"{name[:80]}~{hashlib.sha256(text.encode()).hexdigest()[:39]}"


def read_redis(rows: list[dict[str, Any]]) -> Iterator[Stored]:
    """Read a dump of the keys of a prefix, without the prefix."""
    for row in rows:
        if row["type"] != "list":
            continue
        scope, id = row["key"].removeprefix("{0}:").split(":", 1)
        *elements, head = row["value"]
        layout, start, end, version, updated, expires, payload = head.split("\n")
        assert (layout, int(end) - int(start)) == ("1", len(elements))
        lines = {}
        for element in elements:
            body, _, position = element.rpartition("\n")
            if element != "\n":
                lines[int(position)] = body.encode()
        values = {"scope": scope.replace("%3A", ":").replace("%25", "%"), "id": id, "version": version}
        values |= {"start": int(start), "end": int(end), "updated": int(updated)}
        yield make_stored(values | {"expires": int(expires) if expires else None}, payload, lines)


def read_mongodb(rows: list[dict[str, Any]]) -> Iterator[Stored]:
    """Read a dump of the documents in extended JSON."""
    documents = [(row["collection"], plain(row["document"])) for row in rows if "document" in row]
    segments = [each for name, each in documents if name.endswith("segments")]
    segments.sort(key=lambda each: (each["end"], each["part"]))
    for values in (each for name, each in documents if name.endswith("conversations")):
        if "version" not in values:
            continue
        assert values["format"] == 1
        counted = {None, *(run["by"] for run in values["runs"])}
        lines: dict[int, bytes] = {}
        for each in segments:
            if each["of"] == values["born"] and each["by"] in counted:
                for position, body in enumerate(each["bodies"], each["first"]):
                    before = lines[position] if each["part"] else b""
                    lines[position] = before + body.encode()
        lines |= {position: body.encode() for position, body in enumerate(values["tail"], values["from"])}
        assert values["from"] + len(values["tail"]) == values["end"]
        yield make_stored(values, values["info"], lines)


def plain(value: Any) -> Any:
    """Return a value of extended JSON as plain JSON."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() & {"$numberInt", "$numberLong"}:
        return int(*value.values())
    return value["$oid"] if "$oid" in value else {name: plain(part) for name, part in value.items()}


def read_s3(rows: list[dict[str, Any]]) -> Iterator[Stored]:
    """Read a dump of the objects below a prefix, without the prefix."""
    objects = {row["key"]: to_bytes(row["body"]) for row in rows}
    for name, data in objects.items():
        if not name.startswith("c/") or data.startswith(b"deleted "):
            continue
        first, _, tail = data.partition(b"\n")
        assert first[:9] == b"%08x " % crc32(first[9:])
        values = json.loads(first[9:])
        assert values["v"] == 2
        place = f"{safe_name(values['scope'])}/{safe_name(values['id'])}"
        assert name == f"c/{place}"
        marker = f"m/{safe_name(values['scope'])}/{values['marker']}/{safe_name(values['id'])}/{values['incarnation']}"
        assert objects[marker] == b""
        lines = split_s3_lines(tail, values["tail"][0])
        assert len(tail) == values["tail"][1]
        for end, token, blocks in values["segments"]:
            segment = objects[f"s/{place}/{values['incarnation']}/{blocks[0][0]:019d}-{token}"]
            found = split_s3_lines(segment, blocks[0][0])
            assert sum(size for _, size in blocks) == len(segment)
            assert max(found) == end - 1
            lines |= found
        yield make_stored(values, values["info"], lines)


def to_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else base64.b64decode(body["base64"])


def split_s3_lines(data: bytes, first: int) -> dict[int, bytes]:
    lines = {}
    for position, line in enumerate(data.split(b"\n")[:-1], first):
        if line[:9] == b"%08x " % crc32(line[9:], position & 0xFFFFFFFF):
            lines[position] = line[9:]
    return lines


def read_export(data: bytes) -> Iterator[Stored]:
    """Read an export."""
    head: dict[str, Any] = {}
    lines: list[bytes] = []
    complete = 0
    for line in data.splitlines():
        if not line.startswith(b'{"chathistory":'):
            lines.append(line)
            continue
        values = json.loads(line)
        assert values["chathistory"] == 2
        if values["kind"] == "conversation":
            head, lines = values, []
        elif values["kind"] == "complete":
            assert hashlib.sha256(b"".join(each + b"\n" for each in lines)).hexdigest() == values["sha256"]
            assert len(lines) == head["end"] - head["start"]
            complete += 1
            yield make_stored(head, head["payload"], dict(enumerate(lines, head["start"])))
        elif values["kind"] == "end":
            assert values["conversations"] == complete
            complete = 0


# The state.


def rebuild_state(records: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return the state after all records, without the fields that have their default."""
    positions = sorted(records)
    first = records[positions[0]]
    state: dict[str, Any] = {"creation_id": first["id"], "created": first["at"], "view_since": first["at"]}
    for position in positions:
        record = records[position]
        if record["kind"] in {"snapshot", "forked"}:
            state = {name: value for name, value in record["data"]["state"].items() if name != "v"}
        state = Fold(state, record, position).apply()
    return {name: value for name, value in state.items() if not is_default(name, value)}


def is_default(name: str, value: Any) -> bool:
    """Return True if a field of the state has the value that it has when it is absent."""
    if value is None or value in ([], {}):
        return True
    is_position = name in {"path_position", "cut_position", "setup_position"}
    return value == 0 and not is_position and name != "created"


@dataclass
class Fold:
    """Applies one record to a state, as "State" says for its kind."""

    state: dict[str, Any]
    record: dict[str, Any]
    position: int

    def apply(self) -> dict[str, Any]:
        kind, data = self.record["kind"], self.record.get("data") or {}
        self.state = dict(self.state)
        container = self.state.get("container")
        if container and data.get("forgotten_container") == container["id"]:
            self.state["container"] = None
        apply_kind = getattr(self, f"apply_{kind}", None)
        if apply_kind is not None:
            apply_kind(data)
        return self.state

    def copy(self, data: dict[str, Any], *names: str) -> None:
        self.state |= {name: data.get(name) for name in names}

    def invalidate(self, *, always: bool = False) -> None:
        self.state["cache_valid_from"] = self.position
        if always or not self.state.get("drop_stale_thinking"):
            self.state["thinking_valid_from"] = self.position

    def subtract_tokens(self, count: int) -> None:
        tokens = self.state.get("tokens", 0)
        self.state["tokens"] = tokens if tokens is UNKNOWN else max(0, tokens - count)

    def pay(self, response: dict[str, Any]) -> None:
        usage = dict(self.state.get("usage") or {})
        for name, count in (response.get("usage") or {}).items():
            if type(count) is int:
                usage[name] = usage.get(name, 0) + count
        self.state |= {"usage": usage, "model": response.get("model") or self.state.get("model")}
        container, known = response.get("container") or {}, self.state.get("container") or {}
        if container.get("id"):
            since = known["since"] if known.get("id") == container["id"] else self.record["at"]
            self.state["container"] = {"id": container["id"], "expires_at": container.get("expires_at"), "since": since}

    def open_turn(self, data: dict[str, Any]) -> None:
        turn = self.record.get("turn") or self.record["id"]
        now = self.state.get("open_turn")
        if "opened_by" not in data and now and now["id"] == turn:
            opened = now | {"lease_until": data["lease_until"]}
        else:
            opened = {"id": turn, "lease_until": data["lease_until"], "since": self.record["at"]}
            opened |= {"lease": self.record["id"]}
            opened |= {"process": data["opened_by"]} if "opened_by" in data else {}
        self.state |= {"open_turn": opened, "unanswered_turn": None}

    def close_turn(self, state: str | None, lease: str | None = None) -> None:
        turn = self.state.get("open_turn")
        if not turn or self.record.get("turn") not in (None, turn["id"]) or lease not in (None, turn["lease"]):
            return
        closed = None
        if state:
            closed = {"id": turn["id"], "state": state, "since": self.record["at"]}
            closed |= {"process": turn["process"]} if "process" in turn else {}
        self.state |= {"open_turn": None, "unanswered_turn": closed}

    def apply_message(self, data: dict[str, Any]) -> None:
        message, response, state = self.record["message"], data.get("response") or {}, self.state
        blocks = message["content"] if isinstance(message["content"], list) else []
        is_reply = message["role"] == "assistant"
        has_results = any(block["type"] == "tool_result" for block in blocks)
        state["messages"] = state.get("messages", 0) + 1
        state["turns"] = state.get("turns", 0) + (message["role"] == "user" and not has_results)
        usage = response.get("usage") or {}
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
        state["tokens"] = (
            sum(usage.get(name) or 0 for name in names) if is_reply and "input_tokens" in usage else UNKNOWN
        )
        if message["role"] == "user" and not state.get("preview"):
            texts = [block["text"] or "" for block in blocks if block["type"] == "text"]
            text = "\n".join(texts) if blocks else message["content"]
            state["preview"] = " ".join(text[:320].split())[:80] or None if isinstance(text, str) else None
        if is_reply and "copy_of" not in data:
            self.pay(response)
        if (
            is_reply
            and response.get("stop_reason") != "refusal"
            and any(block["type"] == "compaction" and block.get("content") for block in blocks)
        ):
            state |= {"view_start": self.position, "cut_position": None, "hidden_turns": state["turns"]}
            state |= {"view_since": self.record["at"], "cache_valid_from": self.position}
        if "lease_until" in data:
            self.open_turn(data)
        else:
            state["unanswered_turn"] = None
            if is_reply and response.get("stop_reason") != "pause_turn":
                self.close_turn(None)

    def apply_annotation(self, data: dict[str, Any]) -> None:
        self.state |= {name: data[name] for name in ("title", "tags", "metadata") if name in data}

    def apply_rewind(self, data: dict[str, Any]) -> None:
        self.copy(data, "messages", "turns", "tokens")
        self.state |= {"path_position": self.position, "open_turn": None, "unanswered_turn": None}
        if "view" in data:
            self.state |= data["view"]
            self.invalidate()

    def apply_snapshot(self, data: dict[str, Any]) -> None:
        self.copy(data, "messages", "turns", "tokens", "hidden_turns", "renamed_calls")
        self.state |= {"path_position": self.position, "preview": None}
        if data["cut_position"] is None:
            self.state["cut_position"] = None
        if data["was_sent"]:
            self.invalidate(always=True)

    def apply_setup(self, data: dict[str, Any]) -> None:
        known, new = self.state.get("setup_fingerprints"), data["fingerprints"]
        if known and any(known.get(name) != new.get(name) for name in ("system", "tools")):
            self.invalidate()
        self.state |= {"setup_fingerprints": new, "setup_position": self.position}

    def set_cut(self, data: dict[str, Any]) -> None:
        self.copy(data, "view_start", "hidden_turns", "view_since", "tokens", "renamed_calls")
        self.state |= {"cut_position": self.position, "cache_valid_from": self.position}

    def apply_cut(self, data: dict[str, Any]) -> None:
        self.set_cut(data)
        self.invalidate()

    def apply_compaction(self, data: dict[str, Any]) -> None:
        self.pay(data.get("response") or {})
        self.set_cut(data)

    def apply_thinking_policy(self, data: dict[str, Any]) -> None:
        if self.state.get("drop_stale_thinking") and not data["drop_stale_thinking"]:
            self.state["thinking_valid_from"] = self.position
        self.copy(data, "drop_stale_thinking")

    def apply_repair(self, data: dict[str, Any]) -> None:
        self.copy(data, "messages", "turns", "tokens", "hidden_turns", "cut_position")
        self.state["path_position"] = self.position
        if data["lost"]:
            self.invalidate(always=True)
        if data.get("setup_lost"):
            self.state |= {"setup_fingerprints": None, "setup_position": None}

    def apply_turn_opened(self, data: dict[str, Any]) -> None:
        self.open_turn(data)

    def apply_lease_renewed(self, data: dict[str, Any]) -> None:
        turn = self.state.get("open_turn")
        if turn and turn["lease"] == data["lease"]:
            self.state["open_turn"] = turn | {"lease_until": data["lease_until"]}

    def apply_turn_abandoned(self, data: dict[str, Any]) -> None:
        self.close_turn("interrupted", data.get("lease"))

    def apply_turn_refused(self, data: dict[str, Any]) -> None:
        self.close_turn("refused")
        self.subtract_tokens(data["tokens"])

    def apply_content_omitted(self, data: dict[str, Any]) -> None:
        self.subtract_tokens(data["tokens"])
        if data["invalidates_thinking"]:
            self.invalidate()
        if data["omits_all_thinking"]:
            self.state["thinking_valid_from"] = self.position

    def apply_reply_interrupted(self, data: dict[str, Any]) -> None:
        self.pay(data.get("response") or {})
        self.close_turn("interrupted", data.get("lease"))

    apply_reply_orphaned = apply_reply_interrupted

    def apply_record_lost(self, _data: dict[str, Any]) -> None:
        self.invalidate(always=True)
