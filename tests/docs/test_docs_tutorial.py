"""The tutorial, followed from its first line to its last: its files, a Valkey, the fake, and a web server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from docs_shell import Shell, commands_of, is_as_shown
from redis_servers import Server, free_port, until

from chathistory import History, open_store
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Drop, Failure, Paused
from chathistory.testing.fake_api.reply_queue import echo

pytestmark = pytest.mark.wide

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
FILES = dict(re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))


class Reader:
    """A reader who does what the page says, with their own Redis and port."""

    def __init__(self, folder: Path, redis: Server, url: str) -> None:
        self.folder, self.redis, self.port = folder, redis, free_port()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        key = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "any"}
        self.environment = {"PATH": path, "HOME": str(folder), "TZ": "UTC", "LC_ALL": "C.UTF-8", "TERM": "dumb", **key}
        self.shell = Shell(folder, self.environment)
        self.application: subprocess.Popen[bytes] | None = None
        for name, text in FILES.items():
            (folder / name).write_text(self.localize(text))

    def localize(self, text: str) -> str:
        """Return the text with the ports of this reader in it."""
        text = text.replace("localhost:6379", f"127.0.0.1:{self.redis.port}")
        return text.replace("localhost:8000", f"127.0.0.1:{self.port}").replace("--port 8000", f"--port {self.port}")

    def type_line(self, line: str) -> str:
        """Type a line and return its output; a line that ends in `&` keeps running until `kill`."""
        line = self.localize(line)
        if line.endswith(" &"):
            return self.start(line.removesuffix(" &"))
        if line == "kill -KILL %1":
            return self.kill()
        output = self.shell.run(line)
        assert self.shell.code == 0, output
        return output

    def start(self, line: str) -> str:
        with (self.folder / "log").open("ab") as log:
            self.application = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        until(self.answers, patience=60, what="the application")
        return ""

    def answers(self) -> bool:
        assert self.application.poll() is None, (self.folder / "log").read_text()
        try:
            return self.ask("/chats") is not None
        except URLError:
            return False

    def kill(self) -> str:
        if self.application is not None:
            self.application.kill()
            self.application.wait()
        return ""

    def ask(self, path: str, body: object = None, **headers: str):
        """Return the status and the text of the application's answer."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.port}{path}", data, {"content-type": "application/json", **headers})
        try:
            with urlopen(request, timeout=600) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


@contextmanager
def open_reader(folder: Path, api: FakeMessagesAPI) -> Iterator[Reader]:
    with Server() as redis, api.serve() as url:
        reader = Reader(folder, redis, url)
        try:
            yield reader
        finally:
            reader.kill()


def test_the_commands_of_the_page_print_what_it_shows(tmp_path):
    assert set(FILES) == {"hello.py", "app.py", "page.html"}
    commands, api = commands_of(PAGE), FakeMessagesAPI()
    assert len(commands) == 14
    with open_reader(tmp_path, api) as reader:
        for command in commands:
            output = reader.type_line(command.line)
            assert is_as_shown(output, reader.localize(command.shown or "")), f"{command.line}\n{output}"
        assert "Warning" not in (tmp_path / "log").read_text()
    api.assert_extends(api.requests[:2])
    api.assert_extends(api.requests[2:])


@pytest.fixture(scope="module")
def script():
    """The next replies; while the list is empty, the fake repeats the user's words."""
    return []


@pytest.fixture(scope="module")
def app(tmp_path_factory, script):
    api = FakeMessagesAPI(lambda body: script.pop(0) if script else echo(body))
    with open_reader(tmp_path_factory.mktemp("tutorial"), api) as reader:
        reader.api = api
        reader.type_line("uvicorn app:app --port 8000 --log-level warning &")
        yield reader


SAY = ("/chats/tea", "/chats/tea/stream")  # in one piece, and word by word


def refusal(words: str) -> str:
    return json.dumps({"error": words}, separators=(",", ":"))


def test_a_second_tab_gets_409_before_anything_is_paid_for(app, script):
    paused, ada = Paused("slow"), {"x-person": "ada"}
    script.append(paused)
    before = len(app.api.requests)
    first = threading.Thread(target=app.ask, args=(SAY[0], {"text": "One"}), kwargs=ada)
    first.start()
    assert paused.reached.wait(600)
    answers = [app.ask(path, {"text": "Two"}, **ada) for path in SAY]
    paused.gate.set()
    first.join()
    assert answers == [(409, refusal("Claude is still answering your last message."))] * 2
    assert len(app.api.requests) == before + 1
    assert [each["text"] for each in json.loads(app.ask("/chats/tea", **ada)[1])] == ["One", "slow"]


@pytest.mark.parametrize("path", SAY)
def test_a_message_that_cannot_be_sent_gets_400(app, script, path):
    eve = {"x-person": f"eve{SAY.index(path)}"}
    before = len(app.api.requests)
    assert app.ask(path, {"text": " "}, **eve) == (400, refusal("This message cannot be sent."))
    assert len(app.api.requests) == before
    script.append(Failure(400, message="messages.0.content: could not process image"))
    assert app.ask(path, {"text": "One"}, **eve) == (400, refusal("This message cannot be sent."))


@pytest.mark.parametrize("path", SAY)
def test_an_api_that_fails_before_the_first_word_gets_503(app, script, path):
    script += [Failure(529, headers={"x-should-retry": "false"}), "Better."]
    dan = {"x-person": f"dan{SAY.index(path)}"}
    status, words = app.ask(path, {"text": "One"}, **dan)
    assert (status, json.loads(words)["error"].split(".")[0]) == (503, "This does not work at the moment")
    assert app.ask(path, {"text": "Two"}, **dan)[0] == 200


def test_a_reply_that_is_interrupted_ends_with_an_error_event(app, script):
    bob = {"x-person": "bob"}
    script += [Cut("Half of it", after=5), "Whole."]
    status, events = app.ask("/chats/tea/stream", {"text": "One"}, **bob)
    assert status == 200
    assert events.startswith("event: text\n")
    assert events.endswith('event: error\ndata: "The reply was interrupted. Your message is saved."\n\n')
    _, events = app.ask("/chats/tea/stream", {"text": "Two"}, **bob)
    assert events.endswith('event: done\ndata: ""\n\n')
    texts = [each["text"] for each in json.loads(app.ask("/chats/tea", **bob)[1])]
    assert texts == ["One", "Two", "Whole."]
    assert "reply_interrupted" in kinds_of(app, "bob")


def test_a_connection_that_breaks_within_a_reply_ends_with_an_error_event(app, script):
    script.append(Drop("Half of it", after=5))
    status, events = app.ask("/chats/tea/stream", {"text": "One"}, **{"x-person": "cyd"})
    assert status == 200
    assert events.endswith('event: error\ndata: "This does not work at the moment. Your message may be saved."\n\n')
    assert "reply_interrupted" in kinds_of(app, "cyd")


def test_a_visitor_who_leaves_within_a_reply_closes_the_turn(app, script):
    paused = Paused("Nobody reads this to its end", after=4)
    script.append(paused)
    body = json.dumps({"text": "One"}).encode()
    head = {"content-type": "application/json", "x-person": "fay"}
    url = f"http://127.0.0.1:{app.port}/chats/tea/stream"
    with urlopen(Request(url, body, head), timeout=600) as answer:
        assert answer.readline() == b"event: text\n"
        assert paused.reached.wait(600)
    until(lambda: "reply_interrupted" in kinds_of(app, "fay"), patience=60, what="the end of the turn")
    paused.gate.set()
    assert app.ask("/chats/tea", {"text": "Two"}, **{"x-person": "fay"})[0] == 200


def kinds_of(reader: Reader, scope: str) -> list[str]:
    with open_store(reader.localize("redis://localhost:6379/0")) as store:
        return [entry.kind for entry in History(store).conversation("tea", scope=scope).entries()]


def test_nobody_sees_the_conversations_of_others(app):
    app.ask("/chats/mine", {"text": "Mine"}, **{"x-person": "eve"})
    assert json.loads(app.ask("/chats", **{"x-person": "eve"})[1])["chats"][0]["title"] == "Mine"
    assert app.ask("/chats") == (200, '{"chats":[],"next":null}')
    assert app.ask("/chats/mine") == (200, "[]")


@pytest.mark.parametrize("path", SAY)
def test_a_store_that_does_not_answer_gets_503(app, path):
    app.redis.stop(signal.SIGSTOP)
    try:
        status, words = app.ask(path, {"text": "One"})
    finally:
        app.redis.stop(signal.SIGCONT)
    assert (status, json.loads(words)["error"].split(".")[0]) == (503, "This does not work at the moment")
    assert app.ask("/chats")[0] == 200
