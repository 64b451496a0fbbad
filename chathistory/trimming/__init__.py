"""Policies that decide when a long conversation is trimmed, and how far.

    LastTurns(high=40, low=20)                 over 40 turns: only the newest 20 are sent from then on
    TokenBudget(high=100_000, low=50_000)      over 100,000 tokens: as many turns as fit into 50,000
    MaxAge(high="7d", low="24h")               once the oldest message is a week old: the turns of the last day
    AnyOf(LastTurns(...), TokenBudget(...))    whichever cuts furthest
    Summarize(policy, by=function)             a summary is sent in place of the messages that the policy cuts off
    Compaction(policy)                         the same, made and signed by the API, so that thinking stays valid

A cut is an entry of the log. The log keeps all messages, and every process sends the same ones from then on. Each
policy has a threshold that triggers a cut, and a lower one down to which it cuts, because a cut is expensive: it
invalidates the prompt cache, and thinking from before it can no longer be sent. A window that slides with each turn
would pay this price at each turn.

Your own policy is any object with the two methods of `Policy`.
"""

from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.plan_cut import TrimResult
from chathistory.trimming.policies import (
    AnyOf,
    Compaction,
    KeepAll,
    LastTurns,
    MaxAge,
    Policy,
    Summarize,
    TokenBudget,
    TrimContext,
)
from chathistory.trimming.turns import Round, SentTurn

__all__ = [
    "AnyOf",
    "Compaction",
    "ContextEditing",
    "KeepAll",
    "LastTurns",
    "MaxAge",
    "Policy",
    "Round",
    "SentTurn",
    "Summarize",
    "TokenBudget",
    "TrimContext",
    "TrimResult",
]
