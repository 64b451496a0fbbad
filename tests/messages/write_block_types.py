"""Writes `chathistory/messages/block_types.py` from the parameter types of the installed SDK.

    python tests/messages/write_block_types.py

The types of the beta namespace have all fields of the others, and more; that is asserted here. Fields that only a
response has are added, because every program that sends `response.content` back sends them.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

import pydantic
from anthropic.types import ContentBlock, MessageParam
from anthropic.types.beta import BetaContentBlock, BetaMessageParam
from typing_extensions import get_type_hints, is_typeddict

import chathistory.messages

TARGET = Path(chathistory.messages.__file__).with_name("block_types.py")
FREE = {"tool_changes", "definition", "input_schema", "trigger"}
"""Fields with values that are not checked: signed ones, and definitions of tools."""
SCALARS = {str: "str", int: "int", float: "float", bool: "bool", type(None): "null", object: "any"}
_WRAPPERS = (Required, NotRequired, Annotated)
HEAD = '''"""The fields of each content block in a request to the Messages API, and of the objects within blocks.

Written by `python tests/messages/write_block_types.py` from the types of the Anthropic SDK; do not change it by hand.

A field is "!" if it is required, and its alternatives: str, int, float, bool, null, any, dict (a JSON object), 'word'
(exactly that text), the name of a type, or [a list of alternatives].
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TYPES"]

TYPES: Mapping[str, Mapping[str, str]] = {
'''

Fields = dict[str, str]


def table_name(kind: type) -> str:
    """Return the name of a type in the table, which is the same for both namespaces."""
    name = kind.__name__
    while name.endswith("Param"):
        name = name.removesuffix("Param")
    return name.removeprefix("Beta").removeprefix("Request")


def unwrap_type(kind: Any) -> Any:
    while get_origin(kind) in _WRAPPERS:
        kind = get_args(kind)[0]
    return kind


class Table:
    """The types that were found so far, each with its fields."""

    def __init__(self) -> None:
        self.types: dict[str, Fields] = {}

    def list_alternatives(self, kind: Any) -> list[str]:
        """Return the alternatives of a field's type, as the table writes them."""
        kind = unwrap_type(kind)
        origin = get_origin(kind)
        if is_typeddict(kind):
            self.add(kind)
            return [table_name(kind)]
        if origin in (Union, types.UnionType):
            return list(dict.fromkeys(each for part in get_args(kind) for each in self.list_alternatives(part)))
        if origin is Literal:
            return [f"'{word}'" for word in get_args(kind)]
        if origin in (typing.get_origin(typing.Iterable[int]), typing.get_origin(typing.Sequence[int]), list):
            return [f"[{' '.join(self.list_alternatives(get_args(kind)[0]))}]"]
        if origin is dict:
            return ["dict"]
        return [SCALARS[kind]] if kind in SCALARS else []  # a file or a path is read before it is stored

    def add(self, kind: Any) -> None:
        """Add the fields of a type, and of all types within it."""
        name = table_name(kind)
        if name in self.types:
            return
        fields = self.types[name] = {}
        hints = get_type_hints(kind, include_extras=True)
        required = {field for field, hint in hints.items() if get_origin(hint) is Required}
        assert not kind.__total__, f"{name}: each of its fields must say whether it is required"
        for field in sorted(hints, key=lambda each: (each != "type", each not in required, each)):
            words = ["any"] if field in FREE else self.list_alternatives(hints[field])
            if "str" in words:  # the list of words is not complete
                words = [word for word in words if not word.startswith("'")]
            fields[field] = " ".join([*(["!"] if field in required else []), *words])


def request_fields(kind: Any) -> dict[str, Fields]:
    """Return the table of a namespace, without the messages themselves."""
    table = Table()
    table.list_alternatives(kind)
    return {name: fields for name, fields in table.types.items() if not name.endswith("Message")}


def find_response_models(kind: Any, found: dict[str, type[pydantic.BaseModel]]) -> dict[str, type[pydantic.BaseModel]]:
    """Return the models within a type of a response, by name."""
    kind = unwrap_type(kind)
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        if kind.__name__ in found:
            return found
        found[kind.__name__] = kind
        for field in kind.model_fields.values():
            find_response_models(field.annotation, found)
    for part in get_args(kind):
        find_response_models(part, found)
    return found


def build_table() -> dict[str, Fields]:
    """Return the table of all types."""
    whole = request_fields(BetaMessageParam)
    for name, fields in request_fields(MessageParam).items():
        assert fields.keys() <= whole[name].keys(), f"{name}: a field is missing in the beta namespace"
    for name, model in find_response_models(Union[BetaContentBlock, ContentBlock], {}).items():  # noqa: UP007
        fields = whole.get(name.removeprefix("Beta"), {})
        for field in model.model_fields if fields else ():
            alias = model.model_fields[field].alias or field
            if alias not in fields:
                words = Table().list_alternatives(model.model_fields[field].annotation)
                fields[alias] = " ".join(words)
    return whole


def build_source() -> str:
    """Return the text of the module."""
    lines = []
    for name, fields in sorted(build_table().items()):
        lines.append(f'    "{name}": {{')
        for field, words in fields.items():
            lines += format_field(field, words)
        lines.append("    },")
    return HEAD + "\n".join(lines) + "\n}\n"


def format_field(field: str, words: str) -> list[str]:
    """Return the line of a field, split into several as the formatter does if it is too long."""
    line = f'        "{field}": "{words}",'
    if len(line) <= 120:
        return [line]
    if len(words) <= 106:
        return [f'        "{field}": (', f'            "{words}"', "        ),"]
    parts, part = [], ""
    for word in words.split(" "):
        if len(part) + len(word) > 105:
            parts.append(part)
            part = ""
        part += f"{word} "
    parts.append(part.rstrip())
    return [f'        "{field}": (', *(f'            "{each}"' for each in parts), "        ),"]


if __name__ == "__main__":
    TARGET.write_text(build_source())
