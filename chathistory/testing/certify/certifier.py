"""The hooks of pytest during a run: chooses the tests of the suite, records their outcomes, prints the certificate."""

from __future__ import annotations

import inspect
import json
from collections.abc import Generator, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

import pytest

from chathistory.control_characters import neutralize
from chathistory.errors import ChatHistoryError
from chathistory.storage.plugins import ENTRY_POINT_GROUP, load_store_class
from chathistory.storage.values import Traits
from chathistory.testing.certify.base_test_class import LAST_TEST, TARGET
from chathistory.testing.certify.options import make_target
from chathistory.testing.certify.report import Certificate, Outcome, State
from chathistory.testing.certify.secrets import SecretFilter
from chathistory.testing.certify.target import Target
from chathistory.testing.contract.base_test_class import DOES_NOT_APPLY
from chathistory.testing.guarantees import Guarantee, guarantee_of

__all__ = ["start_certifying"]

_SUITE = Path(__file__).with_name("suite.py")
"""pytest names its tests `::TestStore::test_...` where it is not below the root of the project."""
_LONGEST = 600  # characters of a message


def start_certifying(config: pytest.Config) -> None:
    """Check that the store answers, and add the suite to the tests of this run; do nothing without a URL.

    Raises:
        pytest.UsageError: The store cannot be certified.
    """
    if config.option.help:
        return
    secrets = SecretFilter(filter(None, map(config.getoption, ("chathistory_url", "chathistory_unreachable"))))
    try:
        target = make_target(config)
        if target is None:
            return
        certifier = Certifier(config, target, target.check_ready(), secrets)
    except Exception as error:  # noqa: BLE001  # of a wrong store, too; its traceback would show the URL
        kind = "" if isinstance(error, ChatHistoryError | pytest.UsageError) else f"{type(error).__name__}: "
        raise pytest.UsageError(secrets.mask_text(f"{kind}{error}")) from None
    config.stash[TARGET] = target
    config.pluginmanager.register(certifier)
    named = [f"{_SUITE}{name}" if name.startswith("::") else name for name in config.option.file_or_dir]
    config.args[:] = named if any(_SUITE.name in name for name in named) else [*named, str(_SUITE)]


class Certifier:
    """A pytest plugin that certifies one store.

    Args:
        config: The configuration of pytest.
        target: The store under test.
        traits: Its traits.
        secrets: Masks the secrets of the URLs.
    """

    def __init__(self, config: pytest.Config, target: Target, traits: Traits, secrets: SecretFilter) -> None:
        self._config, self._target, self._traits, self._secrets = config, target, traits, secrets
        self._only = frozenset[int](config.option.chathistory_only)
        self._items: dict[str, pytest.Function] = {}
        self._outcomes: dict[str, Outcome] = {}

    def pytest_report_header(self) -> str:
        """Name the store."""
        return f"chathistory: certifying {self._target.url}"

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note the tests of the suite; a run may have other tests, too."""
        if item.path == _SUITE and isinstance(item, pytest.Function):
            self._items[item.nodeid] = item

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        """Deselect the guarantees that were not chosen; put the last test last, in whatever order others put them."""
        left = [item for item in items if item.nodeid in self._items and not self._is_chosen(_guarantee_of(item))]
        items[:] = [item for item in items if item not in left]
        self._config.hook.pytest_deselected(items=left)
        yield
        items.sort(key=lambda item: item.nodeid in self._items and item.name == LAST_TEST)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Mask secrets in tracebacks and captured output."""
        report = yield
        return self._secrets.mask_report(self._config, report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the outcome of a test. One that passed may still fail in its teardown."""
        if report.nodeid not in self._items:
            return
        item = self._items[report.nodeid]
        guarantee = _guarantee_of(item)
        state: State
        if report.failed:
            state, message = "failed", _failure_message(report.longrepr, guarantee)
        elif report.skipped and isinstance(report.longrepr, tuple):
            message = report.longrepr[2].removeprefix("Skipped: ")
            state = "does not apply" if message.startswith(DOES_NOT_APPLY) else "not tested"
            message = message.removeprefix(DOES_NOT_APPLY)
        elif report.when == "call":
            state, message = "passed", ""
        else:
            return
        self._outcomes[report.nodeid] = Outcome(item.name, guarantee.number, state, message)

    @pytest.hookimpl(trylast=True)  # after the last teardowns, which may leave scopes
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the report, and let the run fail if the certificate is not good enough."""
        certificate = self._make_certificate()
        if path := self._config.getoption("chathistory_report"):
            Path(path).write_text(json.dumps(certificate.to_dict(), indent=2) + "\n", encoding="utf-8")
        complete = certificate.is_complete or not self._config.getoption("chathistory_complete")
        if exitstatus == pytest.ExitCode.OK and not (certificate.all_passed and complete):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the certificate."""
        certificate = self._make_certificate()
        terminalreporter.section("certificate")
        for line in certificate.lines():
            terminalreporter.write_line(neutralize(line))
        if self._config.getoption("chathistory_complete") and not certificate.is_complete:
            terminalreporter.write_line("NOT complete: tests did not run, see above")

    def _is_chosen(self, guarantee: Guarantee) -> bool:
        return not self._only or guarantee.number in self._only

    def _make_certificate(self) -> Certificate:
        return Certificate(
            store=str(self._target.url),
            backend=_backend_name(self._target.url.scheme),
            traits=self._traits,
            outcomes=(*self._outcomes.values(), *self._list_left_out()),
            exclusive=self._target.exclusive,
            only=self._only,
            leftover_scopes=tuple(self._target.leftover_scopes),
        )

    def _list_left_out(self) -> Iterator[Outcome]:
        """Yield the tests of the chosen guarantees that were deselected, not reached, or not even collected."""
        tests = {item.name: _guarantee_of(item) for nodeid, item in self._items.items() if nodeid not in self._outcomes}
        collected = {item.originalname for item in self._items.values()}
        for cls in {item.cls for item in self._items.values()}:
            tests |= {
                name: guarantee
                for name, test in inspect.getmembers(cls, inspect.isfunction)
                if name not in collected and (guarantee := guarantee_of(test))
            }
        for name, guarantee in tests.items():
            if self._is_chosen(guarantee):
                yield Outcome(name, guarantee.number, "left out")


def _guarantee_of(item: pytest.Item) -> Guarantee:
    guarantee = guarantee_of(cast("pytest.Function", item).function)
    assert guarantee is not None, f"{item.name} belongs to no guarantee"
    return guarantee


def _backend_name(scheme: str) -> str:
    """Return the class that serves a scheme, and the distribution it belongs to."""
    name = load_store_class(scheme).__name__
    for point in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        if point.dist is not None:
            return f"{name} of {point.dist.name} {point.dist.version}"
    return name


def _failure_message(longrepr: object, guarantee: Guarantee) -> str:
    """Return the message of a failed test, without the note on its guarantee."""
    crash = getattr(longrepr, "reprcrash", None)
    text = str(crash.message if crash else longrepr).removesuffix(guarantee.note).strip()
    text = text.removeprefix("AssertionError: ").removeprefix("Failed: ")
    text = text.partition("\nassert ")[0]  # pytest adds this to our messages
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
