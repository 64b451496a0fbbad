"""The options of the plugin: `--chathistory-url` and its companions."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from chathistory.storage.url import StoreURL
from chathistory.testing.certify.author_hooks import CertifyHooks
from chathistory.testing.certify.target import Target
from chathistory.testing.guarantees import GUARANTEES, LISTING

__all__ = ["add_options", "make_target"]


def add_options(parser: pytest.Parser) -> None:
    """Add the options of the plugin to those of pytest."""
    group = parser.getgroup("chathistory", "certifying a backend of chathistory")
    group.addoption("--chathistory-url", metavar="URL", help="Certify the store at this URL.")
    group.addoption(
        "--chathistory-unreachable",
        metavar="URL",
        help="URL of a store of the same kind with a server or disk that cannot be reached.",
    )
    group.addoption(
        "--chathistory-hooks",
        metavar="MODULE:NAME",
        help="A CertifyHooks object: functions that only the author can write, such as a crash.",
    )
    group.addoption(
        "--chathistory-exclusive",
        action="store_true",
        help="The storage is empty and nobody else uses it: scopes get plain names.",
    )
    group.addoption(
        "--chathistory-only",
        metavar="N",
        type=int,
        choices=list(GUARANTEES),
        action="append",
        default=[],
        help=f"Test only guarantee N ({LISTING}: the listing); repeatable. The report is then no certificate.",
    )
    group.addoption(
        "--chathistory-complete",
        action="store_true",
        help="Fail if a test did not run that could have run, such as one whose hook is missing.",
    )
    group.addoption("--chathistory-report", metavar="FILE", help="Also write the certificate to this file, as JSON.")


def make_target(config: pytest.Config) -> Target | None:
    """Return what is to be certified, or None if no URL was given.

    Raises:
        pytest.UsageError: The options do not fit together.
    """
    options = {name: value for name, value in vars(config.option).items() if name.startswith("chathistory_")}
    given = {name: value for name, value in options.items() if value not in (None, False, [])}
    url = given.get("chathistory_url")
    if url is None:
        if given:
            option = min(given).replace("_", "-")
            raise pytest.UsageError(f"--{option} needs --chathistory-url=URL: the store to certify")
        return None
    if config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "certifying cannot use several processes of pytest (xdist): its tests crash and damage one store, so they "
            "run one after the other; add -n 0"
        )
    unreachable = given.get("chathistory_unreachable")
    return Target(
        url=StoreURL.parse(url),
        unreachable=StoreURL.parse(unreachable) if unreachable else None,
        hooks=_import_hooks(given["chathistory_hooks"]) if "chathistory_hooks" in given else CertifyHooks(),
        exclusive=config.option.chathistory_exclusive,
    )


def _import_hooks(name: str) -> CertifyHooks:
    module, _, attribute = name.partition(":")
    sys.path.append("")  # finds a module in the working directory, as `python -m pytest` does
    try:
        hooks = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(f"--chathistory-hooks: {json.dumps(name)} cannot be imported: {error}") from error
    if not isinstance(hooks, CertifyHooks):
        raise pytest.UsageError(
            f"--chathistory-hooks: {json.dumps(name)} is not a CertifyHooks (from chathistory.testing)"
        )
    return hooks
