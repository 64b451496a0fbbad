"""Streams that break over a real socket, in each possible way: the partial reply is saved, and is never a message."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading

import anthropic
import httpx2
import pytest
from patient_clients import open_async_client, open_client
from stored_entries import list_kinds

from chathistory import AsyncChatEngine, ChatEngine, History, errors, open_store
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Drop, ErrorEvent, Paused, Raw, Reset

MODEL = "claude-sonnet-5-5"
TEXT = "one two three"
CALL = [{"type": "text", "text": "See. "}, {"type": "tool_use", "name": "f", "input": {"city": "Oslo" * 20}}]


def make_breaks():
    """Return, by name: an answer that breaks, the error that the caller gets, and what is saved."""
    return {
        "clean end": (Cut(TEXT, 5), errors.IncompleteReply, "reply_interrupted"),
        "clean end before the first event": (Cut(TEXT, 0), errors.IncompleteReply, "turn_abandoned"),
        "clean end within a tool call": (Cut(CALL, 8), errors.IncompleteReply, "reply_interrupted"),
        "closed": (Drop(TEXT, 5), httpx2.TransportError, "reply_interrupted"),
        "reset": (Reset(TEXT, 5), httpx2.TransportError, "reply_interrupted"),
        "time-out": (Paused(TEXT, after=5), httpx2.ReadTimeout, "reply_interrupted"),
        "error event": (ErrorEvent(TEXT, 5), anthropic.APIStatusError, "reply_interrupted"),
        "a page of a proxy": (Raw(), errors.IncompleteReply, "turn_abandoned"),
    }


def check_turn(url, api, kind):
    with open_store(url) as store:
        chat = History(store).conversation("a")
        assert list_kinds(chat) == ["message", kind]
        assert chat.messages() == [{"role": "user", "content": "hello"}]
        assert chat.state().engine.open_turn is None
        assert ChatEngine(api.client(), store, model=MODEL).resume("a").text == "whole"
    api.assert_extends()


@pytest.mark.parametrize("how", make_breaks())
def test_a_broken_stream_over_a_socket(tmp_path, how):
    answer, expected, kind = make_breaks()[how]
    api, url = FakeMessagesAPI([answer, "whole"]), f"file:{tmp_path}/store"
    with api.serve() as address, open_store(url) as store, open_client(address, answer) as client:
        engine = ChatEngine(client, store, model=MODEL)
        with pytest.raises(expected) as caught, engine.stream("a", "hello") as stream:
            list(stream)
    assert any("saved" in note for note in caught.value.__notes__)
    check_turn(url, api, kind)


@pytest.mark.parametrize("how", make_breaks())
def test_a_broken_stream_over_a_socket_for_asyncio(tmp_path, how):
    answer, expected, kind = make_breaks()[how]
    api, url = FakeMessagesAPI([answer, "whole"]), f"file:{tmp_path}/store"

    async def main(address, store):
        client = open_async_client(address, answer)
        async with client, AsyncChatEngine(client, store, model=MODEL) as engine:
            with pytest.raises(expected):
                async with engine.stream("a", "hello") as stream:
                    [piece async for piece in stream]

    with api.serve() as address, open_store(url) as store:
        asyncio.run(main(address, store))
    check_turn(url, api, kind)


def test_cancelling_a_stream_over_a_socket(tmp_path):
    paused = Paused(TEXT, after=5)
    api, url = FakeMessagesAPI([paused, "whole"]), f"file:{tmp_path}/store"

    async def main(address, store):
        client = open_async_client(address)
        async with client, AsyncChatEngine(client, store, model=MODEL) as engine:
            seen = asyncio.Event()
            task = asyncio.create_task(_read_stream(engine, seen))
            await seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with api.serve() as address, open_store(url) as store:
        asyncio.run(main(address, store))
    check_turn(url, api, "reply_interrupted")


async def _read_stream(engine, seen):
    async with engine.stream("a", "hello") as stream:
        async for _ in stream:
            seen.set()


CHILD = """
import signal
import sys
import anthropic
from chathistory import ChatEngine, open_store

def interrupt_once(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt_once)
store_url, address = sys.argv[1:]
client = anthropic.Anthropic(base_url=address, api_key="x")
engine = ChatEngine(client, open_store(store_url), model="claude-sonnet-5-5")
with engine.stream("a", "hello") as stream:
    for piece in stream:
        print(piece, flush=True)
"""


def interrupt_until_it_ends(child):
    """Send SIGINT repeatedly, and return what the child prints.

    A signal that arrives just before the child blocks in a system call is noticed only after the call: one may be lost.
    """
    while True:
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=0.2)


def test_ctrl_c_over_a_socket(tmp_path):
    paused = Paused(TEXT, after=5)
    api, url = FakeMessagesAPI([paused, "whole"]), f"file:{tmp_path}/store"
    with api.serve() as address:
        run = [sys.executable, "-c", CHILD, url, address]
        with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            kill = threading.Timer(300, child.kill)
            kill.start()
            assert child.stdout.readline() == "one \n"
            _, trouble = interrupt_until_it_ends(child)
            kill.cancel()
    assert "KeyboardInterrupt" in trouble
    assert "saved" in trouble
    check_turn(url, api, "reply_interrupted")
