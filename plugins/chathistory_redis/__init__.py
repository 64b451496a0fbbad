"""Conversations in Redis or Valkey: one list each, one round trip per call.

    redis://user:secret@host:6379/0     rediss://...     unix:///run/redis.sock?db=0
    redis+sentinel://host:26379,host:26379/mymaster/0    redis+cluster://host:7000,host:7001

    store       what the store does, in terms of the rest
    listing     pages and names, as the index has them
    walking     everything that is stored, found in the keys themselves
    recovery    a new head for a conversation whose head is damaged
    link        how a script reaches the server that has its keys; waiting for replicas
    scanning    SCAN on every primary, begun again until nothing can have been missed
    address     what a URL says: where the servers are, and the options of redis-py
    clients     the redis-py client for it, without retries and with time-outs
    cluster     commands for several nodes at once
    scripts     the scripts of this package (`*.lua`)
    damage      what is damaged, in words
    layout      which keys a conversation has
    heads       what stands in its list
    faults      what redis-py's errors are called here

Each uses only those below it. `docs/redis.md` describes the keys, and what is lost when.
"""

from __future__ import annotations

from chathistory import HistoryStore, hookimpl
from chathistory_redis.store import RedisStore

__all__ = ["RedisStore"]

_SCHEMES = frozenset({"redis", "rediss", "unix", "redis+sentinel", "redis+cluster"})


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Serve all that redis-py can reach."""
    return RedisStore if scheme in _SCHEMES else None
