"""The raw form of `redis:`: a pipeline of RPUSH, HSET and ZADD; LRANGE and ZREVRANGE; no guard, not atomic.

On one conversation that many threads share it is a script that does the same three and checks the length.
"""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar

import redis

from ..samples import INFO, Turn
from .library_base import MeasuredLibrary

__all__ = ["RawRedis"]

_SCRIPT = """
if redis.call('LLEN', KEYS[1]) < 0 then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], 'updated', ARGV[3], 'info', ARGV[4])
redis.call('ZADD', KEYS[3], ARGV[3], KEYS[1])
return 1
"""


class RawRedis(MeasuredLibrary):
    """A program with a list, a hash and one sorted set."""

    name: ClassVar[str] = "raw"
    imports: ClassVar[str] = "import redis, json"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._client = redis.Redis.from_url(place)
        self._script = self._client.register_script(_SCRIPT)

    def append(self, name: str, turn: Turn) -> object:
        now = time.time()
        with self._client.pipeline(transaction=False) as pipe:
            pipe.rpush(f"raw:{name}", *[json.dumps(message) for message in turn])
            pipe.hset(f"raw:{name}:head", mapping={"updated": now, "info": INFO})
            pipe.zadd("raw:index", {name: now})
            return pipe.execute()

    def append_shared(self, name: str, turn: Turn) -> object:
        keys = [f"raw:{name}", f"raw:{name}:head", "raw:index"]
        return self._script(keys, [*(json.dumps(message) for message in turn), time.time(), INFO])

    def fill(self, name: str, turns: list[Turn]) -> None:
        for first in range(0, len(turns), 500):
            lines = [json.dumps(message) for turn in turns[first : first + 500] for message in turn]
            self._client.rpush(f"raw:{name}", *lines)

    def tail(self, name: str) -> list[Any]:
        return [json.loads(line) for line in self._client.lrange(f"raw:{name}", -20, -1)]

    def load(self, name: str) -> list[Any]:
        return [json.loads(line) for line in self._client.lrange(f"raw:{name}", 0, -1)]

    def fill_conversations(self, count: int) -> None:
        self._client.zadd(f"raw:listing-{count}", {f"chat-{number}": number for number in range(count)})

    def recent(self, count: int) -> list[Any]:
        return self._client.zrevrange(f"raw:listing-{count}", 0, 19, withscores=True)

    def close(self) -> None:
        self._client.close()
