"""Messages as other programs make them, from a seed: shapes of other APIs and libraries, and damage of all kinds.

    maker = ForeignMessages(random.Random(seed))
    maker.exchange()         a few messages that belong together: text, calls and their results
    maker.make_foreign(m)    the same message, as another program, a serializer or a user could have changed it

Each call has an input with a unique number, and its result repeats that number. So a test sees what belongs together,
whatever ids the messages have.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator

from ask_fake_api import PNG, said, user

GATEWAY_IDS = ["call_1", "call_2", "functions.look:0", "call_1|fc_2", "0", "toolu_p1_0", "tool.1", "x" * 70, "ü"]
KEYS = ["index", "id", "name", "timestamp", "parsed_output", "annotations", "extras", "provider_specific_fields",
        "created_at", "Meta", "_internal", "status", "cache_control", "weight"]  # fmt: skip
VALUES = [None, 0, True, "", "x", [], {}, [None], {"a": 1}, 1.5, {"type": "ephemeral"}, "\ud800"]
FOREIGN = [
    {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
    {"type": "reasoning", "reasoning": "So."},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "E"},
    {"type": "input_text", "text": "Hi"},
    {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": None},
    {"type": "refusal", "refusal": "No."},
    {"type": "tool_call", "id": "call_1", "name": "look", "args": {}},
    {"type": "function", "function": {"name": "look", "arguments": "{}"}},
    {"type": "tool-call", "toolCallId": "call_1", "toolName": "look", "input": {}},
    {"type": "hologram", "depth": 3},
    {"text": "as Bedrock has it"},
    {"toolUse": {"toolUseId": "t", "name": "look", "input": {}}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
    {"type": "image", "source_type": "base64", "mime_type": "image/png", "data": PNG},
    {"type": "image", "source": {"type": "base64", "media_type": "image/jpg", "data": PNG}},
    {"type": "image", "source": {"bytes": "x"}},
    {"type": "text_delta", "text": "Hi"},
    {"type": "thinking", "thinking": "of another model"},
    {"type": "thinking", "thinking": "x", "signature": None},
    {"type": "redacted_thinking"},
    {"type": "text"},
    {"type": "compaction", "content": ""},
    "just text",
]
MESSAGES = [
    {"role": "tool", "tool_call_id": "call_1", "content": "r"},
    {"role": "developer", "content": "Be brief."},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function"}]},
    {"role": "assistant", "content": "", "tool_calls": None, "function_call": None, "refusal": None},
    {"role": "assistant", "content": "Hi", "reasoning_content": "So.", "thinking_blocks": [], "annotations": []},
    {"type": "human", "content": "Hi"},
    {"type": "ai", "data": {"content": "Hi"}},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [FOREIGN[4]]},
    {"role": "model", "parts": [{"text": "Hi"}]},
    {"role": "user", "content": [{"text": "Hi"}]},
    {"sender": "human", "text": "Hi", "content": [{"type": "text", "text": "Hi", "start_timestamp": "2026-01-01"}]},
    {"role": "system", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]},
]


class ForeignMessages:
    """Makes messages; `count` is the number of calls so far."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = 0

    # Messages.

    def exchange(self) -> list[dict]:
        """Return messages that belong together, which the API would accept except for their ids."""
        makers = [self._words, self._blocks, self._odd, self._searching, self._telling, *[self._calling] * 4]
        made = self.rng.choice(makers)()
        return made if self.rng.random() < 0.9 else [*made, *self.again(made)]

    def again(self, messages: list[dict]) -> list[dict]:
        """Return messages with the same ids and other numbers: as if the exchange had happened again."""
        text = json.dumps(messages)
        for number in range(self.count, 0, -1):
            if f'"r{number}"' in text or f'"n": {number}}}' in text or f'\\"n\\": {number}}}' in text:
                self.count += 1
                text = text.replace(f'"r{number}"', f'"r{self.count}"')
                for quote in ('"', '\\"'):
                    text = text.replace(f"{quote}n{quote}: {number}}}", f"{quote}n{quote}: {self.count}}}")
        return json.loads(text)

    def _words(self) -> list[dict]:
        return [user(self.words()), {"role": "assistant", "content": self.words()}]

    def _blocks(self) -> list[dict]:
        return [user(self.blocks()), said(self.text())]

    def _odd(self) -> list[dict]:
        return [copy.deepcopy(self.rng.choice(MESSAGES))]

    def _telling(self) -> list[dict]:
        return [user(self.words()), {"role": "system", "content": "In verse."}, said(self.text())]

    def _searching(self) -> list[dict]:
        return [user(self.words()), said(*self.searched(), self.text())]

    def _calling(self) -> list[dict]:
        calls = self.calls()
        question = [user(self.words()), said(*([self.text()] if self.rng.random() < 0.5 else []), *calls)]
        if self.rng.random() < 0.25:
            return question
        answers = self.results(calls)
        if self.rng.random() < 0.2 and len(answers) > 1:
            return [*question, user(answers[:1]), user(answers[1:]), said(self.text())]
        return [*question, user(answers + ([self.text()] if self.rng.random() < 0.3 else [])), said(self.text())]

    def words(self) -> str:
        return self.rng.choice(["Hi", "Go on.", "half \ud83d", "two\nlines", " x "])

    def text(self) -> dict:
        return {"type": "text", "text": self.words()}

    def blocks(self) -> list[dict]:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        inner = {"type": "content", "content": [{"type": "text", "text": "page"}]}
        document = {"type": "document", "title": "Paper", "source": inner}
        hit = {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "hit"}]}
        return [self.text(), *self.rng.sample([image, document, hit], self.rng.randint(0, 3))]

    def calls(self) -> list[dict]:
        return [self.call() for _ in range(self.rng.choice([1, 1, 2, 3]))]

    def call(self) -> dict:
        self.count += 1
        id = self.rng.choice([*GATEWAY_IDS, "call_1", "call_1", "call_2", f"toolu_{self.count}", f"toolu_{self.count}"])
        given: object = {"n": self.count}
        if self.rng.random() < 0.2:
            given = json.dumps(given)
        more = {"toolset_name": "set"} if self.rng.random() < 0.1 else {}
        return {"type": "tool_use", "id": id, "name": self.rng.choice(["look", "count"]), "input": given, **more}

    def results(self, calls: list[dict]) -> list[dict]:
        return [{"type": "tool_result", "tool_use_id": call["id"], **self.outcome(call)} for call in calls]

    def outcome(self, call: dict) -> dict:
        number = number_of(call)
        words = f"r{number}"
        kind = self.rng.choice(["text", "text", "blocks", "null", "error", "references"])
        match kind:
            case "blocks":
                return {"content": [{"type": "text", "text": words}, *self.rng.sample(self.blocks(), 1)]}
            case "null":
                return {"content": None, "is_error": None}
            case "error":
                return {"content": words, "is_error": True}
            case "references":
                names = [{"type": "tool_reference", "tool_name": name} for name in ("look", "gone")]
                return {"content": [{"type": "text", "text": words}, *names]}
        return {"content": words}

    def searched(self) -> list[dict]:
        self.count += 1
        id = self.rng.choice(["srvtoolu_1", f"srvtoolu_{self.count}", "call_1", "a.b"])
        hit = {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "E", "page_age": None}
        return [
            {"type": "server_tool_use", "id": id, "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": id, "content": [hit]},
        ]

    # Changes.

    def make_foreign(self, message: dict) -> dict:
        """Return a message with random changes."""
        message = copy.deepcopy(message)
        accidents = (
            [self._extra_key] * 5
            + [self._null] * 2
            + [
                self._value,
                self._drop,
                self._block,
                self._block,
                self._role,
                self._half,
            ]
        )
        for _ in range(self.rng.choice([0, 0, 0, 1, 1, 2])):
            accident = self.rng.choice(accidents)
            accident(message)
        return message

    def _role(self, message: dict) -> None:
        message["role"] = self.rng.choice(["user", "assistant", "system"])

    def _half(self, message: dict) -> None:
        """Cut the message like an interrupted stream: the end is missing, and the last block may be incomplete."""
        if isinstance(message.get("content"), list) and message["content"]:
            del message["content"][self.rng.randint(1, len(message["content"])) :]
            last = message["content"][-1]
            if isinstance(last, dict) and isinstance(last.get("input"), dict):
                last["input"] = self.rng.choice([{}, json.dumps(last["input"])[:-2], ""])
            message |= self.rng.choice([{}, {"type": "message", "stop_reason": None}])

    def _extra_key(self, message: dict) -> None:
        holder, _ = self._place(message)
        holder.setdefault(self.rng.choice(KEYS), copy.deepcopy(self.rng.choice(VALUES)))

    def _null(self, message: dict) -> None:
        holder, name = self._place(message)
        if name is not None:
            holder[name] = None
        holder.setdefault(self.rng.choice(["caller", "toolset_name", "citations", "is_error", "title"]), None)

    def _value(self, message: dict) -> None:
        holder, name = self._place(message)
        if name is not None:
            holder[name] = copy.deepcopy(self.rng.choice(VALUES))

    def _drop(self, message: dict) -> None:
        holder, name = self._place(message)
        if name is not None:
            del holder[name]

    def _block(self, message: dict) -> None:
        if isinstance(message.get("content"), list):
            place = self.rng.randint(0, len(message["content"]))
            message["content"].insert(place, copy.deepcopy(self.rng.choice(FOREIGN)))

    def _place(self, message: dict) -> tuple[dict, str | None]:
        """Return an object within a message, and one of its keys. The input of a tool is never changed."""
        holder = self.rng.choice(list(_objects(message)))
        return holder, self.rng.choice(list(holder)) if holder else None

    # Saved replies.

    def saved(self, response: dict) -> dict:
        """Return a reply of the API as a program saves it, with all of its content."""
        response = copy.deepcopy(response)
        for block in response["content"]:
            self._dumped(block)
        match self.rng.choice(["whole", "whole", "typeless", "bare", "named"]):
            case "typeless":
                del response["type"]
            case "bare":
                return {name: response[name] for name in ("role", "content")}
            case "named":
                return {name: response[name] for name in ("role", "content", "id")} | {"timestamp": 1.5}
        return response

    def _dumped(self, block: dict) -> None:
        """Add the fields that serializers and streams add."""
        kind = self.rng.choice(["as it is", "as it is", "model_dump", "stream", "arguments"])
        if kind == "model_dump":
            more = {"text": ("citations", "parsed_output"), "tool_use": ("caller", "toolset_name")}
            for name in more.get(block["type"], ()):
                block.setdefault(name, None)
        elif kind == "stream":
            block["index"] = 0
        elif kind == "arguments" and block["type"] == "tool_use":
            block["input"] = json.dumps(block["input"])


def _objects(value: object) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
        for name, part in value.items():
            if name != "input":
                yield from _objects(part)
    if isinstance(value, list):
        for part in value:
            yield from _objects(part)


def number_of(call: dict) -> int | None:
    """Return the number of a call, by its input."""
    given = call.get("input")
    if isinstance(given, str):
        with contextlib.suppress(ValueError):
            given = json.loads(given)
    return given.get("n") if isinstance(given, dict) else None
