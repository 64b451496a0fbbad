"""What the themes of certifying share: the place under test, and the words for what was not given."""

from __future__ import annotations

from typing import NoReturn

import pytest

from chathistory.testing.certify.scoped_store import ScopedStore
from chathistory.testing.certify.target import Target
from chathistory.testing.contract.base import Contract

__all__ = ["NEEDS", "TARGET", "Certified", "needs"]

TARGET = pytest.StashKey[Target]()
NEEDS = "needs "
"""Begins the reason of a skip that is not due to the traits: something was not given that could have been."""


class Certified(Contract):
    """A test that is run on the store that a URL names."""

    target: Target
    scoped: ScopedStore


def needs(what: str) -> NoReturn:
    """Leave the test out, and have it listed as not tested."""
    pytest.skip(NEEDS + what)
