"""What the API refuses: one table, in the order of the checks. The first rule that is broken gives the error.

To correct the fake, correct a row. See `Rule` for its fields.
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
"""All rules in the order of the checks: fields and types come first, so that later rules can rely on them."""


def refusal(request: ApiRequest) -> Refusal | None:
    """Return the first rule that a request breaks, or None if the API would accept it."""
    for rule in RULES:
        for found in rule.check(request):
            return Refusal(rule, rule.text.format(**found), found.get("details", {}))
    return None
