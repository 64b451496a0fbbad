"""What Claude is sent of a long conversation: policies that say when to cut, and how far.

    LastTurns(high=40, low=20)                 over 40 turns: the newest 20 go on being sent
    TokenBudget(high=100_000, low=50_000)      over 100,000 tokens: as many turns as fit into 50,000
    MaxAge(high="7d", low="24h")               once the oldest message is a week old: what was said in the last day
    AnyOf(LastTurns(...), TokenBudget(...))    whichever asks for more
    Summarize(policy, by=function)             what the policy cuts off is sent as a summary instead
    Compaction(policy)                         the same, made and signed by the API, so that thinking stays valid

A cut is a record of the log: the log stays whole, and every process sends the same from then on. Each policy has a mark
that triggers and a lower one that it cuts down to, because a cut is dear: the prompt cache begins anew, and thinking
before it can no longer be sent. A window that slides with each turn would pay that on each turn.

A policy of your own is any object with the two methods of `Policy`.
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
