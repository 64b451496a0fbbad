"""The table of fields is what the installed SDK says."""

from __future__ import annotations

import write_block_types

from chathistory.messages.block_fields import BLOCK_ROLES, find_block_type, find_fields
from chathistory.messages.block_types import TYPES
from chathistory.messages.foreign_names import FOREIGN_TYPES
from chathistory.testing.fake_api import request_fields


def test_the_table_is_current():
    assert write_block_types.TARGET.read_text() == write_block_types.source(), (
        "run `python tests/messages/write_block_types.py`"
    )


def test_every_block_that_a_message_may_hold_is_in_the_table_and_in_the_fake():
    for kind, roles in BLOCK_ROLES.items():
        name = find_block_type(kind)
        assert name in TYPES
        assert find_fields(name)["type"].literals == (kind,)
        assert set(roles.split()) == request_fields.BLOCKS[kind].within & {"user", "assistant", "system"}


def test_the_fake_and_the_table_have_the_same_fields():
    for kind in BLOCK_ROLES:
        fields, shape = find_fields(find_block_type(kind)), request_fields.BLOCKS[kind]
        assert set(fields) - {"type"} == set(shape.fields)
        assert {name for name, field in fields.items() if field.required} - {"type"} == set(shape.required)


def test_no_name_of_another_api_is_one_of_this():
    assert FOREIGN_TYPES.isdisjoint(BLOCK_ROLES)
