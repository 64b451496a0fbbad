"""The pages of the reference: one for each large class, and one for the rest of a module.

docs/reference/index.md      all public names, with a line of description each
docs/reference/history.md    a class such as `History`: its constructor, and a heading for each method and property
docs/reference/types.md      a module such as `chathistory.types`: its functions, constants and small classes
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from docs_names import ERRORS, fold_call, is_listed_before, members, modules, prefix_of, public, signature
from docstrings import Docstring, parse_docstring

ROOT = Path(__file__).parents[2]
MADE = "<!-- made from the code by `make reference`: change it there -->"

CLASSES = {  # those with a page of their own, in the order of the navigation
    "ChatEngine": "chat-engine",
    "ReplyStream": "reply-stream",
    "Reply": "reply",
    "AsyncChatEngine": "async-chat-engine",
    "AsyncReplyStream": "async-reply-stream",
    "History": "history",
    "Conversation": "conversation",
    "ConversationInfo": "conversation-info",
    "Entry": "entry",
    "AsyncHistory": "async-history",
    "AsyncConversation": "async-conversation",
    "Settings": "settings",
    "StoreURL": "store-url",
    "HistoryStore": "history-store",
    "BaseStore": "base-store",
    "WrappedStore": "wrapped-store",
    "FakeMessagesAPI": "fake-messages-api",
    "HistoryStoreContract": "history-store-contract",
}
MODULES = {  # a page, and the modules on it
    "functions": ["chathistory"],
    "types": ["chathistory.types"],
    "trimming": ["chathistory.trimming"],
    "storage": [
        "chathistory.storage.hookspecs",
        "chathistory.storage.values",
        "chathistory.storage.checks",
        "chathistory.storage.abilities",
        "chathistory.storage.url",
        "chathistory.storage.cursors",
    ],
    "testing": ["chathistory.testing", "chathistory.testing.fake_api", "chathistory.testing.fixtures"],
}
TITLES = {
    "functions": "Functions, reports and values",
    "types": "Types in signatures",
    "trimming": "Trimming policies",
    "storage": "For authors of backends",
    "testing": "For tests",
}
INTRODUCTION = """\
Every public class, function and constant, with its signature and its docstring. What is listed here is promised: it
changes only with a note in the changelog. Anything else that can be imported may change without notice. The
[commands](commands.md) and the [errors](../errors.md) have pages of their own."""
ERRORS_PAGE = "../errors.md"
LONGEST_DEFINITION = 300


@dataclasses.dataclass(frozen=True)
class Location:
    """The place of an explanation: the path of a page below docs/reference, and the anchor of a heading on it."""

    page: str
    anchor: str = ""

    def link_from(self, page: str) -> str:
        """Return the target of a link on another page, or on this one."""
        path = "" if self.page == page else self.page
        if page == ERRORS_PAGE and path:
            path = f"reference/{path}"
        return f"{path}#{self.anchor}" if self.anchor else path


def join_parts(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def make_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown; a bar within a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def make_slug(heading: str) -> str:
    """Return the anchor that the site, and a page on GitHub, give to a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


# Where each name is explained.


def page_of_module(module: str) -> str:
    if module == ERRORS:
        return ERRORS_PAGE
    return next(f"{page}.md" for page, names in MODULES.items() if module in names)


def has_own_page(module: str, name: str) -> bool:
    """Return True if a class has a page of its own; the fake's `Reply` only shares the name of one that has."""
    first = next(each for each in modules() if name in import_module(each).__all__)
    return name in CLASSES and getattr(import_module(first), name) is getattr(import_module(module), name)


@functools.cache
def locations() -> dict[tuple[str, str], Location]:
    """Return the location of each public name and each member of a class, by module and name."""
    found: dict[tuple[str, str], Location] = {}
    by_value: list[tuple[Any, Location]] = []
    parents: dict[tuple[str, str], str] = {}
    for module in modules():
        for name, value in public(module):
            if is_listed_before(module, name, value):
                found[module, name] = next(location for each, location in by_value if each is value)
                continue
            is_alone = has_own_page(module, name)
            page = f"{CLASSES[name]}.md" if is_alone else page_of_module(module)
            found[module, name] = Location(page, "" if is_alone else make_slug(name))
            by_value.append((value, found[module, name]))
            if is_class(value):
                for member, _ in members(value):
                    found[module, f"{name}.{member}"] = Location(page, make_slug(f"{name}.{member}"))
                    if parent := documented_parent(value, member):
                        parents[module, f"{name}.{member}"] = parent
    return found | {name: found[resolve_name(parent)] for name, parent in parents.items()}


def resolve_name(name: str, module: str = "") -> tuple[str, str]:
    """Return the module that defines a name in a text, and the name; its own module is searched first, types last."""
    near = [each for each in modules() if module != "chathistory" and each.startswith(f"{module}.")]
    order = [module, *near, *(each for each in modules() if each != "chathistory.types"), "chathistory.types"]
    head = name.partition(".")[0]
    for each in order:
        if each and head in import_module(each).__all__:
            return each, name
    return "", name


def is_class(value: Any) -> bool:
    return inspect.isclass(value) and value is not str


def documented_parent(cls: type, member: str) -> str | None:
    """Return the public method that documents a member, such as "HistoryStore.append"; None: its own docstring."""
    own = vars(cls).get(member)
    if own is not None and getattr(own, "__doc__", None):
        return None
    for each in cls.__mro__[1:]:
        if member in vars(each) and each.__name__ in CLASSES and not each.__name__.startswith("_"):
            return f"{each.__name__}.{member}"
    others = vars(sys.modules[cls.__module__]).values()
    protocols = (each for each in others if getattr(each, "_is_protocol", False) and each is not cls)
    return next((f"{each.__name__}.{member}" for each in protocols if member in vars(each)), None)


# Text.


@dataclasses.dataclass(frozen=True)
class Context:
    """The page, module, class and function of a text, from which names in it are resolved."""

    page: str
    module: str
    cls: str = ""
    parameters: tuple[str, ...] = ()
    result: str = ""


def enter_function(context: Context, value: Any) -> Context:
    """Return the context for the docstring of a function."""
    result = getattr(value, "__annotations__", {}).get("return")
    return dataclasses.replace(
        context, parameters=list_parameters(value), result=result if isinstance(result, str) else ""
    )


def link_types(words: str, context: Context) -> str:
    """Return links to the public classes in the type of the result, except those that the text names already."""
    names = [name for name in re.findall(r"[A-Z]\w*", context.result) if f"`{name}`" not in words]
    links = [add_links(f"`{name}`", context) for name in dict.fromkeys(names) if find_location(name, context)]
    return f" {', '.join(links)}" if links else ""


def add_links(text: str, context: Context, *, errors_first: bool = False) -> str:
    """Return Markdown with links on public names in backticks; code blocks are unchanged."""

    def link(found: re.Match[str]) -> str:
        location = find_location(found[1], context, errors_first=errors_first)
        target = location.link_from(context.page) if location else ""
        return f"[{found[0]}]({target})" if target else found[0]

    lines, in_block = [], False
    for line in text.splitlines():
        in_block ^= line.startswith("```")
        is_code = in_block or line.startswith("    ")
        lines.append(line if is_code else re.sub(r"(?<![`\[\w])`([A-Za-z_][\w.]*)(?:\([^`]*\))?`(?![`\]])", link, line))
    return "\n".join(lines)


def find_location(name: str, context: Context, *, errors_first: bool = False) -> Location | None:
    """Return the location of a name in a text; None: it is not a public name."""
    if name in context.parameters or name in ("self", context.cls):
        return None
    known = locations()
    if context.cls and "." not in name and (context.module, f"{context.cls}.{name}") in known:
        return known[context.module, f"{context.cls}.{name}"]
    if name in modules():
        page = page_of_module(name)
        return Location(page, make_slug(name) if len(MODULES.get(page.removesuffix(".md"), "")) > 1 else "")
    name = re.sub(r"^chathistory\.([a-z_]+\.)*", "", name)
    if errors_first and (ERRORS, name) in known:
        return known[ERRORS, name]
    found = resolve_name(name, context.module)
    if found not in known:  # such as a field of a class
        found = (found[0], name.partition(".")[0])
    if name[0].islower() and "_" not in name and found[0] != context.module:
        return None  # a word such as `seconds`
    return known.get(found)


def render_docstring(doc: Docstring, context: Context) -> Iterator[str]:
    """Yield the parts of a docstring as Markdown."""
    yield add_links(doc.text, context)
    yield from render_sections(doc, context)


def render_sections(doc: Docstring, context: Context) -> Iterator[str]:
    """Yield the tables of parameters, fields and errors, and the line on the result."""
    for head, entries in (("Parameter", doc.args), ("Field", doc.attributes)):
        if entries:
            yield make_table(
                [head, "Description"], [[f"`{name}`", add_links(words, context)] for name, words in entries.items()]
            )
    for head, words in (("Returns", doc.returns), ("Yields", doc.yields)):
        types = link_types(words, context) if words or (head == "Returns" and not doc.yields) else ""
        if words or types:
            yield f"**{head}{types}:** {add_links(words, context)}" if words else f"**{head}{types}**"
    if doc.raises:
        rows = [
            [add_links(f"`{name}`", context, errors_first=True), add_links(words, context)]
            for name, words in doc.raises.items()
        ]
        yield make_table(["Raises", "When"], rows)


def load_summary(value: Any, name: str) -> str:
    """Return the first line of the docstring of a public value."""
    doc = value.__doc__ if is_class(value) or inspect.isroutine(value) else find_constant(name, value)[1]
    return parse_docstring(doc).summary


@functools.cache
def constants() -> dict[str, list[tuple[str, str, str]]]:
    """Return all assignments in our modules by name: the module, the source of the value, and the string after it."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for path in sorted((ROOT / "chathistory").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text()
        body = ast.parse(text).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if not (isinstance(targets[0], ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value):
                continue
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            words = str(after.value.value) if is_text else ""
            found.setdefault(targets[0].id, []).append((module, _format_value(node.value, text), words))
    return found


def _format_value(node: ast.expr, text: str) -> str:
    """Return the source of a value; a type in quotes without the quotes."""
    is_quoted = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_quoted else ast.get_source_segment(text, node) or ""


def find_constant(name: str, value: Any) -> tuple[str, str]:
    """Return the source of a constant or type alias, and the string after it in the source."""
    for module, source, words in constants().get(name, []):
        if vars(import_module(module)).get(name) is value or vars(import_module(module)).get(name) == value:
            return source, words
    raise LookupError(f"no module of ours assigns {name}")


# Signatures.


def format_code(text: str) -> str:
    """Return a block of code that is coloured like Python and not run by the tests of the pages."""
    return f"```py\n{text}\n```"


def parse_member(cls: type, member: str) -> Docstring:
    """Return the docstring of a member."""
    return parse_docstring(inspect.getdoc(getattr(cls, member)))


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[.]) (?=[A-Z`])", text)[0]


def format_call(name: str, value: Any) -> str:
    """Return the block with the call of a class or function; "" for a class that nobody calls."""
    shape = signature(value)
    return format_code(fold_call(prefix_of(value) + name + shape)) if shape else ""


def format_member(cls: type, name: str, shape: str) -> str:
    value = inspect.getattr_static(cls, name)
    if shape.startswith("("):
        return format_code(fold_call(f"{prefix_of(getattr(cls, name))}{cls.__name__}.{name}{shape}"))
    kind = value.fget.__annotations__.get("return", "") if isinstance(value, property) else ""
    return format_code(f"{cls.__name__}.{name}" + (f": {kind}" if isinstance(kind, str) and kind else ""))


def list_parameters(value: Any) -> tuple[str, ...]:
    """Return the names of the parameters of a function or class."""
    try:
        return tuple(name for name in inspect.signature(value).parameters if name not in ("self", "cls"))
    except (TypeError, ValueError):
        return ()


# Pages.


def class_page(name: str) -> str:
    """Return the page of a class."""
    module = next(each for each in modules() if name in import_module(each).__all__)
    cls = getattr(import_module(module), name)
    context = Context(f"{CLASSES[name]}.md", module, name)
    parts = [f"# {name}", MADE, *_class_parts(cls, context, f"from {module} import {name}")]
    own = [(member, shape) for member, shape in members(cls) if not documented_parent(cls, member)]
    summaries = {member: parse_member(cls, member).summary for member, _ in own}
    if own and not any(summary.startswith("See `") for summary in summaries.values()):
        rows = [
            [f"[`{member}`](#{make_slug(f'{name}.{member}')})", add_links(first_sentence(summary), context)]
            for member, summary in summaries.items()
        ]
        parts.append(make_table(["Member", "Description"], rows))
    parts.append(_list_inherited(cls, context))
    for member, shape in own:
        parts += [f"## {name}.{member}", *_member_parts(cls, member, shape, context)]
    return join_parts(*parts)


def _class_parts(cls: type, context: Context, line: str = "") -> Iterator[str]:
    """Yield the description of a class and its constructor; line: the import statement."""
    words, made = parse_docstring(cls.__doc__), vars(cls).get("__init__")
    context = dataclasses.replace(context, parameters=list_parameters(cls))
    yield add_links(words.text, context)
    shape = signature(cls)
    call = fold_call(cls.__name__ + shape) if shape else ""
    yield format_code("\n\n".join(filter(None, (line, call)))) if line or call else ""
    yield from render_sections(words, context)
    if made and made.__doc__ and not made.__doc__.startswith("Internal:") and not dataclasses.is_dataclass(cls):
        yield from render_docstring(parse_docstring(made.__doc__), context)


def _list_inherited(cls: type, context: Context) -> str:
    """Return a line of links to the members that another class documents."""
    known, links = locations(), []
    for member, _ in members(cls):
        if parent := documented_parent(cls, member):
            target = known[resolve_name(parent)].link_from(context.page)
            links.append(f"[`{member}`]({target})")
    names = sorted({parent.partition(".")[0] for each, _ in members(cls) if (parent := documented_parent(cls, each))})
    return f"As in {' and '.join(f'`{name}`' for name in names)}: {', '.join(links)}." if links else ""


def _member_parts(cls: type, member: str, shape: str, context: Context) -> Iterator[str]:
    yield format_member(cls, member, shape)
    doc = parse_member(cls, member)
    context = enter_function(context, getattr(cls, member))
    yield from render_docstring(doc, context)


def module_page(page: str) -> str:
    """Return the page of all names in its modules that have no page of their own."""
    parts = [f"# {TITLES[page]}", MADE]
    for module in MODULES[page]:
        level = "##" if len(MODULES[page]) > 1 else "#"
        context = Context(f"{page}.md", module)
        if len(MODULES[page]) > 1:
            parts += [f"## {module}"]
        if module != "chathistory":  # its docstring is on the first page
            parts += [add_links(inspect.cleandoc(import_module(module).__doc__ or ""), context)]
        for name, value in _sort_names(module):
            if not (is_listed_before(module, name, value) or has_own_page(module, name)):
                parts += [f"{level}# {name}", *_name_parts(name, value, context, level)]
    return join_parts(*parts)


def _sort_names(module: str) -> list[tuple[str, Any]]:
    """Return the public names of a module: functions, then constants and aliases, then classes."""

    def rank(pair: tuple[str, Any]) -> tuple[int, str]:
        return (0 if inspect.isroutine(pair[1]) else 2 if is_class(pair[1]) else 1), pair[0]

    return sorted(public(module), key=rank)


def _name_parts(name: str, value: Any, context: Context, level: str) -> Iterator[str]:
    if is_class(value):
        context = dataclasses.replace(context, cls=name)
        yield from _class_parts(value, context)
        yield _list_inherited(value, context)
        for member, shape in members(value):
            if not documented_parent(value, member):
                yield f"{level}## {name}.{member}"
                yield from _member_parts(value, member, shape, context)
    elif inspect.isroutine(value):
        yield format_call(name, value)
        yield from render_docstring(parse_docstring(value.__doc__), enter_function(context, value))
    else:
        source, words = find_constant(name, value)
        is_call = source.startswith(("_", "pluggy"))
        yield "" if is_call or len(source) > LONGEST_DEFINITION else format_code(fold_call(f"{name} = {source}"))
        yield from render_docstring(parse_docstring(words), context)


def index_page() -> str:
    """Return the page with all names."""
    here = Context("index.md", "chathistory")
    parts = [
        "# Reference",
        MADE,
        INTRODUCTION,
        "## Classes with a page of their own",
    ]
    rows = []
    for name in CLASSES:
        module, _ = resolve_name(name)
        rows.append(_format_index_row(module, name, getattr(import_module(module), name), here))
    parts.append(make_table(["Class", "Description"], rows))
    for module in modules():
        if module == ERRORS:
            continue
        names = [
            (name, value)
            for name, value in _sort_names(module)
            if not (is_listed_before(module, name, value) or has_own_page(module, name))
        ]
        if names:
            rows = [_format_index_row(module, name, value, here) for name, value in names]
            parts += [f"## {module}", make_table(["Name", "Description"], rows)]
    return join_parts(*parts)


def _format_index_row(module: str, name: str, value: Any, context: Context) -> list[str]:
    location = locations()[module, name]
    context = dataclasses.replace(context, module=module)
    return [f"[`{name}`]({location.link_from('index.md')})", add_links(load_summary(value, name), context)]


def pages() -> dict[str, functools.partial[str]]:
    """Return the function that writes each page, by its path below docs/reference."""
    return {
        "index.md": functools.partial(index_page),
        **{f"{page}.md": functools.partial(class_page, name) for name, page in CLASSES.items()},
        **{f"{page}.md": functools.partial(module_page, page) for page in MODULES},
    }
