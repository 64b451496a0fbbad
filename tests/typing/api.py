"""The public API as applications use it: not run, but checked by mypy (strict) and pyright."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, assert_type

from anthropic import Anthropic
from anthropic.types import Message

from chathistory import (
    AsyncChatEngine,
    AsyncConversation,
    AsyncHistory,
    BaseStore,
    ChatEngine,
    CheckReport,
    Conversation,
    ConversationInfo,
    CopyReport,
    CopyResult,
    Cursor,
    DeletedConversation,
    Entry,
    EraseReport,
    ExportReport,
    Head,
    History,
    HistoryStore,
    Key,
    MessageView,
    Option,
    Origin,
    Page,
    PruneReport,
    ReadResult,
    Record,
    Reply,
    ReplyEvent,
    Revision,
    Settings,
    StoreURL,
    Traits,
    ViewRepair,
    ViewReport,
    WrappedStore,
    errors,
    hookimpl,
    load_settings,
    open_history,
    open_store,
)
from chathistory.storage.abilities import HeadRecovery
from chathistory.storage.values import SortKey


def use_a_store() -> None:
    """Open a store, by text and by a parsed URL, and close it."""
    with open_store("file:./history", ttl=3600, lock_timeout=5) as store:
        assert_type(store, HistoryStore)
        assert_type(store.traits.durable, bool)
        assert_type(store.ttl, float | None)
        store.check()
    open_store(StoreURL.parse("memory:")).close()


def use_a_conversation(history: History, reply: Message) -> list[dict[str, Any]]:
    """Append messages, and read them in every way."""
    chat = history.conversation("support/42", scope="tenant")
    assert_type(chat, Conversation)
    assert_type(chat.append({"role": "user", "content": "Hello"}), ConversationInfo)
    chat.append([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}, reply])
    assert_type(chat.messages(), list[dict[str, Any]])
    assert_type(chat.last_messages(3), list[dict[str, Any]])
    for entry in chat.last_entries(3) + list(chat.entries(-10)):
        assert_type(entry, Entry)
        assert_type(entry.message, dict[str, Any] | None)
    made = chat.view()
    assert_type(made, MessageView)
    assert_type(made.report, ViewReport)
    assert_type(made.report.kept, tuple[int, ...])
    assert_type(chat.repair(dry_run=False), tuple[ViewRepair, ...])
    assert_type(chat.rewind(to=3), ConversationInfo)
    assert_type(chat.forget(before=2), ConversationInfo | None)
    assert_type(chat.usage().total.input, int)
    return made.messages


def use_names(chat: Conversation) -> None:
    """Name a conversation."""
    chat.set_title("Tea")
    chat.set_title(None)
    chat.set_tags(["a", "b"])
    chat.set_metadata({"k": [1, None]})
    chat.annotate(title="x", tags=["a"], metadata={})
    summary = chat.state()
    if summary is not None:
        assert_type(summary.totals.messages, int)


def use_listings(history: History) -> list[ConversationInfo]:
    """Walk the pages."""
    rows: list[ConversationInfo] = []
    after: Cursor | None = None
    while True:
        page = history.list(scope="default", limit=10, after=after)
        assert_type(page, Page[ConversationInfo])
        rows += page.items
        after = page.next
        if after is None:
            break
    for row in rows:
        assert_type(row.updated, datetime)
        assert_type(row.expires, datetime | None)
    assert_type(history.delete("x"), DeletedConversation | None)
    return rows


def use_forks(chat: Conversation) -> list[Entry]:
    """Fork, and page backward."""
    forked = chat.fork("x", at=3, scope="other")
    assert_type(forked, Conversation)
    page = forked.last_entries(50)
    return forked.last_entries(50, before=page[0].position) if page else []


def use_transfers(history: History, other: HistoryStore) -> bool:
    """Copy, export and import."""

    def report_progress(copied: CopyResult) -> None:
        assert_type(copied.key, Key)

    report = history.copy_to(
        other, scope="default", ids=["a"], replace=True, verify=True, threads=2, progress=report_progress
    )
    assert_type(report, CopyReport)
    assert_type(report.failed, dict[Key, errors.ChatHistoryError])
    written = history.export_to(
        Path("x.jsonl.gz"), scope="default", ids=("a",), format="jsonl", progress=report_progress
    )
    assert_type(written, ExportReport)
    with Path("x").open("wb") as file:
        history.export_to(file, format="markdown")
    assert_type(history.import_from("x.jsonl", scope="s", replace=True, progress=report_progress), CopyReport)
    return history.import_from("messages.json", id="x").complete and written.complete


def use_pruning(history: History) -> tuple[DeletedConversation, ...]:
    """Prune and erase."""
    done = history.prune(scope="a", age=timedelta(days=9), ttl=timedelta(hours=1), count=5, dry_run=False)
    assert_type(done, PruneReport)
    assert_type(done.removed[0].reason, Literal["age", "count", "ttl", "expired"] | None)
    gone = history.erase("ada", progress=lambda each: each.messages)
    assert_type(gone, EraseReport)
    assert_type(gone.removed, tuple[DeletedConversation, ...])
    return done.removed


def use_filters(history: History) -> Sequence[ConversationInfo]:
    """List conversations with filters."""
    page = history.list(
        title="tea", tag=["a", "b"], metadata={"k": 1}, model="m", since=datetime.now(UTC), until=datetime.now(UTC)
    )
    for row in history.list(tag="a").items:
        assert_type(row.tokens, int)
        assert_type(row.origin, Origin | None)
    return page.items


def use_the_engine(client: Anthropic) -> None:
    """Send a message, and wait for the reply or stream it."""
    with ChatEngine(client, "file:./history", model="m", turn_timeout=timedelta(minutes=5)) as engine:
        reply = engine.send("a", "hello", max_tokens=100)
        assert_type(reply.content, list[dict[str, Any]])
        engine.send("a", [{"type": "text", "text": "hello"}], model="n")
        with engine.stream("a", "hello") as stream:
            for event in stream.events:
                assert_type(event, ReplyEvent)
            assert_type(list(stream.text_stream), list[str])
            assert_type(stream.get_final_reply(), Reply)
        engine.send("a", "hello", max_token=1)  # type: ignore[call-arg]  # a misspelt keyword  # pyright: ignore[reportCallIssue]


async def use_asyncio(store: HistoryStore) -> None:
    """The same, awaited."""
    async with AsyncHistory(store, threads=4) as history:
        chat = history.conversation("x")
        assert_type(await chat.append({"role": "user", "content": "Hello"}), ConversationInfo)
        assert_type(await chat.messages(), list[dict[str, Any]])
        async for entry in chat.entries():
            assert_type(entry, Entry)
        assert_type(await history.list(limit=3), Page[ConversationInfo])
        await chat.annotate(title="x", tags=["a"], metadata={"k": 1})
        assert_type(await chat.fork("y", at=1), AsyncConversation)
        assert_type(await history.copy_to(history), CopyReport)
        assert_type(await history.export_to("x.md"), ExportReport)
        assert_type(await history.import_from("x.jsonl"), CopyReport)
        assert_type(await history.prune(count=1), PruneReport)
        assert_type(await history.erase("ada"), EraseReport)
        assert_type(await history.exists("ada"), bool)
        assert_type(await history.check(all_scopes=True), CheckReport)
        await history.list(limt=3)  # type: ignore[call-arg]  # a misspelt keyword  # pyright: ignore[reportCallIssue]
        await chat.annotate(titel="x")  # type: ignore[call-arg]  # a misspelt keyword  # pyright: ignore[reportCallIssue]


def use_configuration() -> None:
    """Take the store, the model and the scope from the configuration."""
    settings = load_settings(profile="prod", config="chathistory.toml", scope="ada")
    assert_type(settings, Settings)
    assert_type(settings.store, StoreURL | None)
    assert_type(settings.max_tokens, int)
    with open_history(profile="prod", store="memory:", scope="ada") as history:
        assert_type(history, History)
        assert_type(history.scope, str)
    with ChatEngine.from_config(profile="prod", max_tokens=500) as engine:
        assert_type(engine, ChatEngine)
    History(open_store("memory:"), scope="ada").close()


async def use_configuration_with_asyncio() -> None:
    """Do the same for asyncio."""
    async with AsyncChatEngine.from_config(config=Path("chathistory.toml")) as engine:
        assert_type(engine, AsyncChatEngine)


def use_errors(chat: Conversation) -> str:
    """Distinguish errors."""
    try:
        chat.append({"role": "user", "content": "x"})
    except errors.OutcomeUnknown as unknown:
        return str(unknown.key)
    except errors.Conflict as conflict:
        assert_type(conflict.head, Head | None)
    except errors.StoreUnavailable as failed:
        return failed.outcome
    except errors.CorruptRecord as corrupt:
        assert_type(corrupt.position, int | None)
    except errors.ChatHistoryError:
        raise
    return ""


class MyStore(BaseStore):
    """A plugin's store."""

    traits = Traits(durable=True, shared=True, largest_record=1_000_000)
    options: ClassVar[Mapping[str, Option]] = {"size": Option(int, 3, "how large it may grow")}

    def __init__(self, place: str, size: int) -> None:
        super().__init__()
        self._place = place
        self._size = size

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        return cls(url.path, url.options["size"])

    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        if after is not None:
            raise errors.Conflict(key, None)
        return Head(key, first, first + len(bodies), revision)

    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        head = Head(key, 0, 1, Revision("v", 0))
        return ReadResult(head, [Record(position, "{}") for position in head.narrow(start, stop)])

    def _list_heads(self, scope: str, *, below: SortKey | None, count: int) -> Sequence[Head]:
        return [Head(Key(scope, "x"), 0, 1, Revision("v", below.updated if below else 0))][:count]

    def _list_keys(self, scope: str | None) -> Iterator[Key]:
        yield Key(scope or "default", "x")

    def _forget_records(self, key: Key, before: int) -> Head | None:
        return None

    def _delete(self, key: Key, version: str | None) -> bool:
        return version is None

    def _close(self) -> None:
        self._place = ""


class MyWrapper(WrappedStore):
    """A store that wraps another one."""

    def forget(self, key: Key, *, before: int) -> Head | None:
        assert_type(self.inner, HistoryStore)
        return super().forget(key, before=before)


def wrap(store: HistoryStore) -> HistoryStore:
    wrapped = MyWrapper(store)
    assert_type(wrapped.get_recovery(), HeadRecovery | None)
    assert_type(wrapped.ttl, float | None)
    return wrapped


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Serve the scheme of this plugin."""
    return MyStore if scheme == "mine" else None
