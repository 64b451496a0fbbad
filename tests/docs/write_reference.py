"""What of the documentation is made from the code: `make reference` writes it, and a test compares.

docs/reference/names.md      every public name, how it is called, and its docstring
docs/reference/commands.md   every command with its arguments, options and environment variables
docs/reference/options.md    the options of the URLs of every built-in backend
docs/errors.md               the tree of errors, and the words of each
docs/choosing.md             the table between its two marks
tests/api.txt                names and calls alone: a change of it is a change for users
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from docs_names import ERRORS, folded, is_told, members, modules, prefix_of, public, signature, snapshot

from chathistory import errors
from chathistory.cli.app import group
from chathistory.storage.plugins import load_store_class

ROOT = Path(__file__).parents[2]
MADE = "<!-- made from the code by `make reference`: change it there -->"
SCHEMES = {  # those that share a class stand together
    "memory": ["memory"],
    "file": ["file"],
    "redis": ["redis", "rediss", "unix", "redis+sentinel", "redis+cluster"],
    "mongodb": ["mongodb", "mongodb+srv"],
    "s3": ["s3"],
}
PAGES = {"memory": "memory.md", "file": "file-format.md", "redis": "redis.md", "mongodb": "mongodb.md", "s3": "s3.md"}
BEGIN, END = "<!-- table of traits -->", "<!-- end of the table -->"


def joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown; a bar within a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# Public names.


def names_page() -> str:
    kept = "What is on this page is kept: it changes only with a note in the news. What else can be imported is not"
    parts = ["# Public names", MADE, f"{kept} promised. Errors have [a page of their own](../errors.md)."]
    for module in modules():
        if module != ERRORS:
            words = inspect.cleandoc(import_module(module).__doc__ or "")
            parts += [f"## `{module}`", words, *_names_of(module)]
    return joined(*parts)


def _names_of(module: str) -> Iterator[str]:
    same = [f"`{name}`" for name, value in public(module) if is_told(module, name, value)]
    yield f"As above: {', '.join(same)}." if same else ""
    for name, value in public(module):
        if is_told(module, name, value):
            continue
        yield f"### {name}"
        if inspect.isclass(value) and value is not str:
            yield _call(name, value)
            yield as_markdown(value.__doc__ or "")
            yield from _members_of(value)
        elif inspect.isroutine(value):
            yield _call(name, value)
            yield as_markdown(value.__doc__ or "")
        else:
            yield words_beside(name)


def _call(name: str, value: Any) -> str:
    return f"```text\n{folded(prefix_of(value) + name + signature(value))}\n```"


def _members_of(cls: type) -> Iterator[str]:
    for name, shape in members(cls):
        prefix = prefix_of(getattr(cls, name))
        shown = f"{prefix}{name}{shape}" if shape.startswith("(") else name
        kind = "" if shape.startswith("(") else f" ({shape})"
        words = inspect.getdoc(getattr(cls, name)) or _of_protocol(cls, name)
        yield f"**`{shown}`**{kind}\n\n{as_markdown(words)}"


def _of_protocol(cls: type, name: str) -> str:
    """Return where a method is explained that a class has because a protocol beside it asks for it; "": nowhere."""
    beside = vars(sys.modules[cls.__module__]).values()
    protocols = (each for each in beside if getattr(each, "_is_protocol", False) and name in vars(each))
    return next((f"See `{each.__name__}.{name}`." for each in protocols), "")


def words_beside(name: str) -> str:
    """Return the string that follows a value in the source, which is how values are explained."""
    for place in (
        "defaults",
        "config.source",
        "engine.refusals",
        "log.events",
        "log.places",
        "messages.content",
        "operations.check_conversations",
        "operations.remove_conversations",
        "transfer.copy",
        "transfer.open_files",
        "trimming.policies",
        "storage.values",
        "storage.abilities",
        "storage.hookspecs",
        "testing.fake_api.rules",
    ):
        source = inspect.getsource(import_module(f"chathistory.{place}"))
        if found := re.search(rf'^{name}\b.*?\n"""(.*?)"""', source, re.MULTILINE | re.DOTALL):
            return found[1]
    raise LookupError(f"nothing says what {name} is: put a string behind it")


def as_markdown(text: str) -> str:
    """Return a docstring as Markdown: lines such as `name: what it is` become a list, the rest stays."""
    lines = []
    for line in inspect.cleandoc(text).splitlines():
        found = re.match(r"(\w+(?:, \w+)*): +(?=\S)", line)
        if found and (not lines or not lines[-1] or lines[-1].startswith("- ") or lines[-1].startswith("  ")):
            lines.append(f"- `{found[1]}`: {line[found.end() :]}")
        elif lines and lines[-1].startswith(("- ", "  ")) and line and not line.startswith("    "):
            lines.append(f"  {line}")
        else:
            lines.append(line)
    return "\n".join(lines)


# Commands.


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield each command with its words, those within groups as well."""

    def walk(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield words, command
        for name in sorted(getattr(command, "commands", {})):
            yield from walk(f"{words} {name}", command.commands[name])

    yield from walk("chathistory", group)


def context_of(command: click.Command, words: str | None = None) -> click.Context:
    """Return a context like that of a call: click remembers the options for help from the first one it sees."""
    return click.Context(command, parent=click.Context(group, **group.context_settings), info_name=words)


def commands_page() -> str:
    codes = "Exit codes: 0 done, 1 it could not be done, 2 it was not asked for rightly, 130 Ctrl-C."
    parts = ["# Commands", MADE, f"{codes} How the commands are used is on [Using it](../using.md)."]
    for words, command in commands():
        parts += [f"## {words}", as_sections(command.help or ""), _parameters(command)]
    return joined(*parts)


def as_sections(help_text: str) -> str:
    """Return a command's help as Markdown; what click leaves unwrapped becomes a block."""

    def block(found: re.Match[str]) -> str:
        title, _, lines = found[1].partition("\n")
        return f"{title}\n\n```text\n{inspect.cleandoc(lines)}\n```"

    return re.sub(r"(?:\x08|\\b)\n(.*?)(?=\n\n|\Z)", block, inspect.cleandoc(help_text), flags=re.DOTALL)


def _parameters(command: click.Command) -> str:
    context = context_of(command)
    rows = [_row(each, context) for each in command.get_params(context)]
    return table(["", "default", "variable", ""], rows)


def _row(each: click.Parameter, context: click.Context) -> list[str]:
    if not isinstance(each, click.Option):
        return [f"`{each.make_metavar(context)}`", "", "", "what to work on"]
    value = "" if each.is_flag or each.count else f" {each.make_metavar(context)}"
    default = "" if each.is_flag or not isinstance(each.default, str | int) else f"`{each.default}`"
    variable = f"`{each.envvar}`" if each.envvar else ""
    return [f"`{', '.join(each.opts)}{value}`", default, variable, each.help or "Which model answers."]


def variables() -> set[str]:
    """Return every environment variable of ours that the source names."""
    sources = (path.read_text() for path in (ROOT / "chathistory").rglob("*.py"))
    return {name for text in sources for name in re.findall(r"\bCHATHISTORY_[A-Z_]*[A-Z]\b", text)}


# The table of traits.


def traits_table() -> str:
    head = ["URL", "outlives the process", "shared by processes", "order of the listing", "largest message"]
    rows = []
    for name, schemes in SCHEMES.items():
        traits = load_store_class(name).traits
        size = f"{traits.largest_record / 1e6:.0f} MB" if traits.largest_record else "no limit"
        yes = {True: "yes", False: "no"}
        urls = f"[`{name}:`]({PAGES[name]})" + "".join(f", `{scheme}:`" for scheme in schemes[1:])
        rows.append([urls, yes[traits.durable], yes[traits.shared], traits.recency, size])
    return table(head, rows)


def choosing_page() -> str:
    text = (ROOT / "docs" / "choosing.md").read_text()
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n\n{traits_table()}\n\n{END}", text, flags=re.DOTALL)


# The tree of modules.


def module_tree() -> str:
    """Return every module below its package, each with the first line of its docstring."""
    lines = []
    for path in sorted((ROOT / "chathistory").rglob("*.py"), key=_packages_last):
        name = path.relative_to(ROOT / "chathistory")
        if name.parts[0] == "testing" and len(name.parts) > MODULES_DEEP:
            continue  # the parts of a package for tests, which its own line sums up
        words = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        if path.name == "__init__.py":
            lines += [f"\n**`{'/'.join(('chathistory', *name.parts[:-1]))}/`** {words}\n"]
        else:
            lines += [f"- `{path.name}`: {words}"]
    return "\n".join(lines).strip()


MODULES_DEEP = 2


def _packages_last(path: Path) -> tuple[str, bool, str]:
    return str(path.parent), path.name != "__init__.py", path.name


def design_page() -> str:
    text = (ROOT / "docs" / "design.md").read_text()
    begin, end = "<!-- modules -->", "<!-- end of the modules -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n\n{module_tree()}\n\n{end}", text, flags=re.DOTALL)


# Errors.


def errors_page() -> str:
    doc = inspect.cleandoc(errors.__doc__ or "")
    first, tree, *rest = doc.split("\n\n")
    parts = ["# Errors", MADE, first, f"```text\n{inspect.cleandoc(tree)}\n```", *rest]
    for name, cls in sorted(public(ERRORS), key=lambda pair: _depth_first(pair[1])):
        bases = " and ".join(f"`{base.__name__}`" for base in cls.__bases__)
        parts += [f"## {name}", f"A kind of {bases}.{_attributes(cls)}", as_markdown(cls.__doc__ or "")]
    return joined(*parts)


def _depth_first(cls: type) -> tuple[int, ...]:
    """Return where a class stands in the tree, as its docstring draws it."""
    lines = (errors.__doc__ or "").splitlines()
    return tuple(number for number, line in enumerate(lines) if re.search(rf"(?:─ | {{4}}){cls.__name__}\b", line))


def _attributes(cls: type) -> str:
    own = vars(cls).get("__init__")
    names = [name for name in inspect.signature(own).parameters if name not in ("self", "message")] if own else []
    return f" It carries {', '.join(f'`.{name}`' for name in names)}." if names else ""


WRITTEN: dict[str, Callable[[], str]] = {
    "docs/reference/names.md": names_page,
    "docs/reference/commands.md": commands_page,
    "docs/errors.md": errors_page,
    "docs/choosing.md": choosing_page,
    "docs/design.md": design_page,
    "tests/api.txt": snapshot,
}


def main() -> None:
    for name, made in WRITTEN.items():
        path, text = ROOT / name, made()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
