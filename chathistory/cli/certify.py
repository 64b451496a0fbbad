"""`chathistory certify`: test whether a backend keeps the contract, guarantee by guarantee."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from chathistory.cli.errors import ExitCode
from chathistory.cli.options import OPTIONS, RunState
from chathistory.cli.output import to_json_line
from chathistory.errors import ConfigError

__all__ = ["certify"]

_ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}
_PLAIN = ("-c", os.devnull, "--noconftest", "--import-mode=importlib", "-p", "no:cacheprovider")


@click.command()
@click.argument("url")
@click.option(
    "--unreachable", metavar="URL", help="URL of a store of the same kind with a server or disk that cannot be reached."
)
@click.option(
    "--hooks",
    metavar="MODULE:NAME",
    help="A CertifyHooks object: functions that only the author can write, such as a crash.",
)
@click.option("--exclusive", is_flag=True, help="The storage is empty and nobody else uses it: scopes get plain names.")
@click.option(
    "--only",
    type=click.IntRange(1, 14),
    multiple=True,
    metavar="N",
    help="Test only guarantee N (14: the listing); repeatable. The report is then no certificate.",
)
@click.option(
    "--complete", is_flag=True, help="Fail if a test did not run that could have run: its hook or option is missing."
)
@OPTIONS["json"]
@OPTIONS["debug"]
@click.pass_obj
def certify(state: RunState, /, *, as_json: bool, **options: Any) -> int:
    r"""Test whether a store keeps the storage contract.

    It runs pytest with the plugin `chathistory.testing.certify`, and ignores the settings of pytest that it finds. The
    report has a line for each guarantee. The tests work on conversations of their own with new names, and remove them
    at the end. The exit code is 1 if a guarantee is not kept.

    \b
    Examples:
      chathistory certify file:./trial
      chathistory certify template:./trial.db --unreachable template:/nowhere/trial.db
      chathistory certify myscheme://localhost --hooks my_package.certify:hooks --complete
    """
    try:
        import pytest  # only this command needs it
    except ImportError:
        raise ConfigError(
            'certifying needs pytest, which is not installed; install it with: pip install "chathistory[certify]"'
        ) from None
    os.environ.update(_ALONE)  # this process ends with the command
    arguments = [*_PLAIN, "-p", "chathistory.testing.certify", *_list_options(options)]
    with tempfile.TemporaryDirectory() as folder:
        if not as_json:
            code = pytest.main([*arguments, "-qq", "-rN", f"--tb={'long' if state.debug else 'no'}"])
        else:
            report = Path(folder, "report.json")
            code = pytest.main([*arguments, "-p", "no:terminal", f"--chathistory-report={report}"])
            if report.exists():
                click.echo(to_json_line(json.loads(report.read_text("utf-8"))))
    return ExitCode.OK if code == pytest.ExitCode.OK else ExitCode.FAILED


def _list_options(options: dict[str, Any]) -> Iterator[str]:
    """Yield the options of the command as those of the plugin."""
    for name, given in options.items():
        for value in given if isinstance(given, tuple) else [given]:
            if value is True:
                yield f"--chathistory-{name}"
            elif value not in {None, False}:
                yield f"--chathistory-{name}={value}"
