"""Build a release and check it as a user will install it.

    make release                                          builds into dist/ and tests it on this Python
    python tests/release/release.py dist 3.11 3.12 3.13   the same on these Pythons

1. the sdist from the tree, and the wheel from the sdist;
2. their contents: every module, script and licence, and nothing else;
3. their metadata, as a package index reads it;
4. in an empty environment of each Python: the library alone; with the extra `cli`, a chat with the fake in two
   processes; and the contract on `memory:` and `file:`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = {  # import names, and their folders in the tree
    "chathistory": ROOT / "chathistory",
    **{path.name: path for path in sorted((ROOT / "plugins").glob("chathistory_*"))},
}
NOT_CODE = ("LICENSE", "METADATA", "RECORD", "WHEEL", "entry_points.txt")
IN_SDIST = {
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"),
    *("Makefile", "PKG-INFO", "pyproject.toml", "zensical.toml"),
}

USAGE_ERROR = 2
LIBRARY = """
import sys

from chathistory import History, load_settings, open_store

with open_store(sys.argv[1]) as store:
    history = History(store)
    history.conversation("alone").append({"role": "user", "content": "Good morning"})
    print([(row.id, row.messages) for row in history.list().items])
assert load_settings().scope
assert not {"click", "rich"} & set(sys.modules)
"""

CONTRACT = """
import pytest

from chathistory import open_store
from chathistory.testing import HistoryStoreContract


class TestMemory(HistoryStoreContract):
    @pytest.fixture
    def store(self):
        with open_store("memory:") as store:
            yield store


class TestFile(HistoryStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        self.folder = tmp_path
        with open_store(f"file:{tmp_path}/history") as store:
            yield store

    def reopen(self, store):
        return open_store(f"file:{self.folder}/history")

    def unreachable_store(self):
        (self.folder / "a-file").write_text("where a folder should be")
        return open_store(f"file:{self.folder}/a-file/history")
"""


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a command and return its output; exit with the output if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


# Building.


def build(folder: Path) -> tuple[Path, Path]:
    """Build into `folder`, and return the sdist and the wheel (built from the sdist)."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


# Contents.


def expected_files() -> set[str]:
    """Return the files that a wheel must hold: all files of the packages but for caches of Python."""
    files = (
        (name, path) for name, root in SHIPPED.items() for path in root.rglob("*") if "__pycache__" not in path.parts
    )
    return {f"{name}/{path.relative_to(SHIPPED[name]).as_posix()}" for name, path in files if path.is_file()}


def faults_of_wheel(names: Iterable[str]) -> list[str]:
    """Return what is wrong with the contents of a wheel; an empty list if nothing is."""
    found = {name for name in names if not re.match(r"chathistory-[^/]*\.dist-info/", name)}
    about = {name.partition("/")[2].rpartition("/")[2] for name in set(names) - found}
    faults = [f"lacks {name}" for name in sorted(expected_files() - found)]
    faults += [f"holds {name}" for name in sorted(found - expected_files())]
    faults += [f"lacks its {name}" for name in NOT_CODE if name not in about]
    faults += [] if any(name.endswith(".lua") for name in found) else ["has no scripts for Redis"]
    faults += [f"{name} is not typed" for name in SHIPPED if f"{name}/py.typed" not in found]
    return faults


def faults_of_sdist(names: Iterable[str]) -> list[str]:
    """Return what is wrong with the contents of an sdist; an empty list if nothing is."""
    found = {name.partition("/")[2] for name in names}
    tracked = set(run("git", "ls-files").splitlines()) if (ROOT / ".git").exists() else found
    sources = {f"plugins/{name}" if name.startswith("chathistory_") else name for name in expected_files()}
    faults = [f"lacks {name}" for name in sorted((IN_SDIST | sources) - found)]
    return faults + [f"holds {name}" for name in sorted(found - tracked - {"PKG-INFO"})]


def check_contents(sdist: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        faults = [f"{wheel.name} {fault}" for fault in faults_of_wheel(archive.namelist())]
    with tarfile.open(sdist) as archive:
        names = [member.name for member in archive.getmembers() if member.isfile()]
    faults += [f"{sdist.name} {fault}" for fault in faults_of_sdist(names)]
    if faults:
        sys.exit("\n".join(faults))


# In an empty environment.


def python_of(version: str) -> Path | None:
    """Return an interpreter of a version, from the path or from pyenv, or None if this machine has none."""
    near = [shutil.which(f"python{version}"), sys.executable]
    if pyenv := shutil.which("pyenv"):
        known = run(pyenv, "versions", "--bare").split()
        near += [f"{run(pyenv, 'prefix', each).strip()}/bin/python" for each in known if each.startswith(f"{version}.")]
    return next((Path(each) for each in near if each and _has_version(each, version)), None)


def _has_version(python: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def check_installed(wheel: Path, python: Path, folder: Path) -> str:
    """Install the wheel in an empty environment and use it; return pytest's summary line of the contract."""
    run(python, "-m", "venv", folder / "env")
    own = folder / "env" / "bin"
    run(own / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    check_library(own, folder)
    run(own / "python", "-m", "pip", "install", "--quiet", f"{wheel}[cli]", cwd=folder)
    check_chat(own, folder)
    run(own / "python", "-m", "pip", "install", "--quiet", "pytest", cwd=folder)
    (folder / "test_file_contract.py").write_text(CONTRACT)
    seen = run(own / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_file_contract.py", cwd=folder)
    return seen.splitlines()[-1]


def check_library(own: Path, folder: Path) -> None:
    """Use the library without the extra `cli`, and check that the command names what it needs."""
    seen = run(own / "python", "-W", "error", "-c", LIBRARY, f"file:{folder}/alone", cwd=folder)
    if seen.strip() != "[('alone', 1)]":
        sys.exit(f"without the extra cli, the library does not list the conversation: {seen}")
    done = subprocess.run([own / "chathistory", "list"], cwd=folder, capture_output=True, text=True, check=False)
    hint = '(click, rich); to install them, run: pip install "chathistory[cli]"'
    if done.returncode != USAGE_ERROR or done.stdout or hint not in done.stderr or done.stderr.count("\n") != 1:
        sys.exit(f"without the extra cli, the command does not say what to install: {done.stdout}{done.stderr}")


def check_chat(own: Path, folder: Path) -> None:
    """Chat with the fake API in two processes, and check what is stored."""
    command, store = own / "chathistory", ("--store", f"file:{folder}/history")
    for number in (1, 3):
        seen = run(command, "chat", "--fake", "-c", "hello", "Good morning", *store, cwd=folder)
        if f"You said: Good morning (message {number} of" not in seen:
            sys.exit(f"the second process does not continue the conversation: {seen}")
    if run(command, "list", *store, cwd=folder).split("\t")[:2] != ["hello", "4"]:
        sys.exit("the conversation is not listed")
    for line in run(command, "backends", cwd=folder).splitlines():
        scheme, _, state = line.split("\t")
        if state != "works" and "pip install" not in state:
            sys.exit(f"{scheme} neither works nor names the package to install: {state}")


def main(folder: str, *versions: str) -> None:
    place = Path(folder).resolve()
    say("building")
    sdist, wheel = build(place)
    check_contents(sdist, wheel)
    say(f"{sdist.name}, {wheel.name}: complete, and nothing else in them")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    missing = []
    for version in versions or ("{}.{}".format(*sys.version_info),):
        if (python := python_of(version)) is None:
            missing.append(version)
            continue
        with tempfile.TemporaryDirectory() as empty:
            say(f"Python {version}: {check_installed(wheel, python, Path(empty))}")
    if missing:
        sys.exit(f"NOT TESTED, this machine has no such Python: {', '.join(missing)}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["dist"])
