"""Conversations in MongoDB: one guarded write per append, on any deployment, with messages of any size.

    mongodb://host/database      mongodb+srv://user:password@cluster.example/database?prefix=app_

    store       the store that the core calls, by means of the rest
    recovery    a new head for a conversation with a damaged head
    listing     heads by time, all names, and documents that belong to no conversation
    write       appends, and moving bodies out of a full head
    delete      forget, delete, and the sweep of expired conversations
    read        a range of records
    server      the client, the indexes, and a check that the server works like MongoDB
    urls        URLs and their options
    schema      the documents and their fields
    errors      translates the errors of pymongo

Each uses only those below it. `docs/mongodb.md` describes the documents for other programs.
"""

from __future__ import annotations

from chathistory import HistoryStore, hookimpl
from chathistory_mongodb.store import MongoStore

__all__ = ["MongoStore"]


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Return the store class for `mongodb:` and `mongodb+srv:` URLs."""
    return MongoStore if scheme in {"mongodb", "mongodb+srv"} else None
