"""The old name of `chathistory.storage.abilities`, for the backends that are not yet on `BaseStore`."""

from chathistory.storage.abilities import Sweeping, Swept

__all__ = ["Sweeping", "Swept"]
