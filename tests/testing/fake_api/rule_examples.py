"""For each rule of the fake: requests that break it, each with a neighbour that does not, and the error's text."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field

from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Limits

MODEL = "claude-sonnet-5-5"
OLDER = "claude-haiku-4-5"  # takes the beginning of a reply


@dataclass(frozen=True)
class Req:
    body: object = None
    headers: dict = field(default_factory=dict)  # None takes a header away
    raw: bytes | None = None
    strict: bool = False
    path: str = "/v1/messages"

    def content(self):
        return json.dumps(self.body).encode() if self.raw is None else self.raw


@dataclass(frozen=True)
class Example:
    rule: str
    bad: Req
    good: Req
    text: str
    before: Req | None = None  # a request that the same fake has answered with `reply`
    reply: object = None
    options: dict = field(default_factory=dict)  # of the fake

    def api(self, req):
        """A fake that this request can be sent to next."""
        reply_script = [self.reply, "then"] if self.before else None
        api = FakeMessagesAPI(reply_script, strict_first_role=req.strict, **self.options)
        if self.before:
            spoken(api, self.before)
        return api


def spoken(api, req):
    """The content of the reply to a request, without any client."""
    headers = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"} | req.headers
    plan = api.answer("POST", req.path, headers, req.content())
    assert plan.status == 200, plan.chunks
    return json.loads(plan.chunks[0])["content"]


EXAMPLES: list[Example] = []


def example(rule, bad, good, text, **more):
    bad, good = (each if isinstance(each, Req) else Req(each) for each in (bad, good))
    EXAMPLES.append(Example(rule, bad, good, text, **more))


def body(*messages, **more):
    full = {"model": MODEL, "max_tokens": 10, "messages": list(messages) or [user()], **more}
    return {name: value for name, value in full.items() if value is not ...}


def user(content="Hi"):
    return {"role": "user", "content": content}


def reply(content="Hello"):
    return {"role": "assistant", "content": content}


def system(content="Be brief", **more):
    return {"role": "system", "content": content, **more}


def text(words="Hi", **more):
    return {"type": "text", "text": words, **more}


def call(name="toolu_1", **more):
    return {"type": "tool_use", "id": name, "name": "f", "input": {}, **more}


def result(name="toolu_1", **more):
    return {"type": "tool_result", "tool_use_id": name, **more}


def search(name="srvtoolu_1"):
    return {"type": "server_tool_use", "id": name, "name": "web_search", "input": {"query": "x"}}


def found(name="srvtoolu_1"):
    return {"type": "web_search_tool_result", "tool_use_id": name, "content": []}


def image(**more):
    return {"type": "image", "source": {"type": "url", "url": "https://example.invalid/a.png"}, **more}


def document():
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}


def beta(name):
    return {"anthropic-beta": name}


MARK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
OLD_VERSION = {"anthropic-version": "2023-06-01"}
FINE = body()
PAIR = (user(), reply([call()]), user([result()]))
EXTRA = "Extra inputs are not permitted"

# --- the envelope
LARGE = json.dumps(FINE).encode()
example(
    "body too large",
    Req(raw=LARGE + b" " * (32 * 1024 * 1024 + 1 - len(LARGE))),
    Req(raw=LARGE + b" " * (32 * 1024 * 1024 - len(LARGE))),
    "Request exceeds the maximum size",
)
example("key missing", Req(FINE, {"authorization": None}), Req(FINE), "x-api-key header is required")
example(
    "key missing",
    Req(FINE, {"authorization": "Bearer"}),
    Req(FINE, {"authorization": None, "x-api-key": "k"}),
    "x-api-key",
)
example("version missing", Req(FINE, {"anthropic-version": None}), Req(FINE, OLD_VERSION), "anthropic-version")
example("version unknown", Req(FINE, {"anthropic-version": "2020-01-01"}), Req(FINE, OLD_VERSION), "'2020-01-01'")
example(
    "beta unknown", Req(FINE, beta("compact")), Req(FINE, beta("compact-2026-01-12")), "Unexpected value(s) `compact`"
)
example("body not JSON", Req(raw=b"{"), Req(raw=LARGE), "not valid JSON")
example("body not JSON", Req(raw=b'{"model": NaN}'), Req(raw=LARGE), "not valid JSON")
example("body not JSON", Req(raw=b"\xff"), Req(raw=LARGE), "not valid JSON")
example("body not JSON", Req(raw=b"[" * 100_000), Req(raw=LARGE), "not valid JSON")
example("body not an object", [], FINE, "Input should be a valid dictionary")
for name in ("model", "max_tokens", "messages"):
    example("field missing", body(**{name: ...}), FINE, f"{name}: Field required")
example(
    "field missing",
    body(max_tokens=...),
    Req(body(max_tokens=...), path="/v1/messages/count_tokens"),
    "max_tokens: Field",
)
for name in ("temperature", "top_p", "top_k"):
    example("sampling parameter", body(**{name: 1}), Req(body(**{name: 1}), OLD_VERSION), f"{name}: {EXTRA}")
for name, value, wanted in (
    ("context_management", {}, "context-management-2025-06-27"),
    ("mcp_servers", [], "mcp-client-2025-11-20"),
    ("fallbacks", [], "server-side-fallback-2026-07-01"),
    ("fallback_credit_token", "x", "fallback-credit-2026-07-01"),
    ("billing_policy", {}, "user-profiles-billing-2026-10-01"),
    ("thread", None, "message-threads-2026-08-12"),
):
    example("field of a beta", body(**{name: value}), Req(body(**{name: value}), beta(wanted)), f"{name}: {EXTRA}")
example("field unknown", body(prompt="x"), FINE, f"prompt: {EXTRA}")
example(
    "field unknown",
    Req(body(max_tokens=..., stream=True), path="/v1/messages/count_tokens"),
    body(stream=False),
    "stream: ",
)
for name, wrong, right, words in (
    ("max_tokens", "10", 10, "a valid integer"),
    ("max_tokens", True, 1, "a valid integer"),
    ("messages", {}, [user()], "a valid list"),
    ("model", 5, MODEL, "a valid string"),
    ("system", {}, "Be brief", "a valid string or list"),
    ("tools", {}, [], "a valid list"),
    ("stream", 1, False, "a valid boolean"),
    ("thinking", None, {"type": "adaptive"}, "a valid dictionary"),
    ("cache_control", True, None, "a valid dictionary"),
):
    example("field of another kind", body(**{name: wrong}), body(**{name: right}), f"{name}: Input should be {words}")
example("max_tokens too small", body(max_tokens=-1), body(max_tokens=1), "max_tokens: Input should be greater")
example("max_tokens too small", body(max_tokens=0, stream=True), body(max_tokens=0), "max_tokens")
BOUND = body(thinking={"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}})
example(
    "thinking binding without its beta",
    BOUND,
    Req(BOUND, beta("thinking-binding-controls-2026-08-01")),
    f"thinking.adaptive.block_binding: {EXTRA}",
)
example(
    "not simulated",
    Req(body(thread={"type": "create"}), beta("message-threads-2026-08-12")),
    Req(body(context_management={"edits": []}), beta("context-management-2025-06-27")),
    "[fake] thread is not simulated",
)
for name in ("claude-3-5-sonnet-20241022", "claude-opus-4-0", "gpt-4"):
    example("model unknown", body(model=name), body(model="claude-opus-5-5"), f"model: {name}")
MANY = [user("x")] * 100_000
example("too many messages", body(*MANY, user("x")), body(*MANY), "messages: List should have at most 100000")

LOCATION = {
    "type": "char_location",
    "cited_text": "x",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 1,
}
FETCH = {"type": "web_fetch_result", "url": "u", "content": document()}
FETCHED = {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": FETCH}

# --- the shape of messages and blocks
example("no messages", body(messages=[]), FINE, "messages: at least one message is required")
example("message not an object", body("Hi"), FINE, "messages.0: Input should be a valid dictionary")
example("message field missing", body({"role": "user"}), FINE, "messages.0.content: Field required")
example("message field missing", body({"content": "Hi"}), FINE, "messages.0.role: Field required")
example("role unknown", body({"role": "human", "content": "Hi"}), FINE, "messages.0.role: Input should be 'user'")
example("role unknown", body({"role": [], "content": "Hi"}), FINE, "messages.0.role")
example("message field unknown", body(user() | {"id": "msg_1"}), FINE, f"messages.0.id: {EXTRA}")
CLEARED = body(user(), system(clear_at="never"))
example(
    "message field unknown",
    CLEARED,
    Req(CLEARED, beta("mid-conversation-system-clear-at-2026-08-21")),
    f"messages.1.clear_at: {EXTRA}",
)
SYSTEM_BETAS = beta("mid-conversation-system-clear-at-2026-08-21,mid-conversation-output-config-2026-07-01")


def system_message(**more):
    return Req(body(user(), system(**more)), SYSTEM_BETAS)


example(
    "message field unknown",
    system_message(output_config={"effort": "low", "x": 1}),
    system_message(output_config={}),
    f"messages.1.output_config.x: {EXTRA}",
)
example(
    "system field of another kind",
    system_message(clear_at="soon"),
    system_message(clear_at=None),
    "messages.1.clear_at: Input should be 'next_user_message' or 'never'",
)
example(
    "system field of another kind",
    system_message(output_config="low"),
    system_message(output_config=None),
    "messages.1.output_config: Input should be a valid dictionary",
)
example(
    "system field of another kind",
    system_message(output_config={"effort": "huge"}),
    system_message(output_config={"effort": None}),
    "messages.1.output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'",
)
example("content of another kind", body(user(None)), FINE, "messages.0.content: Input should be")
example(
    "block unknown", body(user([{"type": "video"}])), body(user([image()])), "messages.0.content.0: Input tag 'video'"
)
example("block unknown", body(user(["Hi"])), body(user([text()])), "messages.0.content.0: Input tag None")
example("block unknown", body(user([{"type": {}}])), body(user([text()])), "messages.0.content.0")
example("block unknown", body(user([call()])), body(*PAIR), "'tool_use'")
example("block unknown", body(user(), reply([image()]), user()), body(user([image()])), "messages.1.content.0")
example("block unknown", body(system=[image()]), body(system=[text()]), "system.0: Input tag 'image'")
example(
    "block unknown",
    body(user(), reply([call()]), user([result(content=[call()])])),
    body(user(), reply([call()]), user([result(content=[image()])])),
    "messages.2.content.0.tool_result.content.0: Input tag 'tool_use'",
)
SUMMED = body(user([{"type": "compaction", "content": "So far: x"}]), user())
example(
    "block unknown",
    SUMMED,
    Req(SUMMED | {"context_management": {"edits": [{"type": "compact_20260112"}]}}, beta("compact-2026-01-12")),
    "messages.0.content.0: Input tag 'compaction'",
)
example(
    "block field missing",
    body(user([{"type": "text"}])),
    body(user([text()])),
    "messages.0.content.0.text.text: Field required",
)
example(
    "block field missing",
    body(user(), reply([{"type": "thinking", "thinking": ""}, text()]), user()),
    body(user(), reply([{"type": "redacted_thinking", "data": "x"}, text()]), user()),
    "messages.1.content.0.thinking.signature: Field required",
)
HIT = {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "e"}


def hits(hit):
    return body(user(), reply([search(), found() | {"content": [hit]}, text()]), user())


example(
    "block field missing",
    hits({name: value for name, value in HIT.items() if name != "encrypted_content"}),
    hits(HIT),
    "messages.1.content.1.web_search_tool_result.content.0.web_search_result.encrypted_content: Field required",
)
for name in ("parsed_output", "from_", "id"):
    example(
        "block field unknown",
        body(user(), reply([text(**{name: None})]), user()),
        body(user(), reply([text(citations=None)]), user()),
        f"messages.1.content.0.text.{name}: {EXTRA}",
    )
example(
    "block field unknown",
    body(user(), reply([{"type": "redacted_thinking", "data": "x", **MARK}, text()]), user()),
    body(user(), reply([{"type": "redacted_thinking", "data": "x"}, text()]), user()),
    f"messages.1.content.0.redacted_thinking.cache_control: {EXTRA}",
)
example(
    "block field unknown",
    body(user(), reply([call()]), user([result(content=[text(annotations=[])])])),
    body(user(), reply([call()]), user([result(content=[text()])])),
    f"messages.2.content.0.tool_result.content.0.text.annotations: {EXTRA}",
)
example(
    "block field null",
    body(user(), reply([call(caller=None)]), user([result()])),
    body(user(), reply([call(caller={"type": "direct"}, toolset_name=None)]), user([result()])),
    "messages.1.content.0.tool_use.caller: Input should be a valid dictionary",
)
example(
    "block field of another kind",
    body(user(), reply([call(input="{}")]), user([result()])),
    body(*PAIR),
    "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
)
example(
    "block field of another kind",
    body(user(), reply([call()]), user([result(content=5)])),
    body(user(), reply([call()]), user([result(content="5")])),
    "messages.2.content.0.tool_result.content: Input should be a valid string or list",
)
example(
    "tool id malformed",
    body(user(), reply([call("a.b")]), user([result("a.b")])),
    body(user(), reply([call("a-b")]), user([result("a-b")])),
    "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
)
example(
    "tool id malformed",
    body(user(), reply([search("toolu_1"), found("toolu_1"), text()]), user()),
    body(user(), reply([search(), found(), text()]), user()),
    "messages.1.content.0.server_tool_use.id: String should match pattern '^srvtoolu_[a-zA-Z0-9_]+$'",
)
for wrong, right, words in (("", "f", "at least 1 character"), ("f" * 201, "f" * 200, "at most 200 characters")):
    example(
        "tool name malformed",
        body(user(), reply([call() | {"name": wrong}]), user([result()])),
        body(user(), reply([call() | {"name": right}]), user([result()])),
        f"messages.1.content.0.tool_use.name: String should have {words}",
    )
LINK = {"type": "url", "url": "https://example.invalid/a.png"}


def cited(**more):
    return body(user(), reply([text(citations=[LOCATION | more])]), user())


def paged(source):
    return body(user([{"type": "document", "source": source}]))


for wrong, right, words in (
    (body(user([image(source=LINK | {"detail": "low"})])), body(user([image(source=LINK)])), "image.source.detail"),
    (cited(index=0), cited(file_id=None), "text.citations.0.index"),
    (
        body(user(), reply([call(caller={"type": "direct", "id": "x"})]), user([result()])),
        body(user(), reply([call(caller={"type": "direct"})]), user([result()])),
        "tool_use.caller.id",
    ),
    (
        body(user(), reply([search(), FETCHED | {"content": FETCH | {"status": 200}}, text()]), user()),
        body(user(), reply([search(), FETCHED, text()]), user()),
        "web_fetch_tool_result.content.status",
    ),
):
    example("nested field unknown", wrong, right, f"{words}: {EXTRA}")
example(
    "nested field missing",
    paged({"type": "text", "data": "x"}),
    paged({"type": "text", "media_type": "text/plain", "data": "x"}),
    "messages.0.content.0.document.source.media_type: Field required",
)
example("nested field null", cited(cited_text=None), cited(document_title=None), "text.citations.0.cited_text: Input")
example(
    "nested field of another kind",
    paged({"type": "text", "media_type": "text/html", "data": "x"}),
    paged({"type": "text", "media_type": "text/plain", "data": "x"}),
    "messages.0.content.0.document.source.media_type: Input",
)
example(
    "nested field of another kind",
    paged({"type": "file_id", "file_id": "x"}),
    paged({"type": "file", "file_id": "x"}),
    "messages.0.content.0.document.source: Input",
)
example(
    "server tool unknown",
    body(user(), reply([search() | {"name": "f"}, found()]), user()),
    body(user(), reply([search(), found()]), user()),
    "messages.1.content.0.server_tool_use.name",
)

# --- what they say
example("content empty", body(user("")), FINE, "messages.0: all messages must have non-empty content")
example(
    "content empty", body(user(), reply(""), user()), body(user(), reply(""), model=OLDER), "messages.1: all messages"
)
example("content empty", body(user([])), FINE, "messages.0: all messages must have non-empty content")
example(
    "content empty",
    body(user(), reply([]), user()),
    body(user(), reply([]), model=OLDER),
    "messages.1: all messages must have",
)
example(
    "marker on empty text",
    body(user([text("", **MARK)])),
    body(user([text(**MARK)])),
    "messages.0.content.0.text: cache",
)
example(
    "text empty",
    body(user([text(""), text()])),
    body(user([text()])),
    "messages: text content blocks must be non-empty",
)
example(
    "text empty",
    body(user(), reply([text("")]), user()),
    body(user(), reply(), user()),
    "messages: text content blocks",
)
example(
    "text empty", body(system=[text("")]), body(system=[text("x")]), "system: text content blocks must be non-empty"
)
example(
    "text blank",
    body(user(" \n")),
    body(user(" x\n")),
    "messages: text content blocks must contain non-whitespace text",
)
example("text blank", body(user([text("\t")])), body(user([text("\tx")])), "messages: text content blocks must contain")
DOCUMENTED = body(user(), reply([document()]), user())
example(
    "document of the assistant", DOCUMENTED, Req(DOCUMENTED, OLD_VERSION), "messages.1.content.0: `document` blocks"
)
example(
    "document of the assistant",
    DOCUMENTED,
    body(user(), reply([search() | {"name": "web_fetch"}, FETCHED, text()]), user()),
    "messages.1.content.0",
)
CITED = text(citations=[LOCATION])
example(
    "citations of the user",
    body(user([CITED])),
    body(user(), reply([CITED]), user([text(citations=[])])),
    "messages.0.content.0.text.citations: `citations` must be empty",
)
FOUND = {"type": "search_result", "source": "s", "title": "t"}
example(
    "citations of the user",
    body(user([FOUND | {"content": [CITED]}])),
    body(user([FOUND | {"content": [text()]}])),
    "messages.0.content.0.search_result.content.0.text.citations",
)
KNOWN = [{"name": "f", "input_schema": {"type": "object"}}]


def referring(*references, **more):
    return body(user(), reply([call()]), user([result(content=list(references))]), **more)


def reference(name="f"):
    return {"type": "tool_reference", "tool_name": name}


example(
    "tool reference unknown",
    referring(reference(), reference("gone"), tools=KNOWN),
    referring(reference(), tools=KNOWN),
    "Tool reference 'gone' not found in available tools",
)
SEARCHED = {
    "type": "tool_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": {"type": "tool_search_tool_search_result", "tool_references": [reference()]},
}
FINDING = search() | {"name": "tool_search_tool_bm25"}
example(
    "tool reference unknown",
    body(user(), reply([FINDING, SEARCHED, text()]), user()),
    body(user(), reply([FINDING, SEARCHED, text()]), user(), tools=KNOWN),
    "Tool reference 'f' not found in available tools",
)
example(
    "signature empty",
    body(user(), reply([{"type": "thinking", "thinking": "x", "signature": ""}, text()]), user()),
    body(user(), reply([{"type": "redacted_thinking", "data": "x"}, text()]), user()),
    "messages.1.content.0: Invalid `signature` in `thinking` block",
)
example("marker malformed", body(cache_control={"type": "long"}), body(**MARK), "cache_control: Input should be")
example(
    "marker malformed",
    body(user([text(cache_control={"type": "ephemeral", "ttl": "2h"})])),
    body(user([text(**HOUR)])),
    "messages.0.content.0.text.cache_control: Input should be",
)
FOUR = [text(**MARK)] * 4
example("too many markers", body(user([*FOUR, text(**MARK)])), body(user(FOUR)), "Found 5.")
example("too many markers", body(user(FOUR), **MARK), body(user(FOUR[1:]), **MARK), "Found 5.")
example(
    "too many markers", body(user(FOUR), system=[text(**MARK)]), body(user(FOUR[1:]), system=[text(**MARK)]), "Found 5."
)
TOOL = {"name": "f", "input_schema": {"type": "object"}}
example("too many markers", body(user(FOUR), tools=[TOOL | MARK]), body(user(FOUR), tools=[TOOL]), "Found 5.")
example(
    "too many markers",
    body(user([*FOUR[1:], text()]), reply([call()]), user([result(content=[text(**MARK), text(**MARK)])])),
    body(user([*FOUR[1:], text()]), reply([call()]), user([result(content=[text(**MARK), text()])])),
    "Found 5.",
)
MARKED_PAGE = FETCHED | {"content": FETCH | {"content": document() | MARK}}
example(
    "too many markers",
    body(user(FOUR), reply([search(), MARKED_PAGE, text()]), user()),
    body(user(FOUR[1:]), reply([search(), MARKED_PAGE, text()]), user()),
    "Found 5.",
)
example(
    "markers out of order",
    body(user([text(**MARK), text(**HOUR)])),
    body(user([text(**HOUR), text(**MARK)])),
    "messages.0.content.1.text.cache_control.ttl: a ttl='1h' cache_control block must not come after",
)
PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}
for wrong in ({"data": "no base64"}, {"data": ""}, {"data": None}, {"media_type": "image/tiff"}, {"type": "path"}):
    example(
        "image malformed",
        body(user([image(source=PIXEL | wrong)])),
        body(user([image(source=PIXEL), image(source={"type": "file", "file_id": "file_1"})])),
        "messages.0.content.0.image.source",
    )
for name, most in ((MODEL, 600), (OLDER, 100)):
    full = [user([image()] * (most - 1)), reply([call()])]
    example(
        "too many images",
        body(*full, user([result(content=[image(), image()])]), model=name),
        body(*full, user([result(content=[image(), text()])]), model=name),
        f"{most + 1} > {most}",
    )

# --- in which order
example(
    "first role",
    Req(body(reply(), user()), strict=True),
    Req(body(reply(), user())),
    'messages: first message must use the "user" role',
)
example("system first", body(system(), user()), body(user(), system()), "messages.0: first message must not use")
example(
    "system misplaced", body(user(), reply(), system()), body(user(), system()), "messages.2: `system` messages must"
)
example(
    "system misplaced",
    body(user(), system(), user()),
    body(user(), system(), system(), reply(), user()),
    "messages.1: `system` messages must",
)
example(
    "system misplaced",
    body(user(), reply([search(), found(), text()]), system(), reply(), user()),
    body(user(), reply([search(), found()]), system(), reply(), user()),
    "messages.2: `system` messages must",
)
example(
    "system misplaced",
    body(user(), reply([call()]), system(), user([result()])),
    body(user(), reply([call()]), user([result()]), system()),
    "messages.2: `system` messages must",
)
example(
    "tool use doubled",
    body(*PAIR, *PAIR[1:]),
    body(*PAIR, reply([call("toolu_2")]), user([result("toolu_2")])),
    "messages.3.content.0: `tool_use` ids must be unique",
)
example(
    "tool result orphaned",
    body(user([result()])),
    body(*PAIR),
    "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1. Each",
)
example(
    "tool result orphaned",
    body(*PAIR, reply(), user([result()])),
    body(*PAIR, reply(), user()),
    "messages.4.content.0: unexpected",
)
UNANSWERED = "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: "
example("tool use unanswered", body(user(), reply([call()])), body(*PAIR), UNANSWERED + "toolu_1. Each")
example("tool use unanswered", body(user(), reply([call()]), user()), body(*PAIR), UNANSWERED + "toolu_1. Each")
example(
    "tool use unanswered",
    body(user(), reply([call("a"), call("b"), call("c")]), user([result("b")])),
    body(user(), reply([call("a"), call("b")]), user([result("b"), result("a"), text()])),
    UNANSWERED + "a, c. Each",
)
example(
    "tool use unanswered",
    body(user(), reply([call()]), user([text(), result()])),
    body(user(), reply([call()]), user([result(), text()])),
    UNANSWERED,
)
example(  # messages of one role are merged before the pairs are looked at
    "tool use unanswered",
    body(user(), reply([call("a"), call("b")]), user([result("a"), text()]), user([result("b")])),
    body(user(), reply([call("a")]), reply([call("b")]), user([result("a")]), user([result("b")]), user()),
    UNANSWERED + "b. Each",
)
example(
    "tool result doubled",
    body(user(), reply([call()]), user([result(), result()])),
    body(*PAIR),
    "messages.2.content.0: each tool_use must have a single result. Found multiple `tool_result` blocks with id: ",
)
example(
    "toolset not repeated",
    body(user(), reply([call(toolset_name="browser")]), user([result()])),
    body(user(), reply([call(toolset_name="browser")]), user([result(toolset_name="browser")])),
    "messages.2.content.0.tool_result.toolset_name",
)
example(
    "server tool result orphaned",
    body(user(), reply([found(), text()]), user()),
    body(user(), reply([search()]), reply([found(), text()]), user()),
    "messages.1.content.0: unexpected `tool_use_id` found in `web_search_tool_result` blocks: srvtoolu_1. Each",
)
example(
    "server tool result orphaned",
    body(user(), reply([search()]), user(), reply([found(), text()]), user()),
    body(user(), reply([search(), found(), text()]), user()),
    "messages.3.content.0: unexpected",
)
UNFINISHED = "messages.1.content.0: `web_search` tool use with id `srvtoolu_1` was found without a corresponding `web_"
MIXED = reply([search(), call()])
example(
    "server tool use unfinished",
    body(user(), reply([search()]), user()),
    body(user(), reply([search()])),
    UNFINISHED,
)
example(
    "server tool use unfinished",
    body(user(), MIXED, user([result(), text()])),
    body(user(), MIXED, user([result()])),
    UNFINISHED,
)
example(
    "server tool use unfinished",
    body(user(), MIXED, user([result()]), reply(), user()),
    body(user(), MIXED, user([result()]), reply([found(), text()]), user()),
    UNFINISHED,
)
PREFILL = "This model does not support assistant message prefill. The conversation must end with a user message."
example("prefill", body(user(), reply()), body(user(), reply(), model=OLDER), PREFILL)
example("prefill", body(user(), reply([])), body(user(), reply([search()])), PREFILL)
example(
    "prefill",
    body(user(), reply([search(), found(), text()])),
    body(user(), reply([text(), search(), found()])),
    PREFILL,
)
example(
    "prefill", body(user(), reply(), model="claude-sonnet-4-6"), body(user(), reply(), model="claude-opus-4-5"), PREFILL
)
example(
    "prefill ends with whitespace",
    body(user(), reply("So "), model=OLDER),
    body(user(), reply("So"), model=OLDER),
    "messages: final assistant content cannot end with trailing whitespace",
)

# --- thinking
THINKING = {"type": "thinking", "thinking": "", "signature": ""}
THOUGHT = spoken(FakeMessagesAPI([[THINKING | {"thinking": "Hm"}, text("Hello")]]), Req(FINE))
TAMPERED = [THOUGHT[0] | {"thinking": "Ah"}, THOUGHT[1]]
example(
    "signature invalid",
    body(user(), reply(TAMPERED), user()),
    body(user(), reply(THOUGHT), user()),
    "messages.1.content.0: Invalid `signature` in `thinking` block",
)
BROKEN = [THOUGHT[0] | {"signature": "A" + THOUGHT[0]["signature"][1:]}, THOUGHT[1]]
example(
    "signature invalid",
    body(user(), reply(BROKEN), user()),
    body(user(), reply(THOUGHT), user()),
    "Invalid `signature`",
)
FOREIGN = [THOUGHT[0] | {"signature": "sig!"}, THOUGHT[1]]
example(
    "signature invalid",
    body(user(), reply(FOREIGN), user()),
    body(user(), reply(THOUGHT), user()),
    "Invalid `signature`",
)
MOVED = "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation."
example(
    "thinking of another conversation",
    body(user("Hi!"), reply(THOUGHT), user()),
    body(user([text("Hi", **MARK)]), reply(THOUGHT), user()),
    MOVED,
)
example(
    "thinking of another conversation",
    body(user(), reply(THOUGHT), user(), system="New"),
    body(user(), reply(THOUGHT), user(), system=[], max_tokens=99),
    'to "drop_block". That setting requires the `thinking-binding-controls-2026-08-01` value',
)
OPEN = {"rule": "thinking missing in an open turn", "before": Req(FINE), "reply": [THINKING, call()]}
SIGNED = spoken(FakeMessagesAPI([OPEN["reply"]]), OPEN["before"])
example(
    bad=body(user(), reply(SIGNED[1:]), user([result()])),
    good=body(user(), reply(SIGNED), user([result(), text()])),
    text="messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be",
    **OPEN,
)
example(
    bad=body(user(), reply([THOUGHT[0], *SIGNED[1:]]), user([result()])),
    good=body(user(), reply(SIGNED[1:]), user([result()]), reply(), user()),
    text="messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be",
    **OPEN,
)


# Sizes, and files that no longer exist.


def png(width, height=10, size=0):
    """Return an image block with a PNG of these dimensions, in at least `size` bytes of base64."""
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data = base64.b64encode(head.ljust(max(len(head), size * 3 // 4), b"\0")).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def pdf(data):
    source = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(data).decode()}
    return {"type": "document", "source": source}


def of_file(id):
    return {"type": "document", "source": {"type": "file", "file_id": id}}


example(
    "image too large",
    body(user([text(), png(10, size=3000)])),
    body(user([text(), png(10, size=100)])),
    "messages.0.content.1.image.source.base64: image exceeds 0 MB maximum: 3000 bytes > 1000 bytes",
    options={"limits": Limits(image=1000)},
)
example(
    "image dimensions",
    body(user([text(), png(8001)])),
    body(user([text(), png(8000)])),
    "messages.0.content.1.image.source.base64.data: At least one of the image dimensions exceed max allowed size: 8000",
)
example(
    "image dimensions of many",
    body(user([*[png(10)] * 20, png(2001)])),
    body(user([*[png(10)] * 19, png(2001)])),
    "messages.0.content.20.image.source.base64.data: At least one of the image dimensions exceed max allowed size for "
    "many-image requests: 2000 pixels",
)
example(
    "PDF unreadable",
    body(user([text(), pdf(b"no PDF at all")])),
    body(user([text(), pdf(b"%PDF-1.7 and so on")])),
    "messages.0.content.1.pdf.source.base64.data: The PDF specified was not valid.",
)
example(
    "prompt too long",
    body(user("long " * 200)),
    body(user("short")),
    "tokens > 100 maximum",
    options={"limits": Limits(context=100)},
)
example(
    "container gone",
    body(container="container_1"),
    body(container="container_2"),
    "container: Container container_1 not found or expired",
    options={"gone": ["container_1"]},
)
example(
    "file gone",
    body(user([text(), of_file("file_1")])),
    body(user([text(), of_file("file_2")])),
    "File not found: file_1",
    options={"gone": ["file_1"]},
)
