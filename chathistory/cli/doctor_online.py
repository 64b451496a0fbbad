"""`chathistory doctor --online`: what the API itself refuses of a conversation, found by counting tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chathistory.cli.responder import voice_of
from chathistory.cli.target import Place
from chathistory.conversation import Conversation
from chathistory.engine.chat import ChatEngine
from chathistory.engine.from_config import STAND_IN
from chathistory.engine.refusals import Refusal
from chathistory.history import History
from chathistory.view import ViewRepair
from chathistory.view.item import ADDED

__all__ = ["Check", "checking"]

Check = Callable[[Conversation, bool], tuple[ViewRepair, ...]]
"""Asks the API about a conversation and returns what it refuses; with True, that is left out from then on."""

_MOST = 50  # places that are left out of one conversation at most


@contextmanager
def checking(place: Place, history: History) -> Iterator[Check]:
    """Give a function that asks about conversations of this history. Raises `NoKey`."""
    settings = place.settings
    voice = voice_of(settings.given("model"), stand_in=settings.stand_in)

    def check(conversation: Conversation, write: bool) -> tuple[ViewRepair, ...]:  # noqa: FBT001 - a callback of ours
        held = conversation.setup() or {}
        before = None if held.get("model") == STAND_IN else held.get("model")
        engine = ChatEngine(
            voice.client,
            history,
            model=voice.model or before or settings.model,
            system=held.get("system"),
            tools=held.get("tools"),
            max_tokens=settings.max_tokens,
        )
        return tuple(_found(engine, conversation, write=write))

    with voice.client:
        yield check


def _found(engine: ChatEngine, conversation: Conversation, *, write: bool) -> Iterator[ViewRepair]:
    for _ in range(_MOST):
        refusal = engine.check(conversation.id, scope=conversation.scope)
        if refusal is None:
            return
        yield from _told(refusal)
        if not write or refusal.sort == "size" or not refusal.places:
            return
        for each in refusal.places:
            conversation.leave_out(each.position, block=each.block)


def _told(refusal: Refusal) -> Iterator[ViewRepair]:
    if refusal.sort == "size" or not refusal.places:
        yield ViewRepair(ADDED, f"the API refuses it: {refusal.why}; `chathistory trim` makes it shorter")
    for each in refusal.places if refusal.sort != "size" else ():
        block = "" if each.block is None else f" block {each.block}"
        yield ViewRepair(each.position, f"left out: the API refuses{block or ' it'}: {refusal.why}")
