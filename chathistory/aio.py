"""The same for asyncio: one facade over a bounded pool of threads, so that no event loop waits for a disk or a network.

Every call runs the synchronous one in a thread. A cancelled await does not stop a call under way: it lands, and the
next call on that conversation waits for it. The methods are made from those of `History` and `Conversation`, so they
have the same parameters; a callback such as `progress` is called from a thread of the pool.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

from chathistory.checks import check_count, refuse_pickling
from chathistory.conversation import Conversation
from chathistory.defaults import OWN_SCOPE
from chathistory.errors import StoreClosed
from chathistory.history import History
from chathistory.storage.base_store import OpenGuard
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import StoreURL
from chathistory.storage.values import Key

__all__ = ["AsyncConversation", "AsyncHistory"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

THREADS = 8
_PORTION = 100


class _Threaded(Generic[S]):
    """An object for asyncio whose methods run those of a synchronous one in the threads of a pool."""

    _sync: S
    _pool: _Pool


class _Pool:
    """A bounded pool of threads. A forked child has none of them, so it cannot use the pool."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="chathistory")
        self._open_guard = OpenGuard("this AsyncHistory")

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._open_guard.check()
        try:
            future = self._executor.submit(function, *args, **kwargs)
        except RuntimeError as error:
            raise StoreClosed("this AsyncHistory is closed") from error
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)


def _in_thread(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[_Threaded[S], P], Coroutine[Any, Any, R]]:
    """Return the method for asyncio that runs a synchronous one in a thread."""

    async def call(self: _Threaded[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._pool.run(method, self._sync, *args, **kwargs)

    functools.update_wrapper(call, method).__doc__ = f"See `{method.__qualname__}`."
    return call


def _iterated_in_thread(
    method: Callable[Concatenate[S, P], Iterator[R]],
) -> Callable[Concatenate[_Threaded[S], P], AsyncIterator[R]]:
    """Return the method for asyncio that yields what a synchronous one yields, got in a thread portion by portion."""

    async def iterate(self: _Threaded[S], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        found = method(self._sync, *args, **kwargs)
        while portion := await self._pool.run(list, itertools.islice(found, _PORTION)):
            for each in portion:
                yield each

    functools.update_wrapper(iterate, method).__doc__ = f"See `{method.__qualname__}`."
    return iterate


class AsyncHistory(_Threaded[History]):
    """The conversations of one store, for asyncio: see `History`. Use it with `async with`, or call `close`."""

    def __init__(
        self,
        store: HistoryStore | History | AsyncHistory | StoreURL | str,
        *,
        scope: str = OWN_SCOPE,
        threads: int = THREADS,
    ) -> None:
        """Use a store; at most `threads` calls are under way at once, the others wait.

        Args:
            store: A store or a history, which stay the caller's to close, or the URL of a store.
            scope: See `History`.
            threads: How many threads the pool has, at most.

        Raises:
            InvalidInput: `store` is none of these, or `threads` is not a number above 0.
            ConfigError: The URL is wrong, or its backend cannot be used.
        """
        check_count("threads", threads, least=1)
        self._sync = History(store, scope=scope)
        self._pool = _Pool(threads)

    @property
    def sync(self) -> History:
        """The same history for synchronous code."""
        return self._sync

    @property
    def store(self) -> HistoryStore:
        """The store; its methods are synchronous."""
        return self._sync.store

    @property
    def scope(self) -> str:
        """The scope of calls that name none."""
        return self._sync.scope

    def key(self, id: str, scope: str = OWN_SCOPE) -> Key:
        """See `History.key`."""
        return self._sync.key(id, scope)

    def conversation(self, id: str, *, scope: str = OWN_SCOPE) -> AsyncConversation:
        """Return the conversation of that name, whether it exists yet or not; does no input or output."""
        return AsyncConversation(self._pool, self._sync.conversation(id, scope=scope))

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a synchronous function in the pool and return what it returns."""
        return await self._pool.run(function, *args, **kwargs)

    exists = _in_thread(History.exists)
    scopes = _in_thread(History.scopes)
    list = _in_thread(History.list)
    rename = _in_thread(History.rename)
    delete = _in_thread(History.delete)
    copy_to = _in_thread(History.copy_to)
    export_to = _in_thread(History.export_to)
    import_from = _in_thread(History.import_from)
    prune = _in_thread(History.prune)
    check = _in_thread(History.check)
    erase = _in_thread(History.erase)

    async def close(self) -> None:
        """Wait for what is under way, end the threads, and close the store if it was opened from a URL here."""
        await self._pool.close()
        await asyncio.get_running_loop().run_in_executor(None, self._sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and open an AsyncHistory in the other process")


class AsyncConversation(_Threaded[Conversation]):
    """A conversation, for asyncio; each method is that of `Conversation` by the same name."""

    def __init__(self, pool: _Pool, conversation: Conversation) -> None:
        self._pool = pool
        self._sync = conversation

    def __repr__(self) -> str:
        return f"Async{self._sync!r}"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its id and scope instead, and call conversation(...) in the other process")

    @property
    def id(self) -> str:
        """See `Conversation.id`."""
        return self._sync.id

    @property
    def scope(self) -> str:
        """See `Conversation.scope`."""
        return self._sync.scope

    @property
    def version(self) -> str | None:
        """See `Conversation.version`."""
        return self._sync.version

    append = _in_thread(Conversation.append)
    messages = _in_thread(Conversation.messages)
    view = _in_thread(Conversation.view)
    last_messages = _in_thread(Conversation.last_messages)
    last_entries = _in_thread(Conversation.last_entries)
    entries = _iterated_in_thread(Conversation.entries)
    repair = _in_thread(Conversation.repair)
    restore = _in_thread(Conversation.restore)
    salvage = _iterated_in_thread(Conversation.salvage)
    state = _in_thread(Conversation.state)
    info = _in_thread(Conversation.info)
    set_title = _in_thread(Conversation.set_title)
    set_tags = _in_thread(Conversation.set_tags)
    set_metadata = _in_thread(Conversation.set_metadata)
    annotate = _in_thread(Conversation.annotate)
    setup = _in_thread(Conversation.setup)
    usage = _in_thread(Conversation.usage)
    trim = _in_thread(Conversation.trim)
    set_drop_stale_thinking = _in_thread(Conversation.set_drop_stale_thinking)
    rewind = _in_thread(Conversation.rewind)
    variants = _in_thread(Conversation.variants)
    choose = _in_thread(Conversation.choose)
    leave_out = _in_thread(Conversation.leave_out)
    forget = _in_thread(Conversation.forget)

    async def fork(self, new_id: str, *, at: int | None = None, scope: str = OWN_SCOPE) -> AsyncConversation:
        """See `Conversation.fork`."""
        return AsyncConversation(self._pool, await self._pool.run(self._sync.fork, new_id, at=at, scope=scope))
