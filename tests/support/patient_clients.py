"""Clients of the SDK whose time-outs never fire, except for a read after an answer of the fake API has paused."""

from __future__ import annotations

import asyncio

import anthropic

from chathistory.testing.fake_api import Paused

__all__ = ["PATIENT", "open_async_client", "open_client"]

PATIENT = {"api_key": "x", "max_retries": 0, "timeout": 600.0}


def open_client(address: str, answer: object = None) -> anthropic.Anthropic:
    """Return a client for a fake API on a socket.

    If the answer is `Paused`, the read timeout is shortened once all has been sent that is ever sent.
    """

    def shorten_read_timeout(response):
        assert answer.reached.wait(600)
        response.request.extensions["timeout"]["read"] = 0.1

    hooks = {"response": [shorten_read_timeout]} if isinstance(answer, Paused) else {}
    return anthropic.Anthropic(base_url=address, http_client=anthropic.DefaultHttpxClient(event_hooks=hooks), **PATIENT)


def open_async_client(address: str, answer: object = None) -> anthropic.AsyncAnthropic:
    """Return the same for asyncio. Its short timeout is long enough for a step of the event loop."""

    async def shorten_read_timeout(response):
        assert await asyncio.to_thread(answer.reached.wait, 100)
        response.request.extensions["timeout"]["read"] = 2.0

    hooks = {"response": [shorten_read_timeout]} if isinstance(answer, Paused) else {}
    return anthropic.AsyncAnthropic(
        base_url=address, http_client=anthropic.DefaultAsyncHttpxClient(event_hooks=hooks), **PATIENT
    )
