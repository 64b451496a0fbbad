"""Plain English and the field's terms: phrases and words that may not come back into code, docs, messages or names."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = {".py", ".lua", ".md", ".toml", ".svg", ".html", ".yaml", ".yml"}

ARCHAIC = {  # the phrase as a pattern: a text that has it
    r"\b(is|are|was|were|be) due\b": "an ID is due",
    r"\b(is|are|was|were) none\b": "it is none of a conversation's",
    r"\bany more\b": "it is not sent any more",
    r"\bfor who\b": "only for who asks for it",
    r"\bto be had\b": "it is not to be had",
    r"\btold\b": "it is told what would go",
    r"\b(go|goes|gone|going|went) on (with|from|where)\b": "a talk can be gone on with",
    r"\b(anew|thrice|behold|ere|lest|whence|hence|thence|henceforth|hitherto|likewise)\b": "it is read anew",
    r"\b(there|where)(of|in|from)\b": "the number thereof",
    r"\bfor ever\b": "whole, and for ever",
    r"\bmend(s|ed|ing)?\b": "find the damage and mend it",
    r"\bbeside\b": "it is kept beside the conversation",
    r"\b(break|breaks|breaking|broke|broken) off\b": "a reply that broke off",
    r"\breckon(s|ed|ing)?\b": "the tokens are reckoned",
    r"\bheld with\b": "the setup that it is held with",
    r"\bin the way of\b": "in the way of redis",
    r"\bwhat there is\b": "list what there is",
    r"\bwho asks\b": "who asks is told",
    r"\bpass(ed|es|ing)? (by|over)\b": "it may be passed by",
    r"\bl(eads?|ed) around\b": "it leads around damage",
    r"\bwhat (had|has) come\b": "what had come of a reply",
    r"\bis (that|those) of\b": "its version is that of the writer",
    r"\bof the moment\b": "a head of the moment",
    r"\bat the door\b": "refused at the door",
}
METAPHORS = {
    rf"\b{word}\b": word
    for word in ("waist", "shelf", "shelves", "lane", "lanes", "grave", "graves", "broom", "parcel", "parcels")
} | {rf"\b{word}\b": word for word in ("planting", "planted", "lifeline", "stand-in")}
OLD_NAMES = frozenset(
    re.findall(
        r"\w+",
        """
        asked beside broom bury buried detour grave graves held lane lanes lifeline manners mend mended noting opening
        outline outlined overtaken parcel parcels plant planted planting recall rerouting restless sealed shelf shelves
        spans standin taken terms told torn voice waist
        """,
    )
)
"""Words of identifiers and file names that said nothing to somebody who had not written them."""


PHRASES = re.compile("|".join(each if "none" in each else f"(?i:{each})" for each in [*ARCHAIC, *METAPHORS]))
"""All of them; in upper case too, but for the `None` of Python."""


def find_old_phrases(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the words of each archaic phrase or private metaphor in a text."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in PHRASES.finditer(line):
            yield number, match.group()


def find_old_names(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the name of each identifier of Python code that has an old word in it."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and OLD_NAMES & split_name(token.string):
            yield token.start[0], token.string


def split_name(name: str) -> set[str]:
    """Return the words of an identifier or a file name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def project_files() -> Iterator[Path]:
    """Yield the files that people read: code, tests, docs and the small files of the top level."""
    for folder in ("chathistory", "plugins", "tests", "docs", ".github"):
        for path in sorted((ROOT / folder).rglob("*")):
            if (
                path.suffix in TEXTS
                and not {"__pycache__", ".venv", "dist"} & set(path.parts)
                and path != Path(__file__)
            ):
                yield path
    yield from sorted(ROOT.glob("*.md"))
    yield from (ROOT / name for name in ("Makefile", "pyproject.toml", "zensical.toml"))


FILES = list(project_files())


@pytest.mark.parametrize("top", ["chathistory", "plugins", "tests", "docs", ".github", ""])
def test_no_archaic_phrase_and_no_metaphor_is_left(top):
    files = [path for path in FILES if path.relative_to(ROOT).parts[0] == top or (not top and path.parent == ROOT)]
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{number}: {words}"
        for path in files
        for number, words in find_old_phrases(path.read_text())
    ]
    assert found == []


def test_no_old_word_is_left_in_a_name():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for path in FILES
        if path.suffix == ".py"
        for number, name in find_old_names(path.read_text())
    ]
    assert found == []


def test_no_old_word_is_left_in_a_file_name():
    assert [str(path) for path in FILES if OLD_NAMES & split_name(path.stem)] == []


@pytest.mark.parametrize(("pattern", "text"), [*ARCHAIC.items(), *METAPHORS.items()])
def test_each_phrase_is_found(pattern, text):
    assert re.search(pattern, text)
    assert next(number for number, _ in find_old_phrases(f"\n{text}")) == 2


def test_old_words_in_names_are_found():
    assert [name for _, name in find_old_names("class StandinServer: pass\nfolded_lane = 1\nheld = plane = 2\n")] == [
        "StandinServer",
        "folded_lane",
        "held",
    ]
