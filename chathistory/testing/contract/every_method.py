"""Every method of a store as a call, for requirements that all methods share."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Mapping

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head
from chathistory.testing.contract.run_threads import HANG_SECONDS
from chathistory.testing.contract.samples import KEY, MARKER, make_revision

__all__ = ["CALLS", "Call", "catch_error", "check_no_message_text"]

Call = Callable[[HistoryStore], object]


def _create_conversation(store: HistoryStore) -> object:
    return store.append(KEY, [MARKER], after=None, revision=make_revision(payload=MARKER))


def _append_after_unknown_head(store: HistoryStore) -> object:
    return store.append(KEY, [MARKER], after=Head(KEY, 0, 1, make_revision()), revision=make_revision(payload=MARKER))


CALLS: Mapping[str, Call] = {
    "append, to create": _create_conversation,
    "append": _append_after_unknown_head,
    "read": lambda store: store.read(KEY),
    "read a tail": lambda store: store.read(KEY, start=-1),
    "heads": lambda store: store.heads(KEY.scope),
    "keys": lambda store: list(store.keys()),
    "keys of a scope": lambda store: list(store.keys(KEY.scope)),
    "forget": lambda store: store.forget(KEY, before=1),
    "delete": lambda store: store.delete(KEY),
    "delete a version": lambda store: store.delete(KEY, version="x"),
    "check": lambda store: store.check(),
    "scan keys": lambda store: list(store.scan_keys()),
    "scan keys of a scope": lambda store: list(store.scan_keys(KEY.scope)),
    "remove leftovers": lambda store: store.remove_leftovers(KEY.scope),
}


def catch_error(call: Callable[[], object], *, seconds: float = HANG_SECONDS) -> BaseException | None:
    """Return what the call raises, or None if it returns; fails if it takes longer than `seconds`."""
    raised: list[BaseException] = []
    thread = threading.Thread(target=_call_and_catch, args=(call, raised), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"the call did not return within {seconds} seconds"
    return raised[0] if raised else None


def _call_and_catch(call: Callable[[], object], raised: list[BaseException]) -> None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # any error is checked by the caller
        raised.append(error)


def check_no_message_text(error: BaseException) -> None:
    """Check that neither the error nor any of its causes shows message text."""
    for link in _walk_causes(error, set()):
        for text in (str(link), repr(link), repr(link.args)):
            assert MARKER not in text, f"{type(link).__name__} shows message text in str, repr or args"
    printed = "".join(traceback.format_exception(error))
    assert MARKER not in printed, f"the traceback of {type(error).__name__} shows message text"


def _walk_causes(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    yield from _walk_causes(error.__cause__, seen)
    yield from _walk_causes(error.__context__, seen)
