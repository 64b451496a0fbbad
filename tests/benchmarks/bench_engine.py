"""What the engine adds to a turn, compared with the same call of the SDK, and how long it blocks an event loop.

The API is a fixed answer in this process, so only the work of the SDK and of the engine is measured.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anthropic
import httpx2

from chathistory import AsyncChatEngine, AsyncHistory, ChatEngine, History, open_store

MODEL = "claude-sonnet-5-5"
TEXT = "The quick brown fox jumps over the lazy dog. " * 8
REPLY = {
    "id": "msg_01", "type": "message", "role": "assistant", "model": MODEL, "stop_reason": "end_turn",
    "content": [{"type": "text", "text": TEXT}], "usage": {"input_tokens": 100, "output_tokens": 100},
}  # fmt: skip
ROUNDS = 60


def client() -> anthropic.Anthropic:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=REPLY))
    return anthropic.Anthropic(api_key="k", base_url="http://here", http_client=httpx2.Client(transport=transport))


def async_client() -> anthropic.AsyncAnthropic:
    async def answer(_: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0.05)
        return httpx2.Response(200, json=REPLY)

    made = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return anthropic.AsyncAnthropic(api_key="k", base_url="http://here", http_client=made)


def medians(*works: Callable[[], object]) -> list[float]:
    times: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, durations in zip(works, times, strict=True):
            begin = time.perf_counter()
            work()
            durations.append(time.perf_counter() - begin)
    return [statistics.median(durations) * 1000 for durations in times]


def turns(folder: str, length: int) -> None:
    store = open_store(f"file:{folder}/{length}")
    engine = ChatEngine(client(), store, model=MODEL)
    chat = History(store).conversation("bench")
    messages = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": [{"type": "text", "text": TEXT}]}]
    chat.append(messages * (length // 2))
    raw, fixed = client(), chat.messages()
    messages_sent = [*fixed, {"role": "user", "content": "Hello"}]
    ours, sdk = medians(
        lambda: engine.send("bench", "Hello"),
        lambda: raw.messages.create(model=MODEL, max_tokens=1000, messages=messages_sent),  # type: ignore[arg-type]
    )
    path = next(Path(folder, str(length)).rglob("bench.jsonl"))
    read, cold = medians(
        lambda: [json.loads(line) for line in path.read_text().splitlines()],
        lambda: History(store).conversation("bench").messages(),
    )
    print(f"at {length:>6} messages: {ours:6.2f} ms a turn, the SDK alone {sdk:6.2f}: {ours - sdk:5.2f} ms are ours")
    print(f"   messages() {cold:6.2f} ms, reading and json.loads of the same file {read:6.2f}: {cold / read:.2f} x")


async def event_loop(folder: str) -> None:
    """Run 200 conversations at once and see how late a timer comes: with us, and with the SDK alone."""
    api = async_client()
    async with AsyncHistory(open_store(f"file:{folder}/loop")) as history:
        engine = AsyncChatEngine(api, history, model=MODEL)
        ask = [{"role": "user", "content": "Hello"}]
        alone = await latest([api.messages.create(model=MODEL, max_tokens=9, messages=ask) for _ in range(200)])  # type: ignore[misc]
        ours = await latest([engine.send(f"chat {number}", "Hello") for number in range(200)])
    print(f"200 conversations at once: the loop's latest timer was {ours:.0f} ms late, with the SDK alone {alone:.0f}")


async def latest(works: list) -> float:
    late = [0.0]

    async def watch() -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - begin - 0.001)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*works)
    watching.cancel()
    return max(late) * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for length in (10, 1_000):
            turns(folder, length)
        asyncio.run(event_loop(folder))


if __name__ == "__main__":
    main()
