"""Guarantee 11, errors are ours: our exceptions, with the client library's as the cause, and never message text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest

from chathistory.errors import Conflict, InvalidInput, StoreRejected, StoreUnavailable
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Page
from chathistory.testing.contract.base_test_class import ContractTest, skip_unless
from chathistory.testing.contract.every_method import CALLS, catch_error, check_no_message_text
from chathistory.testing.contract.samples import KEY, MARKER, make_revision

__all__ = ["NoMessageText", "UnreachableStore", "WrongArguments"]


class UnreachableStore(ContractTest, guarantee=11):
    """A store that cannot be reached raises our errors, in time."""

    @pytest.mark.parametrize("name", CALLS)
    def test_an_unreachable_store_raises_store_unavailable_or_rejected(self, store: HistoryStore, name: str) -> None:
        skip_unless(store.traits.shared or store.traits.durable, "neither shared nor durable")
        with closing(self.unreachable_store()) as unreachable:
            error = catch_error(partial(CALLS[name], unreachable))
        assert isinstance(error, StoreUnavailable | StoreRejected), (
            f"{name} of an unreachable store gave {error!r}; expected StoreUnavailable or StoreRejected"
        )
        assert error.__cause__ is not None, (
            f"{name} of an unreachable store: the error has no __cause__; raise it from the client library's error"
        )
        assert not isinstance(error, StoreUnavailable) or error.outcome in {"not stored", "unknown"}
        check_no_message_text(error)

    def test_invalid_input_is_refused_before_the_backend_is_reached(self, store: HistoryStore) -> None:
        skip_unless(store.traits.shared or store.traits.durable, "neither shared nor durable")
        with closing(self.unreachable_store()) as unreachable, pytest.raises(InvalidInput):
            unreachable.append(KEY, ["a\nb"], after=None, revision=make_revision())

    def test_an_unreachable_store_can_be_closed(self, store: HistoryStore) -> None:
        skip_unless(store.traits.shared or store.traits.durable, "neither shared nor durable")
        unreachable = self.unreachable_store()
        catch_error(partial(CALLS["read"], unreachable))
        unreachable.close()
        unreachable.close()


_WITH_KEY: dict[str, Callable[[HistoryStore, Any], object]] = {
    "append": lambda store, key: store.append(key, ["a"], after=None, revision=make_revision()),
    "read": lambda store, key: store.read(key),
    "forget": lambda store, key: store.forget(key, before=1),
    "delete": lambda store, key: store.delete(key),
}
_WITH_SCOPE: dict[str, Callable[[HistoryStore, Any], object]] = {
    "heads": lambda store, scope: store.heads(scope),
    "keys": lambda store, scope: list(store.keys(scope)),
    "scan_keys": lambda store, scope: list(store.scan_keys(scope)),
    "damaged_keys": lambda store, scope: list(store.damaged_keys(scope)),
    "remove_leftovers": lambda store, scope: store.remove_leftovers(scope),
}


class WrongArguments(ContractTest, guarantee=11):
    """An argument of the wrong type is InvalidInput, and the message names the argument."""

    @pytest.mark.parametrize("name", _WITH_KEY)
    @pytest.mark.parametrize("key", ["scope/conversation", ("scope", "conversation"), None])
    def test_an_argument_that_is_not_a_key_is_refused(self, store: HistoryStore, name: str, key: object) -> None:
        with pytest.raises(InvalidInput, match="key"):
            _WITH_KEY[name](store, key)

    @pytest.mark.parametrize("name", _WITH_SCOPE)
    @pytest.mark.parametrize("scope", [KEY, 7, b"scope"], ids=["a key", "a number", "bytes"])
    def test_an_argument_that_is_not_a_scope_is_refused(self, store: HistoryStore, name: str, scope: object) -> None:
        with pytest.raises(InvalidInput, match="scope"):
            _WITH_SCOPE[name](store, scope)


_REFUSED: dict[str, tuple[list[Any], str]] = {
    "line break": ([f"{MARKER}\n"], ""),
    "control character": ([f"{MARKER}\0"], ""),
    "lone surrogate": ([f"{MARKER}\ud800"], ""),
    "bytes": ([MARKER.encode()], ""),
    "dict": ([{MARKER: MARKER}], ""),
    "info of two lines": (["a"], f"{MARKER}\n"),
    "info with a lone surrogate": (["a"], f"{MARKER}\udfff"),
}


class NoMessageText(ContractTest, guarantee=11):
    """Message text never appears in an error, a repr or a log line."""

    @pytest.mark.parametrize(("bodies", "payload"), _REFUSED.values(), ids=_REFUSED)
    def test_a_refusal_shows_no_message_text(self, store: HistoryStore, bodies: list[Any], payload: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            store.append(KEY, bodies, after=None, revision=make_revision(payload=payload))
        check_no_message_text(caught.value)

    def test_a_conflict_shows_no_message_text(self, store: HistoryStore) -> None:
        head = store.append(KEY, [MARKER], after=None, revision=make_revision(payload=MARKER))
        store.append(KEY, [MARKER], after=head, revision=make_revision(payload=MARKER))
        for after in (None, head):
            with pytest.raises(Conflict) as caught:
                store.append(KEY, [MARKER], after=after, revision=make_revision(payload=MARKER))
            check_no_message_text(caught.value)
        with pytest.raises(Conflict) as caught:
            store.delete(KEY, version=head.revision.version)
        check_no_message_text(caught.value)

    def test_no_repr_shows_message_text(self, store: HistoryStore) -> None:
        head = store.append(KEY, [MARKER], after=None, revision=make_revision(payload=MARKER))
        run = store.read(KEY)
        page: Page[Any] = store.heads(KEY.scope)
        assert run is not None
        for value in (store, head, run, run.records, run.head, page, list(store.keys())):
            for text in (repr(value), str(value)):
                assert MARKER not in text, f"the repr or str of a {type(value).__name__} shows message text"

    def test_no_log_line_shows_message_text(self, store: HistoryStore) -> None:
        with _capture_logs() as logged:
            head = store.append(KEY, [MARKER], after=None, revision=make_revision(payload=MARKER))
            for after in (head, head, None):
                catch_error(partial(store.append, KEY, [MARKER], after=after, revision=make_revision(payload=MARKER)))
            catch_error(partial(store.append, KEY, [MARKER + "\n"], after=None, revision=make_revision()))
            for call in CALLS.values():
                catch_error(partial(call, store))
        assert not [text for text in logged if MARKER in text], "a log line shows message text"


@contextmanager
def _capture_logs() -> Iterator[list[str]]:
    """Collect log lines: all of our own loggers, and those of client libraries from INFO on."""
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(f"{record.getMessage()} {record.args} {record.exc_info}")  # type: ignore[method-assign]
    loggers = {logging.getLogger(): logging.INFO, logging.getLogger("chathistory"): logging.DEBUG}
    levels = {logger: logger.level for logger in loggers}
    logging.getLogger().addHandler(handler)
    try:
        for logger, level in loggers.items():
            logger.setLevel(level)
        yield logged
    finally:
        logging.getLogger().removeHandler(handler)
        for logger, level in levels.items():
            logger.setLevel(level)
