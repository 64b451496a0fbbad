"""The figures that keep the code readable without jumping: printed with `pytest -s`, and held to their bars."""

from __future__ import annotations

from pathlib import Path

import pytest
from code_figures import Names, Shape, Walk, count_code_lines, measure_names, measure_shape, product_files, trace_walk

from chathistory import ChatEngine, History, open_store
from chathistory.testing import FakeMessagesAPI

ROOT = Path(__file__).parents[1]
PRODUCT = list(product_files(ROOT))
ROOTS = [ROOT / "chathistory", ROOT / "plugins"]
HELLO = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def shape() -> Shape:
    return measure_shape(PRODUCT)


@pytest.fixture(scope="module")
def names() -> Names:
    return measure_names(PRODUCT)


def test_private_functions_say_what_they_do_with_what(names, capsys):
    with capsys.disabled():
        print(f"\nprivate functions with a one-word name: {names.share_one_word:.1%} of {names.private}")
    assert names.share_one_word <= 0.20


def test_functions_are_not_named_by_a_participle(names, capsys):
    with capsys.disabled():
        print(f"\nnames that are one participle: {names.share_participles:.2%} of {names.functions}")
    assert names.share_participles <= 0.01, names.participles


def test_a_class_name_belongs_to_one_file(names):
    assert len(names.shared_classes) <= 3, names.shared_classes


def test_functions_are_short_enough_to_read(shape, capsys):
    with capsys.disabled():
        print(f"\n{shape.functions} functions: median {shape.median} lines, p90 {shape.p90}, longest {shape.longest}")
    assert shape.p90 <= 25


def test_few_helpers_are_called_from_one_place(shape, capsys):
    with capsys.disabled():
        print(f"\nprivate and called from one place: {shape.share_called_once:.1%} of all functions")
    assert shape.share_called_once <= 0.12


def test_no_function_returns_a_tuple_of_more_than_two_unnamed_things(shape):
    assert shape.wide_tuples == ()


def test_one_send_runs_through_few_functions(tmp_path, capsys):
    with open_store(f"file:{tmp_path}/store") as store:
        engine = ChatEngine(FakeMessagesAPI().client(), store, model="claude-sonnet-5-5")
        engine.send("warm", "Hello")  # modules are loaded, and the folder is made
        walk = trace_walk(lambda: engine.send("a", "Hello"), ROOTS)
    show("send", walk, capsys)
    assert walk.functions <= 235  # two appends, a request and the view; 120 in 22 files is wanted
    assert walk.files <= 51


def test_loading_runs_through_few_functions(tmp_path, capsys):
    with open_store(f"file:{tmp_path}/store") as store:
        chat = History(store).conversation("a")
        chat.append([HELLO, {"role": "assistant", "content": "Hi"}])
        chat.messages()  # modules are loaded
        walk = trace_walk(chat.messages, ROOTS)
    show("messages", walk, capsys)
    assert walk.functions <= 75  # 50 in 14 files is wanted
    assert walk.files <= 23


def show(name: str, walk: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{name}(): {walk.calls} calls of {walk.functions} functions in {walk.files} files")


def test_the_figures_count_what_they_say(tmp_path):
    source = tmp_path / "sample.py"
    source.write_text(
        '"""What it is."""\n\nimport os  # a comment\n\n# another\n\n\n'
        'def public():\n    """Say."""\n    return _once() + _twice() + _twice()\n\n\n'
        "def _once():\n    return 1\n\n\n"
        "def _twice() -> tuple[int, int, int]:\n    return (\n        1,\n        2,\n        3,\n    )\n\n\n"
        "def pair() -> tuple[int, ...]:\n    return (1,)\n"
    )
    shape = measure_shape([source])
    assert count_code_lines(source) == 13
    assert (shape.functions, shape.longest, shape.private_called_once) == (4, 6, 1)
    assert shape.wide_tuples == ("sample.py:17 _twice",)


def test_the_figures_of_names_count_what_they_say(tmp_path):
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(
        "class Reader:\n    def __init__(self): ...\n    def read(self): ...\n    def _held(self): ...\n\n\n"
        "def checked(): ...\n\n\ndef _check_all(): ...\n\n\ndef need(): ...\n"
    )
    second.write_text("class Reader: ...\n\n\nclass Writer: ...\n\n\ndef _told_by(): ...\n")
    names = measure_names([first, second])
    assert (names.functions, names.private) == (6, 3)
    assert names.private_one_word == ("first.py:4 _held",)
    assert names.participles == ("first.py:7 checked", "first.py:4 _held")
    assert names.shared_classes == ("Reader",)
