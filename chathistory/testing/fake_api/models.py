"""The models that the fake serves, and their differences."""

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
    """The served models: the current ones and `more`, which are treated as newer ones."""

    more: frozenset[str] = frozenset()

    @classmethod
    def of(cls, more: Iterable[str]) -> Models:
        """Return the current models and `more`."""
        return cls(frozenset(more))

    def serves(self, name: str) -> bool:
        """Return True if a model is served; retired and unknown models are not."""
        return name in _CURRENT or name in self.more

    def takes_prefill(self, name: str) -> bool:
        """Return True if a model supports prefill: a conversation that ends with the start of a reply."""
        return name.startswith(_PREFILLED) and name in _CURRENT

    def context(self, name: str) -> int:
        """Return the size of a model's context, in tokens."""
        return 200_000 if self.takes_prefill(name) else 1_000_000

    def most_images(self, name: str) -> int:
        """Return how many images a request to a model may have."""
        return 100 if self.takes_prefill(name) else 600  # the models of 200k tokens are the same ones

    def preserves_thinking(self, name: str) -> bool:
        """Return True if thinking of a model is bound to its conversation, so that a compaction can preserve it."""
        return name not in _UNBOUND

    def keeps_all_thinking(self, name: str) -> bool:
        """Return True if clearing thinking keeps all turns by default; otherwise it keeps only the last one."""
        return not name.startswith(_FORGETTING)
