"""Conversations in MongoDB: one guarded write per append, on any deployment, with messages of any size.

    mongodb://host/database      mongodb+srv://user:password@cluster.example/database?prefix=app_

    store       what the core calls, in terms of the rest
    recovery    a new head for a conversation whose head is damaged
    listing     heads by time, all names, and what is stored beside conversations
    write       appends, and what is moved out of a full head
    delete      forget, delete, and the sweep of what expired
    read        a range of records
    server      the client, the indexes, and whether the server does what all this rests on
    urls        URLs and their options
    schema      what the documents look like
    errors      what an error of pymongo is called here

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
