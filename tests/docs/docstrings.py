"""Docstrings in Google's style, taken apart: the text, and what each parameter, field and error is."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
_ENTRY = re.compile(r"([*\w.]+(?:(?:, | or | and )[*\w.]+)*):(?:\s+|$)(.*)")
_INDENT = 4


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring.

    Attributes:
        text: The Markdown outside of all sections.
        args: The words of each parameter, by its name without asterisks.
        attributes: The words of each field.
        returns: What is returned.
        yields: What is yielded.
        raises: The words of each error.
    """

    text: str = ""
    args: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    returns: str = ""
    yields: str = ""
    raises: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line."""
        return self.text.partition("\n")[0]

    @property
    def twin(self) -> str | None:
        """What the docstring refers to for its parameters, such as "History.delete" or "ReplyStream"; None: nothing."""
        found = re.search(r"(?:^|[.:] )[Ss]ee `(\w+(?:\.\w+)?)`[.;]|has the fields of `(\w+)`", self.text)
        return found[1] or found[2] if found else None


def parse_docstring(doc: str | None) -> Docstring:
    """Return the parts of a docstring."""
    text: list[str] = []
    sections: dict[str, list[str]] = {}
    lines = text
    for line in inspect.cleandoc(doc or "").splitlines():
        if found := _SECTION.fullmatch(line):
            lines = sections.setdefault(found[1], [])
        elif line and not line.startswith(" "):
            lines = text
            text.append(line)
        else:
            lines.append(line)
    return Docstring(
        text="\n".join(text).strip(),
        args=_parse_entries(sections.get("Args", [])),
        attributes=_parse_entries(sections.get("Attributes", [])),
        returns=" ".join(" ".join(sections.get("Returns", [])).split()),
        yields=" ".join(" ".join(sections.get("Yields", [])).split()),
        raises=_parse_entries(sections.get("Raises", [])),
    )


def _parse_entries(lines: list[str]) -> dict[str, str]:
    """Return the words of each name; a line that is indented further continues the entry before it."""
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if indent == _INDENT and (found := _ENTRY.match(line.strip())):
            names = [name.lstrip("*") for name in re.split(r", | or | and ", found[1])]
            entries |= dict.fromkeys(names, found[2])
        elif line.strip():
            entries |= {name: f"{entries[name]} {line.strip()}".strip() for name in names}
    return entries
