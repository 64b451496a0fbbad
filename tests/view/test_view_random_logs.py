"""Whatever is stored can be sent, and each request extends the one before: random steps on a conversation."""

from __future__ import annotations

import json

import pytest
from api_rules import is_complete, list_fake_api_refusals, list_problems
from faulty_stores import chat_on, said, user
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from view_cases import DOCUMENT, MARK, THOUGHT, S, U, call, found, result, search, text

from chathistory import open_store
from chathistory.errors import ConversationNotFound, InvalidInput

pytestmark = pytest.mark.wide

WORDS = st.sampled_from(["a", "b", "", "  ", "\ud800"])
PAST = st.integers(0, 3)  # one of the last ids
STEPS = st.one_of(
    st.tuples(st.just("user"), st.lists(st.one_of(WORDS, PAST, st.just("unknown id")), max_size=3)),
    st.tuples(st.just("plain"), WORDS),
    st.tuples(
        st.just("assistant"),
        st.lists(
            st.sampled_from(["text", "blank", "thinking", "call", "search", "found", "found 2", "foreign"]), max_size=4
        ),
        st.sampled_from(["max_tokens", "end_turn", "tool_use", "pause_turn", "refusal"]),
    ),
    st.just(("reply",)),
    st.just(("answers",)),
    st.just(("system",)),
    st.tuples(st.just("rewind"), st.integers(0, 12)),
    st.tuples(st.just("forget"), st.integers(0, 12)),
    st.just(("annotate",)),
)


class Script:
    """Plays steps on a conversation, with a new id for each call."""

    def __init__(self, chat):
        self.chat = chat
        self.calls: list[str] = []
        self.searches: list[str] = []
        self.fresh = 0

    def _make_id(self, ids):
        self.fresh += 1
        ids.append(f"id{self.fresh}")
        return ids[-1]

    def play(self, step):
        kind, *rest = step
        if kind in ("rewind", "forget", "annotate"):
            return self._play_change(kind, *rest)
        self.chat.append(getattr(self, f"_{kind}")(*rest))
        return "appended"

    def _play_change(self, kind, position=0):
        try:
            if kind == "rewind":
                self.chat.rewind(to=position)
            elif kind == "forget":
                self.chat.forget(before=position)
            else:
                self.chat.annotate(title="t")
        except (InvalidInput, ConversationNotFound):
            return "refused"
        return kind

    def _user(self, parts):
        return U(*(self._user_block(part) for part in parts))

    def _user_block(self, part):
        if isinstance(part, int):
            return result(self.calls[-1 - part]) if part < len(self.calls) else result("nobody's")
        return result("unknown") if part == "unknown id" else text(part, cache_control=MARK)

    def _plain(self, content):
        return user(content)

    def _system(self):
        return S

    def _reply(self):
        return said("fine")

    def _answers(self):
        return U(*(result(id) for id in self.calls[-2:]), text("so"))

    def _assistant(self, parts, stop):
        blocks = [self._assistant_block(part) for part in parts]
        return {"type": "message", "role": "assistant", "content": blocks, "stop_reason": stop, "id": "m"}

    def _assistant_block(self, part):
        return {
            "text": lambda: text("t", citations=None),
            "blank": lambda: text(" "),
            "thinking": lambda: THOUGHT,
            "call": lambda: call(self._make_id(self.calls)),
            "search": lambda: search(self._make_id(self.searches)),
            "found": lambda: found(self.searches[-1] if self.searches else "nobody's"),
            "found 2": lambda: found(self.searches[-2] if len(self.searches) > 1 else "nobody's"),
            "foreign": lambda: DOCUMENT,
        }[part]()


def _stop(step):
    return step[2] if step[0] == "assistant" else None


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=10))
def test_whatever_is_stored_can_be_sent_and_each_request_extends_the_one_before(steps):
    with open_store("memory:") as store:
        script = Script(chat_on(store))
        chat = script.chat
        previous = []
        for step, following in zip(steps, [*steps[1:], ("plain", "")], strict=False):
            done = script.play(step)
            if done in ("rewind", "forget"):
                event(done)
                previous = []
            lines = store.read(chat.log.key)
            view = chat.view()
            assert list_problems(view.messages) == []
            json.dumps(view.messages, ensure_ascii=False).encode()
            assert view.messages[: len(previous)] == previous
            assert chat.view() == view
            assert store.read(chat.log.key) == lines
            last = list(chat.entries())[-1:] if done == "appended" else []
            is_complete_reply = (
                step[0] in ("reply", "assistant")
                and _stop(step) in (None, "end_turn")
                and _stop(following) != "refusal"
            )
            if (
                last
                and is_complete_reply
                and view.report.kept[-1:] == (last[0].position,)
                and is_complete([last[0].message])
                and is_complete(view.messages)
            ):
                previous = chat.messages()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=10))
def test_the_fake_api_accepts_every_view(steps):
    with open_store("memory:") as store:
        script = Script(chat_on(store))
        for step in steps:
            script.play(step)
        sent = script.chat.messages()
        assert not sent or list_fake_api_refusals(sent) == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=10))
def test_a_repair_changes_nothing_that_is_sent_and_needs_no_second_repair(steps):
    with open_store("memory:") as store:
        script = Script(chat_on(store))
        chat = script.chat
        for step in steps:
            script.play(step)
        before, sent = list(chat.entries()), chat.messages()
        counted = chat.state().totals.usage if chat.state() else {}
        found = chat.repair()
        event("repaired" if found else "nothing to repair")
        assert chat.repair(dry_run=False) == found
        assert chat.messages() == sent
        assert chat.repair() == ()
        assert list(chat.entries())[: len(before)] == before
        assert (chat.state().totals.usage if chat.state() else {}) == counted
        if found:
            assert chat.state().totals.messages == len(sent)
