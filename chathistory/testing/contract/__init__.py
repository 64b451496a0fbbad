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
            "atomic",
            "calls",
            "concurrency",
            "contained",
            "damage",
            "errors",
            "exact",
            "forgetting",
            "forked_child",
            "guarded",
            "instances",
            "leftovers",
            "lifecycle",
            "listing",
            "queries",
            "reading",
            "recovery",
            "threads",
            "walks",
        )
    )
)

from chathistory.testing.contract.atomic import Atomic
from chathistory.testing.contract.concurrency import Concurrency
from chathistory.testing.contract.contained import Contained
from chathistory.testing.contract.damage import DamagedHeads, DamagedRecords
from chathistory.testing.contract.errors import Arguments, Discreet, Unreachable
from chathistory.testing.contract.exact import Exact
from chathistory.testing.contract.forgetting import Deleting, Forgetting
from chathistory.testing.contract.guarded import Guarded, Numbered, RetrySafe
from chathistory.testing.contract.instances import Durable, Shared
from chathistory.testing.contract.leftovers import Remains
from chathistory.testing.contract.lifecycle import Lifecycle
from chathistory.testing.contract.listing import Listing, ListingWhileOthersWrite
from chathistory.testing.contract.reading import Reading
from chathistory.testing.contract.recovery import RecoveredHeads
from chathistory.testing.contract.walks import CompleteWalks

__all__ = ["HistoryStoreContract"]


class HistoryStoreContract(
    Atomic,
    Guarded,
    Numbered,
    RetrySafe,
    Exact,
    Reading,
    Listing,
    ListingWhileOthersWrite,
    Forgetting,
    Deleting,
    Remains,
    Contained,
    Concurrency,
    Shared,
    Durable,
    Unreachable,
    Arguments,
    Discreet,
    Lifecycle,
    DamagedRecords,
    DamagedHeads,
    RecoveredHeads,
    CompleteWalks,
):
    """Subclass it, give it a `store`, and run pytest: green means that the store keeps every guarantee."""
