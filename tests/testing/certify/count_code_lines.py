"""Counts the code of a backend: its lines without imports, blank lines, comments and docstrings."""

from __future__ import annotations

import ast
import io
import tokenize

__all__ = ["lines_of_code"]

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(source: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        documented = (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
        )
        for aside in [node.body[0]] if documented else [node] * isinstance(node, ast.Import | ast.ImportFrom):
            lines -= set(range(aside.lineno, aside.end_lineno + 1))
    return len(lines)
