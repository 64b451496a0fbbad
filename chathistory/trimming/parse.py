"""Policies as a line of text: for a configuration file, the environment, and the command line.

    tokens=100000:50000                 TokenBudget(high=100_000, low=50_000)
    turns=40:20                         LastTurns(high=40, low=20)
    age=7d:12h                          MaxAge(high=604_800, low=43_200)
    tokens=100000:50000 turns=40:20     AnyOf(TokenBudget(...), LastTurns(...))
    tokens=100000:50000 compaction      Compaction(TokenBudget(...))
    none                                KeepAll()

And what the API does with its own copy: any of clear_thinking, clear_tool_uses, compact, compact=200000.

Errors say what is due and do not quote what was given: it may come from a variable that holds something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from chathistory.errors import ConfigError, InvalidInput
from chathistory.storage.url import near_match
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.policies import AnyOf, Compaction, KeepAll, LastTurns, MaxAge, Policy, TokenBudget

__all__ = ["editing_of", "policy_of"]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
_COMPACTION, _NONE = "compaction", "none"


def policy_of(text: object) -> Policy:
    """Return the policy that a line names. Raises `ConfigError` that says what is due."""
    if not isinstance(text, str) or not text.split():
        raise ConfigError("a policy is due, such as tokens=100000:50000, turns=40:20, age=7d:12h or none")
    words = text.replace(",", " ").split()
    found = [_one(word) for word in words if word not in (_COMPACTION, _NONE)]
    if not found:
        if words == [_NONE]:
            return KeepAll()
        raise ConfigError(f"{_COMPACTION} needs a policy that says when, such as tokens=100000:50000")
    policy = found[0] if len(found) == 1 else AnyOf(*found)
    return Compaction(policy) if _COMPACTION in words else policy


def _one(word: str) -> Policy:
    name, _, marks = word.partition("=")
    if name not in _POLICIES:
        raise ConfigError(f"there is no such policy{near_match(name, [*_POLICIES, _COMPACTION, _NONE])}")
    high, colon, low = marks.partition(":")
    if not colon:
        raise ConfigError(f"{name}: HIGH:LOW is due, over which to cut, and down to which")
    make, read = _POLICIES[name]
    try:
        return make(read(high), read(low))
    except InvalidInput as error:
        raise ConfigError(str(error)) from None


def _count(text: str) -> float:
    if text.replace("_", "").isdecimal():
        return int(text)
    raise ConfigError("a whole number is due")


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ConfigError("a duration is due, such as 90s, 30m, 12h, 7d or 2w")
    return float(found[1]) * _UNITS[found[2]]


_POLICIES: Mapping[str, tuple[Callable[[float, float], Policy], Callable[[str], float]]] = {
    "tokens": (lambda high, low: TokenBudget(int(high), int(low)), _count),
    "turns": (lambda high, low: LastTurns(int(high), int(low)), _count),
    "age": (MaxAge, _duration),
}


def editing_of(text: object) -> ContextEditing:
    """Return what the API is to do with its own copy, from a line. Raises `ConfigError` that says what is due."""
    given: dict[str, bool | int] = {}
    for word in text.replace(",", " ").split() if isinstance(text, str) else ():
        name, _, number = word.partition("=")
        if name not in _EDITS or (number and name != "compact"):
            raise ConfigError(f"there is no such edit{near_match(name, _EDITS)}")
        given[name] = int(_count(number)) if number else True
    if not given:
        raise ConfigError(f"one or more of {', '.join(_EDITS)} are due, or compact=TOKENS")
    return ContextEditing(
        clear_thinking=bool(given.get("clear_thinking")),
        clear_tool_uses=bool(given.get("clear_tool_uses")),
        compact=given.get("compact", False),
    )


_EDITS = ("clear_thinking", "clear_tool_uses", "compact")
