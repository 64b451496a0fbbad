"""Without the packages of the extra `cli`, the command says in one line what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys

for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None  # as if it were not installed
from chathistory.cli import main

main()
"""


@pytest.mark.parametrize(("missing", "named"), [("click", "click"), ("rich", "rich"), ("rich,click", "click, rich")])
def test_the_command_names_the_extra(missing, named):
    command = [sys.executable, "-W", "error", "-c", PROGRAM, missing, "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == (
        f"Error: the command chathistory needs packages that are not installed ({named}); "
        'to install them, run: pip install "chathistory[cli]"\n'
    )
    assert (done.returncode, done.stdout) == (2, "")
