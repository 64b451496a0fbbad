"""Errors of the Messages API that people reported, each with its source and what happens to the turn.

The texts are the API's own. Only the numbers in their paths are adapted, so that they name something in the messages of
the tests: message 0 is a plain question, 2 has an image, a PDF, a file and a text, 3 is a reply with thinking and a
search, 4 is the turn, with the same kinds of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chathistory.testing.fake_api import Failure

TURN, EARLIER, SIZE, OTHER = "turn", "earlier", "size", None


@dataclass(frozen=True)
class Case:
    """An error of the API, and how the engine classifies it.

    kind: "turn", "earlier" or "size"; None: the error marks nothing. places: (position, block) of what it refuses.
    """

    text: str
    kind: str | None
    places: tuple[tuple[int, int | None], ...] = ()
    source: str = ""
    status: int = 400
    type: str | None = None
    code: str | None = None
    details: dict = field(default_factory=dict)

    @property
    def failure(self):
        return Failure(self.status, self.type, self.text, code=self.code, details=self.details)


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aW1hZ2U="}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjc="}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"type": "web_search_result", "url": "https://e.org", "title": "E", "encrypted_content": "Eo8="}],
}


def of_file(id):
    return {"type": "document", "source": {"type": "file", "file_id": id}}


def text(words):
    return {"type": "text", "text": words}


EARLIER_BLOCKS = [IMAGE, PDF, of_file("file_011CPMxVD3fHLUhvTqtsQA5w"), text("What is this?")]
TURN_BLOCKS = [text("And this?"), IMAGE | {"source": IMAGE["source"] | {"data": "b3RoZXI="}}, PDF, of_file("file_2")]
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}
REPLIES = ["Hello.", [THOUGHT, SEARCH, FOUND, text("A picture.")]]
SAID = ["Hi", EARLIER_BLOCKS]
"""The messages before the turn; with the replies they are the messages 0 to 3, at the positions 1 to 4."""

CASES = [
    # (a) a message of this turn, by its path
    Case(
        "messages.4.content.1.image.source.base64: image exceeds 5 MB maximum: 8259148 bytes > 5242880 bytes",
        TURN,
        ((5, 1),),
        "anthropics/claude-code 19631, 10612; gptme 185; cofounder 53",
    ),
    Case(
        "messages.4.content.1.image.source.base64.data: At least one of the image dimensions exceed max allowed size: "
        "8000 pixels",
        TURN,
        ((5, 1),),
        "anthropics/claude-code 4778, 5147",
    ),
    Case(
        "messages.4.content.1.image.source.base64.data: At least one of the image dimensions exceed max allowed size "
        "for many-image requests: 2000 pixels",
        TURN,
        ((5, 1),),
        "anthropics/claude-code 49537, 9375, 24630; langgenius/dify 11177",
    ),
    Case(
        "At least one image exceeds the dimension limit",
        TURN,
        ((5, 1),),
        "SDK 2.14: error code",
        code="image_dimensions_too_large",
        details={"max_side_length_pixels": 8000, "paths": ["messages.4.content.1"]},
    ),
    Case(
        "messages.4.content.1.image.source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' "
        "or 'image/webp'",
        TURN,
        ((5, 1),),
        "expectedparrot/edsl 2057",
    ),
    Case(
        "messages.4.content.2.pdf.source.base64.data: The PDF specified was not valid.",
        TURN,
        ((5, 2),),
        "anthropics/claude-code 5174, 6580",
    ),
    Case(
        "messages.4.content.2.pdf.source.base64.data: A maximum of 100 PDF pages may be provided.",
        TURN,
        ((5, 2),),
        "warpdotdev/warp 8114; anthropics/claude-code 6231",
    ),
    Case(
        "messages.4.content.3.document.source: Input tag 'file' found using 'type' does not match any of the expected "
        "tags: 'base64', 'content', 'text', 'url'",
        TURN,
        ((5, 3),),
        "anthropics/anthropic-sdk-ruby 99",
    ),
    Case(
        "messages.4.content.0.text.parsed_output: Extra inputs are not permitted",
        TURN,
        ((5, 0),),
        "claude-code 4378, aider 3367 (of other keys)",
    ),
    Case(
        "messages.4: all messages must have non-empty content except for the optional final assistant message",
        TURN,
        ((5, None),),
        "anthropics/claude-code 1980",
    ),
    Case(
        '{"type":"error","error":{"type":"invalid_request_error","message":"messages.4.content.1.image.source.base64.'
        'data: At least one of the image dimensions exceed max allowed size for many-image requests: 2000 pixels"}}'
        "(traceid: b86fa3c2645c7d18db2058470ba2af3f)",
        TURN,
        ((5, 1),),
        "anthropics/claude-code 12867 (a gateway)",
    ),
    Case(
        "messages.4.content.1.image.source.base64: image exceeds 5 MB maximum: 5272940 bytes > 5242880 bytes",
        TURN,
        ((5, 1),),
        "daya0576/pi-imessage 5 (a gateway)",
        type="invalid_params",
    ),
    # (a) without a path: a block of this turn, because earlier blocks of its type were accepted
    Case("Could not process image", TURN, ((5, 1),), "anthropics/claude-code 8646, 42579, 55208"),
    Case("Could not process PDF", TURN, ((5, 2), (5, 3)), "anthropics/anthropic-sdk-python 903; claude-code 14038"),
    Case("The PDF specified is password protected.", TURN, ((5, 2), (5, 3)), "from memory: no source found"),
    # (b) an earlier message
    Case(
        "messages.2.content.0.image.source.base64.data: At least one of the image dimensions exceed max allowed size "
        "for many-image requests: 2000 pixels",
        EARLIER,
        ((3, 0),),
        "anthropics/claude-code 14412, 21900",
    ),
    Case(
        "messages.2.content.0.image.source.base64: image exceeds 5 MB maximum: 9427836 bytes > 5242880 bytes",
        EARLIER,
        ((3, 0),),
        "gptme 185 and others, on every later turn",
    ),
    Case(
        "messages.2.content.1.pdf.source.base64.data: The PDF specified was not valid.",
        EARLIER,
        ((3, 1),),
        "anthropics/claude-code 5174, on every later turn",
    ),
    Case(
        "messages.3.content.0: Invalid `signature` in `thinking` block",
        EARLIER,
        ((4, 0),),
        "anthropics/claude-code 10627, 42373; Antigravity-Manager 498; sdk-python 1598",
    ),
    Case(
        "messages.3.content.0: Invalid `signature` in `thinking` block. The block is bound to a different "
        'Remove the block, or set `thinking.block_binding.prefix_mismatch_behavior` to "drop_block". That setting '
        "requires the `thinking-binding-controls-2026-08-01` value in the `anthropic-beta` header. The `system` prompt "
        "differs from the one this block was created with.",
        EARLIER,
        ((4, 0),),
        "anomalyco/opencode 48637",
    ),
    Case(
        "messages.3.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be "
        "modified. These blocks must remain as they were in the original response.",
        EARLIER,
        ((4, 0),),
        "anthropics/claude-code 63432, 63563",
    ),
    Case(
        "messages.3.content.2: unexpected `tool_use_id` found in `web_search_tool_result` blocks: srvtoolu_1. Each "
        "`web_search_tool_result` block must have a corresponding `server_tool_use` block before it.",
        EARLIER,
        ((4, 2),),
        "anthropics/claude-code (of advisor_tool_result)",
    ),
    Case(
        "messages.3.content.2.web_search_tool_result.content.0: Invalid `encrypted_content` in `search_result` block",
        EARLIER,
        ((4, 2),),
        "senpi, pull request 150",
    ),
    Case(
        "messages.3: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_019TGc. Each "
        "`tool_use` block must have a corresponding `tool_result` block in the next message.",
        EARLIER,
        ((4, None),),
        "anthropics/claude-code 8817, 8210",
    ),
    Case(
        "File not found: file_011CPMxVD3fHLUhvTqtsQA5w",
        EARLIER,
        ((3, 2),),
        "docs: files; the text from memory",
        status=404,
        type="not_found_error",
    ),
    Case(
        "The file file_011CPMxVD3fHLUhvTqtsQA5w has expired and is no longer available.",
        EARLIER,
        ((3, 2),),
        "SDK 2.14: FileExpiredErrorDetails",
        status=404,
        type="not_found_error",
        code="file_expired",
    ),
    # (b) the request as a whole
    Case("prompt is too long: 209582 tokens > 200000 maximum", SIZE, source="OpenHands 5036; bolt.diy 401; exe.dev 62"),
    Case(
        "Request exceeds the maximum size",
        SIZE,
        source="anthropics/anthropic-sdk-python 938; claude-code 10314",
        status=413,
        type="request_too_large",
    ),
    Case("413 Request Entity Too Large", SIZE, source="a proxy before the API", status=413),
    Case("A maximum of 100 PDF pages may be provided.", SIZE, source="anthropics/claude-code 5707"),
    Case("Too much media: 0 document pages + 101 images > 100", SIZE, source="from memory: no source found"),
    Case("messages: too many images: 601 > 600", SIZE, source="the fake API"),
    Case(
        "input length and `max_tokens` exceed context limit: 197000 + 16000 > 200000, decrease input length or "
        "`max_tokens` and try again",
        SIZE,
        source="suna 172; RA.Aid 115",
    ),
    Case("Input is too long for requested model.", SIZE, source="Amazon Bedrock; from memory"),
    Case("messages: List should have at most 100000 items", SIZE, source="SDK: docstring of messages"),
    Case(
        "The request body is too large after it was decoded",
        SIZE,
        source="SDK 2.14: error code",
        code="request_body_too_large_after_decoding",
    ),
    # (c) everything else
    Case(
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
        "purchase credits.",
        OTHER,
        source="anthropics/claude-code 66314, 4684; claude-quickstarts 229",
    ),
    Case("model: claude-3-5-sonnet-20241022", OTHER, source="docs: deprecations", status=404, type="not_found_error"),
    Case(
        "tools.0.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12",
        OTHER,
        source="anthropics/claude-code 63673, 9605",
    ),
    Case("tools: Tool names must be unique.", OTHER, source="from memory"),
    Case("system.0.cache_control: Extra inputs are not permitted", OTHER, source="inspect_ai 3851 (Bedrock)"),
    Case("system: text content blocks must be non-empty", OTHER, source="the fake API; sdk-python 461"),
    Case("messages: text content blocks must be non-empty", OTHER, source="anthropics/claude-code 49171"),
    Case("messages: at least one message is required", OTHER, source="the thirty, 18"),
    Case(
        "max_tokens: 200000 > 64000, which is the maximum allowed number of output tokens for claude-sonnet-4-5",
        OTHER,
        source="from memory",
    ),
    Case("`max_tokens` must be greater than `thinking.budget_tokens`.", OTHER, source="hermes-agent 1130"),
    Case("adaptive thinking is not supported on this model", OTHER, source="docker-agent 3362"),
    Case("A maximum of 4 blocks with cache_control may be provided. Found 5.", OTHER, source="kern-ai 316; dust 27109"),
    Case("context_management: Extra inputs are not permitted", OTHER, source="claude-relay-service 660"),
    Case("Unexpected value(s) `files-api-2025-04-14` for the `anthropic-beta` header.", OTHER, source="from memory"),
    Case(
        "This model does not support assistant message prefill. The conversation must end with a user message.",
        OTHER,
        source="docs: errors",
    ),
    Case("container: Input should be a valid string", OTHER, source="pydantic-ai 5167"),
    Case(
        "diagnostics.previous_message_id: must be the `id` from a prior /v1/messages response (starts with `msg_`)",
        OTHER,
        source="anthropics/claude-code 58447",
    ),
    Case(
        "The request body is not valid JSON: no low surrogate in string: line 1 column 1234 (char 1233)",
        OTHER,
        source="anthropics/claude-code 60394, 8272",
    ),
    Case("Output blocked by content filtering policy", OTHER, source="anthropics/claude-code; from memory"),
    Case("messages.99.content.0: something that this request does not have", OTHER, source="a path that leads nowhere"),
    Case("Skill not found", OTHER, source="anthropic-sdk-typescript 1076", status=404, type="not_found_error"),
    Case("x-api-key header is required", OTHER, source="docs: errors", status=401),
    Case(
        "Your organization does not have access to Claude. messages.4.content.1",
        OTHER,
        source="docs: errors",
        status=403,
    ),
    Case(
        "This request would exceed your account's rate limit. Please try again later.",
        OTHER,
        source="anthropics/claude-code 5707",
        status=429,
    ),
    Case("Internal server error", OTHER, source="anthropics/claude-code 26606", status=500),
    Case("Overloaded", OTHER, source="docs: errors", status=529),
]
