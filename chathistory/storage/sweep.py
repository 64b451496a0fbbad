"""An ability that some backends have: freeing the space of what expired, and of what crashes left over.

A backend whose server does that by itself has nothing to sweep. To every reader what expired is absent, swept or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Sweeping", "Swept"]


@dataclass(slots=True)
class Swept:
    """How much a sweep removed: conversations that had expired. A backend may add what else it removed.

    damaged: heads that could not be read; what belongs to them was left as it is.
    """

    expired: int = 0
    damaged: int = 0


@runtime_checkable
class Sweeping(Protocol):
    """A store that is to be swept now and then; readers and writers need not stop."""

    def sweep(self) -> Swept:
        """Remove what has expired by now, and leftovers that are old enough to be nobody's. Raises `StoreError`."""
        ...
