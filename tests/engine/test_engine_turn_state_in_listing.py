"""The state of a turn without a reply in rows of a listing: open or interrupted, since when, by which process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import anthropic
import pytest
from entry_factory import make_entry
from lease_clock import SECOND

from chathistory import AsyncHistory, ChatEngine, History, errors
from chathistory.log.process import Process, this_process
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Failure, Paused

MODEL = "claude-sonnet-5-5"


def row(open_again, name="a"):
    return next(row for row in History(open_again()).list().items if row.id == name)


def is_this_process(turn) -> bool:
    return (turn.host, turn.pid) == (this_process().host, os.getpid())


def test_a_turn_that_is_open(clock, open_again):
    paused, before = Paused("slow"), datetime.now(UTC)
    engine = ChatEngine(FakeMessagesAPI(paused).client(), open_again(), model=MODEL, turn_timeout=60)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine.send, "a", "hello", turn_id="T")
        assert paused.reached.wait(600)
        turn = row(open_again).turn
        assert (turn.id, turn.state, is_this_process(turn)) == ("T", "open", True)
        assert before <= turn.since <= datetime.now(UTC)
        assert turn.until == datetime.fromtimestamp(clock.wall // SECOND + 60, UTC).replace(
            microsecond=turn.until.microsecond
        )
        assert [each.id for each in History(open_again()).list(unanswered=True).items] == ["a"]
        assert History(open_again()).conversation("a").info().turn == turn
        paused.gate.set()
        under_way.result(60)
    assert row(open_again).turn is None
    assert History(open_again()).list(unanswered=True).items == []


@pytest.mark.parametrize("how", ["failed", "broken stream", "given up", "timed out", "process gone"])
def test_a_turn_that_was_interrupted(clock, open_again, how):
    store = open_again()
    engine = ChatEngine(
        FakeMessagesAPI([Failure(500) if how == "failed" else Cut("x" * 50, 5), "at last"]).client(), store, model=MODEL
    )
    if how == "failed":
        with pytest.raises(anthropic.InternalServerError):
            engine.send("a", "hello")
    elif how == "broken stream":
        with pytest.raises(errors.IncompleteReply), engine.stream("a", "hello") as stream:
            list(stream)
    else:
        gone = Process("h", 7, "b", "n", 1) if how != "process gone" else make_gone_process()
        data = {"lease_until": clock.wall + 60 * SECOND, "opened_by": gone.to_dict()}
        History(store).conversation("a").log.append(
            [make_entry("message", {"role": "user", "content": "x"}, data, "T")]
        )
        if how == "given up":
            engine.abandon("a")
        clock.go(61 if how == "timed out" else 0)
    turn = row(open_again).turn
    assert (turn.state, turn.until) == ("interrupted", None)
    assert is_this_process(turn) == (how in ("failed", "broken stream", "process gone"))
    assert [each.id for each in History(open_again()).list(unanswered=True).items] == ["a"]
    History(open_again()).conversation("a").set_title("A title changes nothing of that")
    assert row(open_again).turn == turn
    if how in ("failed", "broken stream"):
        engine.resume("a") if how == "failed" else engine.send("a", "never mind")
        assert row(open_again).turn is None


def make_gone_process() -> Process:
    own = this_process()
    if sys.platform != "linux":
        pytest.skip("this system does not have the start time of a process")
    return replace(own, started=own.started - 1)


@pytest.mark.parametrize("step", ["message", "rewind", "choose"])
def test_later_messages_and_changes_clear_the_turn(open_again, step):
    api = FakeMessagesAPI(["one", Failure(500)])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    reply = engine.send("a", "hello")
    with pytest.raises(anthropic.InternalServerError):
        engine.send("a", "second")
    chat = History(open_again()).conversation("a")
    if step == "message":
        chat.state()
        chat.append({"role": "assistant", "content": "by hand"})
    elif step == "rewind":
        chat.rewind(to=reply.position + 1)
    else:
        chat.choose(reply.position)
    assert row(open_again).turn is None


def test_the_unanswered_filter_works_across_pages(open_again):
    store = open_again()
    for number in range(12):
        api = FakeMessagesAPI("hi" if number % 3 else Failure(500))
        engine = ChatEngine(api.client(), store, model=MODEL)
        with contextlib.suppress(anthropic.InternalServerError):
            engine.send(f"c{number:02}", "hello")
    found, after = [], None
    while True:
        page = History(store).list(unanswered=True, limit=2, after=after)
        found += [each.id for each in page.items]
        if (after := page.next) is None:
            break
    assert found == ["c09", "c06", "c03", "c00"]

    async def list_async():
        async with AsyncHistory(store) as history:
            return [each.id for each in (await history.list(unanswered=True)).items]

    assert asyncio.run(list_async()) == found


# A process that lost its turn does not close it.


@pytest.mark.parametrize("ends", ["replies", "fails"])
def test_the_former_process_does_not_close_a_turn_that_it_lost(clock, open_again, ends):
    late, slow = Paused("late" if ends == "replies" else Failure(500)), Paused("taken over")
    first = ChatEngine(FakeMessagesAPI(late).client(), open_again(), model=MODEL)
    second = ChatEngine(FakeMessagesAPI(slow).client(), open_again(), model=MODEL)
    with ThreadPoolExecutor(2) as pool:
        first_turn = pool.submit(first.send, "a", "hello", turn_id="T")
        assert late.reached.wait(600)
        second_turn = pool.submit(second.resume, "a", takeover=True)
        assert slow.reached.wait(600)
        late.gate.set()
        with pytest.raises(errors.OrphanedReply if ends == "replies" else anthropic.InternalServerError):
            first_turn.result(60)
        assert row(open_again).turn.state == "open"
        slow.gate.set()
        assert second_turn.result(60).text == "taken over"
    assert row(open_again).turn is None
