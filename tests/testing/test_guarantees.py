"""The guarantees as text: names and notes of failed tests."""

from __future__ import annotations

from chathistory.testing.guarantees import GUARANTEES, LISTING


def test_a_guarantee_is_named_with_its_number_and_the_listing_without():
    assert str(GUARANTEES[1]) == "guarantee 1, atomic"
    assert str(GUARANTEES[LISTING]) == "the listing"


def test_the_note_says_what_is_expected_and_where_to_look():
    assert GUARANTEES[3].note == (
        "guarantee 3, retry-safe; expected: a repeated append is a Conflict whose head has the version of that append; "
        "nothing is stored twice, and equal bodies are separate records; look at _append_records "
        "(docs/contract.md has the details)"
    )
