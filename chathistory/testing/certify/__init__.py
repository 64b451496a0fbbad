"""Certifying a backend: the contract and tests with real processes, run on the store at a URL.

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
    run_suite         runs pytest on the suite and records the outcome of each test
    report            the certificate, as text and as JSON

`run_suite` imports pytest, and only when something is certified.
"""

from __future__ import annotations
