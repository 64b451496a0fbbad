"""The reference is made from the code: it is up to date and complete, and everything in it has a description."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
import write_reference
from docs_names import is_listed_before, members, modules, public, signature
from docstrings import parse_docstring
from reference_pages import (
    documented_parent,
    find_constant,
    has_own_page,
    is_class,
    list_parameters,
    locations,
    make_slug,
)

from chathistory.storage import hookspecs
from chathistory.storage.plugins import COMMON_OPTIONS, load_store_class

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE = {DOCS / name.removeprefix("docs/") for name in write_reference.WRITTEN}
BY_HAND = {path: path.read_text() for path in DOCS.rglob("*.md") if path not in MADE} | {
    ROOT / "README.md": (ROOT / "README.md").read_text(),
    **{DOCS / name: (DOCS / name).read_text() for name in ("choosing.md", "configuration.md", "design.md")},
}
OPTIONS = [  # without those that are passed on to pymongo
    (name, option)
    for name in write_reference.SCHEMES
    for option, what in sorted(load_store_class(name).options.items())
    if not what.help.startswith("as pymongo documents it")
]
PYTHON = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = dict(write_reference.list_commands())
FIXTURES = {"chathistory.testing.HistoryStoreContract.instances", "chathistory.testing.fixtures.messages_api_url"}
"""Their parameters are other fixtures of pytest."""


@pytest.mark.parametrize("name", write_reference.WRITTEN)
def test_generated_pages_are_up_to_date(name):
    assert (ROOT / name).read_text() == write_reference.WRITTEN[name](), (
        "run `make reference`, and review the difference"
    )


def test_the_reference_has_no_other_pages():
    assert {path for path in (DOCS / "reference").iterdir() if path not in MADE} == set()


def test_every_public_name_and_member_has_a_heading_on_its_page():
    for (module, name), location in locations().items():
        text = (DOCS / "reference" / location.page).read_text()
        headings = [make_slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
        assert not location.anchor or location.anchor in headings, f"{module}.{name}"
    assert locations()["chathistory", "History"].link_from("index.md") == "history.md"
    assert locations()["chathistory", "History.delete"].link_from("index.md") == "history.md#historydelete"
    assert locations()["chathistory", "BaseStore.append"].link_from("index.md") == "history-store.md#historystoreappend"
    assert locations()["chathistory.errors", "Conflict"].link_from("index.md") == "../errors.md#conflict"


def test_a_signature_names_its_class_so_that_the_search_finds_the_method():
    text = (DOCS / "reference" / "history.md").read_text()
    assert "\n## History.delete\n\n```py\nHistory.delete(\n    id: str,\n" in text


def test_every_class_with_many_members_has_a_page():
    for module in modules():
        for name, value in public(module):
            if is_class(value) and sum(not documented_parent(value, each) for each, _ in members(value)) > MOST_MEMBERS:
                assert has_own_page(module, name), f"add {name} to reference_pages.CLASSES"


MOST_MEMBERS = 7


def test_every_name_in_the_reference_has_a_description():
    bare = {f"{module}.{name}" for module, name, value in explained() if not first_words(name, value)}
    assert bare == set()


def test_every_parameter_and_field_has_a_description():
    assert [f"{name}({each})" for name, each in parameters_without_words() if name not in FIXTURES] == []


def explained():
    """Yield module, name and value of everything in the reference, members of classes included."""
    for module in modules():
        for name, value in public(module):
            if not is_listed_before(module, name, value):
                yield module, name, value
                for member, _ in members(value) if is_class(value) else ():
                    if not documented_parent(value, member):
                        yield module, f"{name}.{member}", getattr(value, member)


def first_words(name, value):
    has_docstring = is_class(value) or inspect.isroutine(value) or isinstance(value, property)
    return inspect.getdoc(value) if has_docstring else find_constant(name, value)[1]


def parameters_without_words():
    """Yield each parameter and field that no docstring describes, with the name of its function or class."""
    for module, name, value in explained():
        if not signature(value):
            continue
        words = parse_docstring(inspect.getdoc(value))
        known = words.args | words.attributes | parse_docstring(value.__init__.__doc__).args
        for base in value.__mro__[1:-1] if is_class(value) else ():
            known |= parse_docstring(base.__doc__).attributes
        if not words.twin:
            for parameter in list_parameters(value):
                if parameter not in known:
                    yield f"{module}.{name}", parameter


def test_the_public_modules_are_those_that_pages_import_from():
    text = "\n".join(block for page in BY_HAND.values() for block in PYTHON.findall(page))
    for module, names in re.findall(r"^ *from (chathistory[\w.]*) import ([^\n#(]+|\([^)]*\))", text, re.MULTILINE):
        assert module in modules(), f"a page imports from {module}, which is not public"
        known = {name for name, _ in public(module)} | {"errors", "trimming"}
        assert {each for each in re.split(r"[\s,()]+", names) if each} <= known, (module, names)


def test_the_built_in_schemes_are_all_there():
    ours = {point.name for point in entry_points(group="chathistory.v1") if point.value.startswith("chathistory_")}
    assert ours >= {scheme for schemes in write_reference.SCHEMES.values() for scheme in schemes}
    served = {point.name for point in entry_points(group="chathistory.v1") if point.dist.name == "chathistory"}
    assert served == {scheme for schemes in write_reference.SCHEMES.values() for scheme in schemes}


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_is_on_the_page_of_its_backend_and_has_words(name, option):
    assert re.search(rf"`{option}`|\b{option}=", (DOCS / write_reference.PAGES[name]).read_text())
    assert load_store_class(name).options[option].help.strip()


@pytest.mark.parametrize("option", COMMON_OPTIONS)
def test_every_common_option_is_explained_by_hand(option):
    assert any(re.search(rf"`{option}`|\b{option}=", text) for text in BY_HAND.values())


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_explained_by_hand_and_its_options_have_words(words):
    command = COMMANDS[words]
    assert any(words in text for text in BY_HAND.values())
    assert (command.help or "").strip()
    for each in command.get_params(write_reference.make_context(command)):
        if isinstance(each, click.Option):
            assert (each.help or "").strip(), f"{words} {each.opts[0]}"


@pytest.mark.parametrize("words", COMMANDS)
def test_the_help_of_every_command_shows_examples_that_can_be_copied(words):
    shown = COMMANDS[words].get_help(write_reference.make_context(COMMANDS[words], words))
    assert re.search(r"^  Examples?:\n    chathistory", shown, re.MULTILINE), shown
    assert re.search(rf"^    {words}", shown, re.MULTILINE), shown


def test_every_environment_variable_is_explained_by_hand():
    pages = "\n".join(BY_HAND.values())
    assert write_reference.list_variables(), "there are some"
    assert [name for name in write_reference.list_variables() if name not in pages] == []


@pytest.mark.parametrize("hook", [name for name in vars(hookspecs) if name.startswith("chathistory_")])
def test_every_hook_is_shown_in_use(hook):
    assert f"    def {hook}(" in (DOCS / "reference" / "storage.md").read_text()


@pytest.mark.parametrize("name", sorted(name for name, _ in public("chathistory.errors")))
def test_every_error_stands_in_the_tree(name):
    page = (DOCS / "errors.md").read_text()
    assert re.search(rf"^\W*{name}\b", page.split("```")[1], re.MULTILINE)
    assert f"\n## {name}\n" in page
