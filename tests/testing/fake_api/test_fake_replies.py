"""The answers of the fake: echo, given replies, streams with the same content, ids, usage, recorded requests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import anthropic
import httpx2
import pytest
from rule_examples import HIT, MODEL, body, call, found, reply, result, search, text, user

from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Raw, Reply

ASK = {"model": MODEL, "max_tokens": 100, "messages": [user("Hello there")]}
CITATION = {"type": "char_location", "cited_text": "x", "document_index": 0, "document_title": None,
            "start_char_index": 0, "end_char_index": 1, "file_id": None}  # fmt: skip
RICH = [
    {"type": "thinking", "thinking": "", "signature": "c2ln"},
    {"type": "thinking", "thinking": "One two", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    text("Words, and more\n words ü\U0001f600 ", citations=None),
    text("Cited", citations=[CITATION, CITATION]),
    text(""),
    search(),
    found() | {"content": [HIT | {"page_age": None}], "caller": {"type": "direct"}},
    call("toolu_a", input={}),
    call("toolu_b", input={"z": [1, 2.5, None, {"a": "ß" * 60}], "a": 10**20, "": True}),
    {"type": "brand_new", "text": None, "deep": {"kept": [1]}},
]


def comparable(message):
    stored = message.to_dict(mode="json", warnings=False)
    return {name: value for name, value in stored.items() if name != "id"}


def streamed(client, **ask):
    with client.messages.stream(**ask) as stream:
        return stream.get_final_message()


def test_the_echo_says_what_it_is_and_shows_that_it_has_the_history():
    with FakeMessagesAPI().client() as client:
        first = client.messages.create(**ASK)
        assert first.content[0].text == "[fake reply, no model] You said: Hello there (message 1 of this conversation)"
        more = [user("Hello there"), {"role": "assistant", "content": first.content}, user([text("And"), text("now?")])]
        third = client.messages.create(**ASK | {"messages": more})
        assert third.content[0].text == "[fake reply, no model] You said: And now? (message 3 of this conversation)"
        tools = client.messages.create(**ASK | {"messages": [user("Run"), reply([call()]), user([result()])]})
        assert "You said: Run (message 3" in tools.content[0].text


def test_a_message_has_the_requested_model_and_ids_of_its_own():
    api = FakeMessagesAPI(reply=[{"type": "tool_use", "name": "f", "input": {}}])
    with api.client() as client:
        one, two = client.messages.create(**ASK), client.messages.create(**ASK)
    assert (one.model, one.stop_reason, one.role, one.type) == (MODEL, "tool_use", "assistant", "message")
    assert one.id != two.id
    assert one.id.startswith("msg_")
    assert one.content[0].id != two.content[0].id
    assert one.content[0].id.startswith("toolu_")
    assert one._request_id == api.requests[0].request_id != two._request_id
    assert one._request_id.startswith("req_")


@pytest.mark.parametrize("content", [[block] for block in RICH] + [RICH, []], ids=lambda content: str(content)[:40])
def test_a_stream_adds_up_to_the_message_that_is_sent_whole(content):
    container = {"id": "container_1", "expires_at": "2026-12-01T00:00:00Z"}
    api = FakeMessagesAPI(reply=Reply(content=content, stop_reason="max_tokens", extra={"container": container}))
    with api.client() as client:
        whole = comparable(client.messages.create(**ASK))
        assert whole["content"] == content
        assert whole["container"] == container
        assert comparable(streamed(client, **ASK)) == whole
        beta = client.beta.messages.create(**ASK)
        assert beta.to_dict(mode="json", warnings=False)["content"] == content

    async def run():
        async with api.async_client() as client, client.messages.stream(**ASK) as stream:
            return await stream.get_final_message()

    assert comparable(asyncio.run(run())) == whole
    with api.serve() as url, anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
        assert comparable(streamed(client, **ASK)) == whole
        assert comparable(client.messages.create(**ASK)) == whole


def test_the_events_come_in_the_order_of_the_api_and_text_comes_in_words():
    api = FakeMessagesAPI(reply=[text("one two three"), call(input={"a": 1})])
    with api.client() as client, client.messages.create(**ASK, stream=True) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    block = ["content_block_start", "content_block_delta", "content_block_delta"]
    expected = ["message_start", *block, "content_block_delta", "content_block_stop", *block, "content_block_stop"]
    assert kinds == [*expected, "message_delta", "message_stop"]  # the SDK keeps pings to itself
    assert [event.delta.text for event in events[2:5]] == ["one ", "two ", "three"]
    assert events[0].message.content == []
    assert events[0].message.stop_reason is None


def test_a_ping_follows_the_start_and_the_last_delta_carries_reason_and_usage():
    api = FakeMessagesAPI("Hi")
    with api.client() as client:
        raw = client.messages.with_raw_response.create(**ASK, stream=True)
        lines = raw.http_response.read().decode().split("\n\n")
    assert [line.splitlines()[0] for line in lines[:2]] == ["event: message_start", "event: ping"]
    assert '"stop_reason": "end_turn"' in lines[-3]
    assert '"output_tokens"' in lines[-3]
    assert raw.headers["content-type"].startswith("text/event-stream")


def test_replies_of_a_list_come_in_order_and_then_a_500_that_says_so():
    api = FakeMessagesAPI(
        reply=["one", Failure(429, headers={"retry-after": "7"}), [text("two")], lambda body: body["model"]]
    )
    with api.client() as client:
        assert client.messages.create(**ASK).content[0].text == "one"
        with pytest.raises(anthropic.RateLimitError) as caught:
            client.messages.create(**ASK)
        assert caught.value.response.headers["retry-after"] == "7"
        assert caught.value.type == "rate_limit_error"
        assert client.messages.create(**ASK).content[0].text == "two"
        assert client.messages.create(**ASK).content[0].text == MODEL
        with pytest.raises(anthropic.InternalServerError, match="used up"):
            client.with_options(max_retries=2).messages.create(**ASK)
    assert len(api.requests) == 5  # the last is not tried again


def test_a_refused_request_and_a_count_take_no_reply_from_the_list():
    api = FakeMessagesAPI(reply=iter(["only"]))
    with api.client() as client:
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**ASK | {"messages": []})
        client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
        assert client.messages.create(**ASK).content[0].text == "only"


def test_overload_is_retried_by_the_sdk_until_an_answer_comes():
    busy = Failure(529, headers={"retry-after-ms": "1"})
    api = FakeMessagesAPI(reply=[busy, busy, "at last"])
    with api.client(max_retries=2) as client:
        assert client.messages.create(**ASK).content[0].text == "at last"
    assert [request.status for request in api.requests] == [529, 529, 200]
    assert [request.headers["x-stainless-retry-count"] for request in api.requests] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("failure", "error", "kind"),
    [
        (Failure(402), anthropic.PaymentRequiredError, "billing_error"),
        (Failure(403), anthropic.PermissionDeniedError, "permission_error"),
        (Failure(404, code="thread_not_found"), anthropic.NotFoundError, "not_found_error"),
        (Failure(422), anthropic.UnprocessableEntityError, "invalid_request_error"),
        (Failure(500), anthropic.InternalServerError, "api_error"),
        (Failure(504), anthropic.GatewayTimeoutError, "timeout_error"),
        (Failure(529), anthropic.OverloadedError, "overloaded_error"),
        (Failure(400, "billing_error", "No more money"), anthropic.BadRequestError, "billing_error"),
    ],
)
def test_a_failure_is_the_error_of_the_sdk(failure, error, kind):
    with FakeMessagesAPI(failure).client() as client, pytest.raises(error) as caught:
        streamed(client, **ASK)
    assert (caught.value.type, caught.value.api_message) == (kind, failure.message)
    assert caught.value.error_code == failure.code


def test_a_proxy_s_page_is_a_str_for_the_sdk():
    with FakeMessagesAPI(Raw()).client() as client:
        assert client.messages.create(**ASK) == "<html>a proxy's page</html>"


def test_what_a_reply_function_raises_reaches_the_client():
    def wrong(body):
        raise AssertionError("expected two messages")

    with (
        FakeMessagesAPI(wrong).client() as client,
        pytest.raises(anthropic.InternalServerError, match="AssertionError: expected two"),
    ):
        client.messages.create(**ASK)
    with (
        FakeMessagesAPI(lambda body: 5).client() as client,
        pytest.raises(anthropic.InternalServerError, match="a reply must be a str"),
    ):
        client.messages.create(**ASK)


def test_a_reply_says_more_of_its_message():
    refused = Reply(content=[], stop_reason="refusal", model="claude-opus-5-5", usage={"output_tokens": 3},
                    extra={"stop_details": {"type": "refusal", "category": "cyber", "explanation": None}})  # fmt: skip
    with FakeMessagesAPI(refused).client() as client:
        for message in (client.messages.create(**ASK), streamed(client, **ASK)):
            assert (message.content, message.stop_reason, message.model) == ([], "refusal", "claude-opus-5-5")
            assert (message.usage.output_tokens, message.stop_details.category) == (3, "cyber")


def test_tokens_are_counted_alike_and_more_words_are_more_tokens():
    with FakeMessagesAPI().client() as client:
        counts = [
            client.messages.count_tokens(model=MODEL, messages=[user("word " * words)]).input_tokens
            for words in (1, 40, 400)
        ]
        assert counts == sorted(set(counts))
        assert client.messages.create(**ASK | {"messages": [user("word " * 40)]}).usage.input_tokens == counts[1]


def cached(client, *messages, **more):
    usage = client.messages.create(**ASK | {"messages": list(messages), **more}).usage
    total = client.messages.count_tokens(model=MODEL, messages=messages, system=more.get("system", [])).input_tokens
    assert usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens == total
    assert usage.cache_creation.ephemeral_5m_input_tokens == usage.cache_creation_input_tokens
    return usage.cache_read_input_tokens, usage.cache_creation_input_tokens, usage.input_tokens


def test_the_cache_is_read_by_what_begins_alike_and_not_by_what_was_changed():
    auto = {"cache_control": {"type": "ephemeral"}}
    one = [user("First question")]
    two = [*one, reply("First answer"), user([text("Second question")])]
    with FakeMessagesAPI().client() as client:
        plain = cached(client, *one)
        assert plain[:2] == (0, 0)
        read, written, rest = cached(client, *one, **auto)
        assert (read, rest) == (0, 0)
        assert written == plain[2]
        assert cached(client, *one, **auto) == (written, 0, 0)
        again, more, rest = cached(client, *two, **auto)
        assert (again, rest) == (written, 0)
        assert more > 0
        marked = [user([text("First question", cache_control={"type": "ephemeral"})]), *two[1:]]
        assert cached(client, *marked) == (written, 0, more)  # text alone is a block of text
        assert cached(client, user("Changed"), *two[1:], **auto)[0] == 0
        assert cached(client, *two, system="New", **auto)[0] == 0
        assert (
            client.messages.create(
                **ASK | {"messages": one, **auto, "model": "claude-opus-5-5"}
            ).usage.cache_read_input_tokens
            == 0
        )


def test_the_cache_is_looked_for_twenty_blocks_back_and_no_further():
    auto = {"cache_control": {"type": "ephemeral"}}
    for more, hit in ((19, True), (20, False)):
        with FakeMessagesAPI().client() as client:
            written = cached(client, user([text("one")]), **auto)[1]
            read = cached(client, user([text("one"), *[text("more")] * more]), **auto)[0]
        assert read == (written if hit else 0)


def test_requests_are_recorded_without_the_key():
    api = FakeMessagesAPI()
    with api.client(api_key="sk-secret") as client:
        client.messages.create(**ASK)
        client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
    one, two = api.requests
    assert one.body == ASK
    assert (one.path, two.path) == ("/v1/messages", "/v1/messages/count_tokens")
    assert one.headers["anthropic-version"] == "2026-10-21"
    assert one.reply["content"][0]["type"] == "text"
    assert "sk-secret" not in repr([(each, each.headers, each.body) for each in api.requests])
    assert "Hello there" not in repr(api.requests)


HISTORY = [user("One"), reply("Two"), user([text("Three")])]


def send_twice(first, second, **more):
    api = FakeMessagesAPI()
    with api.client() as client:
        client.messages.create(**ASK | {"messages": first, "system": "S", "tools": []})
        client.messages.create(**ASK | {"messages": second, "system": "S", "tools": []} | more)
    return api


@pytest.mark.parametrize(
    "second",
    [
        HISTORY,
        [*HISTORY, reply("Four"), user("Five")],
        [user([text("One", cache_control={"type": "ephemeral"})]), *HISTORY[1:]],
    ],
)
def test_what_extends_passes(second):
    send_twice(HISTORY, second).assert_extends()


@pytest.mark.parametrize(
    ("second", "more", "path"),
    [
        (HISTORY[:1], {}, "messages.1"),
        ([user("One!"), *HISTORY[1:]], {}, "messages.0"),
        ([HISTORY[0], reply("Two "), HISTORY[2]], {}, "messages.1"),
        ([*HISTORY[:2], user([text("Three"), text("more")])], {}, "messages.2"),
        (HISTORY, {"system": "T"}, "system"),
        (HISTORY, {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}, "tools"),
    ],
)
def test_what_does_not_extend_is_named(second, more, path):
    api = send_twice(HISTORY, second, **more)
    with pytest.raises(AssertionError, match=rf"request 1 does not extend request 0: {path}$"):
        api.assert_extends()
    api.assert_extends(api.requests[:1])


def test_the_order_of_keys_in_a_tool_s_input_counts():
    def after(given):
        return [user(), reply([call(input=given)]), user([result()])]

    with pytest.raises(AssertionError, match=r"messages\.1"):
        send_twice(after({"a": 1, "b": 2}), after({"b": 2, "a": 1})).assert_extends()


def test_a_tool_s_input_that_is_called_like_a_marker_counts():
    def after(given):
        return [user(), reply([call(input=given)]), user([result()])]

    with pytest.raises(AssertionError, match=r"messages\.1"):
        send_twice(after({"cache_control": 1}), after({"cache_control": 2})).assert_extends()


def test_failures_and_counts_do_not_count_as_answered():
    api = FakeMessagesAPI(reply=["one", Failure(500), "two"])
    with api.client() as client:
        client.messages.create(**ASK)
        with pytest.raises(anthropic.InternalServerError):
            client.messages.create(**ASK | {"messages": [user("other")]})
        client.messages.count_tokens(model=MODEL, messages=[user("other")])
        client.messages.create(**ASK)
    api.assert_extends()


def test_clients_see_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "sk-secret")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-leak: yes\nanthropic-version: 1")
    api = FakeMessagesAPI()
    with api.client() as client:
        assert (client.api_key, client.auth_token, client.max_retries) == ("fake", None, 0)
        client.messages.create(**ASK)

    async def run():
        async with api.async_client(default_headers={"x-mine": "1"}) as client:
            await client.messages.create(**ASK)

    asyncio.run(run())
    assert [("x-leak" in each.headers, each.headers.get("x-mine")) for each in api.requests] == [
        (False, None),
        (False, "1"),
    ]


def test_many_threads_get_the_replies_of_a_list_once_each():
    def replies():  # a generator, and a slow one: two threads in it at once are an error
        for number in range(80):
            time.sleep(0.0005)
            yield str(number)

    api = FakeMessagesAPI(reply=replies())
    heard = []

    def ask():
        heard.extend(client.messages.create(**ASK).content[0].text for _ in range(10))

    with api.client() as client:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(heard, key=int) == [str(number) for number in range(80)]
    assert len(api.requests) == 80
    assert all(request.status == 200 for request in api.requests)


def test_importing_brings_neither_the_sdk_nor_pytest():
    code = (
        "import sys, chathistory.testing.fake_api, chathistory.testing.fake_api.http_server\n"
        "print([name for name in ('anthropic', 'httpx2', 'pydantic', 'pytest') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"


def test_the_request_may_come_from_any_client():
    with FakeMessagesAPI().serve() as url, httpx2.Client(trust_env=False) as client:
        answer = client.post(
            f"{url}/v1/messages", headers={"x-api-key": "k", "anthropic-version": "2023-06-01"}, json=body()
        )
    assert answer.json()["content"][0]["text"].startswith("[fake reply, no model]")
    assert answer.headers["request-id"].startswith("req_")
