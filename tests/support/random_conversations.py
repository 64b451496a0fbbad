"""Whole conversations from a seed, and a client directly on the fake API, so that thousands of them can run.

    plan = make_plan(seed)                      what the user says, what Claude answers, what fails: plain data
    played = play_on_engine(plan, store)        ... on a `ChatEngine`, with `send` and `stream`
    played = play_without_engine(plan, store)   ... on a `Conversation`, with a caller who calls the API
    played.check()                              what must be true of every conversation

A test adds a policy (`options` go to the engine, `prepare` gets the conversation first) and more assertions. The plans
contain everything that the API has: parallel calls, server tools, pauses, mixed turns, thinking with real signatures,
images, documents, system messages, failures, broken streams, refusals, replies that are cut off or empty, calls without
results, rewinds.

The client passes the bytes of a request to the fake API and returns its answer, without HTTP and without the SDK's
models: other tests show that the SDK is called correctly, and here it would take most of the time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace

from anthropic.types.beta import BetaMessage

from chathistory import ChatEngine, History
from chathistory.errors import InvalidInput
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Recorded, Reply
from chathistory.trimming.context_editing import CompactionBlocks

MODEL = "claude-sonnet-5-5"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WORDS = [
    "Why?",
    "yes",
    "yes",
    "Go on.",
    "Ünïcödé 😀",
    "two\nlines",
    "x" * 60,
    "a \ud800 lone surrogate",
    "NUL \0 \u2028",
]
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("look", "count")] + [
    {"type": "web_search_20250305", "name": "web_search"}
]
THOUGHTS = [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "redacted_thinking", "data": ""}]


@dataclass(frozen=True)
class Say:
    """The user says something, and gets these answers: one, or several if replies pause.

    broken: After how many events the stream of the reply is interrupted; None: it is complete.
    """

    content: object
    answers: tuple[object, ...]
    broken: int | None = None
    streamed: bool = False


@dataclass(frozen=True)
class Retry:
    """The failed turn is sent again, after a system message if `system` is set."""

    answers: tuple[object, ...]
    system: str | None = None


@dataclass(frozen=True)
class Rewind:
    """The user takes back the last turns."""

    turns: int


@dataclass(frozen=True)
class Name:
    """A user sets the title."""

    title: str


Move = Say | Retry | Rewind | Name


@dataclass(frozen=True)
class Plan:
    """What happens in a conversation, and with which system prompt."""

    seed: int
    system: str | None
    moves: tuple[Move, ...]


def make_plan(seed: int, *, longest: int = 8) -> Plan:
    """Return the plan of a seed; the same plan each time."""
    return _Planner(random.Random(seed), seed).make_plan(longest)


class _Planner:
    """Makes a plan; `open_calls` are the calls of client tools in the last reply."""

    def __init__(self, rng: random.Random, seed: int) -> None:
        self.rng = rng
        self.seed = seed
        self.count = 0
        self.open_calls: list[str] = []
        self.open_search: dict | None = None

    def make_plan(self, longest: int) -> Plan:
        moves: list[Move] = []
        while len(moves) < self.rng.randint(2, longest):
            moves += self._moves()
        return Plan(self.seed, self.rng.choice([None, "Be brief.", "Be kind."]), tuple(moves))

    def _moves(self) -> list[Move]:
        kind = self.rng.choices(["say", "fail", "break", "rewind", "name"], [12, 1, 1, 1, 1])[0]
        match kind:
            case "fail":
                return self._failing(None)
            case "break":
                return self._failing(self.rng.randrange(0, 4))
            case "rewind":
                self.open_calls, self.open_search = [], None
                return [Rewind(self.rng.randint(1, 2))]
            case "name":
                return [Name(f"Title {self.rng.randrange(9)}")]
        return [Say(self._content(), tuple(self._answers()), streamed=self.rng.random() < 0.3)]

    def _failing(self, broken: int | None) -> list[Move]:
        """A turn whose request fails or whose stream is interrupted; it is sent again, or abandoned."""
        mixed = self.open_search is not None  # only results can follow it, so it must be sent again
        content = self._content()
        answer = Failure(self.rng.choice([429, 500, 529])) if broken is None else Reply(content=[self._text()])
        failed = Say(content, (answer,), broken=broken)
        if self.rng.random() < 0.5 and not mixed:
            self.open_calls, self.open_search = [], None
            return [failed]
        answers = tuple(self._answers())
        # a system message without a reply after it moves after the user's next message, which extends no request
        has_system = not mixed and not _is_empty(answers[-1])
        return [failed, Retry(answers, "From now on, in verse." if has_system and self.rng.random() < 0.3 else None)]

    def _content(self) -> object:
        """What the user says: mostly results where calls are open; text, images, documents."""
        calls, self.open_calls = self.open_calls, []
        if self.open_search and self.rng.random() < 0.9:
            return [self._result(name) for name in calls]  # a mixed turn accepts only results
        words = [self._text()]
        if self.open_search:  # it cannot get a result
            self.open_search = None
            return [*map(self._result, calls), *words]
        if calls and self.rng.random() < 0.85:
            self.rng.shuffle(calls)
            some = calls if self.rng.random() < 0.9 else calls[1:]
            said = words if self.rng.random() < 0.3 else []
            return [*map(self._result, some), *said] or "Never mind."
        return self.rng.choice([self._words, self._words, self._blocks])()

    def _words(self) -> str:
        return self.rng.choice(WORDS)

    def _blocks(self) -> list[dict]:
        makers = [self._text, self._image, self._document, self._found]
        return [self.rng.choice(makers)() for _ in range(self.rng.randint(1, 3))]

    def _text(self) -> dict:
        marker = {"cache_control": {"type": "ephemeral"}} if self.rng.random() < 0.1 else {}
        return {"type": "text", "text": self._words(), **marker}

    def _image(self) -> dict:
        return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}

    def _document(self) -> dict:
        return {
            "type": "document",
            "title": "Paper",
            "source": {"type": "text", "media_type": "text/plain", "data": "d"},
        }

    def _found(self) -> dict:
        return {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "hit"}]}

    def _result(self, name: str) -> dict:
        content = self.rng.choice(["done", [self._text()], [self._image()], "", "long " * 30])
        return {"type": "tool_result", "tool_use_id": name, "content": content, "is_error": self.rng.random() < 0.1}

    def _answers(self) -> Iterator[object]:
        """What Claude answers: replies that pause, and a reply that ends the turn."""
        search, self.open_search = self.open_search, None
        blocks = [self._search_result(search)] if search else []
        while self.rng.random() < 0.1:
            search = self._search()
            yield Reply(content=[*self._thoughts(), *blocks, search], stop_reason="pause_turn")
            blocks = [self._search_result(search)]
        yield self._last(blocks)

    def _last(self, blocks: list[dict]) -> Reply:
        kind = self.rng.choices(["words", "calls", "mixed", "refusal", "empty", "cut"], [10, 6, 1, 1, 1, 1])[0]
        thoughts = self._thoughts()
        match kind:
            case "calls":
                return Reply(content=[*thoughts, *blocks, *self._speech(), *self._calls()])
            case "mixed":
                self.open_search = self._search()
                calls = self._calls(plain=True)
                return Reply(content=[*thoughts, *blocks, *calls, self.open_search], stop_reason="tool_use")
            case "refusal":
                return Reply(content=[], stop_reason="refusal")
            case "empty":
                blank = [[], [{"type": "text", "text": ""}], [{"type": "text", "text": " "}]]
                return Reply(content=[*blocks, *self.rng.choice(blank)], stop_reason="end_turn")
            case "cut":
                stop = self.rng.choice(["max_tokens", "model_context_window_exceeded"])
                half = self._calls() if self.rng.random() < 0.5 else self._speech()
                self.open_calls = []  # a call that was cut off is not run
                return Reply(content=[*thoughts, *blocks, *half], stop_reason=stop)
        return Reply(content=[*thoughts, *blocks, *self._searches(), self._speech()[0]])

    def _thoughts(self) -> list[dict]:
        return [dict(self.rng.choice(THOUGHTS)) for _ in range(self.rng.choice([0, 1, 1, 2]))]

    def _speech(self) -> list[dict]:
        return [{"type": "text", "text": self._words(), "citations": None}]

    def _calls(self, *, plain: bool = False) -> list[dict]:
        found: list[dict] = []
        for _ in range(self.rng.randint(1, 3)):
            name = self._name("toolu")
            self.open_calls.append(name)
            between = [] if plain else self._thoughts()[:1]
            given = {"at": self.count, "nested": {"b": [1.5, None], "a": ""}}
            found += [
                *between,
                {"type": "tool_use", "id": name, "name": self.rng.choice(["look", "count"]), "input": given},
            ]
        return found

    def _searches(self) -> list[dict]:
        if self.rng.random() < 0.8:
            return []
        search = self._search()
        return [search, self._search_result(search)]

    def _search(self) -> dict:
        return {"type": "server_tool_use", "id": self._name("srvtoolu"), "name": "web_search", "input": {"query": "q"}}

    def _search_result(self, search: dict) -> dict:
        hit = {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "E" * 20, "page_age": None}
        return {"type": "web_search_tool_result", "tool_use_id": search["id"], "content": [hit]}

    def _name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}_{self.seed}_{self.count}"


def _is_empty(answer: Reply) -> bool:
    return not any(block.get("text", "said").strip() for block in answer.content)


# --- The client.


class Refused(Exception):
    """The fake API answered with an error."""

    def __init__(self, status: int, body: dict) -> None:
        super().__init__(f"{status}: {body['error']['message']}")
        self.status = status


class Broken(Exception):
    """A stream was interrupted."""


def _message(body: dict, request_id: str = "") -> BetaMessage:
    """A reply as the SDK makes it from the API's JSON: without strict validation."""
    message = BetaMessage.construct(**json.loads(json.dumps(body)))
    message._request_id = request_id
    return message


class _Stream:
    def __init__(self, message: BetaMessage, after: int | None) -> None:
        self.request_id = message._request_id
        self._message = message
        self._after = after
        self._seen: list[dict] = []

    @property
    def current_message_snapshot(self) -> BetaMessage:
        return _message({"content": self._seen})

    def get_final_message(self) -> BetaMessage:
        return self._message

    def __iter__(self) -> Iterator[SimpleNamespace]:
        for number, event in enumerate(self._events()):
            if number == self._after:
                raise Broken
            yield event

    def _events(self) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(type="message_start")
        for index, block in enumerate(self._message.to_dict()["content"]):
            self._seen.append(block)
            if block["type"] == "text":
                yield SimpleNamespace(type="text", text=block["text"])
            yield SimpleNamespace(type="content_block_stop", index=index)
        yield SimpleNamespace(type="message_stop")


class DirectClient:
    """Takes the place of an SDK client: `.messages` and `.beta`, directly on a fake API.

    answers: The next answers; a request without one is a mistake in the test.
    """

    def __init__(self, **options: object) -> None:
        self.answers: list[object] = []
        self.api = FakeMessagesAPI(lambda _: self.answers.pop(0), **options)
        self.break_after: int | None = None
        self.messages = self
        self.beta = self

    def create(self, **arguments: object) -> BetaMessage:
        """Answer as `messages.create` does. Raises `Refused` for an error."""
        answered = self._request("/v1/messages", arguments)
        return _message(answered, self.api.requests[-1].request_id or "")

    @contextmanager
    def stream(self, **arguments: object) -> Iterator[_Stream]:
        """Answer as `messages.stream` does. Raises `Broken` after `break_after` events."""
        yield _Stream(self.create(**arguments), self.break_after)

    def count(self, messages: list[dict], **arguments: object) -> int:
        """Return the tokens of a request, to which the fake API applies all its rules."""
        sent = {name: value for name, value in arguments.items() if name not in ("max_tokens", "container")}
        return self._request("/v1/messages/count_tokens", sent | {"messages": messages})["input_tokens"]

    def _request(self, path: str, arguments: dict) -> dict:
        betas = ",".join(arguments.get("betas") or ())
        headers = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"} | (
            {"anthropic-beta": betas} if betas else {}
        )
        body = {name: value for name, value in arguments.items() if name != "betas"}
        raw = json.dumps(body, ensure_ascii=False).encode()  # as the SDK does: a lone surrogate is an error
        plan = self.api.answer("POST", path, headers, raw)
        answered = json.loads(plan.chunks[0])
        if plan.status != 200:
            raise Refused(plan.status, answered)
        return answered


# --- Playing a plan.


@dataclass
class PlayedConversation:
    """A conversation after its plan was played.

    Attributes:
        plan: The plan.
        client: The client.
        chat: The conversation.
        setup: Model, system prompt and tools.
        said: The messages of the user and of Claude that the log must have, in order.
        cuts: The numbers of requests before which something was taken back: they need not extend the one before.
        positions: The positions before each message of the user.
    """

    plan: Plan
    client: DirectClient
    chat: object
    setup: dict
    said: list[dict] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    @property
    def requests(self) -> list[Recorded]:
        """The requests for replies."""
        return [request for request in self.client.api.requests if request.path == "/v1/messages"]

    def check(self, *, extends: bool = True) -> None:
        """Check what must be true of every conversation, however it is trimmed."""
        refused = [(request.rule, request.body) for request in self.requests if request.rule is not None]
        assert refused == [], f"seed {self.plan.seed}: {refused[0][0]}"
        assert self.client.answers == [], f"seed {self.plan.seed}: the engine did not request all answers"
        self._check_log()
        self._check_next()
        if extends:
            self._check_extends()

    def _check_log(self) -> None:
        stored = iter(entry.message for entry in self.chat.entries() if entry.kind == "message")
        for message in self.said:
            assert any(message == found for found in stored), f"seed {self.plan.seed}: not in the log, or out of order"

    def _check_next(self) -> None:
        """Check that the API accepts the view together with the user's next message."""
        self.chat.state()
        self.chat.append({"role": "user", "content": "And now?"})
        messages = self.chat.messages()
        compactions = CompactionBlocks.from_messages(messages)
        edits = compactions.select_edits(None)
        more = {"context_management": {"edits": edits}} if edits else {}
        self.client.count(messages, betas=compactions.select_betas(edits), **more, **self.setup)

    def _check_extends(self) -> None:
        """Check that each request extends the one before, except after a rewind and for refused turns."""
        requests = self.requests
        for start, end in zip([0, *self.cuts], [*self.cuts, len(requests)], strict=True):
            self.client.api.assert_extends(_without_refused(requests[start:end]))

    def note_replies(self, count: int) -> None:
        """Note the replies to the requests from number `count` on, which were all received."""
        self.said += [
            {"role": "assistant", "content": request.reply["content"]}
            for request in self.requests[count:]
            if request.reply is not None
            and "compaction" not in request.body  # a summary is stored in an entry of its own
        ]


def _without_refused(requests: list[Recorded]) -> list[Recorded]:
    """Leave out the requests of turns with a refused reply: the view leaves out the whole turn."""
    kept: list[Recorded] = []
    for request in requests:
        kept.append(request)
        if request.reply and request.reply["stop_reason"] == "refusal":
            first = next((each for each in reversed(kept) if _opens_turn(each.body["messages"])), kept[0])
            kept = [each for each in kept if len(each.body["messages"]) < _count_spoken(first)]
    return kept


def _count_spoken(request: Recorded) -> int:
    """Return the number of messages in a request up to the last one that is not a system message."""
    roles = [message["role"] for message in request.body["messages"]]
    return len(roles) - next(place for place, role in enumerate(reversed(roles)) if role != "system")


def _opens_turn(messages: list[dict]) -> bool:
    """Whether a request ends with text of the user, and not with tool results or a paused reply."""
    last = next(message for message in reversed(messages) if message["role"] != "system")
    blocks = last["content"] if isinstance(last["content"], list) else []
    return last["role"] == "user" and all(block["type"] != "tool_result" for block in blocks)


Prepare = Callable[[object], None]


def play_on_engine(
    plan: Plan, store: object, *, api: dict | None = None, prepare: Prepare | None = None, **options: object
) -> PlayedConversation:
    """Play a plan on an engine with some options; `api` are the options of the fake API."""
    client = DirectClient(**(api or {}))
    name = f"random/{plan.seed}"
    engine = ChatEngine(client, store, model=MODEL, system=plan.system, tools=TOOLS, **options)
    setup = {"model": MODEL, "system": plan.system or "", "tools": TOOLS}
    played = PlayedConversation(plan, client, History(store).conversation(name), {k: v for k, v in setup.items() if v})
    if prepare:
        prepare(played.chat)
    for move in plan.moves:
        _Play(engine, played, name).play(move)
    return played


def play_without_engine(
    plan: Plan, store: object, *, api: dict | None = None, prepare: Prepare | None = None
) -> PlayedConversation:
    """Play a plan without an engine, like a caller who calls the API and appends its replies.

    A message of a turn that fails is stored and not sent. Rewinds and titles are skipped.
    """
    client = DirectClient(**(api or {}))
    setup = {"model": MODEL, "system": plan.system or "", "tools": TOOLS}
    chat = History(store).conversation(f"alone/{plan.seed}")
    played = PlayedConversation(plan, client, chat, {name: value for name, value in setup.items() if value})
    if prepare:
        prepare(chat)
    for move in plan.moves:
        if isinstance(move, Say):
            _append(played, {"role": "user", "content": move.content})
        if isinstance(move, Retry) and move.system:
            _append(played, {"role": "system", "content": move.system})
        if isinstance(move, Say | Retry) and all(isinstance(answer, Reply) for answer in move.answers):
            _ask(played, move)
    return played


def _append(played: PlayedConversation, message: dict) -> None:
    played.chat.append(message)
    played.said.append(message)


def _ask(played: PlayedConversation, move: Say | Retry) -> None:
    if isinstance(move, Say) and move.broken is not None:
        return
    played.client.answers = list(move.answers)
    while played.client.answers:
        answer = played.client.create(messages=played.chat.messages(), max_tokens=1000, **played.setup)
        played.chat.append(answer)
        played.said.append({"role": "assistant", "content": answer.to_dict()["content"]})


@dataclass
class _Play:
    engine: ChatEngine
    played: PlayedConversation
    name: str

    def play(self, move: Move) -> None:
        before, count = self._prefix(), len(self.played.requests)
        self._play(move)
        if self._prefix() > before and not isinstance(move, Rewind):
            self.played.cuts.append(count)  # the turn began with a cut

    def _prefix(self) -> int:
        summary = self.played.chat.state()
        return summary.view.cache_valid_from if summary else 0

    def _play(self, move: Move) -> None:
        match move:
            case Name(title):
                self.played.chat.state()
                self.played.chat.set_title(title)
            case Rewind(turns):
                self._rewind(turns)
            case Retry(answers, system):
                self._retry(answers, system)
            case Say():
                self._say(move)

    def _say(self, move: Say) -> None:
        client, count = self.played.client, len(self.played.requests)
        client.answers, client.break_after = list(move.answers), move.broken
        summary = self.played.chat.state()
        self.played.positions.append(self.played.chat.log.known_head().end if summary else 0)
        message = {"role": "user", "content": move.content}
        before = self._count_stored(message)
        try:
            if move.streamed or move.broken is not None:
                with self.engine.stream(self.name, move.content) as stream:
                    stream.get_final_reply()
            else:
                self.engine.send(self.name, move.content)
        except (Refused, Broken):
            self._note_message(message, before)  # planned; a request that broke a rule shows in `check`
        else:
            self._note_message(message, before)
            self.played.note_replies(count)

    def _note_message(self, message: dict, before: int) -> None:
        """Note a message, unless its turn was started again: the same text after a failure is stored once."""
        if self._count_stored(message) > before:
            self.played.said.append(message)

    def _count_stored(self, message: dict) -> int:
        return sum(entry.message == message for entry in self.played.chat.entries() if entry.kind == "message")

    def _retry(self, answers: tuple[object, ...], system: str | None) -> None:
        client, count = self.played.client, len(self.played.requests)
        self.played.chat.state()
        if system:
            message = {"role": "system", "content": system}
            self.played.chat.append(message)
            self.played.said.append(message)
        client.answers, client.break_after = list(answers), None
        if self.engine.resume(self.name) is None:
            client.answers = []  # the stream was interrupted after its end: there is nothing to send again
        self.played.note_replies(count)

    def _rewind(self, turns: int) -> None:
        back = self.played.positions[-turns:]
        if back:
            self.played.chat.state()
            with suppress(InvalidInput):  # within a trimmed tool turn: it raises, and nothing changes
                self.played.chat.rewind(to=back[0])
                del self.played.positions[-turns:]
                self.played.cuts.append(len(self.played.requests))
