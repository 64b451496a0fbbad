"""Runs the suite with pytest in this process, and records the outcome of each test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from chathistory.errors import ChatHistoryError, ConfigError
from chathistory.storage.plugins import ENTRY_POINT_GROUP, load_store_class
from chathistory.storage.url import StoreURL
from chathistory.testing.certify.author_hooks import CertifyHooks
from chathistory.testing.certify.report import Certificate, Outcome
from chathistory.testing.certify.target import Target
from chathistory.testing.guarantees import GUARANTEES, Guarantee, guarantee_of

__all__ = ["certify"]

_SUITE = Path(__file__).with_name("suite.py")
_PLAIN = ("-p", "no:terminal", "-p", "no:cacheprovider", "--noconftest", "--import-mode=importlib")
_LONGEST = 600

Progress = Callable[[int, int], None]


def certify(
    url: str,
    *,
    unreachable: str | None = None,
    hooks: CertifyHooks | None = None,
    exclusive: bool = False,
    only: Collection[int] = (),
    progress: Progress | None = None,
) -> Certificate:
    """Run the whole suite on the store at a URL, under fresh names of scopes, and return the certificate.

    Args:
        url: The store to certify.
        unreachable: URL of a store of the same kind with a server or disk that cannot be reached.
        hooks: What the author of the backend can do to it.
        exclusive: The store is empty and used by nobody else, so scopes may have their own names.
        only: Numbers of guarantees to test; all if empty.
        progress: Called with the number of tests done and of all tests.

    Returns:
        The outcome of every test, by guarantee.

    Raises:
        ConfigError: pytest is not installed, or the URL cannot be used.
        StoreError: The store does not answer.
        ChatHistoryError: pytest did not run the suite to its end.
    """
    pytest = _import_pytest()
    target = Target(url=url, unreachable=unreachable, hooks=hooks or CertifyHooks(), exclusive=exclusive)
    traits = target.check_ready()
    recorder = _OutcomeRecorder(target, only, progress)
    begun = time.monotonic()
    with _isolate_pytest():
        arguments = [*_PLAIN, "-c", os.devnull, "--rootdir", str(_SUITE.parent), str(_SUITE)]
        code = pytest.main(arguments, plugins=[recorder])
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise ChatHistoryError(f"pytest did not run the suite to its end (exit code {code!r}), so there is no result")
    scheme = StoreURL.parse(url).scheme
    return Certificate(
        store=str(StoreURL.parse(url)),
        backend=_backend_name(scheme),
        traits=traits,
        outcomes=tuple(recorder.outcomes),
        exclusive=exclusive,
        only=frozenset(only),
        leftover_scopes=tuple(target.leftover_scopes),
        seconds=time.monotonic() - begun,
    )


def _import_pytest() -> Any:
    try:
        import pytest  # only certifying needs pytest
    except ImportError:
        raise ConfigError(
            'certifying needs pytest, which is not installed; install it with: pip install "chathistory[certify]"'
        ) from None
    return pytest


def _backend_name(scheme: str) -> str:
    """Return the class that serves a scheme, and the distribution it belongs to."""
    name = load_store_class(scheme).__name__
    for point in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        if point.dist is not None:
            return f"{name} of {point.dist.name} {point.dist.version}"
    return name


@contextmanager
def _isolate_pytest() -> Iterator[None]:
    """Ignore the pytest plugins and options of the caller during the run."""
    own = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _OutcomeRecorder:
    """A pytest plugin that records outcomes and prints nothing."""

    def __init__(self, target: Target, only: Collection[int], progress: Progress | None) -> None:
        self.outcomes: list[Outcome] = []
        self._target = target
        self._only = only
        self._progress = progress
        self._guarantees: dict[str, Guarantee] = {}

    def pytest_configure(self, config: Any) -> None:
        from chathistory.testing.certify.base_test_class import TARGET  # imported once pytest can rewrite its asserts

        config.stash[TARGET] = self._target

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            self._guarantees[item.nodeid] = guarantee_of(item.function) or GUARANTEES[8]
        if self._only:
            items[:] = [item for item in items if self._guarantees[item.nodeid].number in self._only]
        self._total = len(items)

    def pytest_runtest_logreport(self, report: Any) -> None:
        name, guarantee = report.nodeid.rpartition("::")[2], self._guarantees[report.nodeid]
        if report.failed:
            seen = _failure_message(report.longrepr, guarantee)
            self.outcomes.append(Outcome(name, guarantee.number, "failed", seen))
        elif report.skipped:
            reason = str(report.longrepr[2]).removeprefix("Skipped: ")
            self.outcomes.append(Outcome(name, guarantee.number, "not run", reason))
        elif report.when == "call":
            self.outcomes.append(Outcome(name, guarantee.number, "passed", ""))
        if report.when == "teardown" and self._progress:
            self._progress(len(self.outcomes), self._total)


def _failure_message(longrepr: Any, guarantee: Guarantee) -> str:
    """Return the message of a failed test, without the note on its guarantee."""
    crash = getattr(longrepr, "reprcrash", None)
    text = str(crash.message if crash else longrepr).removesuffix(guarantee.note).strip()
    text = text.removeprefix("AssertionError: ").removeprefix("Failed: ")
    text = text.partition("\nassert ")[0]  # pytest adds this to our messages
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
