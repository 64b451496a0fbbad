"""A program that names no backend: it sends messages and prints what it reads. The configuration names the store."""

import asyncio
import json
import sys

from chathistory import AsyncChatEngine, ChatEngine, open_history


async def more() -> str:
    async with AsyncChatEngine.from_config() as engine:
        return (await engine.send("support/42", "And what did I say?")).text


with ChatEngine.from_config() as engine:
    first = engine.send("support/42", "Hello Claude").text
    second = asyncio.run(more())
    with open_history() as history:
        [row] = history.list().items
        chat = history.conversation("support/42")
        output = {
            "replies": [first, second],
            "scope": row.scope,
            "messages": row.messages,
            "last": chat.last_messages(1),
        }
sys.stdout.write(json.dumps(output))
