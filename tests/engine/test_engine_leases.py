"""Leases of open turns: renewal, takeover, clocks that differ, and processes that are known to be gone."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import anthropic
import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from lease_clock import SECOND, wait_until
from platforms import needs_linux
from stored_entries import list_entries, list_kinds

from chathistory import AsyncChatEngine, ChatEngine, History, errors, open_store
from chathistory.engine import lease_renewal
from chathistory.engine import turn as turn_module
from chathistory.engine.lease_renewal import LeaseKeeper
from chathistory.log import process
from chathistory.log.clock import to_datetime
from chathistory.log.process import Process, has_ended, this_process
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Paused, Reply

MODEL = "claude-sonnet-5-5"
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "A"}}
SEARCH_TOOLS = [{"type": "web_search_20250305", "name": "web_search"}]
ELSEWHERE = Process("elsewhere", 7, "another boot", "1-1", 5)


@pytest.fixture(params=["memory", "file"])
def store_url(request, tmp_path) -> str:
    """Return the URL of a new store: what another process sees of a turn is tested in files each time."""
    return f"memory:{uuid4().hex}" if request.param == "memory" else f"file:{tmp_path}/store"


def count_renewals(chat) -> int:
    return list_kinds(chat).count("lease_renewed")


def send_streamed(engine):
    with engine.stream("a", "first") as stream:
        return stream.get_final_reply()


def prepare_tool_turn(engine):
    reached, go_on = threading.Event(), threading.Event()

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        reached.set()
        assert go_on.wait(600)
        return "sun"

    return reached, go_on, lambda: engine.run_tools("a", "first", tools=[weather])


def prepare_long_turn(way, engine_on, open_again, **options):
    """Prepare a turn that waits; return the event of its waiting, the event that ends it, and a function to run it."""
    if way == "tool":
        engine = engine_on(FakeMessagesAPI(lambda body: [CALL] if len(body["messages"]) == 1 else "slow"), **options)
        return prepare_tool_turn(engine)
    paused = Paused("slow", after=3 if way.endswith("stream") else 0)
    api = FakeMessagesAPI(paused)
    if way == "create":
        run = lambda: engine_on(api, **options).send("a", "first")  # noqa: E731
    elif way == "stream":
        run = lambda: send_streamed(engine_on(api, **options))  # noqa: E731
    else:
        run = lambda: asyncio.run(ask_async(api, open_again(), way, **options))  # noqa: E731
    return paused.reached, paused.gate, run


async def ask_async(api, store, way, **options):
    async with AsyncChatEngine(api.async_client(), store, model=MODEL, **options) as engine:
        if way == "async create":
            return await engine.send("a", "first")
        async with engine.stream("a", "first") as stream:
            return await stream.get_final_reply()


# Renewal.


@pytest.mark.parametrize("way", ["create", "stream", "tool", "async create", "async stream"])
def test_a_turn_keeps_its_lease_however_long_it_takes(clock, engine_on, open_again, chat_of, way):
    reached, go_on, run = prepare_long_turn(way, engine_on, open_again, turn_timeout=60)
    other = FakeMessagesAPI("another")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(run)
        assert reached.wait(600)
        chat, second = chat_of("a"), engine_on(other, turn_timeout=60)
        for _ in range(5):  # 105 seconds, with a time-out of 60
            clock.go(21)
            until = clock.wall + 60 * SECOND
            wait_until(lambda until=until: chat.state().engine.open_turn.lease_until == until, "no renewal came")
            with pytest.raises(errors.TurnInProgress):
                second.send("a", "second")
        go_on.set()
        assert under_way.result(60).text == "slow"
    assert other.requests == []
    assert [kind for kind in list_kinds(chat_of("a")) if kind not in ("message", "lease_renewed")] == []
    assert chat_of("a").state().engine.open_turn is None
    clock.go(21)
    assert clock.keeper._wait_for_due_turns() == []  # no lease is renewed any longer


def test_a_short_turn_writes_no_renewal(clock, open_again, monkeypatch):
    store, appends = open_again(), []
    append = store.append
    monkeypatch.setattr(store, "append", lambda *a, **k: (appends.append(len(a[1])), append(*a, **k))[1])
    engine = ChatEngine(FakeMessagesAPI("hi").client(), store, model=MODEL, turn_timeout=60)
    engine.send("a", "one")
    appends.clear()
    for text in ("two", "three"):
        engine.send("a", text)
        clock.go(19.9)
        with engine.stream("a", text) as stream:
            clock.go(19.9)
            assert stream.get_final_reply().text == "hi"
        clock.go(59)
    assert appends == [1] * 8
    assert count_renewals(History(store).conversation("a")) == 0


def test_the_renewal_thread_ends_with_the_last_turn(clock, open_again):
    paused = [Paused("hi") for _ in range(3)]
    before = set(threading.enumerate())  # threads of other tests may still be waiting
    engine = ChatEngine(FakeMessagesAPI(paused).client(), open_again(), model=MODEL, turn_timeout=60)
    with ThreadPoolExecutor(3) as pool:
        turns = [pool.submit(engine.send, name, "hello") for name in "abc"]
        assert all(each.reached.wait(600) for each in paused)
        thread = clock.keeper._thread
        begun = set(threading.enumerate()) - before
        assert [each for each in begun if each.name == "chathistory-leases"] == [thread]
        for each in paused:
            each.gate.set()
        assert [each.result(60).text for each in turns] == ["hi"] * 3
    wait_until(lambda: (clock.go(21), not thread.is_alive())[1], "the thread does not end")
    assert clock.keeper._thread is None


def test_a_dropped_turn_is_not_renewed(clock, open_again):
    engine = ChatEngine(FakeMessagesAPI("hi").client(), open_again(), model=MODEL, turn_timeout=60)
    stream = engine.stream("a", "hello")
    stream.__enter__()
    del stream
    gc.collect()
    wait_until(lambda: (gc.collect(), not clock.keeper._turns)[1], "the turn is still referenced")
    clock.go(61)
    other = ChatEngine(FakeMessagesAPI("hi").client(), open_again(), model=MODEL, turn_timeout=60)
    assert other.resume("a").text == "hi"


class FailingStore(MemoryStore):
    """A store that raises `error` when a lease is renewed."""

    error: Exception | None = None
    failed = 0

    def append(self, key, bodies, **more):
        if self.error and '"kind":"lease_renewed"' in bodies[0]:
            self.failed += 1
            raise self.error
        return super().append(key, bodies, **more)


@pytest.mark.parametrize("error", [errors.StoreUnavailable("gone", outcome="not stored"), RuntimeError("a bug")])
def test_renewals_continue_after_an_error_of_the_store(clock, error):
    with FailingStore() as store:
        chat, paused = History(store).conversation("a"), Paused("slow")
        engine = ChatEngine(FakeMessagesAPI(paused).client(), store, model=MODEL, turn_timeout=60)
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(engine.send, "a", "first")
            assert paused.reached.wait(600)
            store.error = error
            clock.go(21)
            wait_until(lambda: store.failed, "nothing was tried")
            store.error = None
            wait_until(lambda: not clock.keeper._renewing, "the attempt does not end")
            clock.go(3)
            wait_until(lambda: count_renewals(chat) == 1, "it was not tried again")
            paused.gate.set()
            assert under_way.result(60).text == "slow"


def test_the_turn_of_a_deleted_conversation_is_no_longer_renewed(clock, open_again, chat_of):
    paused = Paused("too late")
    engine = ChatEngine(FakeMessagesAPI(paused).client(), open_again(), model=MODEL, turn_timeout=60)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine.send, "a", "first")
        assert paused.reached.wait(60)
        History(open_again()).delete("a")
        clock.go(21)
        wait_until(lambda: not clock.keeper._turns, "it is still renewed")
        paused.gate.set()
        with pytest.raises(errors.Conflict) as caught:
            under_way.result(60)
    assert caught.value.reply.text == "too late"
    assert chat_of("a").state() is None


def test_a_renewal_that_comes_after_the_end_of_the_turn_writes_nothing(clock, open_again, chat_of, monkeypatch):
    turns, start = [], turn_module.Turn.start
    monkeypatch.setattr(turn_module.Turn, "start", lambda self, *a, **k: (turns.append(self), start(self, *a, **k)))
    engine = ChatEngine(FakeMessagesAPI("hi").client(), open_again(), model=MODEL, turn_timeout=60)
    engine.send("a", "first")
    assert turns[0].renew() is False
    assert list_kinds(chat_of("a")) == ["message", "message"]


class FakeTurn:
    """A turn with a lease that a test renews."""

    def __init__(self, renew_at: float) -> None:
        self.log = SimpleNamespace(store=object())
        self.renew_at, self.timeout = renew_at, 60.0
        self.renewed = threading.Event()

    def renew(self) -> bool:
        self.renewed.set()
        return False


def test_a_turn_with_an_earlier_renewal_wakes_the_keeper(monkeypatch):
    class StoppedTicker:
        """A clock that stands still, and waits until the keeper is notified."""

        waits = threading.Event()

        def time(self):
            return 0.0

        def wait(self, condition, seconds):
            self.waits.set()
            assert condition.wait(60), "nobody woke the keeper"

    monkeypatch.setattr(lease_renewal, "TICKER", StoppedTicker())
    keeper, late, early = LeaseKeeper(), FakeTurn(100), FakeTurn(0)
    keeper.keep(late)
    assert StoppedTicker.waits.wait(60)
    keeper.keep(early)
    assert early.renewed.wait(60)
    assert not late.renewed.is_set()
    wait_until(lambda: not keeper._renewing, "the renewal does not end")
    keeper.stop_renewing(late)
    with keeper._changed:
        keeper._changed.notify_all()


def test_a_store_that_does_not_answer_delays_no_other_store(clock):
    class SlowStore(FailingStore):
        gate = threading.Event()

        def append(self, key, bodies, **more):
            if '"kind":"lease_renewed"' in bodies[0]:
                assert self.gate.wait(600)
            return super().append(key, bodies, **more)

    with SlowStore() as slow, MemoryStore() as quick:
        paused = [Paused("one"), Paused("two")]
        with ThreadPoolExecutor(2) as pool:
            turns = [
                pool.submit(ChatEngine(FakeMessagesAPI(each).client(), store, model=MODEL).send, "a", "hello")
                for each, store in zip(paused, (slow, quick), strict=True)
            ]
            assert all(each.reached.wait(600) for each in paused)
            for number in range(1, 3):
                clock.go(201)
                wait_until(lambda n=number: count_renewals(History(quick).conversation("a")) == n, "it was delayed")
            SlowStore.gate.set()
            for each in paused:
                each.gate.set()
            assert [each.result(60).text for each in turns] == ["one", "two"]


def test_renewals_do_not_conflict_with_other_writers(clock, open_again, chat_of):
    """An append does not conflict with a renewal that its writer has not seen."""
    paused = Paused("slow")
    engine = ChatEngine(FakeMessagesAPI(paused).client(), open_again(), model=MODEL, turn_timeout=60)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine.send, "a", "first")
        assert paused.reached.wait(600)
        chat = chat_of("a")
        assert chat.state()
        clock.go(21)
        wait_until(lambda: count_renewals(chat_of("a")) == 1, "no renewal came")
        chat.set_title("A title")
        clock.go(21)
        wait_until(lambda: count_renewals(chat_of("a")) == 2, "no renewal came")
        chat.append({"role": "system", "content": "Be brief."})
        paused.gate.set()
        with pytest.raises(errors.OrphanedReply):
            under_way.result(60)
    assert list_kinds(chat_of("a")) == [
        "message",
        "lease_renewed",
        "annotation",
        "lease_renewed",
        "message",
        "reply_orphaned",
    ]


# Takeover.


def block_renewals(clock, monkeypatch):
    """Suppress renewals, as if the process could not reach the store."""
    monkeypatch.setattr(clock.keeper, "_renew_leases", lambda turns: None)


def test_a_turn_without_renewals_is_replaced_and_its_late_reply_is_saved(clock, engine_on, chat_of, monkeypatch):
    block_renewals(clock, monkeypatch)
    paused = Paused("too late")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine_on(FakeMessagesAPI(paused), turn_timeout=60).send, "a", "first")
        assert paused.reached.wait(600)
        clock.go(59)
        with pytest.raises(errors.TurnInProgress):
            engine_on(FakeMessagesAPI()).send("a", "second")
        clock.go(2)
        assert engine_on(FakeMessagesAPI("second reply")).send("a", "second").text == "second reply"
        paused.gate.set()
        with pytest.raises(errors.OrphanedReply) as caught:
            under_way.result(60)
    assert caught.value.reply.text == "too late"
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned", "message", "message", "reply_orphaned"]
    assert [message["content"] for message in chat_of("a").messages()][:2] == ["first", "second"]
    assert "too late" not in str(chat_of("a").messages())
    assert list_entries(chat_of("a"))[4].message["content"][0]["text"] == "too late"


def test_a_renewal_at_the_last_moment_prevents_a_takeover(clock, open_again, engine_on, monkeypatch):
    """The other process saw the lease expire, and it was renewed before that process wrote."""
    paused = Paused("just in time")
    block_renewals(clock, monkeypatch)
    engine = ChatEngine(FakeMessagesAPI(paused).client(), open_again(), model=MODEL, turn_timeout=60)
    turns, begun = [], turn_module.Turn.start
    monkeypatch.setattr(turn_module.Turn, "start", lambda self, *a, **k: (turns.append(self), begun(self, *a, **k)))
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine.send, "a", "first")
        assert paused.reached.wait(600)
        clock.go(61)
        other = open_again()
        append = other.append

        def late(*args, **kwargs):
            monkeypatch.setattr(other, "append", append)
            assert turns[0].renew()
            return append(*args, **kwargs)

        monkeypatch.setattr(other, "append", late)
        for _ in range(2):
            with pytest.raises(errors.TurnInProgress):
                ChatEngine(FakeMessagesAPI().client(), other, model=MODEL, turn_timeout=60).send("a", "second")
        paused.gate.set()
        assert under_way.result(60).text == "just in time"


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("way", ["resume", "stream_resumed", "run_tools", "async"])
def test_takeover_does_not_wait(clock, open_again, chat_of, way, same_process):
    store, paused = open_again(), Paused("late")
    first = ChatEngine(FakeMessagesAPI(paused).client(), store, model=MODEL)
    api = FakeMessagesAPI("taken over")
    second = ChatEngine(api.client(), store if same_process else open_again(), model=MODEL)

    async def resume_async():
        async with AsyncChatEngine(api.async_client(), second.history, model=MODEL) as engine:
            with pytest.raises(errors.TurnInProgress):
                await engine.resume("a")
            return await engine.resume("a", takeover=True)

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(first.send, "a", "hello")
        assert paused.reached.wait(600)
        if way == "async":
            reply = asyncio.run(resume_async())
        elif way == "stream_resumed":
            with pytest.raises(errors.TurnInProgress), second.stream_resumed("a"):
                pass
            with second.stream_resumed("a", takeover=True) as stream:
                reply = stream.get_final_reply()
        else:
            again = second.resume if way == "resume" else lambda id, **k: second.run_tools(id, None, tools=[], **k)
            with pytest.raises(errors.TurnInProgress):
                again("a")
            reply = again("a", takeover=True)
        assert reply.text == "taken over"
        paused.gate.set()
        with pytest.raises(errors.OrphanedReply) as caught:
            under_way.result(60)
    assert caught.value.reply.text == "late"
    assert list_kinds(chat_of("a")) == ["message", "turn_opened", "message", "reply_orphaned"]
    assert [message["role"] for message in chat_of("a").messages()] == ["user", "assistant"]


def test_a_lost_turn_is_not_renewed_by_its_former_process(clock, open_again, chat_of):
    late, slow = Paused("late"), Paused("slow")
    first = ChatEngine(FakeMessagesAPI(late).client(), open_again(), model=MODEL, turn_timeout=60)
    second = ChatEngine(FakeMessagesAPI(slow).client(), open_again(), model=MODEL, turn_timeout=600)
    with ThreadPoolExecutor(2) as pool:
        first_turn = pool.submit(first.send, "a", "hello")
        assert late.reached.wait(600)
        second_turn = pool.submit(second.resume, "a", takeover=True)
        assert slow.reached.wait(600)
        until = chat_of("a").state().engine.open_turn.lease_until
        clock.go(21)
        wait_until(lambda: len(clock.keeper._turns) == 1, "the lost turn is still renewed")
        assert chat_of("a").state().engine.open_turn.lease_until == until
        slow.gate.set()
        assert second_turn.result(60).text == "slow"
        late.gate.set()
        with pytest.raises(errors.OrphanedReply):
            first_turn.result(60)


def test_a_paused_turn_that_was_lost_sends_no_further_request(clock, open_again, engine_on):
    search = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "x"}}
    api = FakeMessagesAPI(Reply(content=[search], stop_reason="pause_turn"))
    store = open_again()
    append = store.append

    def append_and_take_over(key, bodies, **more):
        head = append(key, bodies, **more)
        if "pause_turn" in bodies[-1]:
            engine_on(FakeMessagesAPI("taken over"), tools=SEARCH_TOOLS).resume("a", takeover=True)
        return head

    store.append = append_and_take_over
    with pytest.raises(errors.Conflict):
        ChatEngine(api.client(), store, model=MODEL, tools=SEARCH_TOOLS).send("a", "look")
    assert len(api.requests) == 1


# The error for other callers.


def test_turn_in_progress_says_until_when_by_whom_and_what_to_do(clock, engine_on):
    paused = Paused("slow")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine_on(FakeMessagesAPI(paused), turn_timeout=60).send, "a", "hello")
        assert paused.reached.wait(600)
        with pytest.raises(errors.TurnInProgress) as caught:
            engine_on(FakeMessagesAPI()).send("a", "second")
        paused.gate.set()
        under_way.result(60)
    error = caught.value
    assert error.until == to_datetime(clock.wall + 60 * SECOND)
    assert (error.host, error.pid) == (this_process().host, os.getpid())
    for part in (" UTC", f"process {os.getpid()} on", "resume(id, takeover=True)", "abandon(id)"):
        assert part in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.pid, again.until) == (str(error), error.pid, error.until)


def open_turn_elsewhere(open_again, until, by=ELSEWHERE):
    """Store a question with a turn that another machine opened."""
    data = {"lease_until": until, "opened_by": by.to_dict()} if by else {"lease_until": until}
    log = History(open_again()).conversation("a").log
    log.append([make_entry("message", {"role": "user", "content": "hello"}, data, "T")])


@pytest.mark.parametrize("years", [0.001, 1, 10, 290_000])
def test_a_clock_that_is_ahead_blocks_for_the_readers_own_time_out_at_most(clock, open_again, years):
    open_turn_elsewhere(open_again, clock.wall + int(years * 365 * 86_400 * SECOND))
    engine = ChatEngine(FakeMessagesAPI("at last").client(), open_again(), model=MODEL, turn_timeout=60)
    with pytest.raises(errors.TurnInProgress) as caught:
        engine.send("a", "second")
    assert caught.value.until == to_datetime(clock.wall + 60 * SECOND)
    clock.go(40)
    with pytest.raises(errors.TurnInProgress) as caught:
        engine.resume("a")
    assert caught.value.until == to_datetime(clock.wall + 20 * SECOND)
    clock.go(20)
    assert engine.resume("a").text == "at last"


def test_setting_the_clock_back_does_not_prolong_a_lease(clock, open_again):
    open_turn_elsewhere(open_again, clock.wall + 50 * SECOND)
    engine = ChatEngine(FakeMessagesAPI("at last").client(), open_again(), model=MODEL, turn_timeout=60)
    clock.set_wall(-86_400)
    with pytest.raises(errors.TurnInProgress) as caught:
        engine.send("a", "second")
    assert caught.value.until == to_datetime(clock.wall + 60 * SECOND)
    clock.set_wall(-86_400)
    with pytest.raises(errors.TurnInProgress) as caught:
        engine.send("a", "second")
    assert caught.value.until == to_datetime(clock.wall + 60 * SECOND)
    clock.go(60)
    assert engine.send("a", "second").text == "at last"


def test_the_time_out_restarts_with_each_renewal(clock, open_again):
    ahead = clock.wall + 86_400 * SECOND
    open_turn_elsewhere(open_again, ahead)
    engine = ChatEngine(FakeMessagesAPI("at last").client(), open_again(), model=MODEL, turn_timeout=60)
    with pytest.raises(errors.TurnInProgress):
        engine.resume("a")
    clock.go(59)
    chat = History(open_again()).conversation("a")
    chat.log.append(
        [
            make_entry(
                "lease_renewed", data={"lease_until": ahead + 1, "lease": chat.state().engine.open_turn.lease}, turn="T"
            )
        ]
    )
    with pytest.raises(errors.TurnInProgress):
        engine.resume("a")
    clock.go(59)
    with pytest.raises(errors.TurnInProgress):
        engine.resume("a")
    clock.go(1)
    assert engine.resume("a").text == "at last"


@pytest.mark.parametrize("change", ["rewind", "forget", "drop_block"])
def test_changes_that_would_remove_the_question_are_refused_meanwhile(clock, open_again, change):
    """Otherwise the reply, which is paid for, would come to another conversation."""
    open_turn_elsewhere(open_again, clock.wall + 86_400 * 365 * SECOND)
    chat = History(open_again()).conversation("a")
    step = {
        "rewind": lambda: chat.rewind(to=0),
        "forget": lambda: chat.forget(before=1),
        "drop_block": lambda: chat.set_drop_stale_thinking(drop=True),
    }[change]
    before = list(chat.entries())
    with pytest.raises(errors.TurnInProgress):
        step()
    assert list(chat.entries()) == before
    clock.go(600)
    step()


# Processes that are known to be gone.

CHILD = """
import sys
import anthropic
from chathistory import ChatEngine, open_store

store_url, api_url = sys.argv[1:]
client = anthropic.Anthropic(base_url=api_url, api_key="x", max_retries=0)
ChatEngine(client, open_store(store_url), model="claude-sonnet-5-5").send("a", "hello")
"""


@needs_linux
@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_process_is_not_waited_for(tmp_path, reaped):
    paused = Paused("never seen")
    url = f"file:{tmp_path}/store"
    with FakeMessagesAPI(paused).serve() as address:
        child = subprocess.Popen([sys.executable, "-c", CHILD, url, address])
        try:
            assert paused.reached.wait(300)
            with open_store(url) as store:
                api = FakeMessagesAPI("after the restart")
                engine = ChatEngine(api.client(), store, model=MODEL)
                with pytest.raises(errors.TurnInProgress) as caught:
                    engine.resume("a")
                assert caught.value.pid == child.pid
                child.kill()
                if reaped:
                    child.wait(600)
                else:
                    wait_until(lambda: process._read_status(child.pid).has_ended, "the kill did not arrive")
                assert engine.send("a", "hello").text == "after the restart"
                assert [entry.kind for entry in list_entries(engine.history.conversation("a"))][-2:] == [
                    "turn_opened",
                    "message",
                ]
        finally:
            child.kill()
            child.wait(600)
            paused.gate.set()


@needs_linux
def test_a_new_message_says_why_the_old_turn_was_closed(open_again, chat_of):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    status = process._read_status(child.pid)
    by = replace(this_process(), pid=child.pid, started=status.started)
    open_turn_elsewhere(open_again, 2**60, by)
    engine = ChatEngine(FakeMessagesAPI("hi").client(), open_again(), model=MODEL)
    with pytest.raises(errors.TurnInProgress):
        engine.send("a", "second")
    child.communicate(b"\n", 60)
    engine.send("a", "second")
    [closed] = [entry for entry in list_entries(chat_of("a")) if entry.kind == "turn_abandoned"]
    assert (closed.turn, closed.data) == ("T", {"reason": "its process ended"})


@needs_linux
@pytest.mark.parametrize("field", ["boot", "namespace", "started"])
def test_a_process_with_an_unknown_field_is_not_known_to_be_gone(field):
    gone = replace(this_process(), pid=find_ended_pid())
    assert has_ended(gone)
    assert not has_ended(replace(gone, **{field: None}))
    if field != "started":
        assert not has_ended(replace(gone, **{field: "another"}))


@needs_linux
def test_a_reused_pid_is_another_process():
    own = this_process()
    assert not has_ended(own)
    assert has_ended(replace(own, started=own.started - 1))
    parent = process._read_status(os.getppid())
    assert not has_ended(replace(own, pid=os.getppid(), started=parent.started))
    assert has_ended(replace(own, pid=os.getppid(), started=parent.started + 1))


@needs_linux
@pytest.mark.parametrize("pid", [0, -1, 10**30])
def test_an_impossible_pid_says_nothing(pid):
    assert not has_ended(replace(this_process(), pid=pid, started=1))


@needs_linux
@pytest.mark.parametrize("broken", ["boot_id", "ns", "stat", "self", "all"])
def test_without_proc_no_process_is_known_to_be_gone(monkeypatch, tmp_path, broken):
    """Use a copy of this process's files in /proc, with one of them missing."""
    gone = replace(this_process(), pid=find_ended_pid())
    pid = os.getpid()
    own = tmp_path / str(pid)
    own.mkdir()
    own.joinpath("stat").write_text(Path(f"/proc/{pid}/stat").read_text())
    own.joinpath("ns").symlink_to(f"/proc/{pid}/ns")
    tmp_path.joinpath("self").symlink_to(str(pid))
    tmp_path.joinpath("sys").symlink_to("/proc/sys")
    parts = {"boot_id": tmp_path / "sys", "ns": own / "ns", "stat": own / "stat", "self": tmp_path / "self"}
    monkeypatch.setattr(process, "_own", None)
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert has_ended(gone)
    for name, path in parts.items():
        if broken in (name, "all"):
            path.unlink()
    monkeypatch.setattr(process, "_own", None)
    assert not has_ended(gone)


def find_ended_pid() -> int:
    """Return the id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(600)
    return child.pid


@pytest.mark.parametrize(
    "values",
    [None, 3, [], {}, {"host": "h"}, {"host": "h", "pid": "7"}, {"host": 1, "pid": 7}, {"host": "h", "pid": True}]
    + [{"host": "h", "pid": 7, name: []} for name in ("boot", "namespace", "started")],
)
def test_values_that_name_no_process_are_none(clock, open_again, values):
    assert Process.from_dict(values) is None
    assert Process.from_dict(json.loads(json.dumps(ELSEWHERE.to_dict()))) == ELSEWHERE


def test_an_open_turn_costs_little_in_the_head(open_again):
    seen = []

    def reply(_body):
        seen.append(len(store.read(History(store).key("a"), start=0, stop=0).head.revision.payload))
        return "hi"

    store = open_again()
    ChatEngine(FakeMessagesAPI(reply).client(), store, model=MODEL).send("a", "hello")
    [size] = seen
    assert size < 700
