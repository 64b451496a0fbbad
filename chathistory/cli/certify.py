"""`chathistory certify`: test whether a backend keeps the contract, guarantee by guarantee."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import click

from chathistory.cli.errors import ExitCode
from chathistory.cli.options import OPTIONS
from chathistory.cli.output import escape_controls, to_json_line
from chathistory.errors import ConfigError

__all__ = ["certify"]


@click.command()
@click.argument("url")
@click.option(
    "--unreachable", metavar="URL", help="URL of a store of the same kind with a server or disk that cannot be reached."
)
@click.option(
    "--hooks",
    "hooks_name",
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
@click.option("--complete", is_flag=True, help="Fail if a test was skipped because a hook or an option is missing.")
@OPTIONS["json"]
@OPTIONS["debug"]
def certify(url: str, *, hooks_name: str | None, complete: bool, as_json: bool, **options: Any) -> int:
    r"""Test whether a store keeps the storage contract.

    The report has a line for each guarantee. The tests work on conversations of their own with new names, and remove
    them at the end. It needs pytest. The exit code is 1 if a guarantee is not kept.

    \b
    Examples:
      chathistory certify file:./trial
      chathistory certify template:./trial.db --unreachable template:/nowhere/trial.db
      chathistory certify myscheme://localhost --hooks my_package.certify:hooks --complete
    """
    from chathistory.testing.certify.author_hooks import CertifyHooks  # only this command needs it
    from chathistory.testing.certify.run_suite import certify as run

    hooks = None
    if hooks_name is not None:
        module, _, attribute = hooks_name.partition(":")
        sys.path.insert(0, "")  # finds a module in the working directory, as `python -m` does
        try:
            hooks = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"--hooks: {json.dumps(hooks_name)} cannot be imported: {error}") from error
        if not isinstance(hooks, CertifyHooks):
            raise ConfigError(f"--hooks: {json.dumps(hooks_name)} is not a CertifyHooks (from chathistory.testing)")
    progress = _print_progress if sys.stderr.isatty() else None
    certificate = run(url, hooks=hooks, progress=progress, **options)
    lines = [to_json_line(certificate.to_dict())] if as_json else list(map(escape_controls, certificate.lines()))
    if complete and not certificate.is_complete and not as_json:
        lines.append("NOT complete: tests were skipped because a hook or an option is missing")
    click.echo("\n".join(lines))
    return ExitCode.OK if certificate.all_passed and (certificate.is_complete or not complete) else ExitCode.FAILED


def _print_progress(done: int, total: int) -> None:
    end = "" if done < total else "\n"
    click.echo(f"\r{done} of {total} tests{end}", nl=False, err=True)
