"""The architecture: which module may import which, what an import loads, how long a file may be, what is public."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import chathistory

ROOT = Path(chathistory.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py"))

# From top to bottom; a module imports from its own layer or from one below it.
LAYERS = (
    ("chathistory.cli", "chathistory.types", "chathistory.testing.certify"),
    ("chathistory.engine",),
    ("chathistory", "chathistory.aio", "chathistory.config"),
    ("chathistory.conversation", "chathistory.history"),
    ("chathistory.transfer",),
    ("chathistory.operations", "chathistory.trimming"),
    ("chathistory.view",),
    ("chathistory.log",),
    ("chathistory.testing",),
    ("chathistory.messages", "chathistory.storage", "chathistory.control_characters"),
    ("chathistory.defaults",),
    ("chathistory.checks", "chathistory.durations"),
    ("chathistory.errors",),
)
CLIENT_LIBRARIES = {"redis", "pymongo", "bson", "boto3", "botocore"}
LATER = (
    "chathistory.config",
    "tomllib",
    "anthropic",
    "redis",
    "pymongo",
    "boto3",
    "pydantic",
    "pluggy",
    "asyncio",
    "click",
    "rich",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int:
    """Return the number of a module's layer: that of the longest listed prefix of its name."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        for number, layer in enumerate(LAYERS):
            if ".".join(parts[:length]) in layer:
                return number
    return next(number for number, layer in enumerate(LAYERS) if module in layer)


def imports(path: Path) -> Iterator[tuple[str, bool, bool]]:
    """Yield each import of a module: its name, whether it is at the top, whether only type checkers see it."""

    def walk(node: ast.AST, *, top: bool, typing: bool) -> Iterator[tuple[str, bool, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, top, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: use absolute imports"
                for alias in child.names:
                    yield resolved(child.module or "", alias.name), top, typing
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                yield from walk(ast.Module(child.body, []), top=top, typing=True)
                yield from walk(ast.Module(child.orelse, []), top=top, typing=typing)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, top=top and not function, typing=typing)

    yield from walk(ast.parse(path.read_text()), top=True, typing=False)


def resolved(module: str, name: str) -> str:
    """Return the module that `from module import name` reads: a submodule if there is one of that name."""
    place = ROOT.parent.joinpath(*module.split("."), name)
    return f"{module}.{name}" if place.is_dir() or place.with_suffix(".py").exists() else module


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "chathistory"


PRODUCT = [path for path in MODULES if not name_of(path).startswith("chathistory.testing")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_from_a_layer_above(path):
    own = layer_of(name_of(path))
    for module, _, typing in imports(path):
        if is_ours(module) and not typing and name_of(path) != "chathistory":
            assert layer_of(module) >= own, f"{name_of(path)} imports {module}"


def test_modules_do_not_import_each_other_in_circles():
    """Imports inside functions count; those for type checkers do not."""
    edges = {
        name_of(path): {module for module, _, typing in imports(path) if is_ours(module) and not typing}
        for path in MODULES
    }
    edges["chathistory"] = set()  # every import of a submodule imports it first
    assert circles_of(edges) == {}


def test_packages_do_not_import_each_other_in_circles():
    edges: dict[str, set[str]] = {}
    for path in PRODUCT:
        to = {package_of(module) for module, _, typing in imports(path) if is_ours(module) and not typing}
        edges.setdefault(package_of(name_of(path)), set()).update(to)
    edges["chathistory"] = set()
    assert circles_of({package: to - {package} for package, to in edges.items()}) == {}


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def circles_of(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the edges that remain after modules without outgoing edges are removed, repeatedly."""
    left = dict(edges)
    while leaves := [name for name, to in left.items() if not (to & left.keys())]:
        for name in leaves:
            del left[name]
    return left


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_of_the_core_knows_a_backend(path):
    roots = {module.partition(".")[0] for module, _, _ in imports(path)}
    assert roots.isdisjoint(CLIENT_LIBRARIES)
    assert not any(root.startswith("chathistory_") for root in roots)


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_the_sdk_is_imported_only_when_it_is_used(path):
    for module, top, typing in imports(path):
        if module.partition(".")[0] == "anthropic":
            assert typing or not top, f"{name_of(path)} imports {module} at its top"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_short_and_have_a_docstring(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 600  # a longer one has more than one purpose
    assert path.name == "__init__.py" or (ast.get_docstring(ast.parse(text)) or "").strip()
    assert path.stem not in ("utils", "helpers", "common", "misc")


def test_importing_loads_no_heavy_module():
    assert loaded_by("import chathistory").isdisjoint(LATER)


def test_importing_the_fake_api_does_not_load_the_sdk():
    loaded = loaded_by("import chathistory.testing.fake_api")
    assert "chathistory.testing.fake_api" in loaded
    assert loaded.isdisjoint({"anthropic", "pydantic", "pytest"})


def loaded_by(code: str) -> set[str]:
    """Return the modules that a new process loads when it runs `code`, without those of its start."""
    code = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_loaded_modules_are_seen():
    loaded = loaded_by("import chathistory; chathistory.open_store('memory:'); chathistory.AsyncHistory")
    assert {"pluggy", "asyncio", "chathistory_memory"} <= loaded
    assert loaded.isdisjoint({"anthropic", "pydantic", "redis", "pymongo", "boto3", "click", "rich"})


@pytest.mark.parametrize("name", chathistory.__all__)
def test_every_public_name_exists_and_has_a_docstring(name):
    value = getattr(chathistory, name)
    if name in ("Cursor", "OWN_SCOPE", "UNCHANGED"):  # strings and an alias of `str`, documented at their definition
        assert value is str or isinstance(value, str)
        return
    assert (inspect.getdoc(value) or "").strip(), f"{name} has no docstring"
    if name == "hookimpl":  # a marker of pluggy's
        return
    assert value.__doc__ is None or not value.__doc__.startswith(f"{name}("), "the docstring is generated"


@pytest.mark.parametrize("name", [n for n in chathistory.__all__ if inspect.isclass(getattr(chathistory, n))])
def test_every_public_method_has_a_docstring(name):
    for member, value in vars(getattr(chathistory, name)).items():
        if member.startswith("_") or not (inspect.isroutine(value) or isinstance(value, property | classmethod)):
            continue
        assert inspect.getdoc(getattr(getattr(chathistory, name), member)), f"{name}.{member}"


def test_public_names_are_sorted_and_others_raise():
    assert chathistory.__all__ == sorted(chathistory.__all__, key=lambda name: (not name.isupper(), name))
    assert len(set(chathistory.__all__)) == len(chathistory.__all__)
    assert set(chathistory.__all__) <= set(dir(chathistory))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = chathistory.no_such_name
    for name, module in chathistory._LAZY.items():
        assert getattr(chathistory, name) is getattr(importlib.import_module(module), name)
