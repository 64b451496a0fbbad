"""One program, unchanged, on each backend: only a line of its configuration is another."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from forked_programs import ForkServer
from mongodb_servers import replica_set
from redis_servers import Server
from s3_server import CREDENTIALS, serving

from chathistory.testing import FakeMessagesAPI

pytestmark = pytest.mark.wide

PROGRAM = Path(__file__).with_name("config_program.py")
CONFIGURATION = """
{line}
scope = "ada"
model = "claude-haiku-5-5"
system = "Be brief."
max_tokens = 500
"""
LINES = {
    "memory": 'store = "memory:chats"',
    "file": 'store = "file:./history"',
    "redis": 'store = "${REDIS_URL}"',
    "mongodb": 'store = "${MONGODB_URL}"',
    "s3": 'store = "${S3_URL}"',
}


@pytest.fixture
def place(request):
    """Start what a backend needs; give the environment that the program runs in."""
    yield from PLACES[request.param]()


def _redis():
    with Server() as server:
        yield {"REDIS_URL": f"{server.url}?prefix=test:"}


def _mongodb():
    with replica_set() as servers:
        yield {"MONGODB_URL": f"mongodb://{servers[0].address}/test"}


def _s3():
    with serving() as server:
        with closing(server.client()) as client:
            client.create_bucket(Bucket="chats")
        key = {name.upper(): value for name, value in CREDENTIALS.items()}
        more = {"AWS_DEFAULT_REGION": key.pop("REGION_NAME"), "AWS_EC2_METADATA_DISABLED": "true"}
        yield key | more | {"S3_URL": f"s3://chats/history?endpoint_url={server.url}"}


def _nothing():
    yield {}


PLACES = {"memory": _nothing, "file": _nothing, "redis": _redis, "mongodb": _mongodb, "s3": _s3}


@pytest.mark.parametrize(("backend", "place"), [(name, name) for name in LINES], indirect=["place"])
def test_one_program_runs_unchanged_on_each_backend(backend, place, project, forks):
    (project / "chathistory.toml").write_text(CONFIGURATION.format(line=LINES[backend]))
    api = FakeMessagesAPI()
    with api.serve() as url:
        environment = os.environ | place | {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "x"}
        runs = [run_program(forks, environment, project) for _ in range(2)]
    again = 1 if backend == "memory" else 5  # memory starts empty in each process
    for run, number in zip(runs, (1, again), strict=True):
        assert run == {
            "replies": [
                f"[fake reply, no model] You said: Hello Claude (message {number} of this conversation)",
                f"[fake reply, no model] You said: And what did I say? (message {number + 2} of this conversation)",
            ],
            "scope": "ada",
            "messages": number + 3,
            "last": [{"role": "assistant", "content": [{"type": "text", "text": run["replies"][1]}]}],
        }
    sent = {(body["model"], body["system"], body["max_tokens"]) for body in (call.body for call in api.requests)}
    assert sent == {("claude-haiku-5-5", "Be brief.", 500)}


@pytest.fixture(scope="module")
def forks():
    server = ForkServer(os.environ | {"PYTHONWARNINGS": "error"})
    yield server
    server.close()


def run_program(forks, environment, folder):
    program = Path(shutil.copy(PROGRAM, folder.parent))
    done = forks.run(program, env=environment, folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_configurations_differ_in_one_line_and_the_program_names_no_backend():
    texts = [CONFIGURATION.format(line=line).splitlines() for line in LINES.values()]
    for text in texts[1:]:
        assert sum(one != other for one, other in zip(texts[0], text, strict=True)) == 1
    assert not [name for name in LINES if name in PROGRAM.read_text()]
