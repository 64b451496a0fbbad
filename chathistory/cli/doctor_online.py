"""`chathistory doctor --online`: what the API itself refuses of a conversation, found by counting tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chathistory.cli.responder import make_responder
from chathistory.cli.target import Place
from chathistory.conversation import Conversation
from chathistory.engine.chat import ChatEngine
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
    responder = make_responder(settings)

    def check(conversation: Conversation, write: bool) -> tuple[ViewRepair, ...]:  # noqa: FBT001 - a callback of ours
        setup = conversation.setup() or {}
        engine = ChatEngine(
            responder.client,
            history,
            model=responder.choose_model(setup),
            system=setup.get("system"),
            tools=setup.get("tools"),
            max_tokens=settings.max_tokens,
        )
        return tuple(_found(engine, conversation, write=write))

    with responder.client:
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
