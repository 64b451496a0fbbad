"""Guarantee 3 in use: the answer to an append is lost, and the writer repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, cast

import pytest

from chathistory.errors import Conflict, StoreUnavailable
from chathistory.history import History
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, Revision
from chathistory.testing.certify.base_test_class import CertifyTest, skip_as_not_tested
from chathistory.testing.certify.scope_names import ScopeNames
from chathistory.testing.certify.scoped_store import ScopedStore
from chathistory.testing.contract.checked_reads import read_bodies, read_head
from chathistory.testing.contract.every_method import catch_error, check_no_message_text
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines, make_revision

__all__ = ["LostAnswers"]


class _LosesAnswers(ScopedStore):
    """Loses every second append: either its answer after it was stored, or the request."""

    stored: ClassVar[bool]
    lost = 0
    _calls = 0

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        self._calls += 1
        if self._calls % 2 == 0:
            return super().append(key, bodies, after=after, revision=revision, first=first)
        self.lost += 1
        if self.stored:
            super().append(key, bodies, after=after, revision=revision, first=first)
        raise StoreUnavailable("the answer was lost on purpose", outcome="unknown")


class _LosesAnswersAfterStoring(_LosesAnswers):
    stored = True


class _LosesRequests(_LosesAnswers):
    stored = False


class LostAnswers(CertifyTest, guarantee=3):
    """Each message is stored once, whether its answer arrives or not."""

    @pytest.mark.parametrize(
        "lossy", [_LosesAnswersAfterStoring, _LosesRequests], ids=["after it was stored", "before it was stored"]
    )
    def test_no_message_is_lost_or_doubled_when_answers_are_lost(
        self, store: HistoryStore, lossy: type[_LosesAnswers]
    ) -> None:
        losing = lossy(store, ScopeNames(plain=True))
        chat = History(losing).conversation("chat", scope=KEY.scope)
        said = [{"role": ("user", "assistant")[at % 2], "content": "yes"} for at in range(10)]
        for message in said:
            chat.append(message)
        assert isinstance(losing, _LosesAnswers)
        assert losing.lost > 0, "the test lost no answer, so it proves nothing"
        again = History(store).conversation("chat", scope=KEY.scope)
        assert [entry.message for entry in again.entries()] == said, (
            "a message is missing or stored twice after its answer was lost"
        )

    def test_an_append_without_an_answer_can_be_repeated(self, store: HistoryStore) -> None:
        lose = self.target.hooks.lose_answer or skip_as_not_tested("the hook `lose_answer`")
        head, given = create_conversation(store, count=2), make_revision()
        append = partial(store.append, KEY, make_lines(3, first=2), after=head, revision=given)
        with lose(self.scoped.inner):
            error = catch_error(append)
        assert isinstance(error, StoreUnavailable), (
            f"an append without an answer gave {error!r}; expected StoreUnavailable"
        )
        check_no_message_text(error)
        with self.reopen(store) as other:
            self._repeat_and_check(other, head, given, stored=None if error.outcome == "unknown" else False)

    def _repeat_and_check(self, store: HistoryStore, head: Head, given: Revision, *, stored: bool | None) -> None:
        """Repeat the append: it must be stored now, or be a Conflict whose head has its version."""
        if read_head(store, KEY) == head:
            now = store.append(KEY, make_lines(3, first=2), after=head, revision=given)
        else:
            assert stored is not False, 'StoreUnavailable.outcome was "not stored", but the append was stored'
            with pytest.raises(Conflict) as caught:
                store.append(KEY, make_lines(3, first=2), after=head, revision=given)
            now = cast("Head", caught.value.head)
            assert now.revision == given, "the head of the Conflict does not have the version of the repeated append"
        assert read_head(store, KEY) == now
        assert read_bodies(store, KEY) == make_lines(5), "an append whose answer was lost is stored twice or in part"
        assert append_lines(store, now).end == 6  # noqa: PLR2004
