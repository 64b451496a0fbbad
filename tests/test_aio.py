"""AsyncHistory: the same results, many calls at once, and an event loop that is never blocked."""

from __future__ import annotations

import asyncio
import io
import threading

import pytest
from chathistory_memory import MemoryStore
from faulty_stores import chat_on, names_of, said, texts, user

from chathistory import AsyncHistory, History, open_store
from chathistory.errors import InvalidInput, StoreClosed

CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}


class SlowStore(MemoryStore):
    """Blocks each append until it is released, and says when one has started."""

    def __init__(self):
        super().__init__()
        self.begun = threading.Event()
        self.go = threading.Event()

    def append(self, *args, **kwargs):
        self.begun.set()
        assert self.go.wait(600)
        return super().append(*args, **kwargs)


async def collected(entries):
    return [entry async for entry in entries]


async def turn_loop():
    """Let everything run that can run: the loop turns a hundred times."""
    for _ in range(100):
        await asyncio.sleep(0)


def test_each_method_returns_what_the_synchronous_one_returns():
    async def main(store):
        chat, plain = history.conversation("c"), History(store).conversation("c")
        assert (chat.id, chat.scope, repr(chat)) == ("c", "default", f"Async{plain!r}")
        assert await chat.state() is await chat.info() is None
        assert await chat.messages() == []
        assert await collected(chat.entries()) == []
        row = await chat.append([user("a"), said("b"), user("c"), said("d")])
        assert row == plain.info()
        row = await chat.annotate(title="t", tags=["x"], metadata={"k": 1})
        assert (row.end, row) == (5, await chat.info())
        assert (row.title, row.tags, row.metadata) == ("t", ("x",), {"k": 1})
        assert (await chat.set_tags(["y"])).end == 6
        await chat.set_title(None)
        await chat.set_metadata({})
        assert names_of(plain) == (None, ("y",), {})
        assert await chat.messages() == plain.messages() != []
        assert await chat.view() == plain.view()
        assert await chat.last_messages(2) == plain.last_messages(2) == [user("c"), said("d")]
        assert await chat.last_entries(2) == plain.last_entries(2)
        assert await collected(chat.entries(1, -1)) == list(plain.entries(1, -1))
        assert await collected(chat.entries(1, 3)) == list(plain.entries(1, 3)) != []
        assert await chat.usage() == plain.usage()
        assert await chat.state() == plain.state()
        await chat.rewind(to=2)
        assert texts(plain.messages()) == ["a", "b"]
        assert (await chat.forget(before=1)).start == 1
        await chat.append([user("e"), CALL])
        *_, repair = await chat.repair(dry_run=False)
        assert repair.position == -1
        assert await chat.repair() == plain.repair()
        page = await history.list(limit=1)
        assert page == History(store).list(limit=1)
        assert [row.id for row in page.items] == ["c"]
        assert (await history.delete("c")).messages == 3
        assert await history.delete("c") is None
        with pytest.raises(InvalidInput):
            await chat.append([])
        with pytest.raises(InvalidInput):
            await history.list(limit=0)
        with pytest.raises(InvalidInput):
            history.conversation("")
        await history.close()

    with open_store("memory:") as store:
        history = AsyncHistory(store)
        asyncio.run(main(store))
        store.check()  # it is the caller's, and open


def test_conversations_are_copied_exported_pruned_and_erased():
    async def main(store):
        async with AsyncHistory(store) as history, AsyncHistory(open_store("memory:")) as other:
            await asyncio.gather(*(history.conversation(f"c{n}").append([user(str(n)), said("x")]) for n in range(9)))
            fork = await history.conversation("c1").fork("f", at=1, scope="forks")
            assert (fork.id, fork.scope, await fork.messages()) == ("f", "forks", [user("1")])
            assert (await (await fork.fork("g")).info()).origin.id == "f"
            assert [entry.position for entry in await history.conversation("c1").last_entries(1, before=1)] == [0]
            for target in (other, other.sync, other.store):
                report = await history.copy_to(target, threads=2)
                assert report.complete
            out, results = io.BytesIO(), []
            assert (
                (await history.export_to(out, scope="default", progress=results.append)).conversations
                == len(results)
                == 9
            )
            assert (await history.prune(count=4)).dry_run
            assert len((await history.prune(count=4, dry_run=False)).removed) == 5
            assert [row.id for row in (await history.list(title="7")).items] == ["c7"]
            assert (await history.erase("forks")).messages == 2
            out.seek(0)
            assert (await history.import_from(out)).copied == 5
            assert await history.conversation("c0").messages() == await other.conversation("c0").messages()
            other.store.close()

    with open_store("memory:") as store:
        asyncio.run(main(store))


def test_many_conversations_at_once():
    async def main():
        async with AsyncHistory(History(store)) as history:
            await asyncio.gather(*(history.conversation(str(n)).append([user(str(n)), said("x")]) for n in range(200)))
            rows, after = [], None
            while True:
                page = await history.list(limit=60, after=after)
                rows += page.items
                if (after := page.next) is None:
                    return rows

    with open_store("memory:") as store:
        rows = asyncio.run(main())
        assert sorted(int(row.id) for row in rows) == list(range(200))
        assert {row.messages for row in rows} == {2}


def test_many_appends_to_one_conversation_at_once():
    async def main():
        async with AsyncHistory(store) as history:
            await asyncio.gather(*(history.conversation("c").append([user(str(n)), said(str(n))]) for n in range(100)))
            return await history.conversation("c").last_messages(1000)

    with open_store("memory:") as store:
        found = texts(asyncio.run(main()))
        assert found[::2] == found[1::2]
        assert sorted(map(int, found[::2])) == list(range(100))


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_entries_are_read_portion_by_portion(count):
    async def main():
        async with AsyncHistory(store) as history:
            return [entry.position async for entry in history.conversation("c").entries()]

    with open_store("memory:") as store:
        if count:
            chat_on(store).append([user("x")] * count)
        assert asyncio.run(main()) == list(range(count))


def test_a_cancelled_append_completes_and_the_next_call_waits_for_it():
    async def main():
        async with AsyncHistory(store) as history:
            chat = history.conversation("c")
            first = asyncio.create_task(chat.append([user("a"), said("b")]))
            assert await asyncio.to_thread(store.begun.wait, 100)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            second = asyncio.create_task(chat.append(user("c")))
            await turn_loop()
            assert not second.done()
            store.go.set()
            await second
            return texts(await chat.messages())

    with SlowStore() as store:
        assert asyncio.run(main()) == ["a", "b", "c"]


def test_an_append_that_is_cancelled_before_it_starts_is_not_stored():
    async def main():
        async with AsyncHistory(store, threads=1) as history:
            first = asyncio.create_task(history.conversation("a").append(user("a")))
            assert await asyncio.to_thread(store.begun.wait, 100)
            queued = asyncio.create_task(history.conversation("b").append(user("b")))
            await turn_loop()
            queued.cancel()
            with pytest.raises(asyncio.CancelledError):
                await queued
            store.go.set()
            await first
            return await history.conversation("b").messages()

    with SlowStore() as store:
        assert asyncio.run(main()) == []
        assert sorted(key.id for key in list(store.keys())) == ["a"]


def test_the_event_loop_is_not_blocked():
    async def main():
        async with AsyncHistory(store, threads=2) as history:
            tasks = [asyncio.create_task(history.conversation(str(n)).append(user("x"))) for n in range(20)]
            assert await asyncio.to_thread(store.begun.wait, 100)
            await turn_loop()  # a call in the loop's own thread would wait here for what comes after it
            assert not any(task.done() for task in tasks)
            store.go.set()
            await asyncio.gather(*tasks)

    with SlowStore() as store:
        asyncio.run(main())


def test_close_waits_for_running_calls():
    async def main():
        history = AsyncHistory(store)
        task = asyncio.create_task(history.conversation("c").append(user("x")))
        assert await asyncio.to_thread(store.begun.wait, 100)
        closing = asyncio.create_task(history.close())
        await turn_loop()
        assert not closing.done()
        store.go.set()
        await closing
        assert len(store.read(chat_on(store).log.key).records) == 1
        await task

    with SlowStore() as store:
        asyncio.run(main())


def test_calls_after_close_raise_store_closed():
    async def main():
        history = AsyncHistory(store)
        await history.close()
        await history.close()
        with pytest.raises(StoreClosed):
            await history.conversation("c").append(user("x"))

    with open_store("memory:") as store:
        asyncio.run(main())
