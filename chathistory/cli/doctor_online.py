"""`chathistory doctor --online`: what the API itself refuses of a conversation, found by counting tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chathistory.cli.responder import make_responder
from chathistory.config.settings import Settings
from chathistory.engine.chat import ChatEngine
from chathistory.history import History
from chathistory.storage.values import Key
from chathistory.view import ViewRepair
from chathistory.view.item import ADDED

__all__ = ["Check", "start_asking"]

Check = Callable[[History, Key, bool], list[ViewRepair]]
"""Asks the API about a conversation and returns what it refuses; with True, that is left out from then on."""

_MOST = 50  # places that are left out of one conversation at most


@contextmanager
def start_asking(settings: Settings) -> Iterator[Check]:
    """Give a function that asks about conversations. Raises `NoKey`."""
    responder = make_responder(settings)

    def ask(history: History, key: Key, repair: bool) -> list[ViewRepair]:  # noqa: FBT001 - a callback of ours
        conversation = history.conversation(key.id, scope=key.scope)
        setup = conversation.setup() or {}
        engine = ChatEngine(
            responder.client,
            history,
            model=responder.choose_model(setup),
            system=setup.get("system"),
            tools=setup.get("tools"),
            max_tokens=settings.max_tokens,
        )
        found: list[ViewRepair] = []
        for _ in range(_MOST):
            refusal = engine.check(key.id, scope=key.scope)
            if refusal is None:
                break
            if refusal.sort == "size" or not refusal.places:
                words = f"the API refuses it: {refusal.why}; `chathistory trim` makes it shorter"
                return [*found, ViewRepair(ADDED, words)]
            for place in refusal.places:
                block = "it" if place.block is None else f"block {place.block}"
                found.append(ViewRepair(place.position, f"left out: the API refuses {block}: {refusal.why}"))
                if repair:
                    conversation.leave_out(place.position, block=place.block)
            if not repair:
                break
        return found

    with responder.client:
        yield ask
