"""Writes the parts of the documentation that are made from the code: `make reference` runs it, and a test compares.

docs/reference/*.md          every public name: see reference_pages.py
docs/reference/commands.md   every command with its arguments, options and environment variables
docs/errors.md               the tree of errors, and the words of each
docs/choosing.md             the table of traits, between two comments
docs/configuration.md        the tables of settings and options, between comments
docs/design.md               the list of modules, between two comments
CHANGELOG.md                 the section of unreleased changes; docs/changelog.md has the same text for the site
tests/api.txt                names and signatures only: a change of it is a change for users
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from changelog_pages import make_changelog, make_changelog_page
from docs_names import ERRORS, public, snapshot
from docstrings import parse_docstring
from reference_pages import ERRORS_PAGE, MADE, ROOT, Context, add_links, join_parts, make_table, pages, render_docstring

from chathistory import errors
from chathistory.cli.app import group
from chathistory.cli.errors import ExitCode
from chathistory.storage.plugins import load_store_class

SCHEMES = {  # the schemes of each store class
    "memory": ["memory"],
    "file": ["file"],
    "redis": ["redis", "rediss", "unix", "redis+sentinel", "redis+cluster"],
    "mongodb": ["mongodb", "mongodb+srv"],
    "s3": ["s3"],
}
PAGES = {"memory": "memory.md", "file": "file.md", "redis": "redis.md", "mongodb": "mongodb.md", "s3": "s3.md"}
BEGIN, END = "<!-- table of traits -->", "<!-- end of the table -->"


# Commands.


def list_commands() -> Iterator[tuple[str, click.Command]]:
    """Yield the words and the command of each command, groups and subcommands included."""

    def walk(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield words, command
        for name in sorted(getattr(command, "commands", {})):
            yield from walk(f"{words} {name}", command.commands[name])

    yield from walk("chathistory", group)


def make_context(command: click.Command, words: str | None = None) -> click.Context:
    """Return the context of a call: click remembers the help options of the first context it sees."""
    return click.Context(command, parent=click.Context(group, **group.context_settings), info_name=words)


EXIT_CODES = {
    ExitCode.OK: "done; `doctor`: everything is sound, or repaired",
    ExitCode.FAILED: "failed; `doctor`: something is not repaired",
    ExitCode.USAGE: "usage error: an unknown option, a missing argument, no API key",
    ExitCode.PARTLY: "partly done: standard error names the failed conversations, or says that some may be missing",
    ExitCode.INTERRUPTED: 'Ctrl-C, or "no" to a question',
}


def commands_page() -> str:
    intro = (
        'The command needs `pip install "chathistory[cli]"`. Below is every command with its arguments and options; '
        "[Using chathistory](../using.md) shows them in use."
    )
    codes = make_table(["Exit code", "Meaning"], [[str(int(code)), words] for code, words in EXIT_CODES.items()])
    parts = ["# Commands", MADE, intro, codes]
    for words, command in list_commands():
        parts += [f"## {words}", help_to_markdown(command.help or ""), _parameters_table(command)]
    return join_parts(*parts)


def help_to_markdown(help_text: str) -> str:
    """Return the help of a command as Markdown; paragraphs that click does not wrap become blocks."""

    def to_block(found: re.Match[str]) -> str:
        title, _, lines = found[1].partition("\n")
        return f"{title}\n\n```text\n{inspect.cleandoc(lines)}\n```"

    return re.sub(r"(?:\x08|\\b)\n(.*?)(?=\n\n|\Z)", to_block, inspect.cleandoc(help_text), flags=re.DOTALL)


def _parameters_table(command: click.Command) -> str:
    context = make_context(command)
    rows = [_parameter_row(each, context) for each in command.get_params(context)]
    return make_table(["Argument or option", "Default", "Variable", "Description"], rows)


ARGUMENTS = {
    "id": "ID of the conversation.",
    "ids": "IDs of conversations.",
    "new_id": "The new ID; no conversation may have it yet.",
    "message": "The message to send; without it: standard input, or a prompt on a terminal.",
    "file": "The file to import; - is standard input.",
    "url": "URL of the store to test.",
}


def _parameter_row(each: click.Parameter, context: click.Context) -> list[str]:
    if not isinstance(each, click.Option):
        return [f"`{each.make_metavar(context)}`", "", "", ARGUMENTS[each.name or ""]]
    value = "" if each.is_flag or each.count else f" {each.make_metavar(context)}"
    default = "" if each.is_flag or not isinstance(each.default, str | int) else f"`{each.default}`"
    if each.secondary_opts:  # such as --verify and --no-verify
        default = f"`{each.opts[0] if each.default else each.secondary_opts[0]}`"
    words, _, bracket = (each.help or "").partition(
        " ["
    )  # such as [env var: CHATHISTORY_STORE; default: as configured]
    given = dict(part.split(": ", 1) for part in bracket.rstrip("].").split("; ") if part)
    variable = given.get("env var", each.envvar or "")
    return [
        f"`{', '.join([*each.opts, *each.secondary_opts])}{value}`",
        given.get("default", default),
        f"`{variable}`" if variable else "",
        words,
    ]


def list_variables() -> set[str]:
    """Return our environment variables that the source names."""
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
    return make_table(head, rows)


def choosing_page() -> str:
    text = (ROOT / "docs" / "choosing.md").read_text()
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n\n{traits_table()}\n\n{END}", text, flags=re.DOTALL)


# The tables of settings and options.


def configuration_page() -> str:
    sys.path.append(str(ROOT / "tests" / "support"))  # pytest finds it without this
    from configuration_tables import PAGE, update_tables

    return update_tables(PAGE.read_text())


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
    context = Context(ERRORS_PAGE, ERRORS)
    parts = ["# Errors", MADE, first, f"```text\n{inspect.cleandoc(tree)}\n```"]
    parts += [add_links(each, context) for each in rest]
    for name, cls in sorted(public(ERRORS), key=lambda pair: _tree_position(pair[1])):
        bases = " and ".join(f"`{base.__name__}`" for base in cls.__bases__)
        words = parse_docstring(cls.__doc__)
        carried = "" if words.attributes else _describe_attributes(cls)
        own = dataclasses.replace(context, cls=name)
        parts += [f"## {name}", add_links(f"A kind of {bases}.{carried}", own), *render_docstring(words, own)]
    return join_parts(*parts)


def _tree_position(cls: type) -> tuple[int, ...]:
    """Return the position of a class in the tree that the docstring of the module draws."""
    lines = (errors.__doc__ or "").splitlines()
    return tuple(number for number, line in enumerate(lines) if re.search(rf"(?:─ | {{4}}){cls.__name__}\b", line))


def _describe_attributes(cls: type) -> str:
    own = vars(cls).get("__init__")
    names = [name for name in inspect.signature(own).parameters if name not in ("self", "message")] if own else []
    return f" It carries {', '.join(f'`.{name}`' for name in names)}." if names else ""


WRITTEN: dict[str, Callable[[], str]] = {
    **{f"docs/reference/{name}": made for name, made in pages().items()},
    "docs/reference/commands.md": commands_page,
    "docs/errors.md": errors_page,
    "docs/choosing.md": choosing_page,
    "docs/configuration.md": configuration_page,
    "docs/design.md": design_page,
    "CHANGELOG.md": make_changelog,
    "docs/changelog.md": make_changelog_page,
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
