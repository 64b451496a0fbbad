"""The fixtures, as somebody's conftest takes them."""

from __future__ import annotations

import anthropic

from chathistory.testing.fixtures import messages_api, messages_api_url  # noqa: F401  # this is how they come in

ASK = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


def test_in_this_process(messages_api):  # noqa: F811
    assert "You said: hello" in messages_api.client().messages.create(**ASK).content[0].text


def test_as_a_server(messages_api, messages_api_url):  # noqa: F811
    with anthropic.Anthropic(base_url=messages_api_url, api_key="x") as client:
        client.messages.create(**ASK)
    assert [request.body["messages"] for request in messages_api.requests] == [ASK["messages"]]
