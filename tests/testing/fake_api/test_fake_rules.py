"""Each rule refuses its bad examples and accepts similar good ones, with the real SDK and every transport."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random

import anthropic
import context_rule_examples
import pytest
from anthropic import Omit
from rule_examples import EXAMPLES, LOCATION, MODEL, Req, body, call, result, text, user

from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import RULES

CONTROLS = "thinking-binding-controls-2026-08-01"
SUMMARIES = "compact-2026-09-04"
SOURCES = ("docs", "sdk", "issue", "probe", "memory", "guess")
CODED = {
    "compaction_block_ambiguous": anthropic.types.CompactionBlockAmbiguousError,
    "compaction_block_misplaced": anthropic.types.CompactionBlockMisplacedError,
    "compaction_content_mismatch": anthropic.types.CompactionContentMismatchError,
    "compaction_incomplete_turn": anthropic.types.CompactionIncompleteTurnError,
    "compaction_nothing_to_summarize": anthropic.types.CompactionNothingToSummarizeError,
    "compaction_signature_invalid": anthropic.types.CompactionSignatureInvalidError,
    "compaction_tool_changes_mismatch": anthropic.types.CompactionToolChangesMismatchError,
    "image_dimensions_too_large": anthropic.types.ImageDimensionsTooLargeError,
    "file_expired": anthropic.types.FileExpiredError,
}
ERRORS = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    404: anthropic.NotFoundError,
    413: anthropic.RequestTooLargeError,
}


def send_request(client, req):
    headers = {name: Omit() if value is None else value for name, value in req.headers.items()}
    sent = {"content-type": "application/json", **headers}
    return client.post(req.path, cast_to=dict[str, object], content=req.content(), options={"headers": sent})


def names(example):
    return f"{example.rule}: {example.text[:30]}"


def check_refusal(example, error, api):
    rule = next(rule for rule in RULES if rule.name == example.rule)
    assert type(error) is CODED.get(rule.code, ERRORS[rule.status])
    assert (error.type, error.error_code) == (rule.type, rule.code)
    assert example.text in error.api_message
    assert error.body["type"] == "error"
    assert error.request_id == api.requests[-1].request_id == error.body["request_id"]
    assert api.requests[-1].rule == example.rule
    assert api.requests[-1].status == rule.status


@pytest.mark.parametrize("example", EXAMPLES, ids=names)
def test_a_rule_refuses_its_bad_example_and_passes_the_neighbour(example):
    api = example.api(example.bad)
    with api.client() as client, pytest.raises(anthropic.APIStatusError) as caught:
        send_request(client, example.bad)
    check_refusal(example, caught.value, api)
    passing = example.api(example.good)
    with passing.client() as client:
        assert send_request(client, example.good)
    assert (passing.requests[-1].status, passing.requests[-1].rule) == (200, None)


SMALL = [example for example in EXAMPLES if example.rule not in {"body too large", "too many messages"}]


def test_the_asynchronous_client_sees_the_same():
    async def run():
        for example in SMALL:
            api = example.api(example.bad)
            async with api.async_client() as client:
                with pytest.raises(anthropic.APIStatusError) as caught:
                    await send_request(client, example.bad)
            check_refusal(example, caught.value, api)

    asyncio.run(run())


def test_a_socket_shows_the_same():
    apis = {strict: FakeMessagesAPI(strict_first_role=strict) for strict in (False, True)}
    with contextlib.ExitStack() as stack:
        urls = {strict: stack.enter_context(api.serve()) for strict, api in apis.items()}
        clients = {
            strict: stack.enter_context(anthropic.Anthropic(base_url=url, api_key="x", max_retries=0))
            for strict, url in urls.items()
        }
        for example in SMALL:
            if example.before is None and not example.options:  # the others need a fake of their own
                with pytest.raises(anthropic.APIStatusError) as caught:
                    send_request(clients[example.bad.strict], example.bad)
                check_refusal(example, caught.value, apis[example.bad.strict])
                assert send_request(clients[example.good.strict], example.good)


def test_a_body_that_is_too_large_is_read_to_its_end_before_it_is_refused():
    (example,) = (each for each in EXAMPLES if each.rule == "body too large")
    api = FakeMessagesAPI()
    with api.serve() as url, anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
        with pytest.raises(anthropic.RequestTooLargeError):
            send_request(client, example.bad)
        assert send_request(client, Req(body()))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_has_an_example_and_a_source(rule):
    assert rule.name in {example.rule for example in EXAMPLES}
    assert rule.source.startswith(SOURCES)


def test_rules_have_names_of_their_own():
    assert len({rule.name for rule in RULES}) == len(RULES)


def _countable(example):
    """Whether an example is about something that both endpoints have: counting makes no summary."""
    if example.rule in context_rule_examples.OF_SUMMARIES or example.rule in ("prompt too long", "container gone"):
        return False
    alone = example.bad.raw is None and example.bad.path == example.good.path and isinstance(example.bad.body, dict)
    return alone and not any(name in example.text for name in ("max_tokens", "stream"))


@pytest.mark.parametrize("example", [each for each in SMALL if _countable(each)], ids=names)
def test_counting_tokens_asks_the_same_rules(example):
    api = example.api(example.bad)
    shared = {name: value for name, value in example.bad.body.items() if name != "max_tokens"}
    with api.client() as client, pytest.raises(anthropic.APIStatusError) as caught:
        send_request(client, Req(shared, example.bad.headers, path="/v1/messages/count_tokens"))
    check_refusal(example, caught.value, api)


@pytest.mark.parametrize(("seed", "count"), [(7, 600), pytest.param(8, 4000, marks=pytest.mark.wide)])
def test_no_body_whatever_makes_the_fake_api_fall_over(seed, count):
    """Values of all kinds, put in all places of a rich request, are answered or refused, never a 500."""
    rng = random.Random(seed)
    values = [None, True, 0, -1, 1.5, "", "x", [], {}, [None], [[]], {"type": "text"}, {"type": []}, "a.b"]
    api = FakeMessagesAPI(smallest_trigger=1)
    betas = {"anthropic-beta": f"{CONTROLS},context-management-2025-06-27,compact-2026-01-12,{SUMMARIES}"}
    with api.client() as client:
        for number in range(count):
            rich = _rich(summary=bool(number % 2))
            for _ in range(rng.randrange(1, 3)):
                holder, key = rng.choice(list(_holders(rich)))
                holder[key] = copy.deepcopy(rng.choice(values))
            try:
                send_request(client, Req(rich, betas))
            except anthropic.APIStatusError as error:
                assert error.status_code in (400, 404)  # noqa: PT017
    assert {request.status for request in api.requests} == {200, 400, 404}


def _rich(*, summary):
    marked = text(cache_control={"type": "ephemeral", "ttl": "5m"}, citations=[])
    pages = {"type": "document", "source": {"type": "content", "content": [text()]}}
    uses = {"type": "tool_uses", "value": 0}
    amount = {"type": "input_tokens", "value": 1}
    clearing = {"type": "clear_tool_uses_20250919", "keep": uses, "trigger": amount, "exclude_tools": ["g"]}
    thoughts = {"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 1}}
    more = {"compaction": {"type": "summarize"}} if summary else {"context_management": {"edits": [thoughts, clearing]}}
    block = context_rule_examples.BLOCK if summary else {"type": "compaction", "content": None}
    return body(
        {"role": "assistant", "content": [copy.deepcopy(block)]},
        user([marked, pages]),
        {"role": "assistant", "content": [call(caller={"type": "direct"}), text(citations=[dict(LOCATION)])]},
        user([result(content=[text(), {"type": "tool_reference", "tool_name": "f"}], is_error=False)]),
        {"role": "system", "content": "Be brief"},
        system=[text()],
        tools=[{"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        thinking={"type": "adaptive"},
        output_config={"effort": "low"},
        tool_choice={"type": "auto"},
        stream=False,
        **more,
    )


def _holders(value):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _holders(inner)


def test_a_model_named_by_the_caller_is_served_as_a_new_one():
    api = FakeMessagesAPI(models=["claude-next"])
    with api.client() as client:
        assert client.messages.create(model="claude-next", max_tokens=9, messages=[user()]).model == "claude-next"
        with pytest.raises(anthropic.BadRequestError, match="prefill"):
            send_request(client, Req(body(user(), {"role": "assistant", "content": "x"}, model="claude-next")))


def test_other_addresses_are_not_found():
    api = FakeMessagesAPI()
    with api.client() as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.models.retrieve(MODEL)
        assert caught.value.type == "not_found_error"
        with pytest.raises(anthropic.NotFoundError):
            client.get("/v1/messages", cast_to=dict[str, object])
