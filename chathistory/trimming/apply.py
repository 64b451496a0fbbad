"""A cut asked for by hand: what it would leave out, and its record."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine

from chathistory.errors import Conflict, InvalidInput
from chathistory.log.active_path import ActiveEntries, load_active
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.lease import check_free
from chathistory.trimming.plan_cut import Plan, TrimResult, plan_cut
from chathistory.trimming.policies import Compaction, Policy, Summarize, check_policy
from chathistory.view import view_of

__all__ = ["text_from", "trimmed"]


def trimmed(log: ConversationLog, policy: Policy, *, write: bool) -> TrimResult | None:
    """Return what a cut leaves out, and store its record if `write`; None: there is no cut."""
    check_policy("policy", policy)
    if isinstance(policy, Compaction):
        raise InvalidInput("a Compaction is made by the API: use ChatEngine.compact, or ChatEngine(..., trimming=...)")
    sent = load_active(log)
    plan = plan_cut(policy, sent) if sent else None
    if sent is None or plan is None:
        return None
    if write:
        check_free(log.key, sent.state)
        _store(log, sent, plan)
    return plan.trimmed


def _store(log: ConversationLog, sent: ActiveEntries, plan: Plan) -> None:
    policy, summary = plan.policy, None
    if isinstance(policy, Summarize):  # it may take long: nobody waits for it
        summary = text_from(policy.by(view_of(plan.left_out(sent)).messages))
    with log.lock:
        head = log.seen()
        if head is None or head.version != sent.head.version:
            raise Conflict(log.key, head.stored if head else None)
        log.append([plan.entry(summary)])


def text_from(summary: str | Awaitable[str]) -> str:
    """Return what a writer of summaries made. Raises `InvalidInput` if it is no text."""
    if isinstance(summary, str) and summary.strip():
        return summary
    if isinstance(summary, Coroutine):
        summary.close()  # else Python would complain that nobody awaited it
    raise InvalidInput("Summarize: `by` is to return text; a coroutine function works in an AsyncChatEngine only")
