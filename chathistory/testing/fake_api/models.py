"""The models that the fake answers for, and what sets them apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Models"]

_PREFILLED = ("claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-5")
_UNBOUND = (*_PREFILLED, "claude-sonnet-5", "claude-fable-5", "claude-mythos-5", "claude-opus-5", "claude-opus-4-8",
            "claude-opus-4-7", "claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5-20251001",
            "claude-opus-4-5-20251101", "claude-sonnet-4-5-20250929")  # fmt: skip
_FORGETTING = ("claude-haiku", "claude-sonnet-4-5")
_CURRENT = (
    "claude-fable-5-2",
    "claude-mythos-5-2",
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-fable-5-1",
    "claude-opus-5-5",
    "claude-mythos-5-1",
    "claude-sonnet-5",
    "claude-fable-5",
    "claude-mythos-5",
    "claude-opus-5",
    "claude-opus-4-8",
    "claude-opus-4-7",
    "claude-opus-4-6",
    "claude-sonnet-4-6",
    *_PREFILLED,
    "claude-haiku-4-5-20251001",
    "claude-opus-4-5-20251101",
    "claude-sonnet-4-5-20250929",
)


@dataclass(frozen=True, slots=True)
class Models:
    """The models served: those of today and `more` that the caller names (taken for newer ones)."""

    more: frozenset[str] = frozenset()

    @classmethod
    def of(cls, more: Iterable[str]) -> Models:
        """Return the models of today and `more`."""
        return cls(frozenset(more))

    def serves(self, name: str) -> bool:
        """Tell whether `name` is served; retired and unknown models are not."""
        return name in _CURRENT or name in self.more

    def takes_prefill(self, name: str) -> bool:
        """Tell whether the conversation may end with the beginning of a reply."""
        return name.startswith(_PREFILLED) and name in _CURRENT

    def context(self, name: str) -> int:
        """Return how many tokens a prompt may have."""
        return 200_000 if self.takes_prefill(name) else 1_000_000

    def most_images(self, name: str) -> int:
        """Return how many images a request may have."""
        return 100 if self.takes_prefill(name) else 600  # the models of 200k tokens are the same ones

    def preserves_thinking(self, name: str) -> bool:
        """Tell whether thinking is bound to the conversation, so that a compaction can carry it over."""
        return name not in _UNBOUND

    def keeps_all_thinking(self, name: str) -> bool:
        """Tell whether clearing thinking keeps that of all turns unless told; otherwise it keeps that of the last."""
        return not name.startswith(_FORGETTING)
