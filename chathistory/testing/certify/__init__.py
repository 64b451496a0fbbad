"""A pytest plugin that certifies a backend: the contract and tests with real processes, on the store at a URL.

    pytest -p chathistory.testing.certify --chathistory-url=URL

After pytest's own output it prints the certificate: a line for each guarantee, and the verdict. Without a URL the
plugin does nothing. It is no entry point of pytest, since that would load it in every run of every user.

    author_hooks      what only the author of a backend can do to it: crash it, lose an answer, damage a record
    scope_names       fresh names of scopes for every test, so that existing data is not touched
    scoped_store      the store under test, with these names
    target            the URL under test: opens it, and removes what a test left there
    suite             the pytest class: `HistoryStoreContract` and the tests of this package
    base_test_class   what the tests of this package share
    lost_answers      tests of appends whose answer is lost
    killed_processes  tests with killed writers, many processes, crashed servers and damage
    constant_cost     tests of the cost of an append and a tail read in a large conversation
    writer_process    a process that works on a conversation until it is killed
    options           the options of the plugin
    certifier         the hooks of pytest during a run: chooses the tests, and records their outcomes
    secrets           removes the secrets of URLs from what pytest reports
    report            the certificate, as text and as JSON

pytest imports this module first and rewrites the asserts of all modules below it, so it imports them only in its hooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["pytest_addoption", "pytest_configure"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the plugin."""
    from chathistory.testing.certify.options import add_options

    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Add the suite to the tests of this run, if a URL was given."""
    from chathistory.testing.certify.certifier import start_certifying

    start_certifying(config)
