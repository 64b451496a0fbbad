"""The examples for the rules on compaction and context editing; importing this adds them to the others."""

from __future__ import annotations

from rule_examples import EXTRA, Req, body, call, example, reply, result, search, spoken, text, user

from chathistory.testing import FakeMessagesAPI

ON_DEMAND = "compact-2026-09-04"
AT_THRESHOLD = "compact-2026-01-12"
EDITING = "context-management-2025-06-27"
SUMMARIZE = {"compaction": {"type": "summarize"}}


def betas(*names):
    return {"anthropic-beta": ",".join(names)}


def wanted(*messages, **more):
    """A request for a summary."""
    return Req(body(*messages, **SUMMARIZE | more), betas(ON_DEMAND))


def on_demand(*messages, **more):
    return Req(body(*messages, **more), betas(ON_DEMAND))


def edited(*edits, **more):
    """A request with these edits."""
    return Req(body(context_management={"edits": list(edits)}, **more), betas(EDITING, AT_THRESHOLD))


def amount(kind, value):
    return {"type": kind, "value": value}


(BLOCK,) = spoken(FakeMessagesAPI(summary="So far: hello."), wanted(user(), reply()))
CHANGES = [{"type": "compaction", "content": "So far", "tool_changes": []}]
(CHANGED,) = spoken(FakeMessagesAPI(summary=[CHANGES]), wanted(user(), reply()))
LOOSE = {"type": "compaction", "content": "So far: hello."}
COMPACT = {"type": "compact_20260112"}
TOOLS = {"type": "clear_tool_uses_20250919"}
THOUGHTS = {"type": "clear_thinking_20251015"}
OF_SUMMARIES = {
    "compaction with other settings",
    "nothing to summarize",
    "summary of an unfinished turn",
    "remaining budget with a compaction",
}
AFTER = on_demand(reply([BLOCK]), user())

# --- asking for a summary
example(
    "compaction without its beta",
    body(**SUMMARIZE),
    wanted(user()),
    "`compaction` parameter requires anthropic-beta: compact-2026-09-04",
)
example("compaction malformed", wanted(compaction={"type": "x"}), wanted(), "compaction.type: Input should be")
example(
    "compaction malformed",
    wanted(compaction={"type": "summarize", "trigger": 1}),
    wanted(compaction={"type": "summarize", "instructions": " "}),
    f"compaction.trigger: {EXTRA}",
)
example(
    "compaction malformed",
    wanted(compaction={"type": "summarize", "instructions": "x" * 16_385}),
    wanted(compaction={"type": "summarize", "instructions": "x" * 16_384}),
    "compaction.instructions: String",
)
example(
    "compaction malformed",
    wanted(compaction={"type": "summarize", "instructions": 1}),
    wanted(compaction={"type": "summarize", "instructions": None}),
    "compaction.instructions: ",
)
for bad, good, name in (
    ({"stop_sequences": ["x"]}, {"stop_sequences": []}, "stop_sequences"),
    ({"output_config": {"format": {"type": "json_schema"}}}, {"output_config": {"effort": "low"}}, "output_config"),
    ({"tool_choice": {"type": "any"}}, {"tool_choice": {"type": "auto"}}, "tool_choice"),
    ({"tool_choice": {"type": "tool", "name": "f"}}, {"tool_choice": {"type": "none"}}, "tool_choice"),
):
    example(
        "compaction with other settings", wanted(**bad), wanted(**good), f"compaction: cannot be combined with {name}"
    )
NEITHER = Req(body(**SUMMARIZE, context_management=None), betas(ON_DEMAND, EDITING))
BOTH = Req(body(**SUMMARIZE, context_management={"edits": []}), betas(ON_DEMAND, EDITING))
example("compaction with other settings", BOTH, NEITHER, "with context_management")
example("nothing to summarize", wanted(messages=[]), wanted(messages=[reply()]), "nothing to summarize")
example(
    "summary of an unfinished turn",
    wanted(user(), reply([call()])),
    wanted(user(), reply([call()]), user([result()])),
    "messages.1: the last `assistant` turn ends in a tool call",
)
example("summary of an unfinished turn", wanted(user(), reply([search()])), wanted(user(), reply("Hi ")), "messages.1")
LEFT = {"output_config": {"task_budget": {"type": "tokens", "total": 9, "remaining": 3}}}
WHOLE = {"output_config": {"task_budget": {"type": "tokens", "total": 9}}}
example("remaining budget with a compaction", wanted(**LEFT), wanted(**WHOLE), "task_budget.remaining")
example("remaining budget with a compaction", on_demand(reply([BLOCK]), user(), **LEFT), on_demand(**LEFT), "remaining")

# --- edits
for edits, words in (
    ([{}], "Input tag None"),
    (["x"], "Input tag None"),
    ([{"type": "clear_all"}], "Input tag 'clear_all'"),
):
    example("edit unknown", edited(*edits), edited(TOOLS), f"context_management.edits.0: {words}")
example("edit unknown", Req(body(context_management={"edits": {}}), betas(EDITING)), edited(), "edits: Input should be")
EXTRA_FIELD = Req(body(context_management={"clear": 1}), betas(EDITING))
example("edit unknown", EXTRA_FIELD, edited(), f"context_management.clear: {EXTRA}")
for edit, present, needed in (
    (TOOLS, AT_THRESHOLD, EDITING),
    (THOUGHTS, AT_THRESHOLD, EDITING),
    (COMPACT, EDITING, AT_THRESHOLD),
):
    sent = body(context_management={"edits": [edit]})
    example("edit of a beta", Req(sent, betas(present)), Req(sent, betas(needed)), f"Input tag '{edit['type']}'")
for edit, bad, good in (
    (TOOLS, {"keep": 3}, {"keep": amount("tool_uses", 0)}),
    (TOOLS, {"keep": amount("tool_uses", -1)}, {"trigger": amount("tool_uses", 1)}),
    (TOOLS, {"trigger": amount("messages", 1)}, {"trigger": amount("input_tokens", 1)}),
    (TOOLS, {"clear_at_least": amount("tool_uses", 1)}, {"clear_at_least": None}),
    (TOOLS, {"exclude_tools": "f"}, {"exclude_tools": ["f"]}),
    (TOOLS, {"exclude_tools": [1]}, {"exclude_tools": None}),
    (TOOLS, {"clear_tool_inputs": "f"}, {"clear_tool_inputs": ["f"]}),
    (TOOLS, {"after": 1}, {"clear_tool_inputs": True}),
    (THOUGHTS, {"keep": amount("thinking_turns", 0)}, {"keep": amount("thinking_turns", 1)}),
    (THOUGHTS, {"keep": "none"}, {"keep": "all"}),
    (THOUGHTS, {"keep": None}, {"keep": {"type": "all"}}),
    (COMPACT, {"trigger": 90_000}, {"trigger": amount("input_tokens", 50_000)}),
    (COMPACT, {"pause_after_compaction": None}, {"pause_after_compaction": True}),
    (COMPACT, {"instructions": 1}, {"instructions": "Be brief"}),
):
    example("edit malformed", edited(edit | bad), edited(edit | good), f"edits.0.{edit['type']}.{next(iter(bad))}: ")
example(
    "trigger too small",
    edited(COMPACT | {"trigger": amount("input_tokens", 49_999)}),
    edited(COMPACT | {"trigger": None}),
    "context_management.edits.0.compact_20260112: trigger.value must be at least 50000",
)
example("thinking cleared late", edited(TOOLS, THOUGHTS), edited(THOUGHTS, TOOLS), "must be the first edit")
OFF = {"thinking": {"type": "disabled"}}
example("thinking cleared while off", edited(THOUGHTS, **OFF), edited(TOOLS, **OFF), "requires `thinking`")

# --- blocks that come back
example(
    "compaction block empty",
    on_demand(reply([{"type": "compaction", "content": ""}, text()]), user()),
    on_demand(reply([{"type": "compaction", "content": None}, text()]), user()),
    "messages.0.content.0.compaction.content: ",
)
example(
    "compaction block of another beta",
    Req(AFTER.body, betas(AT_THRESHOLD)),
    AFTER,
    "messages.0.content.0: Input tag 'compaction'",
)
KEPT = body(user(), reply([LOOSE, text()]), user())
example(
    "compaction block without strategy",
    Req(KEPT, betas(AT_THRESHOLD)),
    Req(KEPT | {"context_management": {"edits": [COMPACT]}}, betas(AT_THRESHOLD)),
    "`compaction` blocks require a `compact_20260112` strategy in `context_management.edits`.",
)
MIXED = body(reply([BLOCK]), user(), context_management={"edits": [COMPACT]})
CLEARING = body(reply([BLOCK]), user(), context_management={"edits": [TOOLS]})
ALL = betas(ON_DEMAND, AT_THRESHOLD, EDITING)
example("compaction edit with a signed block", Req(MIXED, ALL), Req(CLEARING, ALL), "cannot run on a request that")
example(
    "compaction blocks",
    on_demand(reply([BLOCK]), reply([BLOCK]), user()),
    on_demand(reply([BLOCK]), reply([{"type": "compaction", "content": None}]), user()),
    "more than one `compaction` block",
)
for misplaced in (
    on_demand(user(), reply([BLOCK]), user()),
    on_demand(reply([text(), BLOCK]), user()),
    on_demand({"role": "system", "content": [BLOCK]}, user()),
):
    example(
        "compaction block misplaced",
        misplaced,
        on_demand(user([BLOCK, text()])),
        "`compaction` block must be sent first, in place of the messages it summarizes; remove those messages",
    )
for signature in ("", "x", "AAAA", None):
    example(
        "compaction signature invalid",
        on_demand(reply([BLOCK | {"signature": signature}]), user()),
        AFTER,
        "messages.0.content.0: `compaction` block `signature` is invalid",
    )
example(
    "compaction content changed",
    on_demand(reply([BLOCK | {"content": "So far: goodbye."}]), user()),
    on_demand(reply([BLOCK | {"cache_control": {"type": "ephemeral"}}]), user()),
    "`compaction` block `content` does not match its `signature`",
)
for changes in ([{"type": "tool_removal"}], None):
    example(
        "compaction tool changes changed",
        on_demand(reply([CHANGED | {"tool_changes": changes}]), user()),
        on_demand(reply([CHANGED]), user()),
        "`tool_changes` does not match",
    )
