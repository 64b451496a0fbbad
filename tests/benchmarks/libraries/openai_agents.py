"""The sessions of `openai-agents`, which keep items as dicts; asynchronous, so each thread has an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from ..samples import Turn, fresh_name
from .library_base import MeasuredLibrary

__all__ = ["AgentsMongo", "AgentsRedis", "AgentsSQLite"]

T = TypeVar("T")


class _Agents(MeasuredLibrary):
    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._own = threading.local()
        self._ends: list[tuple[asyncio.AbstractEventLoop, Coroutine[Any, Any, object]]] = []

    def close(self) -> None:
        """Close what all threads opened; they have ended."""
        for loop, end in self._ends:
            loop.run_until_complete(end)
        for loop in {loop for loop, _ in self._ends}:
            loop.close()

    def append(self, name: str, turn: Turn) -> object:
        return self._run_until_done(self._session(name).add_items(turn))

    def fill(self, name: str, turns: list[Turn]) -> None:
        self.append(name, [message for turn in turns for message in turn])

    def tail(self, name: str) -> list[Any]:
        return self._run_until_done(self._session(name).get_items(limit=20))

    def load(self, name: str) -> list[Any]:
        return self._run_until_done(self._session(name).get_items())

    def kept(self, given: Any) -> Any:
        name = fresh_name()
        self.append(name, [given])
        (found,) = self._run_until_done(self._open_session(name).get_items())
        return found

    def _run_until_done(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop().run_until_complete(work)

    def _loop(self) -> asyncio.AbstractEventLoop:
        if not hasattr(self._own, "loop"):
            self._own.loop, self._own.sessions = asyncio.new_event_loop(), {}
            self._ends.append((self._own.loop, self._end(self._own.sessions)))
        return self._own.loop

    async def _end(self, sessions: dict[str, Any]) -> None:
        for session in sessions.values():
            closed = session.close()
            if closed is not None:
                await closed

    def _session(self, name: str) -> Any:
        self._loop()
        session = self._own.sessions.get(name)
        if session is None:
            session = self._own.sessions[name] = self._open_session(name)
        return session

    def _open_session(self, name: str) -> Any:
        raise NotImplementedError


class AgentsSQLite(_Agents):
    """`SQLiteSession`."""

    name: ClassVar[str] = "agents SQLite"
    imports: ClassVar[str] = "from agents import SQLiteSession"

    def _opened(self, name: str) -> Any:
        from agents import SQLiteSession

        return SQLiteSession(name, f"{self.place.removeprefix('file:')}/agents.sqlite")


class AgentsRedis(_Agents):
    """`RedisSession`."""

    name: ClassVar[str] = "agents"
    imports: ClassVar[str] = "from agents.extensions.memory import RedisSession"

    def _opened(self, name: str) -> Any:
        from agents.extensions.memory import RedisSession

        return RedisSession.from_url(name, url=self.place)


class AgentsMongo(_Agents):
    """`MongoDBSession`."""

    name: ClassVar[str] = "agents"
    imports: ClassVar[str] = "from agents.extensions.memory import MongoDBSession"

    def _opened(self, name: str) -> Any:
        from agents.extensions.memory import MongoDBSession
        from pymongo import AsyncMongoClient

        if not hasattr(self._own, "client"):
            self._own.client = AsyncMongoClient(self.place, w="majority", journal=True)
            self._ends.insert(0, (self._own.loop, self._own.client.close()))
        return MongoDBSession(name, client=self._own.client, database="agents")
