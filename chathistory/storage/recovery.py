"""The old name of `chathistory.storage.abilities`, for the backends that are not yet on `BaseStore`."""

from chathistory.storage.abilities import LONGEST_GAP, FoundRecords, HeadRecovery, StorageNotes

__all__ = ["LONGEST_GAP", "FoundRecords", "HeadRecovery", "StorageNotes"]
