"""The rules for whole requests, and for the fields of messages and blocks."""

from __future__ import annotations

from chathistory.testing.fake_api import check_context_editing as context
from chathistory.testing.fake_api import check_headers_and_body as envelope
from chathistory.testing.fake_api import check_nested_fields as nested
from chathistory.testing.fake_api import check_shape as shape
from chathistory.testing.fake_api.rule import Rule

__all__ = ["ENVELOPE_RULES", "SHAPE_RULES"]

_EXTRA = "{path}: Extra inputs are not permitted"
_WRONG = "{path}: {wanted}"
_MISSING = "{path}: Field required"

ENVELOPE_RULES = (
    Rule(
        "body too large",
        envelope.too_large,
        "Request exceeds the maximum size",
        "docs: errors (32 MB); memory: the text",
        413,
        "request_too_large",
    ),
    Rule(
        "key missing",
        envelope.missing_key,
        "x-api-key header is required",
        "docs: errors; memory: the text",
        401,
        "authentication_error",
    ),
    Rule(
        "version missing",
        envelope.missing_version,
        "anthropic-version: header is required",
        "docs: versioning; memory: the text",
    ),
    Rule(
        "version unknown",
        envelope.bad_version,
        "anthropic-version: {version!r} is not a valid version",
        "docs: versioning; guess: the text",
    ),
    Rule(
        "beta unknown",
        envelope.bad_beta,
        "Unexpected value(s) `{beta}` for the `anthropic-beta` header.",
        "docs: beta headers; memory: the text. Only the form of the name is checked",
    ),
    Rule(
        "body not JSON",
        envelope.not_json,
        "The request body is not valid JSON",
        "docs: errors; guess: the text",
    ),
    Rule(
        "body not an object",
        envelope.no_object,
        "Input should be a valid dictionary",
        "docs: errors; guess: the text",
    ),
    Rule("field missing", envelope.missing_field, _MISSING, "sdk: required parameters; memory: the text"),
    Rule(
        "sampling parameter",
        envelope.sampling,
        _EXTRA,
        "docs: migration to version 2026-10-21; guess: the text",
    ),
    Rule(
        "compaction without its beta",
        context.compaction_without_beta,
        "compaction: the `compaction` parameter requires anthropic-beta: compact-2026-09-04",
        "docs: compaction-on-demand; guess: the first words",
    ),
    Rule("field of a beta", envelope.beta_field, _EXTRA, "sdk: beta parameters; issue: claude-code, the text"),
    Rule("field unknown", envelope.unknown_field, _EXTRA, "sdk: parameters; issue: claude-code, the text"),
    Rule("field of another kind", envelope.wrong_field, _WRONG, "sdk: parameter types; memory: the text"),
    Rule(
        "max_tokens too small",
        envelope.empty_warmup,
        "max_tokens: Input should be greater than or equal to 1",
        "sdk: docstring of max_tokens (0 only fills the cache); guess: the text",
    ),
    Rule(
        "thinking binding without its beta",
        envelope.binding_without_beta,
        _EXTRA,
        "docs: preserved-thinking (the beta header is required); guess: the path",
    ),
    Rule(
        "not simulated",
        envelope.not_simulated,
        "[fake] {path} is not simulated",
        "guess: no rule of the API, but a limit of the fake",
    ),
    Rule(
        "model unknown",
        envelope.retired_model,
        "model: {model}",
        "docs: model deprecations; memory: the text",
        404,
        "not_found_error",
    ),
    Rule(
        "too many messages",
        envelope.too_many_messages,
        "messages: List should have at most 100000 items",
        "sdk: docstring of messages; guess: the text",
    ),
)

SHAPE_RULES = (
    Rule("no messages", shape.no_messages, "messages: at least one message is required", "memory: rule and text"),
    Rule(
        "message not an object",
        shape.message_not_object,
        "{path}: Input should be a valid dictionary",
        "sdk: parameter types; memory: the text",
    ),
    Rule("message field missing", shape.missing_message_field, _MISSING, "sdk: parameter types; memory: the text"),
    Rule(
        "role unknown",
        shape.unknown_role,
        "{path}: Input should be 'user', 'assistant' or 'system'",
        "sdk: parameter types; memory: the text",
    ),
    Rule("message field unknown", shape.unknown_message_field, _EXTRA, "sdk: parameter types; issue: the text"),
    Rule("system field of another kind", shape.wrong_system_field, _WRONG, "sdk: parameter types; memory: the text"),
    Rule(
        "content of another kind",
        shape.no_content,
        "{path}: Input should be a valid string or list",
        "sdk: parameter types; guess: the text",
    ),
    Rule(
        "block unknown",
        shape.unknown_block,
        "{path}: Input tag {type!r} found using 'type' does not match any of the expected tags: {expected}",
        "sdk: ContentBlockParam; memory: the text",
    ),
    Rule("block field missing", shape.missing_block_field, _MISSING, "sdk: parameter types; memory: the text"),
    Rule(
        "block field unknown",
        shape.unknown_block_field,
        _EXTRA,
        "issue: anthropic-sdk-python and claude-code (parsed_output and others)",
    ),
    Rule(
        "block field null",
        shape.null_field,
        _WRONG,
        "sdk: parameter types (caller may be left out, not null); guess: the text",
    ),
    Rule("block field of another kind", shape.wrong_block_field, _WRONG, "sdk: parameter types; memory: the text"),
    Rule(
        "tool id malformed",
        shape.tool_id,
        "{path}: String should match pattern '{pattern}'",
        "issue: forgecode 1142, claude-code-hub 470",
    ),
    Rule("tool name malformed", shape.tool_name, _WRONG, "issue: openclaw 13134, TanStack ai 532"),
    Rule("nested field unknown", nested.nested_unknown, _EXTRA, "sdk: parameter types; issue: the text"),
    Rule("nested field missing", nested.nested_missing, _MISSING, "sdk: parameter types; memory: the text"),
    Rule("nested field null", nested.nested_null, _WRONG, "sdk: parameter types; guess: the text"),
    Rule("nested field of another kind", nested.nested_wrong, _WRONG, "sdk: parameter types; guess: the text"),
    Rule(
        "server tool unknown",
        shape.unknown_tool_name,
        "{path}: Input should be the name of a server tool",
        "sdk: ServerToolUseBlockParam; guess: the text",
    ),
)
