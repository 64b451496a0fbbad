"""The table of fields agrees with the installed SDK."""

from __future__ import annotations

import write_block_types

from chathistory.messages.block_fields import BLOCK_ROLES, find_block_type, find_fields
from chathistory.messages.block_types import TYPES
from chathistory.messages.foreign_names import FOREIGN_TYPES
from chathistory.testing.fake_api import request_fields


def test_the_table_is_current():
    assert write_block_types.TARGET.read_text() == write_block_types.build_source(), (
        "run `python tests/messages/write_block_types.py`"
    )


def test_every_block_of_a_message_is_in_the_table_and_in_the_fake_api():
    for kind, roles in BLOCK_ROLES.items():
        name = find_block_type(kind)
        assert name in TYPES
        assert find_fields(name)["type"].literals == (kind,)
        assert set(roles.split()) == request_fields.BLOCKS[kind].within & {"user", "assistant", "system"}


def test_the_fake_api_and_the_table_have_the_same_fields():
    for kind in BLOCK_ROLES:
        fields, shape = find_fields(find_block_type(kind)), request_fields.BLOCKS[kind]
        assert set(fields) - {"type"} == set(shape.fields)
        assert {name for name, field in fields.items() if field.required} - {"type"} == set(shape.required)


def test_no_foreign_type_is_a_type_of_the_api():
    assert FOREIGN_TYPES.isdisjoint(BLOCK_ROLES)
