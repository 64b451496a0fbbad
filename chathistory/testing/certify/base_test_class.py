"""What the themes of certifying share: the place under test, and the words for what was not given."""

from __future__ import annotations

from typing import NoReturn

import pytest

from chathistory.testing.certify.scoped_store import ScopedStore
from chathistory.testing.certify.target import Target
from chathistory.testing.contract.base_test_class import ContractTest

__all__ = ["NOT_TESTED", "TARGET", "CertifyTest", "skip_as_not_tested"]

TARGET = pytest.StashKey[Target]()
NOT_TESTED = "needs "
"""Begins the reason of a skip that is not due to the traits: something was not given that could have been."""


class CertifyTest(ContractTest):
    """A test that is run on the store that a URL names."""

    target: Target
    scoped: ScopedStore


def skip_as_not_tested(what: str) -> NoReturn:
    """Leave the test out, and have it listed as not tested."""
    pytest.skip(NOT_TESTED + what)
