"""The same for asyncio: one facade over a bounded pool of threads, so that no event loop waits for a disk or a network.

Every call runs the synchronous one in a thread. A cancelled await does not stop a call under way: it lands, and the
next call on that conversation waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Literal, NoReturn, ParamSpec, Self, TypeVar

from chathistory.checks import refuse_pickling
from chathistory.conversation import Conversation
from chathistory.errors import StoreClosed
from chathistory.history import OWN_SCOPE, ConversationInfo, History
from chathistory.log.entry import Entry
from chathistory.log.state import Summary
from chathistory.messages.content import Message
from chathistory.operations.check import CheckReport, Diagnosis
from chathistory.operations.prune import DeletedConversation, EraseReport, PruneReport
from chathistory.operations.restore import Restoration
from chathistory.operations.usage import Usage
from chathistory.operations.variants import Variant
from chathistory.storage.open_guard import OpenGuard
from chathistory.storage.store import Cursor, Head, HistoryStore, Page
from chathistory.transfer.copy import CopyReport, Progress
from chathistory.transfer.export import ExportReport
from chathistory.transfer.files import File
from chathistory.trimming.plan_cut import TrimResult
from chathistory.trimming.policies import Policy
from chathistory.view import MessageView, ViewRepair

__all__ = ["AsyncConversation", "AsyncHistory"]

P = ParamSpec("P")
R = TypeVar("R")

THREADS = 8
_PORTION = 100


class AsyncHistory:
    """The conversations of one store, for asyncio. Use it with `async with`, or call `close`."""

    def __init__(self, store: HistoryStore | History, *, threads: int = THREADS) -> None:
        """Use `store`, which stays the caller's; at most `threads` calls are under way at once, the others wait."""
        self.history = store if isinstance(store, History) else History(store)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="chathistory")
        self._open_guard = OpenGuard("this AsyncHistory")  # a forked child has none of the threads

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a synchronous function in the pool and return what it returns."""
        self._open_guard.check()
        try:
            future = self._pool.submit(function, *args, **kwargs)
        except RuntimeError as error:
            raise StoreClosed("this AsyncHistory is closed") from error
        return await asyncio.wrap_future(future)

    def conversation(self, id: str, *, scope: str = OWN_SCOPE) -> AsyncConversation:
        """Return the conversation of that name, whether it exists yet or not; does no input or output."""
        return AsyncConversation(self, self.history.conversation(id, scope=scope))

    async def list(
        self,
        *,
        scope: str = OWN_SCOPE,
        limit: int = 20,
        after: Cursor | None = None,
        title: str | None = None,
        tag: str | Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        unanswered: bool = False,
    ) -> Page[ConversationInfo]:
        """See `History.list`."""
        return await self.run(
            self.history.list,
            scope=scope,
            limit=limit,
            after=after,
            title=title,
            tag=tag,
            metadata=metadata,
            model=model,
            since=since,
            until=until,
            unanswered=unanswered,
        )

    async def delete(
        self, id: str, *, scope: str = OWN_SCOPE, expected: str | None = None, dry_run: bool = False
    ) -> DeletedConversation | None:
        """See `History.delete`."""
        return await self.run(self.history.delete, id, scope=scope, expected=expected, dry_run=dry_run)

    async def copy_to(
        self,
        other: AsyncHistory | History | HistoryStore,
        *,
        scope: str | None = None,
        ids: Iterable[str] | None = None,
        replace: bool = False,
        verify: bool = True,
        threads: int = 4,
        full_scan: bool = False,
        progress: Progress | None = None,
    ) -> CopyReport:
        """See `History.copy_to`; `progress` is called from a thread of the pool."""
        target = other.history if isinstance(other, AsyncHistory) else other
        return await self.run(
            self.history.copy_to,
            target,
            scope=scope,
            ids=ids,
            replace=replace,
            verify=verify,
            threads=threads,
            full_scan=full_scan,
            progress=progress,
        )

    async def export_to(
        self,
        file: File,
        *,
        scope: str | None = None,
        ids: Iterable[str] | None = None,
        format: Literal["jsonl", "markdown"] | None = None,  # noqa: A002 - the word that people look for
        salvage: bool = False,
        full_scan: bool = False,
        progress: Progress | None = None,
    ) -> ExportReport:
        """See `History.export_to`; `progress` is called from a thread of the pool."""
        return await self.run(
            self.history.export_to,
            file,
            scope=scope,
            ids=ids,
            format=format,
            salvage=salvage,
            full_scan=full_scan,
            progress=progress,
        )

    async def import_from(
        self,
        file: File,
        *,
        id: str | None = None,
        scope: str | None = None,
        replace: bool = False,
        progress: Progress | None = None,
    ) -> CopyReport:
        """See `History.import_from`; `progress` is called from a thread of the pool."""
        return await self.run(self.history.import_from, file, id=id, scope=scope, replace=replace, progress=progress)

    async def prune(
        self,
        *,
        scope: str = OWN_SCOPE,
        age: timedelta | None = None,
        ttl: timedelta | None = None,
        count: int | None = None,
        dry_run: bool = True,
        full_scan: bool = False,
        progress: Callable[[DeletedConversation], object] | None = None,
    ) -> PruneReport:
        """See `History.prune`; `progress` is called from a thread of the pool."""
        return await self.run(
            self.history.prune,
            scope=scope,
            age=age,
            ttl=ttl,
            count=count,
            dry_run=dry_run,
            full_scan=full_scan,
            progress=progress,
        )

    async def check(
        self,
        *,
        scope: str | None = None,
        ids: Iterable[str] | None = None,
        progress: Callable[[Diagnosis], object] | None = None,
    ) -> CheckReport:
        """See `History.check`; `progress` is called from a thread of the pool."""
        return await self.run(self.history.check, scope=scope, ids=ids, progress=progress)

    async def erase(
        self,
        scope: str,
        *,
        dry_run: bool = False,
        progress: Callable[[DeletedConversation], object] | None = None,
    ) -> EraseReport:
        """See `History.erase`; `progress` is called from a thread of the pool."""
        return await self.run(self.history.erase, scope, dry_run=dry_run, progress=progress)

    async def close(self) -> None:
        """Wait for what is under way and end the threads; the store stays open, for it is the caller's."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and open an AsyncHistory in the other process")


class AsyncConversation:
    """A conversation, for asyncio; each method is that of `Conversation` by the same name."""

    def __init__(self, history: AsyncHistory, conversation: Conversation) -> None:
        self._history = history
        self._run = history.run
        self._sync = conversation

    def __repr__(self) -> str:
        return f"Async{self._sync!r}"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its id and scope instead, and call conversation(...) in the other process")

    @property
    def id(self) -> str:
        """The caller's name for it."""
        return self._sync.id

    @property
    def scope(self) -> str:
        """Whose it is."""
        return self._sync.scope

    @property
    def version(self) -> str | None:
        """See `Conversation.version`."""
        return self._sync.version

    async def append(self, messages: Any, *, key: str | None = None, expected: str | None = None) -> Head:
        """See `Conversation.append`."""
        return await self._run(self._sync.append, messages, key=key, expected=expected)

    async def messages(self, *, tools: Iterable[Any] | None = None) -> list[Message]:
        """See `Conversation.messages`."""
        return await self._run(self._sync.messages, tools=tools)

    async def view(self, *, tools: Iterable[Any] | None = None) -> MessageView:
        """See `Conversation.view`."""
        return await self._run(self._sync.view, tools=tools)

    async def last_messages(self, count: int) -> list[Message]:
        """See `Conversation.last_messages`."""
        return await self._run(self._sync.last_messages, count)

    async def last_entries(self, count: int, *, before: int | None = None) -> list[Entry]:
        """See `Conversation.last_entries`."""
        return await self._run(self._sync.last_entries, count, before=before)

    async def entries(self, start: int = 0, stop: int | None = None) -> AsyncIterator[Entry]:
        """See `Conversation.entries`."""
        entries = self._sync.entries(start, stop)
        while portion := await self._run(_next_of, entries):
            for entry in portion:
                yield entry

    async def repair(self, *, dry_run: bool = True, force: bool = False) -> tuple[ViewRepair, ...]:
        """See `Conversation.repair`."""
        return await self._run(self._sync.repair, dry_run=dry_run, force=force)

    async def restore(self, *, dry_run: bool = True, force: bool = False) -> Restoration | None:
        """See `Conversation.restore`."""
        return await self._run(self._sync.restore, dry_run=dry_run, force=force)

    async def salvage(self) -> AsyncIterator[Entry | ViewRepair]:
        """See `Conversation.salvage`."""
        entries = self._sync.salvage()
        while portion := await self._run(_next_of, entries):
            for each in portion:
                yield each

    async def summary(self) -> Summary | None:
        """See `Conversation.summary`."""
        return await self._run(lambda: self._sync.summary)

    async def refresh(self) -> Summary | None:
        """See `Conversation.refresh`."""
        return await self._run(self._sync.refresh)

    async def info(self) -> ConversationInfo | None:
        """See `Conversation.info`."""
        return await self._run(self._sync.info)

    async def setup(self) -> dict[str, Any] | None:
        """See `Conversation.setup`."""
        return await self._run(self._sync.setup)

    async def usage(self) -> Usage:
        """See `Conversation.usage`."""
        return await self._run(self._sync.usage)

    async def annotate(self, **changes: str | Iterable[str] | Mapping[str, Any] | None) -> Head:
        """See `Conversation.annotate`; the way to set title, tags and metadata here."""
        return await self._run(self._sync.annotate, **changes)

    async def trim(self, policy: Policy, *, dry_run: bool = False) -> TrimResult | None:
        """See `Conversation.trim`."""
        return await self._run(self._sync.trim, policy, dry_run=dry_run)

    async def set_drop_block(self, *, drop_block: bool) -> None:
        """See `Conversation.set_drop_block`."""
        await self._run(self._sync.set_drop_block, drop_block=drop_block)

    async def rewind(self, *, to: int, expected: str | None = None) -> Head:
        """See `Conversation.rewind`."""
        return await self._run(self._sync.rewind, to=to, expected=expected)

    async def variants(self, position: int) -> list[Variant]:
        """See `Conversation.variants`."""
        return await self._run(self._sync.variants, position)

    async def choose(self, position: int, *, expected: str | None = None) -> Head:
        """See `Conversation.choose`."""
        return await self._run(self._sync.choose, position, expected=expected)

    async def leave_out(self, position: int | None = None, *, block: int | None = None, thinking: bool = False) -> Head:
        """See `Conversation.leave_out`."""
        return await self._run(self._sync.leave_out, position, block=block, thinking=thinking)

    async def fork(self, new_id: str, *, at: int | None = None, scope: str | None = None) -> AsyncConversation:
        """See `Conversation.fork`."""
        forked = await self._run(self._sync.fork, new_id, at=at, scope=scope)
        return AsyncConversation(self._history, forked)

    async def forget(self, *, before: int, expected: str | None = None) -> Head | None:
        """See `Conversation.forget`."""
        return await self._run(self._sync.forget, before=before, expected=expected)


def _next_of(entries: Iterable[R]) -> list[R]:
    return [entry for _, entry in zip(range(_PORTION), entries, strict=False)]
