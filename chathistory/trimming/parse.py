"""Build policies and context editing from named values: tables of a configuration file, variables, and flags.

    [trimming]                  AnyOf(TokenBudget(high=100_000, low=50_000), LastTurns(high=40, low=20))
    trigger_tokens = 100000
    keep_tokens = 50000
    trigger_turns = 40
    keep_turns = 20

Errors give the name and what is expected. They do not quote the value, because a variable may hold something secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chathistory.durations import parse_duration
from chathistory.errors import ConfigError, InvalidInput
from chathistory.storage.url import Option, parse_boolean
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.policies import AnyOf, Compaction, LastTurns, MaxAge, Policy, TokenBudget

__all__ = ["EDITING_OPTIONS", "TRIMMING_OPTIONS", "build_editing", "build_policy", "parse_count"]


def parse_count(value: object) -> int:
    """Convert a value to an int above 0.

    Args:
        value: An int, or its decimal digits as text, with "_" between them if you like.

    Raises:
        ConfigError: It is something else.
    """
    text = str(value).replace("_", "")
    if isinstance(value, str | int) and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) > 0:
        return int(text)
    raise ConfigError("must be an integer above 0")


_MAX_DIGITS = 15


def _parse_edit(value: object) -> bool | Mapping[str, Any]:
    return value if isinstance(value, Mapping) else parse_boolean(value)


def _parse_compact(value: object) -> bool | int | Mapping[str, Any]:
    if not isinstance(value, bool) and str(value).replace("_", "").isdecimal():
        return parse_count(value)
    return _parse_edit(value)


TRIMMING_OPTIONS: Mapping[str, Option] = {
    "enabled": Option(parse_boolean, default=True, help="false: no trimming, whatever else is set"),
    "trigger_tokens": Option(parse_count, None, "trim when more than this many tokens would be sent"),
    "keep_tokens": Option(parse_count, None, "then keep the newest turns that fit into this many tokens"),
    "trigger_turns": Option(parse_count, None, "trim when more than this many turns would be sent"),
    "keep_turns": Option(parse_count, None, "then keep this many of the newest turns"),
    "trigger_age": Option(parse_duration, None, "trim when the oldest message sent is older than this, such as 7d"),
    "keep_age": Option(parse_duration, None, "then keep the turns of this last period, such as 12h"),
    "compaction": Option(parse_boolean, default=False, help="have the API summarize what is trimmed"),
}
"""The keys of the table `trimming`. `trigger_...` and `keep_...` of one unit must be set together."""

EDITING_OPTIONS: Mapping[str, Option] = {
    "clear_thinking": Option(_parse_edit, default=False, help="have the API leave out thinking of older turns"),
    "clear_tool_uses": Option(_parse_edit, default=False, help="have the API leave out results of older tool calls"),
    "compact": Option(_parse_compact, default=False, help="have the API summarize; true, or above how many tokens"),
}
"""The keys of the table `context_editing`. Each may also be a table with the API's settings of that edit."""

_POLICIES: Mapping[str, type[TokenBudget | LastTurns | MaxAge]] = {
    "tokens": TokenBudget,
    "turns": LastTurns,
    "age": MaxAge,
}


def build_policy(values: Mapping[str, Any]) -> Policy | None:
    """Return the policy that the values of `TRIMMING_OPTIONS` describe.

    Args:
        values: The values that are set, by key, as their options parse them.

    Returns:
        The policy; None if nothing is set, or trimming is not enabled.

    Raises:
        ConfigError: One key of a pair is missing, or more is kept than triggers a cut.
    """
    if not values or not values.get("enabled", True):
        return None
    policies: list[TokenBudget | LastTurns | MaxAge] = []
    for unit, make_policy in _POLICIES.items():
        trigger, keep = values.get(f"trigger_{unit}"), values.get(f"keep_{unit}")
        if trigger is None and keep is None:
            continue
        if trigger is None or keep is None:
            missing = f"trigger_{unit}" if trigger is None else f"keep_{unit}"
            raise ConfigError(f"trigger_{unit} and keep_{unit} must be set together; {missing} is missing")
        if keep > trigger:
            raise ConfigError(f"keep_{unit} must not be more than trigger_{unit}")
        policies.append(make_policy(trigger, keep))
    if not policies:
        if values.get("compaction"):
            raise ConfigError(
                "compaction needs a threshold: set trigger_tokens and keep_tokens, or the two keys of turns or age"
            )
        return None
    policy: Policy = policies[0] if len(policies) == 1 else AnyOf(*policies)
    return Compaction(policy) if values.get("compaction") else policy


def build_editing(values: Mapping[str, Any]) -> ContextEditing | None:
    """Return the context editing that the values of `EDITING_OPTIONS` describe.

    Args:
        values: The values that are set, by key, as their options parse them.

    Returns:
        The edits; None if nothing is set.

    Raises:
        ConfigError: A setting of an edit is not allowed.
    """
    if not any(values.values()):
        return None
    try:
        return ContextEditing(**values)
    except InvalidInput as error:
        raise ConfigError(str(error)) from None
