"""What the tests of certifying share: the target, and the skip of tests whose hook or option is missing."""

from __future__ import annotations

from typing import NoReturn

import pytest

from chathistory.testing.certify.scoped_store import ScopedStore
from chathistory.testing.certify.target import Target
from chathistory.testing.contract.base_test_class import ContractTest

__all__ = ["LAST_TEST", "TARGET", "CertifyTest", "skip_as_not_tested"]

TARGET = pytest.StashKey[Target]()
LAST_TEST = "test_existing_conversations_are_untouched"
"""The test that runs after all others."""


class CertifyTest(ContractTest):
    """A test that runs on the store at a URL."""

    target: Target
    scoped: ScopedStore


def skip_as_not_tested(what: str) -> NoReturn:
    """Skip the test, and report it as not tested.

    Args:
        what: What was not given, such as "the hook `crash`".
    """
    pytest.skip(f"needs {what}")
