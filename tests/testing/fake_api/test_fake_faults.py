"""Streams that go wrong, as the real SDK sees them: in process, asynchronously and over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import types

import anthropic
import httpx2
import pytest
from patient_clients import open_client
from rule_examples import MODEL, call, text, user

from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Drop, ErrorEvent, Failure, Paused, Reset, http_server
from chathistory.testing.fake_api import __main__ as program

ASK = {"model": MODEL, "max_tokens": 100, "messages": [user("Hello")]}
WORDS = "one two three four"
# message_start, ping, content_block_start, "one ", "two ", ...
AFTER_TWO_WORDS = 5


@pytest.fixture(params=["transport", "socket"])
def connect(request):
    """Give clients of a fake, by either way."""
    with contextlib.ExitStack() as stack:

        def connected(api, **options):
            if request.param == "transport":
                return stack.enter_context(api.client(**options))
            url = stack.enter_context(api.serve())
            return stack.enter_context(anthropic.Anthropic(base_url=url, api_key="x", max_retries=0, **options))

        yield connected


def broken(client):
    """Return the events that the caller got from a broken stream, and the error."""
    with client.messages.stream(**ASK) as stream:
        try:
            stream.until_done()
        except Exception as error:  # noqa: BLE001
            return stream.current_message_snapshot, error
        return stream.get_final_message(), None


def test_a_cut_stream_ends_without_an_error_and_without_a_stop_reason(connect):
    message, error = broken(connect(FakeMessagesAPI(Cut(WORDS, after=AFTER_TWO_WORDS))))
    assert error is None
    assert (message.content[0].text, message.stop_reason) == ("one two ", None)


def test_a_cut_in_a_tool_call_leaves_half_an_input(connect):
    after_half = 5
    reply = [call(input={"path": "/tmp/x", "mode": "a much longer value than fits"})]
    message, error = broken(connect(FakeMessagesAPI(Cut(reply, after=after_half))))
    assert error is None
    assert message.stop_reason is None
    assert set(message.content[0].input) < {"path", "mode"}


def test_a_cut_before_the_first_event_is_an_assertion_of_the_sdk(connect):
    client = connect(FakeMessagesAPI(Cut(WORDS, after=0)))
    with client.messages.stream(**ASK) as stream, pytest.raises(AssertionError):
        stream.get_final_message()


def test_a_dropped_stream_is_a_raw_protocol_error(connect):
    message, error = broken(connect(FakeMessagesAPI(Drop(WORDS, after=AFTER_TWO_WORDS))))
    assert type(error) is httpx2.RemoteProtocolError
    assert message.content[0].text == "one two "


def test_a_reset_stream_is_a_raw_read_error(connect):
    message, error = broken(connect(FakeMessagesAPI(Reset(WORDS, after=AFTER_TWO_WORDS))))
    assert type(error) is httpx2.ReadError
    assert message.content[0].text == "one two "


def test_an_error_event_is_a_status_error_of_200(connect):
    message, error = broken(connect(FakeMessagesAPI(ErrorEvent(WORDS, after=AFTER_TWO_WORDS))))
    assert type(error) is anthropic.APIStatusError
    assert (error.status_code, error.type, error.api_message) == (200, "overloaded_error", "Overloaded")
    assert message.content[0].text == "one two "


@pytest.mark.parametrize(("fault", "cause"), [(Cut, httpx2.RemoteProtocolError), (Drop, httpx2.RemoteProtocolError),
                                              (Reset, httpx2.ReadError)])  # fmt: skip
def test_a_request_that_does_not_stream_loses_its_connection(connect, fault, cause):
    with pytest.raises(anthropic.APIConnectionError) as caught:
        connect(FakeMessagesAPI(fault(WORDS, after=3))).messages.create(**ASK)
    assert type(caught.value.__cause__) is cause


def test_a_request_that_does_not_stream_gets_the_error_as_its_answer(connect):
    with pytest.raises(anthropic.OverloadedError):
        connect(FakeMessagesAPI(ErrorEvent(WORDS, after=3))).messages.create(**ASK)


def test_the_sdk_retries_after_a_lost_answer(connect):
    api = FakeMessagesAPI([Reset(WORDS, after=0), "again"])
    client = connect(api).with_options(max_retries=1)
    assert client.messages.create(**ASK).content[0].text == "again"
    assert [request.reply["content"][0]["text"] for request in api.requests] == [WORDS, "again"]


def test_the_server_goes_on_after_a_broken_connection(connect):
    client = connect(FakeMessagesAPI([Reset(WORDS, after=1), Drop(WORDS, after=1), WORDS]))
    assert broken(client)[1] is not None
    assert broken(client)[1] is not None
    assert broken(client)[0].stop_reason == "end_turn"


def test_a_paused_stream_waits_for_the_test(connect):
    paused = Paused(WORDS, after=AFTER_TWO_WORDS)
    seen = []

    def read():
        with client.messages.stream(**ASK) as stream:
            for piece in stream.text_stream:
                seen.append(piece)
                if len(seen) == 2:
                    two.set()

    client = connect(FakeMessagesAPI(paused))
    two = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    assert paused.reached.wait(600)
    assert two.wait(600)
    assert seen == ["one ", "two "]
    paused.gate.set()
    reader.join(100)
    assert "".join(seen) == WORDS


@pytest.mark.parametrize("after", [0, 10_000])
def test_a_reply_can_pause_at_its_beginning_and_before_its_end(connect, after):
    paused = Paused(Reset(WORDS, after=4), after=after)
    outcome = []
    client = connect(FakeMessagesAPI(paused))
    reader = threading.Thread(target=lambda: outcome.append(broken(client)))
    reader.start()
    assert paused.reached.wait(600)
    assert not outcome
    paused.gate.set()
    reader.join(100)
    assert type(outcome[0][1]) is httpx2.ReadError


def test_a_message_that_does_not_stream_is_paused_too(connect):
    paused = Paused(WORDS, after=3)
    outcome = []
    client = connect(FakeMessagesAPI(paused))
    asker = threading.Thread(target=lambda: outcome.append(client.messages.create(**ASK)))
    asker.start()
    assert paused.reached.wait(600)
    assert not outcome
    paused.gate.set()
    asker.join(100)
    assert outcome[0].content[0].text == WORDS


def test_a_paused_stream_runs_into_the_client_s_read_timeout():
    paused = Paused(WORDS, after=AFTER_TWO_WORDS)
    with FakeMessagesAPI(paused).client(timeout=httpx2.Timeout(600, read=0.05)) as client:
        message, error = broken(client)
    assert type(error) is httpx2.ReadTimeout
    assert message.content[0].text == "one two "


def test_a_paused_stream_over_a_socket_runs_into_the_client_s_read_timeout():
    paused = Paused(WORDS, after=AFTER_TWO_WORDS)
    with FakeMessagesAPI(paused).serve() as url, open_client(url, paused) as client:
        message, error = broken(client)
    assert type(error) is httpx2.ReadTimeout
    assert message.content[0].text == "one two "


def test_a_server_that_stops_gives_up_what_it_holds():
    paused = Paused(WORDS, after=AFTER_TWO_WORDS)
    outcome = []
    with anthropic.Anthropic(api_key="x", base_url="http://127.0.0.1:1", max_retries=0) as client:
        with FakeMessagesAPI(paused).serve() as url:
            here = client.with_options(base_url=url)
            reader = threading.Thread(target=lambda: outcome.append(broken(here)))
            reader.start()
            assert paused.reached.wait(600)
        reader.join(100)
    assert type(outcome[0][1]) is httpx2.RemoteProtocolError


def test_a_reader_may_leave_early(connect):
    api = FakeMessagesAPI(text_of_many_words())
    client = connect(api)
    with client.messages.stream(**ASK) as stream:
        next(iter(stream))
    assert client.messages.create(**ASK).stop_reason == "end_turn"


def text_of_many_words():
    return "word " * 20_000


async def broken_async(client):
    async with client.messages.stream(**ASK) as stream:
        try:
            await stream.until_done()
        except Exception as error:  # noqa: BLE001
            return stream.current_message_snapshot, error
        return await stream.get_final_message(), None


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Cut(WORDS, after=AFTER_TWO_WORDS), type(None)),
        (Drop(WORDS, after=AFTER_TWO_WORDS), httpx2.RemoteProtocolError),
        (Reset(WORDS, after=AFTER_TWO_WORDS), httpx2.ReadError),
        (ErrorEvent(WORDS, after=AFTER_TWO_WORDS), anthropic.APIStatusError),
        (Paused(WORDS, after=AFTER_TWO_WORDS), httpx2.ReadTimeout),
    ],
)
def test_faults_are_the_same_for_asynchronous_clients(reply, error):
    async def run():
        async with FakeMessagesAPI(reply).async_client(timeout=httpx2.Timeout(600, read=0.05)) as client:
            return await broken_async(client)

    message, raised = asyncio.run(run())
    assert type(raised) is error
    assert (message.content[0].text, message.stop_reason) == ("one two ", None)


def test_an_asynchronous_request_that_does_not_stream_loses_its_connection():
    async def run():
        async with FakeMessagesAPI(Reset(WORDS, after=3)).async_client() as client:
            await client.messages.create(**ASK)

    with pytest.raises(anthropic.APIConnectionError):
        asyncio.run(run())


def test_a_paused_stream_can_be_cancelled_and_lets_other_tasks_run():
    paused = Paused(WORDS, after=AFTER_TWO_WORDS)

    async def run():
        async with FakeMessagesAPI([paused, "other"]).async_client() as client:
            task = asyncio.create_task(broken_async(client))
            assert await asyncio.to_thread(paused.reached.wait, 100)
            assert (await client.messages.create(**ASK)).content[0].text == "other"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


def test_a_wrong_reply_inside_of_a_fault_is_named(connect):
    with pytest.raises(anthropic.InternalServerError, match=r"this answer needs a message.*got Failure"):
        connect(FakeMessagesAPI(Cut(Failure(500), after=1))).messages.create(**ASK)


def test_answers_over_the_socket_do_not_wait_for_delayed_acknowledgements(monkeypatch):
    """The kernel of the client may acknowledge the first of two sends after 40 ms only, so there is one per answer."""
    sends = []
    write = socket.SocketIO.write
    monkeypatch.setattr(socket.SocketIO, "write", lambda self, data: sends.append(bytes(data)) or write(self, data))
    with FakeMessagesAPI().serve() as url, open_client(url) as client:
        for _ in range(3):
            client.messages.create(**ASK)
    assert [(send[:15], send[-1:]) for send in sends] == [(b"HTTP/1.1 200 OK", b"}")] * 3


def test_the_server_is_on_the_loopback_interface_and_ends_with_its_block():
    before = set(threading.enumerate())  # of servers that other tests share
    with FakeMessagesAPI().serve() as url:
        assert url.startswith("http://127.0.0.1:")
    with (
        anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client,
        pytest.raises(anthropic.APIConnectionError),
    ):
        client.messages.create(**ASK)
    assert not [each for each in set(threading.enumerate()) - before if "process_request_thread" in each.name]


def interrupt(process):
    """Send SIGINT, again after half a minute in case one is lost, and return the exit code.

    A signal that arrives just before the main thread blocks in a system call is noticed only after the call.
    """
    while True:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(30)


def test_the_command_prints_the_url_and_serves_until_interrupted():
    command = [sys.executable, "-m", "chathistory.testing.fake_api"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        url = process.stdout.readline().decode().strip()
        with anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
            assert client.messages.create(**ASK).content[0].text.startswith("[fake reply, no model] You said: Hello")
            assert interrupt(process) == 0
        assert process.stderr.read() == b""


def test_the_command_stops_serving_when_it_is_interrupted(monkeypatch, capsys):
    answers = []

    class Waiting:
        def wait(self):
            url = capsys.readouterr().out.strip()
            with anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
                answers.append(client.messages.create(**ASK).content[0].text)
            raise KeyboardInterrupt

    monkeypatch.setattr(program, "threading", types.SimpleNamespace(Event=Waiting))
    program.main(["--port", "0"])
    assert answers[0].startswith("[fake reply, no model] You said: Hello")


def test_an_error_of_the_fake_itself_is_printed(monkeypatch, capsys):
    def fail(*_):
        raise ZeroDivisionError("a fault of the fake")

    monkeypatch.setattr(FakeMessagesAPI, "answer", fail)
    with (
        FakeMessagesAPI().serve() as url,
        anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client,
        pytest.raises(anthropic.APIConnectionError),
    ):
        client.messages.create(**ASK)
    assert "ZeroDivisionError: a fault of the fake" in capsys.readouterr().err


def test_of_a_body_that_is_too_large_only_the_beginning_is_kept(monkeypatch):
    monkeypatch.setattr(http_server, "LARGEST", 10)
    monkeypatch.setattr(http_server, "_PIECE", 4)
    answer, sizes = FakeMessagesAPI.answer, []

    def note_size(self, method, path, headers, body):
        sizes.append((int({name.lower(): text for name, text in headers.items()}["content-length"]), len(body)))
        return answer(self, method, path, headers, json.dumps(body_of_ask).encode())

    body_of_ask = {"model": ASK["model"], "max_tokens": 9, "messages": ASK["messages"]}
    monkeypatch.setattr(FakeMessagesAPI, "answer", note_size)
    with FakeMessagesAPI().serve() as url, anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
        for _ in range(2):  # the connection stays usable
            assert client.messages.create(**ASK).content
    assert [kept for _, kept in sizes] == [12, 12]
    assert min(sent for sent, _ in sizes) > 12


def test_text_is_content_too():
    with FakeMessagesAPI(Cut([text(WORDS)], after=AFTER_TWO_WORDS)).client() as client:
        assert broken(client)[0].content[0].text == "one two "
