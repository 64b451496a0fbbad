"""Conversations in Redis or Valkey: one list each, one round trip per call.

    redis://user:secret@host:6379/0     rediss://...     unix:///run/redis.sock?db=0
    redis+sentinel://host:26379,host:26379/mymaster/0    redis+cluster://host:7000,host:7001

    store         reads, writes and checks, each of which is one script
    listing       pages and keys, as the indexes have them
    scan          complete walks: everything that is stored, found by SCAN on every primary
    recovery      a new head for a conversation whose head is damaged
    connection    how a script reaches the server that has its keys; waiting for replicas
    urls          what a URL says, and the redis-py client for it, without retries and with time-outs
    schema        which keys a conversation has, and what stands in them
    scripts       the scripts of this package (`*.lua`)
    errors        what redis-py's errors are called here

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
