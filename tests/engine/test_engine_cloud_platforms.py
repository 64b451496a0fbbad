"""The engine on each client class of the SDK: cloud platforms, and the beta namespace."""

from __future__ import annotations

import asyncio
import json

import anthropic
import httpx2
import pytest

from chathistory import AsyncChatEngine, ChatEngine, History
from chathistory.testing import FakeMessagesAPI

MODEL = "claude-sonnet-5-5"
THOUGHT = {"type": "thinking", "thinking": "", "signature": ""}
KEY = {"api_key": "k", "base_url": "http://here.invalid"}
CLIENTS = {
    "the API": ("Anthropic", KEY),
    "Bedrock": ("AnthropicBedrock", {"aws_access_key": "k", "aws_secret_key": "s", "aws_region": "eu-west-1"}),
    "Bedrock's Messages API": (
        "AnthropicBedrockMantle",
        {"aws_access_key": "k", "aws_secret_key": "s", "aws_region": "eu-west-1"},
    ),
    "Vertex": ("AnthropicVertex", {"access_token": "t", "project_id": "p", "region": "europe-west1"}),
    "Foundry": ("AnthropicFoundry", KEY),
}


def answer_platform_request(api: FakeMessagesAPI, request: httpx2.Request, body: bytes) -> httpx2.Response:
    """Answer a request of any platform. If the URL has the model, it is moved to where the API expects it."""
    headers = dict(request.headers) | {"authorization": "Bearer k"}
    sent = json.loads(body)
    if "model" not in sent:
        path = request.url.path
        sent = {"model": MODEL, **sent}
        headers["anthropic-version"] = "2026-10-21"
        assert MODEL in path
        assert sent.pop("anthropic_version")
    plan = api.answer("POST", "/v1/messages", headers, json.dumps(sent).encode())
    return httpx2.Response(plan.status, headers=dict(plan.headers), content=b"".join(plan.chunks))


def client_of(kind: str, api: FakeMessagesAPI):
    name, options = CLIENTS[kind]
    transport = httpx2.MockTransport(lambda request: answer_platform_request(api, request, request.read()))
    return getattr(anthropic, name)(**options, max_retries=0, http_client=httpx2.Client(transport=transport))


def async_client_of(kind: str, api: FakeMessagesAPI):
    name, options = CLIENTS[kind]

    async def answer(request: httpx2.Request) -> httpx2.Response:
        return answer_platform_request(api, request, await request.aread())

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return getattr(anthropic, f"Async{name}")(**options, max_retries=0, http_client=http)


def reply_with_thinking(body):
    return [THOUGHT, {"type": "text", "text": f"answer {len(body['messages'])}"}]


def check_requests(api, store):
    assert History(store).conversation("a").messages()[::2] == [
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
    ]
    assert [len(request.body["messages"]) for request in api.requests] == [1, 3]
    api.assert_extends()


@pytest.mark.parametrize("kind", CLIENTS)
def test_any_client_of_the_sdk_works(open_again, kind):
    api, store = FakeMessagesAPI(reply_with_thinking), open_again()
    with client_of(kind, api) as client:
        engine = ChatEngine(client, store, model=MODEL)
        assert [engine.send("a", words).text for words in ("one", "two")] == ["answer 1", "answer 3"]
    check_requests(api, store)


@pytest.mark.parametrize("kind", CLIENTS)
def test_any_asynchronous_client_of_the_sdk_works(open_again, kind):
    api, store = FakeMessagesAPI(reply_with_thinking), open_again()

    async def main():
        async with async_client_of(kind, api) as client, AsyncChatEngine(client, store, model=MODEL) as engine:
            return [(await engine.send("a", words)).text for words in ("one", "two")]

    assert asyncio.run(main()) == ["answer 1", "answer 3"]
    check_requests(api, store)


def test_the_beta_namespace_is_a_client_with_options_and_streams(open_again):
    api, store = FakeMessagesAPI(reply_with_thinking), open_again()
    drop = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
    options = {"betas": ["thinking-binding-controls-2026-08-01"], "thinking": drop}
    with api.client() as client:
        engine = ChatEngine(client.beta, store, model=MODEL, options=options)
        assert engine.send("a", "one").response["input_transformations"] == []
        with engine.stream("a", "two") as stream:
            assert "".join(stream) == "answer 3"
    assert api.requests[-1].headers["anthropic-beta"] == options["betas"][0]
    check_requests(api, store)


def test_the_asynchronous_beta_namespace_is_a_client(open_again):
    api, store = FakeMessagesAPI(reply_with_thinking), open_again()

    async def main():
        client = api.async_client()
        async with client, AsyncChatEngine(client.beta, store, model=MODEL) as engine:
            await engine.send("a", "one")
            async with engine.stream("a", "two") as stream:
                return (await stream.get_final_reply()).text

    assert asyncio.run(main()) == "answer 3"
    check_requests(api, store)


def test_an_engine_with_a_client_builds_no_other_client(open_again, monkeypatch):
    def refuse_to_build(*_, **__):
        raise AssertionError

    api, store = FakeMessagesAPI("hi"), open_again()
    client = api.client()
    for name in ("Anthropic", "AsyncAnthropic"):
        monkeypatch.setattr(anthropic, name, refuse_to_build)
    assert ChatEngine(client, store, model=MODEL).send("a", "one").text == "hi"
