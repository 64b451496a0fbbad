"""The rules for compaction and context editing."""

from __future__ import annotations

from chathistory.testing.fake_api import check_compaction as compaction
from chathistory.testing.fake_api import check_context_editing as context
from chathistory.testing.fake_api.rule import Rule

__all__ = ["COMPACTION_RULES", "CONTEXT_RULES"]

_WANTED = "{path}: {wanted}"

CONTEXT_RULES = (
    Rule(
        "compaction malformed", context.compaction_malformed, _WANTED, "sdk: BetaCompactionConfigParam; guess: the text"
    ),
    Rule(
        "compaction with other settings",
        context.incompatible_settings,
        "compaction: cannot be combined with {name}",
        "docs: compaction-on-demand; guess: the text",
    ),
    Rule(
        "edit unknown",
        context.edit_unknown,
        _WANTED,
        "sdk: BetaContextManagementConfigParam; memory: the text",
    ),
    Rule(
        "edit of a beta",
        context.edit_of_beta,
        "{path}: Input tag '{type}' found using 'type' does not match any of the expected tags",
        "docs: beta headers of context-editing and compaction-threshold; guess: the text",
    ),
    Rule(
        "edit malformed",
        context.edit_malformed,
        _WANTED,
        "sdk: parameter types of the edits; docs: context-editing (at least one turn); guess: the text",
    ),
    Rule(
        "trigger too small",
        context.trigger_too_small,
        "{path}.compact_20260112: trigger.value must be at least {least}",
        "docs: compaction-threshold; probe: the text",
    ),
    Rule(
        "thinking cleared late",
        context.thinking_cleared_late,
        "context_management.edits: `clear_thinking_20251015` must be the first edit",
        "docs: context-editing; guess: the text",
    ),
    Rule(
        "thinking cleared while off",
        context.thinking_off,
        "`clear_thinking_20251015` strategy requires `thinking` to be enabled or adaptive",
        "memory: rule and text",
    ),
)

COMPACTION_RULES = (
    Rule(
        "nothing to summarize",
        compaction.nothing_to_summarize,
        "compaction: there is nothing to summarize",
        "docs: compaction-on-demand; sdk: CompactionNothingToSummarizeError; guess: the text",
        code="compaction_nothing_to_summarize",
    ),
    Rule(
        "summary of an unfinished turn",
        compaction.incomplete_turn,
        "{path}: the last `assistant` turn ends in a tool call with no result yet",
        "docs: compaction-on-demand; sdk: CompactionIncompleteTurnError; guess: the text",
        code="compaction_incomplete_turn",
    ),
    Rule(
        "remaining budget with a compaction",
        context.budget_left,
        "output_config.task_budget.remaining: cannot be sent with a compaction",
        "docs: compaction-on-demand; guess: the text",
    ),
    Rule(
        "compaction block empty",
        compaction.empty_summary,
        "{path}.compaction.content: must be null or not empty",
        "sdk: BetaCompactionBlockParam; guess: the text",
    ),
    Rule(
        "compaction block of another beta",
        compaction.signed_without_beta,
        "{path}: Input tag 'compaction' found using 'type' does not match any of the expected tags",
        "docs: compaction-on-demand",
    ),
    Rule(
        "compaction block without strategy",
        compaction.without_strategy,
        "`compaction` blocks require a `compact_20260112` strategy in `context_management.edits`.",
        "probe: rule and text",
    ),
    Rule(
        "compaction edit with a signed block",
        compaction.signed_block_with_edit,
        "context_management.edits: `compact_20260112` cannot run on a request that carries a signed `compaction` block",
        "docs: compaction-on-demand; guess: the text",
    ),
    Rule(
        "compaction blocks",
        compaction.several_blocks,
        "messages: more than one `compaction` block; send only the newest",
        "docs: compaction-on-demand; sdk: CompactionBlockAmbiguousError; guess: the text",
        code="compaction_block_ambiguous",
    ),
    Rule(
        "compaction block misplaced",
        compaction.misplaced_block,
        "`compaction` block must be sent first, in place of the messages it summarizes; remove those messages",
        "docs: compaction-on-demand; sdk: CompactionBlockMisplacedError; probe: the text",
        code="compaction_block_misplaced",
    ),
    Rule(
        "compaction signature invalid",
        compaction.signature_invalid,
        "{path}: `compaction` block `signature` is invalid",
        "docs: compaction-on-demand; sdk: CompactionSignatureInvalidError; guess: the text",
        code="compaction_signature_invalid",
    ),
    Rule(
        "compaction content changed",
        compaction.content_mismatch,
        "`compaction` block `content` does not match its `signature`",
        "docs: compaction-on-demand; sdk: CompactionContentMismatchError; probe: the text",
        code="compaction_content_mismatch",
    ),
    Rule(
        "compaction tool changes changed",
        compaction.tool_changes_mismatch,
        "`compaction` block `tool_changes` does not match its `signature`",
        "sdk: CompactionToolChangesMismatchError; guess: the text",
        code="compaction_tool_changes_mismatch",
    ),
)
