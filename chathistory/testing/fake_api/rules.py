"""What the API refuses: one table, in the order in which the rules are asked; the first that is broken answers.

A row that turns out wrong is corrected in its table, and nowhere else. See `Rule` for what a row says.
"""

from __future__ import annotations

from chathistory.testing.fake_api.context_rules import COMPACTION_RULES, CONTEXT_RULES
from chathistory.testing.fake_api.message_rules import CONTENT_RULES, THINKING_RULES, TURN_RULES
from chathistory.testing.fake_api.request import ApiRequest
from chathistory.testing.fake_api.request_rules import ENVELOPE_RULES, SHAPE_RULES
from chathistory.testing.fake_api.rule import Refusal, Rule
from chathistory.testing.fake_api.size_rules import GONE_RULES, SIZE_RULES

__all__ = ["RULES", "Refusal", "Rule", "refusal"]

RULES: tuple[Rule, ...] = (
    *ENVELOPE_RULES,
    *CONTEXT_RULES,
    *SHAPE_RULES,
    *CONTENT_RULES,
    *SIZE_RULES,
    *COMPACTION_RULES,
    *TURN_RULES,
    *THINKING_RULES,
    *GONE_RULES,
)
"""All rules, in the order in which they are asked: those on shape first, so that the others can rely on it."""


def refusal(request: ApiRequest) -> Refusal | None:
    """Return the first rule that the request breaks, None if the API would take it."""
    for rule in RULES:
        for found in rule.check(request):
            return Refusal(rule, rule.text.format(**found), found.get("details", {}))
    return None
