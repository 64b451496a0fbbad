"""Conversations on S3, and on every service that speaks its protocol and honours conditional writes.

    s3://bucket/prefix?region=eu-central-1&endpoint_url=...&profile=...

One object per conversation holds its head and its newest records. It is written with `If-Match`, made with
`If-None-Match: *`: that one PUT is the commit, the guard and the head. Older records are in *segments*, objects that
never change; a *marker*, an object whose name says the time, finds the conversation in the listing of its scope.

    store       what the store does, in terms of the rest
    sweep       removes what crashes left over, what has expired, and what is in a scope beside its conversations
    recovery    finds the records of a conversation whose head is damaged, and gives it a new one
    listing     a scope's conversations, newest first, by the markers; all conversations, by their own names
    write       the commit of an append, a forget and a delete, and what is removed after it
    read        the records of a range, fetched side by side
    segments    where records go when the head is full, and when segments are merged
    heads       the present head of a conversation, and the one that this process has seen last
    schema      what a head's object holds
    lines       what a record is in an object
    names       what the objects are called
    probe       whether the service can be trusted with the guard
    bucket      requests, repeated where that is safe
    errors      what boto3's errors are called here
    urls        from a URL to boto3's client

Each uses only those below it. `docs/s3.md` has the layout, the guarantees and the costs.
"""

from __future__ import annotations

from chathistory import HistoryStore, hookimpl
from chathistory_s3.store import S3Store
from chathistory_s3.sweep import S3SweepReport

__all__ = ["S3Store", "S3SweepReport"]


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Serve `s3:`."""
    return S3Store if scheme == "s3" else None
