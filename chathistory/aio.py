"""`AsyncHistory` and `AsyncConversation`: the same API for asyncio, over a bounded pool of threads.

Every method runs the synchronous one in a thread, so the event loop never waits for a disk or a network. The methods
are made from the methods of `History` and `Conversation`, so they have the same parameters and raise the same errors. A
callback such as `progress` is called in a thread of the pool. Cancelling an await does not stop a call that is running:
it completes, and the next call on that conversation waits for it.
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
    """An object for asyncio. Its methods run the methods of a synchronous object in the threads of a pool."""

    _sync: S
    _pool: _Pool


class _Pool:
    """A bounded pool of threads. A forked child process has none of the threads, so it cannot use the pool."""

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
    """Return a method for asyncio that runs a synchronous method in a thread."""

    async def call(self: _Threaded[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._pool.run(method, self._sync, *args, **kwargs)

    functools.update_wrapper(call, method).__doc__ = f"See `{method.__qualname__}`."
    return call


def _iterated_in_thread(
    method: Callable[Concatenate[S, P], Iterator[R]],
) -> Callable[Concatenate[_Threaded[S], P], AsyncIterator[R]]:
    """Return a method for asyncio that yields what a synchronous method yields, portion by portion in a thread."""

    async def iterate(self: _Threaded[S], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        iterator = method(self._sync, *args, **kwargs)
        while portion := await self._pool.run(list, itertools.islice(iterator, _PORTION)):
            for each in portion:
                yield each

    functools.update_wrapper(iterate, method).__doc__ = f"See `{method.__qualname__}`."
    return iterate


class AsyncHistory(_Threaded[History]):
    """The conversations of one store, for asyncio. Use it with `async with`, or call `close`.

    The methods have the parameters, results and errors of the methods of `History` with the same names.
    """

    def __init__(
        self,
        store: HistoryStore | History | AsyncHistory | StoreURL | str,
        *,
        scope: str = OWN_SCOPE,
        threads: int = THREADS,
    ) -> None:
        """Create the history of a store.

        Args:
            store: The URL of a store, such as "file:./history": the history opens the store, and `close` closes it. Or
                a store, or another history with its store: the caller closes it.
            scope: The scope of calls that name no scope. If it is not given, it is the scope of the given history, or
                "default".
            threads: How many threads the pool has, at most. At most this many calls run at the same time; others wait.

        Raises:
            InvalidInput: `store` has another type, or `threads` is not an integer above 0.
            ConfigError: The URL is not valid, or its backend cannot be used.
        """
        check_count("threads", threads, least=1)
        self._sync = History(store, scope=scope)
        self._pool = _Pool(threads)

    @property
    def sync(self) -> History:
        """The `History` with the same store and scope, for synchronous code."""
        return self._sync

    @property
    def store(self) -> HistoryStore:
        """The store; its methods are synchronous."""
        return self._sync.store

    @property
    def scope(self) -> str:
        """The scope of calls that name no scope."""
        return self._sync.scope

    def key(self, id: str, scope: str = OWN_SCOPE) -> Key:
        """Return the key of a conversation, which names it in the store.

        Args:
            id: The id of the conversation.
            scope: Its scope; the scope of the history if it is not given.

        Raises:
            InvalidInput: The id or the scope is not valid.
        """
        return self._sync.key(id, scope)

    def conversation(self, id: str, *, scope: str = OWN_SCOPE) -> AsyncConversation:
        """Return the conversation with an id, whether it exists yet or not, without input or output.

        Args:
            id: The id of the conversation.
            scope: Its scope; the scope of the history if it is not given.

        Raises:
            InvalidInput: The id or the scope is not valid.
        """
        return AsyncConversation(self._pool, self._sync.conversation(id, scope=scope))

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a synchronous function in a thread of the pool, and return its result.

        Args:
            function: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Raises:
            StoreClosed: This history is closed.
            Exception: The function raised it.
        """
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
        """Wait for running calls, end the threads, and close the store if this history opened it from a URL."""
        await self._pool.close()
        await asyncio.get_running_loop().run_in_executor(None, self._sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and open an AsyncHistory in the other process")


class AsyncConversation(_Threaded[Conversation]):
    """One conversation of a store, for asyncio. `AsyncHistory.conversation` returns it without any input or output.

    The methods have the parameters, results and errors of the methods of `Conversation` with the same names.
    """

    def __init__(self, pool: _Pool, conversation: Conversation) -> None:
        """Use `AsyncHistory.conversation` instead.

        Args:
            pool: The threads that run the calls.
            conversation: The conversation for synchronous code.
        """
        self._pool = pool
        self._sync = conversation

    def __repr__(self) -> str:
        return f"Async{self._sync!r}"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its id and scope instead, and call conversation(...) in the other process")

    @property
    def id(self) -> str:
        """The id of the conversation, as the caller chose it."""
        return self._sync.id

    @property
    def scope(self) -> str:
        """The scope that the conversation belongs to, such as a user or a tenant."""
        return self._sync.scope

    @property
    def version(self) -> str | None:
        """The version of the state that this object returned last; see `Conversation.version`."""
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
        """Create a new conversation that begins with the records of this one, and return it; see `Conversation.fork`.

        Args:
            new_id: The id of the new conversation.
            at: Copy only records below this position; None: all.
            scope: The scope of the new conversation; the scope of this one if it is not given.

        Raises:
            ConversationExists: There is a conversation with the new id already; nothing was stored.
            ConversationNotFound: This conversation does not exist.
            InvalidInput: `at` is not a position at which it can be forked.
        """
        return AsyncConversation(self._pool, await self._pool.run(self._sync.fork, new_id, at=at, scope=scope))
