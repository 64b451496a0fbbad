"""Failed tests of the suite name their guarantee: a note on the error says what is expected and where to look."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from chathistory.testing.guarantees import GUARANTEES, Guarantee, belongs_to, guarantee_of

__all__ = ["name_guarantees"]


def name_guarantees(cls: type, number: int) -> None:
    """Let the tests that a class defines name their guarantee when they fail.

    Args:
        cls: A test class; inherited tests are left as they are.
        number: The guarantee of tests that have none by `belongs_to`.
    """
    for name, test in list(vars(cls).items()):
        if name.startswith("test_"):
            setattr(cls, name, _add_guarantee_note(test, guarantee_of(test) or GUARANTEES[number]))


def _add_guarantee_note(test: Callable[..., Any], guarantee: Guarantee) -> Callable[..., Any]:
    @functools.wraps(test)
    def run_test(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            test(*args, **kwargs)
        except pytest.skip.Exception:
            raise
        except BaseException as error:
            error.add_note(guarantee.note)
            raise

    return belongs_to(guarantee.number)(run_test)
