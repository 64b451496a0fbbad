"""For tests of what plugin authors get: plugins that are installed, and certifying as their authors do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = Path(__file__).parents[3] / "plugins" / "template"
sys.path.append(str(TEMPLATE))  # as if it were installed
RUN = "import sys; from chathistory.cli import main; sys.argv[0] = 'chathistory'; main()"


@dataclass(frozen=True)
class Done:
    code: int
    output: str
    errors: str
    report: dict[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any]:
        return self.report or json.loads(self.output)

    def guarantee(self, name: str) -> dict[str, Any]:
        [found] = [each for each in self.data["guarantees"] if each["name"] == name]
        return found


@pytest.fixture
def plugin(tmp_path):
    """Install a module as the plugin of a scheme, in a folder that the command's path begins with."""

    def plugin(scheme, module, source="", *, group="chathistory.v1", requires=None, more=""):
        folder = tmp_path / "installed"
        info = folder / f"{scheme}_plugin-1.0.dist-info"
        info.mkdir(parents=True)
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {scheme}-plugin\nVersion: 1.0\n{needs}")
        (info / "entry_points.txt").write_text(f"[{group}]\n{scheme} = {module}\n{more}")
        if source:
            (folder / f"{module}.py").write_text(textwrap.dedent(source))

    return plugin


@pytest.fixture
def fast_folder():
    """Give a folder in memory, where there is such a thing: hundreds of tests of a store wait for the disk else."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def run_certify(pytester, monkeypatch, tmp_path, fast_folder):
    """Run pytest with the plugin in this process, in a folder of its own; the options are without `chathistory-`."""
    monkeypatch.chdir(fast_folder)
    monkeypatch.syspath_prepend(tmp_path / "installed")

    def run_certify(url: str, *options: str, more: Sequence[str] = ()) -> Done:
        words = [
            f"--chathistory-{option.removeprefix('--')}" for option in (f"url={url}", "report=report.json", *options)
        ]
        done = pytester.runpytest_inprocess("-p", "chathistory.testing.certify", *words, *more)
        return Done(int(done.ret), done.stdout.str(), done.stderr.str(), json.loads(Path("report.json").read_text()))

    return run_certify


@pytest.fixture
def command(tmp_path, fast_folder):
    """Run the command in a process of its own, in a folder of its own."""

    def command(*words: str, **more: str) -> Done:
        path = os.pathsep.join(map(str, [tmp_path / "installed", TEMPLATE, Path(__file__).parent]))
        environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "error"} | more
        run = [sys.executable, "-c", RUN, *words]
        done = subprocess.run(run, cwd=fast_folder, env=environment, capture_output=True, text=True, timeout=1700)
        return Done(done.returncode, done.stdout, done.stderr)

    return command
