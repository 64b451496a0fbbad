"""Keys, safe names, cursors, guards, and errors that are pickled."""

from __future__ import annotations

import copy
import pickle
import re
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chathistory import Head, Key, Revision, errors
from chathistory.errors import InvalidInput, StoreClosed
from chathistory.storage.base_store import OpenGuard
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.storage.safe_names import safe_name

KEY = Key("s", "c")
HEAD = Head(KEY, 0, 3, Revision("v", 5, None, "SECRET"))
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=255)


@given(NAMES, NAMES)
def test_safe_names_are_safe_and_unique(one, two):
    for text in (one, two):
        name = safe_name(text)
        assert re.fullmatch(r"[a-z0-9_=][a-z0-9_=.~-]{0,119}", name)
        assert not name.endswith(".")
        assert name == safe_name(text)
    assert (safe_name(one) == safe_name(two)) == (one == two)


@pytest.mark.parametrize(
    "text", [".", "..", "con", "CON", "con.txt", "nul", "com1", "lpt9.x", "-rf", "a.", "a/b", "a\\b", "~", "=41", "A"]
)
def test_names_with_a_special_meaning_are_escaped(text):
    name = safe_name(text)
    assert name != text.lower()
    assert "=" in name


def test_long_names_that_share_their_beginning_differ():
    names = {safe_name("a" * 200 + end) for end in ("", "a", "b", "B")} | {safe_name("a" * 119), safe_name("a" * 120)}
    assert len(names) == 6
    assert max(map(len, names)) <= 120


@given(st.integers(0, 2**53 - 1), NAMES)
def test_a_cursor_is_decoded_to_its_sort_key(updated, name):
    cursor = encode_cursor(Head(Key("s", name), 0, 1, Revision("v", updated)))
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert decode_cursor(cursor) == (updated, name)


@given(st.text(max_size=40))
def test_any_text_is_decoded_as_a_cursor_or_refused(text):
    try:
        updated, name = decode_cursor(text)
    except InvalidInput:
        return
    assert type(updated) is int
    assert isinstance(name, str)


@given(st.text(max_size=300))
def test_a_key_accepts_only_valid_names(text):
    fine = 1 <= len(text) <= 255 and not any(unicodedata.category(char) in ("Cc", "Cs") for char in text)
    if fine:
        assert Key(text, text).id == text
    else:
        for arguments in ((text, "x"), ("x", text)):
            with pytest.raises(InvalidInput) as refused:
                Key(*arguments)
            assert len(str(refused.value)) < 200


def test_an_open_guard_closes_once():
    guard = OpenGuard()
    guard.check()
    assert (guard.close(), guard.close()) == (True, False)
    with pytest.raises(StoreClosed):
        guard.check()


ERRORS = [
    errors.ConfigError("x"),
    errors.PluginError("x"),
    errors.InvalidInput("x"),
    errors.Conflict(KEY, HEAD),
    errors.Conflict(KEY, None),
    errors.ConversationChanged(KEY, HEAD),
    errors.ConversationExists(KEY),
    errors.ConversationNotFound(KEY),
    errors.OrphanedReply(KEY, HEAD),
    errors.OutcomeUnknown(KEY, None),
    errors.UnsupportedRecord(KEY, 3, 2),
    errors.TurnError("x"),
    errors.TurnInProgress(KEY, "turn", datetime(2026, 1, 1, tzinfo=UTC)),
    errors.TurnMismatch("x"),
    errors.TurnRefused("x"),
    errors.TurnTooLarge(9, 5),
    errors.IncompleteReply("x"),
    errors.StoreError("x"),
    errors.StoreUnavailable("x", outcome="not stored"),
    errors.StoreUnavailable("x"),
    errors.StoreRejected("x"),
    errors.StoreClosed("x"),
    errors.CorruptRecord(KEY, 3, "x"),
    errors.CorruptRecord(KEY, None, "x"),
    errors.CorruptRecord(None, None, "x"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled_and_copied(error):
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert other.__dict__ == error.__dict__
    assert "SECRET" not in f"{error} {error!r}"


def test_every_error_is_tested_here_and_named_in_the_tree():
    assert {type(error).__name__ for error in ERRORS} | {"ChatHistoryError"} == set(errors.__all__)
    for name in errors.__all__:
        assert re.search(rf"\b{name}\b", errors.__doc__)
        assert issubclass(getattr(errors, name), errors.ChatHistoryError)


def test_an_outcome_unknown_does_not_claim_that_nothing_was_stored():
    assert "nothing was stored" not in str(errors.OutcomeUnknown(KEY, HEAD))
