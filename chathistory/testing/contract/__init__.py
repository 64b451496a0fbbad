"""The contract of `HistoryStore` as tests: what every backend owes, run against yours.

    class TestMyStore(HistoryStoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            with MyStore(tmp_path) as store:
                yield store

        def reopen(self, store): ...       # both are needed if the traits of the store
        def unreachable_store(self): ...          # say that it is shared or durable

Nothing but the traits switches a test off, and the report names what they lack. Each theme is a module and a class of
this package, whose tests are named after what must hold.
"""

# ruff: noqa: E402  # asserts explain themselves only in modules that pytest knows of before they are imported

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{name}"
        for name in (
            "atomic_batches",
            "character_exact",
            "checked_reads",
            "concurrency",
            "damage",
            "errors",
            "every_method",
            "forget_and_delete",
            "forked_child",
            "head_recovery",
            "listing",
            "name_isolation",
            "open_close_fork",
            "reading",
            "removed_text",
            "run_threads",
            "scan_without_index",
            "second_instance",
            "version_guard",
        )
    )
)

from chathistory.testing.contract.atomic_batches import Atomic
from chathistory.testing.contract.character_exact import CharacterExact
from chathistory.testing.contract.concurrency import Concurrency
from chathistory.testing.contract.damage import DamagedHeads, DamagedRecords
from chathistory.testing.contract.errors import NoMessageText, UnreachableStore, WrongArguments
from chathistory.testing.contract.forget_and_delete import Deleting, Forgetting
from chathistory.testing.contract.head_recovery import RecoveredHeads
from chathistory.testing.contract.listing import Listing, ListingWhileOthersWrite
from chathistory.testing.contract.name_isolation import NameIsolation
from chathistory.testing.contract.open_close_fork import OpenCloseFork
from chathistory.testing.contract.reading import Reading
from chathistory.testing.contract.removed_text import RemovedText
from chathistory.testing.contract.scan_without_index import CompleteWalks
from chathistory.testing.contract.second_instance import DurableData, SharedInstances
from chathistory.testing.contract.version_guard import PositionNumbers, RetrySafe, VersionGuard

__all__ = ["HistoryStoreContract"]


class HistoryStoreContract(
    Atomic,
    VersionGuard,
    PositionNumbers,
    RetrySafe,
    CharacterExact,
    Reading,
    Listing,
    ListingWhileOthersWrite,
    Forgetting,
    Deleting,
    RemovedText,
    NameIsolation,
    Concurrency,
    SharedInstances,
    DurableData,
    UnreachableStore,
    WrongArguments,
    NoMessageText,
    OpenCloseFork,
    DamagedRecords,
    DamagedHeads,
    RecoveredHeads,
    CompleteWalks,
):
    """Subclass it, give it a `store`, and run pytest: green means that the store keeps every guarantee."""
