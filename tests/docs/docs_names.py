"""The public interface: its modules, names and members, with their signatures."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ForwardRef

import chathistory

TESTING_PARTS = ("chathistory.testing.fake_api", "chathistory.testing.fixtures")  # parts of `chathistory.testing`
ERRORS = "chathistory.errors"
WIDE = 100  # columns of code that a page shows without scrolling


def modules() -> list[str]:
    """Return the public modules: the package, the modules that its docstring names, and the parts of `testing`."""
    return ["chathistory", *re.findall(r"`(chathistory\.[\w.]+)`", chathistory.__doc__ or ""), *TESTING_PARTS]


def is_listed_before(module: str, name: str, value: Any) -> bool:
    """Whether a module further up in the list has this name as well: it is explained there."""
    names = modules()
    before = names[: names.index(module)]
    return any(getattr(import_module(each), name, _NOTHING) is value for each in before)


_NOTHING = object()


def public(module: str) -> Iterator[tuple[str, Any]]:
    """Yield each public name of a module with its value, in order; submodules are left out."""
    there = import_module(module)
    for name in sorted(there.__all__):
        if not inspect.ismodule(value := getattr(there, name)):
            yield name, value


def signature(value: Any) -> str:
    """Return the signature of a function or class, with types as in the source; "" for other values."""
    if value is str or not (inspect.isclass(value) or inspect.isroutine(value)) or _is_plain_error(value):
        return ""
    if inspect.isclass(value) and (inspect.getdoc(value.__init__) or "").startswith("Internal:"):
        return ""
    if getattr(value, "_is_protocol", False) or (inspect.isclass(value) and issubclass(value, enum.Enum)):
        return ""  # nobody creates one
    found = inspect.signature(value)
    found = found.replace(
        parameters=[each.replace(annotation=_format_type(each.annotation)) for each in found.parameters.values()]
    )
    given = [
        _format_parameter(str(each.replace(annotation=each.empty, default=each.empty)), each)
        for each in _with_separators(found)
    ]
    back = found.return_annotation
    back = "" if back is found.empty or inspect.isclass(value) else f" -> {_format_type(back)}"
    return f"({', '.join(given)}){back}"


def _format_type(annotation: Any) -> Any:
    """Return a type as in the source, without the annotation of its stored form."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return "Event" if annotation == "E_co" else annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return re.sub(r"[a-z_.]+\.(?=[A-Z])", "", inspect.formatannotation(annotation))


def _is_plain_error(value: Any) -> bool:
    """Return True for an error without an `__init__` of its own: `inspect` reports these differently in each Python."""
    return inspect.isclass(value) and issubclass(value, Exception) and value.__init__ in _BUILT_IN


_BUILT_IN = (Exception.__init__, ValueError.__init__, UserWarning.__init__)


def _with_separators(found: inspect.Signature) -> Iterator[Any]:
    """Yield the parameters, with a bare `*` between them as a parameter without a type."""
    bare, kinds = inspect.Parameter, [each.kind for each in found.parameters.values()]
    star = bare.VAR_POSITIONAL in kinds
    for each in found.parameters.values():
        if each.kind is bare.KEYWORD_ONLY and not star:
            star = True
            yield bare("_", bare.VAR_POSITIONAL)
        yield each


def _format_parameter(name: str, each: inspect.Parameter) -> str:
    if name == "*_":
        return "*"
    kind = "" if each.annotation is each.empty else f": {each.annotation}"
    default = "..." if "factory" in repr(each.default) else repr(each.default)
    if each.default is each.empty:
        return f"{name}{kind}"
    return f"{name}{kind} = {default}" if kind else f"{name}={default}"


def members(cls: type) -> Iterator[tuple[str, str]]:
    """Yield each public member that our classes define: its name, and its signature or "property"."""
    seen: dict[str, str] = {}
    for each in cls.__mro__:
        if each.__module__.startswith("chathistory"):
            for name, value in vars(each).items():
                if name.startswith(("_", "test_")) or (inspect.getdoc(value) or "").startswith("Internal:"):
                    continue
                if shape := _member_shape(cls, name, value):
                    seen.setdefault(name, shape)
    yield from sorted(seen.items())


def _member_shape(cls: type, name: str, value: Any) -> str:
    if isinstance(value, property):
        return "property, can be set" if value.fset else "property"
    if inspect.isroutine(value) or isinstance(value, classmethod | staticmethod):
        return signature(getattr(cls, name)).replace("(self, ", "(").replace("(self)", "()")
    return ""


def prefix_of(value: Any) -> str:
    """Return "async " for a coroutine function, else ""."""
    return "async " if inspect.iscoroutinefunction(value) else ""


def fold_call(text: str) -> str:
    """Return a call on one line, or with one parameter per line if it is long."""
    if len(text) <= WIDE:
        return text
    depth, parts, start = 0, [], 0
    for at, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char in "(," and depth == 1:
            parts.append(text[start : at + 1].strip())
            start = at + 1
        elif char == ")" and depth == 0:
            parts += [f"{text[start:at].strip()},", text[at:]]
            break
    return "\n".join([parts[0], *(f"    {part}" for part in parts[1:-1]), parts[-1]])


def snapshot() -> str:
    """Return every public name with its signature, on which programs of users rely."""
    lines = ["# The public interface. `make reference` writes this file; a change of it is a change for users."]
    for module in modules():
        lines += ["", f"[{module}]"]
        for name, value in public(module):
            if is_listed_before(module, name, value):
                lines.append(f"{name}, the one above")
                continue
            lines += [_format_name(name, value), *(_member_lines(value) if inspect.isclass(value) else ())]
    return "\n".join(lines) + "\n"


def _format_name(name: str, value: Any) -> str:
    if inspect.isclass(value) and value is not str:
        bases = [base.__name__ for base in value.__bases__ if base.__module__ in ("abc", "builtins", ERRORS)]
        bases = [base for base in bases if base != "object"]
        return f"class {name}{signature(value)}" + (f" < {', '.join(bases)}" if bases else "")
    return name + signature(value)


def _member_lines(cls: type) -> Iterator[str]:
    for name, shape in members(cls):
        prefix = prefix_of(getattr(cls, name))
        yield f"    {prefix}{name}{shape}" if shape.startswith("(") else f"    {name}: {shape}"
