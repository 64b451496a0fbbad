"""The rules for the content of messages, their order, and thinking."""

from __future__ import annotations

from chathistory.testing.fake_api import check_content as content
from chathistory.testing.fake_api import check_server_tools as server_tools
from chathistory.testing.fake_api import check_thinking as thinking
from chathistory.testing.fake_api import check_turn_order as turns
from chathistory.testing.fake_api.rule import Rule

__all__ = ["CONTENT_RULES", "THINKING_RULES", "TURN_RULES"]

CONTENT_RULES = (
    Rule(
        "content empty",
        content.empty_content,
        "{path}: all messages must have non-empty content except for the optional final assistant message",
        "issue: claude-code",
    ),
    Rule(
        "marker on empty text",
        content.marked_empty_text,
        "{path}: cache_control cannot be set for empty text blocks",
        "issue: opencode",
    ),
    Rule(
        "text empty",
        content.empty_text,
        "{where}: text content blocks must be non-empty",
        "issue: anthropic-sdk-python 461",
    ),
    Rule(
        "text blank",
        content.blank_text,
        "{where}: text content blocks must contain non-whitespace text",
        "issue: litellm, openhands",
    ),
    Rule(
        "document of the assistant",
        content.document_in_assistant,
        "{path}: `document` blocks are not permitted directly in `assistant` messages",
        "docs: migration to version 2026-10-21; guess: the text",
    ),
    Rule(
        "citations of the user",
        content.citations_in_user,
        "{path}: `citations` must be empty in `user` messages",
        "docs: migration to version 2026-10-21; guess: the text",
    ),
    Rule(
        "tool reference unknown",
        content.unknown_reference,
        "Tool reference '{name}' not found in available tools",
        "issue: claude-code 81863",
    ),
    Rule(
        "image malformed",
        content.bad_image,
        "{path}: image must be a url, a file, or valid base64 of jpeg, png, gif or webp",
        "docs: vision; sdk: ImageBlockParam; guess: the text",
    ),
    Rule(
        "too many images",
        content.too_many_images,
        "messages: too many images: {count} > {most}",
        "docs: vision (600, or 100 for models of 200k tokens); guess: the text",
    ),
    Rule(
        "signature empty",
        content.empty_signature,
        "{path}: Invalid `signature` in `thinking` block",
        "docs: preserved-thinking",
    ),
    Rule(
        "marker malformed",
        content.bad_marker,
        "{path}: Input should be an ephemeral cache_control of 5m or 1h",
        "sdk: CacheControlEphemeralParam; guess: the text",
    ),
    Rule(
        "too many markers",
        content.too_many_markers,
        "A maximum of 4 blocks with cache_control may be provided. Found {count}.",
        "issue: claude-code",
    ),
    Rule(
        "markers out of order",
        content.markers_out_of_order,
        "{path}: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block",
        "docs: prompt-caching; memory: the text",
    ),
)

TURN_RULES = (
    Rule(
        "first role",
        turns.first_not_user,
        'messages: first message must use the "user" role',
        "issue: anthropic-sdk-typescript 622 (given up by the API, kept by other platforms: asked for by option)",
    ),
    Rule(
        "system first",
        turns.system_first,
        'messages.0: first message must not use the "system" role',
        "docs: mid-conversation-system-messages; guess: the text",
    ),
    Rule(
        "system misplaced",
        turns.system_misplaced,
        "{path}: `system` messages must follow a user turn or a server tool result, and precede an assistant turn",
        "docs: mid-conversation-system-messages; guess: the text",
    ),
    Rule(
        "tool use doubled",
        turns.doubled_tool_use,
        "{path}: `tool_use` ids must be unique",
        "issue: claude-code",
    ),
    Rule(
        "tool result orphaned",
        turns.orphaned_result,
        "{path}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a "
        "corresponding `tool_use` block in the previous message.",
        "issue: claude-code 13460",
    ),
    Rule(
        "tool use unanswered",
        turns.unanswered_tool_use,
        "{path}: `tool_use` ids were found without `tool_result` blocks immediately after: {ids}. Each `tool_use` "
        "block must have a corresponding `tool_result` block in the next message.",
        "issue: claude-code 8210, inspect_ai 3108",
    ),
    Rule(
        "tool result doubled",
        turns.doubled_result,
        "{path}: each tool_use must have a single result. Found multiple `tool_result` blocks with id: {id}",
        "memory: rule and text",
    ),
    Rule(
        "toolset not repeated",
        turns.other_toolset,
        "{path}: must be the `toolset_name` of the tool use",
        "docs: handle-tool-calls; guess: the text",
    ),
    Rule(
        "server tool result orphaned",
        server_tools.orphaned_server_result,
        "{path}: unexpected `tool_use_id` found in `{type}` blocks: {id}. Each `{type}` block must have a "
        "corresponding `server_tool_use` block before it.",
        "issue: claude-code (advisor_tool_result)",
    ),
    Rule(
        "server tool use unfinished",
        server_tools.unfinished_server_use,
        "{path}: `{tool}` tool use with id `{id}` was found without a corresponding `{result}` block",
        "docs: handle-tool-calls (mixed turns)",
    ),
    Rule(
        "prefill",
        turns.prefill,
        "This model does not support assistant message prefill. The conversation must end with a user message.",
        "docs: errors (prefill not supported)",
    ),
    Rule(
        "prefill ends with whitespace",
        turns.trailing_whitespace,
        "messages: final assistant content cannot end with trailing whitespace",
        "memory: rule and text",
    ),
)

THINKING_RULES = (
    Rule(
        "thinking missing in an open turn",
        thinking.missing_in_open_turn,
        "{path}: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These "
        "blocks must remain as they were in the original response.",
        "docs: preserved-thinking; issue: claude-code, the text",
    ),
    Rule(
        "signature invalid",
        thinking.tampered_thinking,
        "{path}: Invalid `signature` in `{type}` block",
        "docs: preserved-thinking",
    ),
    Rule(
        "thinking of another conversation",
        thinking.moved_thinking,
        "{path}: Invalid `signature` in `{type}` block. The block is bound to a different conversation. Remove the "
        'block, or set `thinking.block_binding.prefix_mismatch_behavior` to "drop_block".{hint}',
        "docs: preserved-thinking, fix-bound-to-a-different-conversation",
    ),
)
