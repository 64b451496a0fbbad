"""Conversations on S3, and on every compatible service that supports conditional writes.

    s3://bucket/prefix?region=eu-central-1&endpoint_url=...&profile=...

One object per conversation holds its head and its newest records. It is created with `If-None-Match: *` and replaced
with `If-Match`: this one PUT is the commit, the version check and the new head. Older records are in *segments*,
objects that never change. A *marker*, an object with a time in its name, puts the conversation into the listing of its
scope.

    store       the store that the core calls, by means of the rest
    sweep       removes leftovers of crashes, expired conversations, and leftovers of a scope
    recovery    finds the records of a conversation with a damaged head, and gives it a new one
    listing     the conversations of a scope, newest first, from the markers; all conversations, from their names
    write       the commit of an append, a forget and a delete, and the removal of old objects after it
    read        the records of a range, fetched in parallel
    segments    stores records in segments when the head is full, and merges segments
    heads       the current head of a conversation, and a cache of the heads that this process has seen
    schema      the content of a head's object
    lines       the line of a record in an object
    names       the names of the objects
    probe       checks that the service supports conditional writes
    bucket      requests, repeated where that is safe
    errors      translates the errors of boto3
    urls        makes boto3's client from a URL

Each uses only those below it. `docs/s3.md` has the layout, the guarantees and the costs.
"""

from __future__ import annotations

from chathistory import HistoryStore, hookimpl
from chathistory_s3.store import S3Store
from chathistory_s3.sweep import S3SweepReport

__all__ = ["S3Store", "S3SweepReport"]


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Return the store class for `s3:` URLs."""
    return S3Store if scheme == "s3" else None
