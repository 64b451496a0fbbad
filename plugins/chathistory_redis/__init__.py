"""Conversations in Redis or Valkey: one list each, one round trip per call.

    redis://user:secret@host:6379/0     rediss://...     unix:///run/redis.sock?db=0
    redis+sentinel://host:26379,host:26379/mymaster/0    redis+cluster://host:7000,host:7001

    store         reads, writes and checks, each of which is one script
    listing       pages and keys, from the indexes
    scan          complete walks: everything that is stored, found by SCAN on every primary
    recovery      a new head for a conversation with a damaged head
    connection    runs scripts on the server that has their keys, and waits for replicas
    urls          parses a URL, and makes the redis-py client for it, without retries and with time-outs
    schema        the keys of a conversation, and the format of their content
    scripts       the scripts of this package (`*.lua`)
    errors        translates the errors of redis-py

Each uses only those below it. `docs/redis.md` describes the keys, and what may be lost when.
"""

from __future__ import annotations

from chathistory import HistoryStore, hookimpl
from chathistory_redis.store import RedisStore

__all__ = ["RedisStore"]

_SCHEMES = frozenset({"redis", "rediss", "unix", "redis+sentinel", "redis+cluster"})


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Return the store class for the URLs of Redis and Valkey."""
    return RedisStore if scheme in _SCHEMES else None
