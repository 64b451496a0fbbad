"""The content blocks that a fake returned; it accepts them again, whatever they are."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from chathistory.testing.fake_api.signatures import canonical, digest

__all__ = ["IssuedBlocks"]

_IDS = ("id", "tool_use_id")


class IssuedBlocks:
    """Digests of the blocks of all replies; safe to use in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: set[str] = set()

    def add(self, content: Iterable[Mapping[str, Any]]) -> None:
        """Remember the blocks of a reply."""
        with self._lock:
            for block in content:
                self._digests |= {
                    _block_digest(block),
                    _block_digest({name: part for name, part in block.items() if part is not None}),
                }

    def has(self, block: object) -> bool:
        """Return True if a block is one of them; its id may differ, and its nulls may be missing."""
        return isinstance(block, dict) and _block_digest(block) in self._digests


def _block_digest(block: Mapping[str, Any]) -> str:
    return digest(canonical({name: part for name, part in block.items() if name not in _IDS}))
