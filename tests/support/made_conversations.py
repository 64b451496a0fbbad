"""Whole conversations, made up from a seed, and a short wire to the stand-in over which thousands can be held.

    made = conversation(seed)             what is said, what Claude answers, what goes wrong: plain data
    held = hold(made, store)              ... on a `ChatEngine`, by `send` and `stream`
    held = hold_alone(made, store)        ... on a `Conversation`, by a caller who drives the API
    held.check()                          what must be true of any of them

What a test adds is a policy (`options` go to the engine, `prepare` gets the conversation before it is held) and what
else should be true. All comes in that the API has: parallel calls, the server's tools, pauses, mixed turns, thinking
that is really signed, images, documents, system messages, failures, broken streams, refusals, replies that are cut or
empty, calls that nobody answers, rewinds.

The wire hands a request's bytes to the stand-in and its answer back, without HTTP and without the SDK's models: that
the SDK is driven rightly is shown elsewhere; here it would be most of the time.
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
    """The user says something, and gets these answers: one, or several where replies pause.

    broken: the reply is streamed, and breaks off after so many events; None: it does not.
    """

    content: object
    answers: tuple[object, ...]
    broken: int | None = None
    streamed: bool = False


@dataclass(frozen=True)
class Retry:
    """The turn that failed is sent again, after a system message if there is one."""

    answers: tuple[object, ...]
    system: str | None = None


@dataclass(frozen=True)
class Rewind:
    """The user goes back by so many turns."""

    turns: int


@dataclass(frozen=True)
class Name:
    """Somebody gives the conversation a title."""

    title: str


Move = Say | Retry | Rewind | Name


@dataclass(frozen=True)
class Made:
    """A conversation that was made up: how it is held, and what happens."""

    seed: int
    system: str | None
    moves: tuple[Move, ...]


def conversation(seed: int, *, longest: int = 8) -> Made:
    """Return the conversation of a seed; the same each time."""
    return _Maker(random.Random(seed), seed).made(longest)


class _Maker:
    """Makes up a conversation; `open_calls` are those that the last reply left to the client."""

    def __init__(self, rng: random.Random, seed: int) -> None:
        self.rng = rng
        self.seed = seed
        self.count = 0
        self.open_calls: list[str] = []
        self.open_search: dict | None = None

    def made(self, longest: int) -> Made:
        moves: list[Move] = []
        while len(moves) < self.rng.randint(2, longest):
            moves += self._moves()
        return Made(self.seed, self.rng.choice([None, "Be brief.", "Be kind."]), tuple(moves))

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
        """A turn whose request fails or whose stream breaks; it is tried again, or left."""
        mixed = self.open_search is not None  # only results may follow it, so that it has to be tried again
        content = self._content()
        answer = Failure(self.rng.choice([429, 500, 529])) if broken is None else Reply(content=[self._text()])
        failed = Say(content, (answer,), broken=broken)
        if self.rng.random() < 0.5 and not mixed:
            self.open_calls, self.open_search = [], None
            return [failed]
        answers = tuple(self._answers())
        # without a reply after it, a system message has to move behind what the user says next: no extension
        may_tell = not mixed and not _is_empty(answers[-1])
        return [failed, Retry(answers, "From now on, in verse." if may_tell and self.rng.random() < 0.3 else None)]

    def _content(self) -> object:
        """What the user says: results where calls are open (mostly), words, pictures, papers."""
        calls, self.open_calls = self.open_calls, []
        if self.open_search and self.rng.random() < 0.9:
            return [self._result(name) for name in calls]  # a mixed turn takes results, and nothing else
        words = [self._text()]
        if self.open_search:  # it can get no result any more
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
        """What Claude answers: replies that pause, and one that ends the turn."""
        opening, self.open_search = self.open_search, None
        blocks = [self._search_result(opening)] if opening else []
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
                self.open_calls = []  # a call that was cut is not run
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


# --- the wire


class Refused(Exception):
    """The stand-in answered with an error."""

    def __init__(self, status: int, body: dict) -> None:
        super().__init__(f"{status}: {body['error']['message']}")
        self.status = status


class Broken(Exception):
    """A stream broke off."""


def _message(body: dict, request_id: str = "") -> BetaMessage:
    """A reply as the SDK makes it: lenient, as what it reads from the API."""
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


class Wire:
    """Stands for a client of the SDK: `.messages` and `.beta`, straight to a stand-in.

    answers: what comes next; a request that finds none is a mistake of the test.
    """

    def __init__(self, **options: object) -> None:
        self.answers: list[object] = []
        self.api = FakeMessagesAPI(lambda _: self.answers.pop(0), **options)
        self.break_after: int | None = None
        self.messages = self
        self.beta = self

    def create(self, **arguments: object) -> BetaMessage:
        """Answer as `messages.create` does; `Refused` for an error."""
        answered = self._asked("/v1/messages", arguments)
        return _message(answered, self.api.requests[-1].request_id or "")

    @contextmanager
    def stream(self, **arguments: object) -> Iterator[_Stream]:
        """Answer as `messages.stream` does; `Broken` in the middle if `break_after` says so."""
        yield _Stream(self.create(**arguments), self.break_after)

    def count(self, messages: list[dict], **arguments: object) -> int:
        """Return the tokens of a request, which the stand-in holds to all its rules."""
        sent = {name: value for name, value in arguments.items() if name not in ("max_tokens", "container")}
        return self._asked("/v1/messages/count_tokens", sent | {"messages": messages})["input_tokens"]

    def _asked(self, path: str, arguments: dict) -> dict:
        betas = ",".join(arguments.get("betas") or ())
        headers = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"} | (
            {"anthropic-beta": betas} if betas else {}
        )
        body = {name: value for name, value in arguments.items() if name != "betas"}
        raw = json.dumps(body, ensure_ascii=False).encode()  # as the SDK does it: a lone surrogate is an error
        plan = self.api.answer("POST", path, headers, raw)
        answered = json.loads(plan.chunks[0])
        if plan.status != 200:
            raise Refused(plan.status, answered)
        return answered


# --- holding them


@dataclass
class Paused:
    """A conversation that was held: the wire it went over, the conversation, and what has to be in its log.

    said: the messages of the user and of Claude, in their order. cut: the numbers of requests at which something was
    taken back, so that the next one need not extend it.
    """

    made: Made
    wire: Wire
    chat: object
    setup: dict
    said: list[dict] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    @property
    def requests(self) -> list[Recorded]:
        """The requests for replies."""
        return [request for request in self.wire.api.requests if request.path == "/v1/messages"]

    def check(self, *, extends: bool = True) -> None:
        """Assert what must be true of every conversation, however it is trimmed."""
        refused = [(request.rule, request.body) for request in self.requests if request.rule is not None]
        assert refused == [], f"seed {self.made.seed}: {refused[0][0]}"
        assert self.wire.answers == [], f"seed {self.made.seed}: not all was asked for"
        self._check_log()
        self._check_next()
        if extends:
            self._check_extends()

    def _check_log(self) -> None:
        stored = iter(entry.message for entry in self.chat.entries() if entry.kind == "message")
        for message in self.said:
            assert any(message == found for found in stored), f"seed {self.made.seed}: not in the log, or out of order"

    def _check_next(self) -> None:
        """Whatever comes next, the API takes it: the view, and the user's next words."""
        self.chat.state()
        self.chat.append({"role": "user", "content": "And now?"})
        messages = self.chat.messages()
        compactions = CompactionBlocks.from_messages(messages)
        edits = compactions.select_edits(None)
        more = {"context_management": {"edits": edits}} if edits else {}
        self.wire.count(messages, betas=compactions.select_betas(edits), **more, **self.setup)

    def _check_extends(self) -> None:
        """Each request extends the one before; but for what was taken back, and turns that were refused."""
        requests = self.requests
        for start, end in zip([0, *self.cuts], [*self.cuts, len(requests)], strict=True):
            self.wire.api.assert_extends(_without_refused(requests[start:end]))

    def heard(self, count: int) -> None:
        """Take down the replies to the requests since number `count`, which were all received."""
        self.said += [
            {"role": "assistant", "content": request.reply["content"]}
            for request in self.requests[count:]
            if request.reply is not None and "compaction" not in request.body  # those stand in records of their own
        ]


def _without_refused(requests: list[Recorded]) -> list[Recorded]:
    """Leave out the requests of turns whose reply was refused: the view takes back all of such a turn."""
    kept: list[Recorded] = []
    for request in requests:
        kept.append(request)
        if request.reply and request.reply["stop_reason"] == "refusal":
            opening = next((each for each in reversed(kept) if _opens_turn(each.body["messages"])), kept[0])
            kept = [each for each in kept if len(each.body["messages"]) < _said_in(opening)]
    return kept


def _said_in(request: Recorded) -> int:
    """Return how many messages a request has up to the last that is not the system's."""
    roles = [message["role"] for message in request.body["messages"]]
    return len(roles) - next(place for place, role in enumerate(reversed(roles)) if role != "system")


def _opens_turn(messages: list[dict]) -> bool:
    """Whether a request ends with words of the user, and not with results or a reply that paused."""
    last = next(message for message in reversed(messages) if message["role"] != "system")
    blocks = last["content"] if isinstance(last["content"], list) else []
    return last["role"] == "user" and all(block["type"] != "tool_result" for block in blocks)


Prepare = Callable[[object], None]


def hold(
    made: Made, store: object, *, api: dict | None = None, prepare: Prepare | None = None, **options: object
) -> Paused:
    """Hold a conversation on an engine with these options over a stand-in with those of `api`."""
    wire = Wire(**(api or {}))
    name = f"made/{made.seed}"
    engine = ChatEngine(wire, store, model=MODEL, system=made.system, tools=TOOLS, **options)
    setup = {"model": MODEL, "system": made.system or "", "tools": TOOLS}
    held = Paused(made, wire, History(store).conversation(name), {k: v for k, v in setup.items() if v})
    if prepare:
        prepare(held.chat)
    for move in made.moves:
        _Play(engine, held, name).play(move)
    return held


def hold_alone(made: Made, store: object, *, api: dict | None = None, prepare: Prepare | None = None) -> Paused:
    """Hold a conversation without an engine, as a caller does who drives the API and appends what it gives.

    A turn that fails is one that was stored and not sent. Nothing is taken back here, and nothing named.
    """
    wire = Wire(**(api or {}))
    setup = {"model": MODEL, "system": made.system or "", "tools": TOOLS}
    chat = History(store).conversation(f"alone/{made.seed}")
    held = Paused(made, wire, chat, {name: value for name, value in setup.items() if value})
    if prepare:
        prepare(chat)
    for move in made.moves:
        if isinstance(move, Say):
            _append(held, {"role": "user", "content": move.content})
        if isinstance(move, Retry) and move.system:
            _append(held, {"role": "system", "content": move.system})
        if isinstance(move, Say | Retry) and all(isinstance(answer, Reply) for answer in move.answers):
            _ask(held, move)
    return held


def _append(held: Paused, message: dict) -> None:
    held.chat.append(message)
    held.said.append(message)


def _ask(held: Paused, move: Say | Retry) -> None:
    if isinstance(move, Say) and move.broken is not None:
        return
    held.wire.answers = list(move.answers)
    while held.wire.answers:
        answer = held.wire.create(messages=held.chat.messages(), max_tokens=1000, **held.setup)
        held.chat.append(answer)
        held.said.append({"role": "assistant", "content": answer.to_dict()["content"]})


@dataclass
class _Play:
    engine: ChatEngine
    held: Paused
    name: str

    def play(self, move: Move) -> None:
        before, count = self._prefix(), len(self.held.requests)
        self._play(move)
        if self._prefix() > before and not isinstance(move, Rewind):
            self.held.cuts.append(count)  # a cut came before the turn

    def _prefix(self) -> int:
        summary = self.held.chat.state()
        return summary.view.cache_valid_from if summary else 0

    def _play(self, move: Move) -> None:
        match move:
            case Name(title):
                self.held.chat.state()
                self.held.chat.set_title(title)
            case Rewind(turns):
                self._rewind(turns)
            case Retry(answers, system):
                self._retry(answers, system)
            case Say():
                self._say(move)

    def _say(self, move: Say) -> None:
        wire, count = self.held.wire, len(self.held.requests)
        wire.answers, wire.break_after = list(move.answers), move.broken
        summary = self.held.chat.state()
        self.held.positions.append(self.held.chat.log.known_head().end if summary else 0)
        message = {"role": "user", "content": move.content}
        before = self._stored(message)
        try:
            if move.streamed or move.broken is not None:
                with self.engine.stream(self.name, move.content) as stream:
                    stream.get_final_reply()
            else:
                self.engine.send(self.name, move.content)
        except (Refused, Broken):
            self._said(message, before)  # as told; a rule that refused it shows in `check`
        else:
            self._said(message, before)
            self.held.heard(count)

    def _said(self, message: dict, before: int) -> None:
        """Take down a message, unless its turn was begun again: the same words after a failure are stored once."""
        if self._stored(message) > before:
            self.held.said.append(message)

    def _stored(self, message: dict) -> int:
        return sum(entry.message == message for entry in self.held.chat.entries() if entry.kind == "message")

    def _retry(self, answers: tuple[object, ...], system: str | None) -> None:
        wire, count = self.held.wire, len(self.held.requests)
        self.held.chat.state()
        if system:
            message = {"role": "system", "content": system}
            self.held.chat.append(message)
            self.held.said.append(message)
        wire.answers, wire.break_after = list(answers), None
        if self.engine.resume(self.name) is None:
            wire.answers = []  # the stream broke after its end: there is nothing to send again
        self.held.heard(count)

    def _rewind(self, turns: int) -> None:
        back = self.held.positions[-turns:]
        if back:
            self.held.chat.state()
            with suppress(InvalidInput):  # into a turn whose thinking was cut off: told, and nothing changes
                self.held.chat.rewind(to=back[0])
                del self.held.positions[-turns:]
                self.held.cuts.append(len(self.held.requests))
