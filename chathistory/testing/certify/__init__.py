"""Certifying a backend: the whole contract, and what only running processes can show, on the store that a URL names.

    hooks        what only the author of a backend can do to it: reopen it elsewhere, kill it, lose an answer
    names        fresh names for every test, so that nothing that is there already is touched
    scoped_store a store as a test sees it: the one under test, under fresh names
    target       the URL under test: opening it, and taking away what a test left
    suite        the pytest class: `HistoryStoreContract`, and the themes of this package
    answers      answers that are lost
    crashes      writers that are killed, many processes at once, damage
    costs        what an append and a tail read cost in a large conversation
    writer       a process that appends until it is killed
    running      pytest, run on the suite, and what became of each test
    report       the certificate, as text and as data

pytest is imported by `running`, and only when something is certified.
"""

from __future__ import annotations
