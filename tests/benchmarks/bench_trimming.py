"""What cuts cost: the prompt cache over a long chat, requests that the API would refuse, and the view after a cut.

A chat of 300 turns with tools and thinking runs through the engine with a budget of 50,000 tokens. The fake API
simulates the prompt cache and signs thinking. It is compared with a window that slides with each turn, cut correctly by
the same engine, and with the same chat without cuts, whose requests are sent again as a slice of the list, or
`trim_messages` of langchain-core, would leave them. Cache shares (of the requests that were answered) and refusals are
the same in every run; only the last part measures time. It takes some minutes. For fewer turns: `bench_trimming.py 60`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "trimming"))

from trimming_costs import (
    CountingStore,
    Message,
    RequestCosts,
    estimate_tokens,
    open_without_cache,
    replay_requests,
    run_long_chat,
    store_long_chat,
)

from chathistory import open_store
from chathistory.trimming import LastTurns, TokenBudget

HIGH, LOW = 50_000, 25_000
WINDOW = 45  # turns: about as many tokens as the budget leaves on average
SLICE = 40  # messages
STORED, KEPT = 10_000, 200
ROUNDS = 7


def print_costs(name: str, costs: RequestCosts) -> None:
    refused = ", ".join(f"{count} x {rule}" for rule, count in costs.refused.most_common()) or "none"
    share = f"{costs.share:6.1%} of input from the cache ({costs.at_turns:.1%} where a turn begins)"
    print(f"{name:34} {costs.requests:4} requests, largest {costs.largest:7,} tokens, {share}; refused: {refused}")


def measure_caching(turns: int) -> None:
    print(f"{turns} turns with tools and thinking:")
    print_costs(
        f"TokenBudget({HIGH}, {LOW})", RequestCosts.from_requests(run_long_chat(turns, TokenBudget(HIGH, LOW)).requests)
    )
    print_costs(
        f"a window of {WINDOW} turns that slides",
        RequestCosts.from_requests(run_long_chat(turns, LastTurns(WINDOW, WINDOW)).requests),
    )
    whole = run_long_chat(turns).requests
    print_costs("never cut", RequestCosts.from_requests(whole))
    print("the requests of the chat without cuts, sent again as others would cut them:")
    for name, cut in others().items():
        print_costs(name, replay_requests(whole, cut))


def others() -> dict[str, Callable[[list[Message]], list[Message]]]:
    """Return the ways in which others cut a list of messages, by name."""
    found = {f"messages[-{SLICE}:]": lambda messages: messages[-SLICE:]}
    try:
        from langchain_core.messages import trim_messages  # optional, and used only here
    except ImportError:
        print("(langchain-core is not installed, so trim_messages is not measured; see requirements-peers.txt)")
        return found

    def last(messages: list[Message], **options: object) -> list[Message]:
        return as_ours(trim_messages(as_theirs(messages), strategy="last", **options))

    def tokens(messages: list) -> int:
        return sum(estimate_tokens(message.additional_kwargs["ours"]) for message in messages)

    return found | {
        "trim_messages, 40 messages": lambda each: last(each, token_counter=len, max_tokens=SLICE),
        "... from a human message on": lambda each: last(
            each, token_counter=len, max_tokens=SLICE, start_on="human", end_on=("human", "tool")
        ),
        "... of 50,000 tokens": lambda each: last(
            each, token_counter=tokens, max_tokens=HIGH, start_on="human", end_on=("human", "tool")
        ),
    }


def as_theirs(messages: list[Message]) -> list:
    """Return messages as langchain-core has them, where each tool result is a separate message."""
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    theirs: list = []
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant":
            calls = [
                {"name": block["name"], "args": block["input"], "id": block["id"]}
                for block in content
                if block["type"] == "tool_use"
            ]
            theirs.append(AIMessage(content, tool_calls=calls, additional_kwargs={"ours": message}))
        elif isinstance(content, str):
            theirs.append(HumanMessage(content, additional_kwargs={"ours": message}))
        else:
            theirs += [
                ToolMessage(
                    block["content"],
                    tool_call_id=block["tool_use_id"],
                    additional_kwargs={"ours": {"role": "user", "content": [block]}},
                )
                for block in content
            ]
    return theirs


def as_ours(messages: list) -> list[Message]:
    """Return messages as the API takes them, with the tool results of a turn in one message again."""
    ours: list[Message] = []
    for message in messages:
        made = message.additional_kwargs["ours"]
        if message.type == "tool" and ours and isinstance(ours[-1]["content"], list) and ours[-1]["role"] == "user":
            ours[-1] = {"role": "user", "content": [*ours[-1]["content"], *made["content"]]}
        else:
            ours.append(made)
    return ours


def measure_views() -> None:
    """Print what `messages()` costs a fresh process in a long conversation with a cut near its end."""
    with CountingStore() as store:
        for name, stored in (("cut", STORED), ("short", KEPT)):
            store_long_chat(store, stored, kept=KEPT, name=name)
            store.reads.clear()
            chat = open_without_cache(store, name)
            cold, counts = len(chat.messages()), list(store.reads)
            store.reads.clear()
            chat.messages()
            print(f"{stored:6} messages stored, {cold} sent: reads of {counts} records; again, of {store.reads}")
    with tempfile.TemporaryDirectory() as folder, open_store(f"file:{folder}") as files:
        names = {"cut": STORED, "short": KEPT, "whole": STORED}
        for name, stored in names.items():
            store_long_chat(files, stored, kept=stored if name == "whole" else KEPT, name=name)
        cut, short, whole = (cold_time(files, name) for name in names)
    print(f"messages() in a fresh process, file store: {cut * 1000:.2f} ms after a cut")
    print(f"   {cut / short:.2f} x of a conversation of only these {KEPT} messages ({short * 1000:.2f} ms)")
    print(f"   {cut / whole:.3f} x of {STORED} messages without a cut ({whole * 1000:.1f} ms)")


def cold_time(store: object, name: str) -> float:
    durations = []
    for _ in range(ROUNDS):
        chat = open_without_cache(store, name)
        begin = time.perf_counter()
        chat.messages()
        durations.append(time.perf_counter() - begin)
    return statistics.median(durations)


def main() -> None:
    measure_caching(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
    measure_views()


if __name__ == "__main__":
    main()
