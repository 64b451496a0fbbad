"""The contract of `HistoryStore` as tests, to run against a backend.

    class TestMyStore(HistoryStoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            with MyStore(tmp_path) as store:
                yield store

        def reopen(self, store): ...         # both are required if the traits
        def unreachable_store(self): ...     # of the store are shared or durable

Each module holds the tests of one guarantee, or of a part of it; a test's name says what the backend must do. Tests are
skipped only if the traits say that they do not apply or an optional hook is not overridden; the report says which.
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
    """The contract of a backend as a pytest class.

    Subclass it, override the fixture `store` and the methods that apply to the backend, and run pytest. If all tests
    pass, the store keeps every guarantee that the suite can test. A failure names its guarantee, what is expected, and
    the methods of `BaseStore` to look at.
    """
