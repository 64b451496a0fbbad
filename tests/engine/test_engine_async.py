"""`AsyncChatEngine`: the turns of `ChatEngine` with asyncio, and what a cancelled call leaves in the store."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, Future
from functools import partial

import anthropic
import pytest
from stored_entries import list_kinds

from chathistory import AsyncChatEngine, AsyncHistory, aio, errors
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Failure, Paused, Reply

MODEL = "claude-sonnet-5-5"
TEXT = "one two three"


@pytest.fixture
def run_engine(open_again):
    """Return a function that runs a coroutine function with an asynchronous engine on a fake API."""

    def run(reply, work, **options):
        api = FakeMessagesAPI(reply)

        async def main():
            async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL, **options) as engine:
                return await work(engine)

        return asyncio.run(main()), api

    return run


def test_send_and_stream_and_resume(run_engine, chat_of):
    async def work(engine):
        first = await engine.send("a", "hello")
        async with engine.stream("a", "more") as stream:
            pieces = [piece async for piece in stream]
            second = await stream.get_final_reply()
        return first, pieces, second, await engine.resume("a"), await engine.abandon("a")

    (first, pieces, second, nothing, none_open), api = run_engine(None, work)
    assert "".join(pieces) == second.text
    assert len(pieces) > 1
    assert (nothing, none_open) == (None, False)
    assert chat_of("a").messages()[1::2] == [first.message, second.message]
    api.assert_extends()


def test_errors_close_the_turn_and_it_can_be_resumed(run_engine, chat_of):
    async def work(engine):
        with pytest.raises(anthropic.InternalServerError) as caught:
            await engine.send("a", "hello")
        assert "saved" in caught.value.__notes__[0]
        with pytest.raises(errors.IncompleteReply):
            async with engine.stream_resumed("a") as stream:
                await stream.get_final_reply()
        return await engine.resume("a")

    reply, _ = run_engine([Failure(500), Cut(TEXT, 5), "whole"], work)
    assert reply.text == "whole"
    assert list_kinds(chat_of("a")) == [
        "message",
        "turn_abandoned",
        "turn_opened",
        "reply_interrupted",
        "turn_opened",
        "message",
    ]


def test_leaving_a_stream_early_saves_the_partial_reply(run_engine, chat_of):
    async def work(engine):
        async with engine.stream("a", "hello") as stream:
            async for _ in stream:
                break

    run_engine(TEXT, work)
    assert list_kinds(chat_of("a")) == ["message", "reply_interrupted"]


def test_a_paused_turn_continues(run_engine, chat_of):
    use = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "x"}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01", "content": []}
    paused = Reply(content=[use], stop_reason="pause_turn")
    done = Reply(content=[result, {"type": "text", "text": "Found."}])

    async def work(engine):
        sent = await engine.send("a", "look")
        async with engine.stream("b", "look") as stream:
            return sent, await stream.get_final_reply()

    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    (sent, streamed), _ = run_engine([paused, done] * 2, work, tools=tools)
    assert sent.text == streamed.text == "Found."
    assert list_kinds(chat_of("a")) == list_kinds(chat_of("b")) == ["message"] * 3


def test_a_late_reply_is_saved_as_orphaned(run_engine, chat_of):
    def late(_body):
        chat_of("a").append({"role": "user", "content": "from elsewhere"})
        return "paid for"

    async def work(engine):
        with pytest.raises(errors.OrphanedReply):
            await engine.send("a", "hello")
        with pytest.raises(errors.OrphanedReply):
            async with engine.stream("a", "again") as stream:
                await stream.get_final_reply()

    run_engine(late, work)
    assert list_kinds(chat_of("a")) == ["message", "message", "reply_orphaned"] * 2


def test_one_of_sixteen_sends_is_answered(run_engine, chat_of):
    paused = Paused("answer")

    async def work(engine):
        tasks = [asyncio.create_task(engine.send("a", f"message {n}")) for n in range(16)]
        while sum(task.done() for task in tasks) < 15:
            await asyncio.sleep(0.01)
        paused.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results, api = run_engine(paused, work)
    assert sum(isinstance(result, errors.TurnInProgress) for result in results) == 15
    assert len(api.requests) == 1
    assert list_kinds(chat_of("a")) == ["message", "message"]


class InlineExecutor(Executor):
    """Runs each function at once in the thread of the event loop, so that a turn always takes the same steps."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  # raised by whoever awaits the future
            future.set_exception(error)
        return future


async def cancel_turn(engine, name, *, streaming, wait):
    """Start a turn, cancel it after `wait`, check what is stored; return whether it had ended before, and the log."""

    async def run_turn():
        if not streaming:
            return await engine.send(name, "hello")
        async with engine.stream(name, "hello") as stream:
            return await stream.get_final_reply()

    task = asyncio.create_task(run_turn())
    await wait()
    had_ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    chat = engine.history.conversation(name)
    state = await chat.state()
    log = [entry.kind async for entry in chat.entries() if entry.kind != "setup"]
    assert state is None or state.engine.open_turn is None, log
    assert log in ([], ["message", "turn_abandoned"], ["message", "reply_interrupted"], ["message", "message"])
    assert (await engine.send(name, "still here?")).text == TEXT
    return had_ended, tuple(log)


async def run_loop_steps(count):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("streaming", [False, True])
def test_cancelling_after_each_step_leaves_no_open_turn(run_engine, monkeypatch, streaming):
    """Cancel after each number of steps of the event loop, until the turn ends before the cancel."""
    monkeypatch.setattr(aio, "ThreadPoolExecutor", lambda *_, **__: InlineExecutor())

    async def work(engine):
        seen = []
        for count in range(1000):
            wait = partial(run_loop_steps, count)
            had_ended, log = await cancel_turn(engine, f"chat {count}", streaming=streaming, wait=wait)
            seen.append(log)
            if had_ended:
                return seen
        raise AssertionError("the turn does not end")

    seen, _ = run_engine(lambda _body: TEXT, work)
    assert ("message", "turn_abandoned") in seen
    assert (("message", "reply_interrupted") in seen) == streaming
    assert seen[-1] == ("message", "message")


@pytest.mark.wide
@pytest.mark.parametrize("streaming", [False, True])
def test_cancelling_at_any_moment_leaves_no_open_turn(run_engine, streaming):
    """Cancel after different times, while steps run in threads. What is seen may differ, and is always sound."""

    async def work(engine):
        for count in range(60):

            async def wait(count=count):
                await run_loop_steps(count)
                await asyncio.sleep(0.001 * (count % 7))

            await cancel_turn(engine, f"chat {count}", streaming=streaming, wait=wait)

    run_engine(lambda _body: TEXT, work)


def test_cancelling_a_stream_closes_the_turn(run_engine, chat_of):
    paused = Paused(TEXT, after=5)

    async def work(engine):
        async def read():
            async with engine.stream("a", "hello") as stream:
                async for _ in stream:
                    pass

        task = asyncio.create_task(read())
        assert await asyncio.to_thread(paused.reached.wait, 100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        paused.gate.set()
        return caught.value

    run_engine(paused, work)
    assert list_kinds(chat_of("a")) == ["message", "reply_interrupted"]


def test_two_hundred_conversations_do_not_block_the_loop(open_again):
    api = FakeMessagesAPI()

    async def main():
        async with AsyncHistory(open_again()) as history:
            engine = AsyncChatEngine(api.async_client(), history, model=MODEL)
            replies = await asyncio.gather(*(engine.send(f"chat {n}", f"hello {n}") for n in range(200)))
            return replies, (await history.list(limit=200)).items

    replies, rows = asyncio.run(main())
    assert all(f"hello {n} " in reply.text for n, reply in enumerate(replies))
    assert sorted(row.messages for row in rows) == [2] * 200


def test_the_history_of_the_caller_stays_open(open_again):
    async def main():
        async with AsyncHistory(open_again()) as history:
            async with AsyncChatEngine(FakeMessagesAPI("hi").async_client(), history, model=MODEL) as engine:
                await engine.send("a", "hello")
            return [row.id for row in (await history.list()).items]

    assert asyncio.run(main()) == ["a"]


def test_cancelling_while_a_turn_is_opened_closes_it_once_it_is_stored(open_again, chat_of, monkeypatch):
    store, reached, go = open_again(), threading.Event(), threading.Event()
    append = store.append

    def paused(*args, **kwargs):
        reached.set()
        assert go.wait(600)
        return append(*args, **kwargs)

    monkeypatch.setattr(store, "append", paused)
    api = FakeMessagesAPI()

    async def main():
        async with AsyncChatEngine(api.async_client(), store, model=MODEL) as engine:
            task = asyncio.create_task(engine.send("a", "hello"))
            assert await asyncio.to_thread(reached.wait, 100)
            task.cancel()
            await run_loop_steps(3)  # the cancel arrives
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned"]
    assert api.requests == []
