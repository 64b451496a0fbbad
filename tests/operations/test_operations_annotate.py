"""Title, tags and metadata; usage and preview; repairs of what the view changes."""

from __future__ import annotations

import pytest
from api_rules import list_problems
from entry_factory import make_entry
from faulty_stores import CALL, RESULT, chat_on, kinds_of, names_of, reply, said, texts, user

from chathistory.errors import InvalidInput
from chathistory.operations.annotate import make_annotation

# Annotations.


def test_title_tags_and_metadata(store, chat):
    chat.set_title("Grüße 😀 \ud800\n")
    chat.set_tags(("b", "a", "b"))
    metadata = {"a.b": {"$x": [1, None, 2**70, -0.0]}}
    chat.set_metadata(metadata)
    metadata["a.b"]["$x"].append(5)
    for seen in (chat, chat_on(store)):
        row = seen.info()
        assert row.title == "Grüße 😀 \ud800\n"
        assert row.tags == ("b", "a")
        assert row.metadata == {"a.b": {"$x": [1, None, 2**70, -0.0]}}
    row.metadata["a.b"]["$x"].clear()
    assert chat.info().metadata["a.b"]["$x"]
    chat.annotate(title=None, tags=[], metadata={})
    chat.append(user("x"))
    for seen in (chat, chat_on(store)):
        assert names_of(seen) == (None, (), {})


def test_fields_that_are_not_given_stay(chat):
    chat.annotate(title="t", tags=["a"])
    chat.annotate(metadata={"x": 1})
    assert names_of(chat) == ("t", ("a",), {"x": 1})
    assert kinds_of(chat) == ["annotation", "annotation"]
    assert chat.messages() == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "title, tags or metadata"),
        ({"title": 5}, "title"),
        ({"title": b"SECRET"}, "title"),
        ({"tags": "SECRET"}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"tags": ["SECRET", 5]}, "tags"),
        ({"tags": [["SECRET"]]}, "tags"),
        ({"tags": 5}, "tags"),
        ({"tags": None}, "title, tags or metadata"),
        ({"tags": {"SECRET": 1}}, "tags"),
        ({"metadata": None}, "title, tags or metadata"),
        ({"metadata": ["SECRET"]}, "metadata"),
        ({"metadata": {"SECRET": float("nan")}}, "metadata"),
        ({"metadata": {5: "SECRET"}}, "metadata"),
        ({"metadata": {"a": object()}}, "metadata.a"),
        ({"metadata": {"a": "SECRET" * 200_000}}, "metadata"),
        ({"title": "SECRET" * 200_000}, "title"),
    ],
)
def test_an_invalid_annotation_is_refused(store, chat, changes, field):
    with pytest.raises(InvalidInput, match=field) as refused:
        chat.annotate(**changes)
    assert "SECRET" not in str(refused.value).replace("metadata.SECRET", "")
    assert list(store.keys()) == []
    chat.append(user("x"))
    with pytest.raises(InvalidInput, match=field):
        chat.annotate(**changes)
    assert len(list(chat.entries())) == 1


def test_accepted_metadata_never_keeps_a_message_from_being_stored(chat):
    size = 64 * 1024
    while True:
        try:
            chat.annotate(metadata={"x": "y" * size})
            break
        except InvalidInput:
            size -= 16
    chat.append([user("words " * 50), reply(1, input_tokens=1, output_tokens=1)])
    chat.rewind(to=1)
    assert len(chat.messages()) == 0


# Usage and preview.


def test_usage_is_summed_over_all_replies(chat):
    chat.append([user("a"), reply(1, input_tokens=10, output_tokens=2, cache_read_input_tokens=None)])
    chat.append([user("b"), reply(2, input_tokens=20, output_tokens=3, cache_read_input_tokens=7, speed="fast")])
    chat.append([user("c"), said("d")])
    assert chat.state().totals.usage == {"input_tokens": 30, "output_tokens": 5, "cache_read_input_tokens": 7}
    assert chat.state().totals.model == "claude-2"
    assert chat.state().totals.messages == 6
    nested = reply(3, cache_creation={"ephemeral_1h_input_tokens": 5}, input_tokens=True)
    chat.append(nested)
    assert chat.state().totals.usage["input_tokens"] == 30
    assert "cache_creation" not in chat.state().totals.usage


@pytest.mark.parametrize("wrong_field", [{"usage": 5}, {"usage": [1]}, {"model": 5}, {"stop_reason": ["x"]}])
def test_an_odd_response_is_refused_or_stored(chat, wrong_field):
    try:
        chat.append(reply(1) | wrong_field)
    except InvalidInput:
        return
    assert chat.state().totals.model in ("claude-1", None)
    assert len(list(chat.entries())) == 1


def test_an_unknown_field_is_refused_with_the_names_of_the_known_ones():
    with pytest.raises(InvalidInput, match="no field 'colour'; give one of title, tags, metadata"):
        make_annotation({"title": "t", "colour": "red"})


def test_the_preview_is_the_beginning_of_the_first_user_text(chat):
    chat.append([said("x"), {"role": "system", "content": "s"}, RESULT])
    assert chat.state().totals.preview is None
    chat.append([user("  a\n\n b\t" + "c" * 500), user("later")])
    assert chat.state().totals.preview == "a b " + "c" * 76
    assert "cccc" not in repr(chat.state())


# Repairs.


def test_a_repair_reports_what_the_view_changes_and_is_a_dry_run_by_default(chat):
    chat.append([user("a"), CALL])
    before = len(list(chat.entries()))
    [finding] = chat.repair()
    assert finding.position == -1
    assert len(list(chat.entries())) == before
    sent = chat.messages()
    assert chat.repair(dry_run=False) == (finding,)
    assert chat.messages() == sent
    assert chat.last_messages(1) == [sent[-1]]
    assert chat.repair(dry_run=False) == ()
    assert len(list(chat.entries())) == before + 1


def test_a_repair_in_the_middle_stores_messages_as_they_are_sent(chat):
    chat.append([user("a"), CALL, user("b"), said("c")])
    before, sent = list(chat.entries()), chat.messages()
    assert len(chat.repair(dry_run=False)) == 1
    assert list(chat.entries())[: len(before)] == before
    assert chat.messages() == sent
    assert chat.repair() == ()
    assert list_problems(sent) == []
    assert chat.state().totals.messages == len(sent)


def test_single_entries_of_other_kinds_are_not_sent(chat):
    chat.append([user("a"), said("b")])
    chat.log.append(
        [make_entry("reply_interrupted", message=said("half"), turn="t"), make_entry("turn_abandoned", turn="t")]
    )
    assert texts(chat.messages()) == texts(chat.last_messages(9)) == ["a", "b"]
    assert chat.state().totals.messages == 2
