"""Figures of the code: lines, lengths and names of functions, helpers called once, and what one call runs through."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Shape:
    """What is counted over some files."""

    code_lines: int
    functions: int
    median: int
    p90: int
    longest: int
    private_called_once: int
    wide_tuples: tuple[str, ...]

    @property
    def share_called_once(self) -> float:
        return self.private_called_once / self.functions


@dataclass(frozen=True)
class Names:
    """How functions and classes are named in some files.

    Attributes:
        functions: How many functions there are; special methods such as `__init__` are left out.
        private: How many of them are private.
        private_one_word: The private ones whose name is a single word.
        participles: Those whose name is nothing but a past participle, such as `checked`.
        shared_classes: Names of classes that more than one file defines.
    """

    functions: int
    private: int
    private_one_word: tuple[str, ...]
    participles: tuple[str, ...]
    shared_classes: tuple[str, ...]

    @property
    def share_one_word(self) -> float:
        return len(self.private_one_word) / self.private

    @property
    def share_participles(self) -> float:
        return len(self.participles) / self.functions


@dataclass(frozen=True)
class Walk:
    """What one call runs through, of the product's own functions."""

    calls: int
    functions: int
    files: int


def measure_shape(paths: list[Path]) -> Shape:
    """Return the figures of the files in `paths`."""
    trees = {path: ast.parse(path.read_text()) for path in paths}
    functions = [(path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, Function)]
    lengths = sorted(_length(node) for _, node in functions)
    return Shape(
        code_lines=sum(count_code_lines(path) for path in paths),
        functions=len(functions),
        median=lengths[len(lengths) // 2],
        p90=lengths[len(lengths) * 9 // 10],
        longest=lengths[-1],
        private_called_once=sum(_private_called_once(tree) for tree in trees.values()),
        wide_tuples=tuple(f"{path.name}:{node.lineno} {node.name}" for path, node in functions if _returns_wide(node)),
    )


_IRREGULAR = frozenset(
    re.findall(
        r"\w+",
        """
        begun bent born bought bound broken brought built caught chosen done drawn driven eaten fallen felt
        flown forgotten fought found frozen given gone grown heard held hidden kept known laid led left lent
        lost made meant met paid proven said seen sent shaken shown sold sought spent spoken spoilt stolen stood
        stuck sworn taken taught thought thrown torn understood undone woken won worn written
        """,
    )
)
_VERBS = frozenset(re.findall(r"\w+", "bleed breed embed exceed feed heed need proceed seed shed speed succeed"))
"""Verbs that only look like a participle."""


def measure_names(paths: list[Path]) -> Names:
    """Return the figures of the names that the files in `paths` define."""
    functions = []
    files_of: dict[str, set[Path]] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function) and not node.name.startswith("__"):
                functions.append((node.name, f"{path.name}:{node.lineno} {node.name}"))
            elif isinstance(node, ast.ClassDef):
                files_of.setdefault(node.name, set()).add(path)
    private = [(name, place) for name, place in functions if _is_private(name)]
    return Names(
        functions=len(functions),
        private=len(private),
        private_one_word=tuple(place for name, place in private if "_" not in name.strip("_")),
        participles=tuple(place for name, place in functions if _is_participle(name.strip("_"))),
        shared_classes=tuple(sorted(name for name, files in files_of.items() if len(files) > 1)),
    )


def _is_participle(name: str) -> bool:
    return name in _IRREGULAR or (name not in _VERBS and re.fullmatch("[a-z]+ed", name) is not None)


def count_code_lines(path: Path) -> int:
    """Return the lines of a file that are neither blank nor comment nor docstring."""
    text = path.read_text()
    tree = ast.parse(text)
    docs: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else []:
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                docs.update(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docs)


def _length(node: Function) -> int:
    """Return the lines of a function from its `def` on, without its docstring."""
    first = node.body[0]
    is_doc = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or 0) - first.lineno + 1 if is_doc else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def _private_called_once(tree: ast.Module) -> int:
    """Return how many private functions of a module are called in exactly one place of it.

    A function that is passed on as a value, such as a predicate in a table, is no helper of one caller.
    """
    private = {node.name for node in ast.walk(tree) if isinstance(node, Function) and _is_private(node.name)}
    uses = Counter(_name_of(node) for node in ast.walk(tree))
    calls = Counter(_name_of(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return sum(uses[name] == calls[name] == 1 for name in private)


def _name_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _returns_wide(node: Function) -> bool:
    """Whether a function says that it returns a tuple of more than two things that have no names."""
    returns = node.returns
    if not (isinstance(returns, ast.Subscript) and isinstance(returns.value, ast.Name) and returns.value.id == "tuple"):
        return False
    parts = returns.slice
    if not isinstance(parts, ast.Tuple):
        return False
    return len(parts.elts) > 2 and not any(isinstance(part, ast.Constant) and part.value is ... for part in parts.elts)


def trace_walk(call: Callable[[], Any], roots: list[Path]) -> Walk:
    """Run `call` and return what it ran through below `roots`, `testing/` left out, which plays the API.

    What has a `def` is counted; comprehensions and lambdas are read where they stand.
    """
    prefixes = tuple(f"{root}/" for root in roots)
    seen: Counter[tuple[str, int]] = Counter()

    def note(frame: Any, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        has_def = not frame.f_code.co_name.startswith("<")
        if event == "call" and has_def and file.startswith(prefixes) and "/testing/" not in file:
            seen[file, frame.f_code.co_firstlineno] += 1

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return Walk(seen.total(), len(seen), len({file for file, _ in seen}))


def product_files(root: Path) -> Iterator[Path]:
    """Yield the files that a wheel ships, without `testing/`."""
    for path in sorted((root / "chathistory").rglob("*.py")):
        if "testing" not in path.parts:
            yield path
    for path in sorted((root / "plugins").glob("chathistory_*/*.py")):
        yield path
