"""Conversations in MongoDB: one guarded write per append, on any deployment, with messages of any size.

    mongodb://host/database      mongodb+srv://user:password@cluster.example/database?prefix=app_

    store        what the store does, in terms of the rest
    connection   from a URL to a client, and to the two collections
    writing      appends, and what is moved out of a full head
    recovery     a new head for a conversation whose head is damaged
    walking      all names, and what is stored beside conversations
    removing     forget, delete, and the broom
    reading      ranges of records, and pages of heads
    probing      whether the server does what all this rests on
    indexes      made once, named, checked
    documents    what the documents look like
    faults       what an error of pymongo is called here

Each uses only those below it. `docs/mongodb.md` describes the documents for other programs.
"""

from __future__ import annotations

from chathistory import HistoryStore, hookimpl
from chathistory_mongodb.store import MongoStore

__all__ = ["MongoStore"]


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Serve `mongodb:` and `mongodb+srv:`."""
    return MongoStore if scheme in {"mongodb", "mongodb+srv"} else None
