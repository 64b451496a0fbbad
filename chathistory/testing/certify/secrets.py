"""Removes the secrets of URLs from what pytest reports: tracebacks show the arguments and variables of every frame."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    import pytest

__all__ = ["SecretFilter"]

_MASK = "***"
_SHORT = 4  # characters; shorter texts are masked only in quotes, or the whole report would be unreadable
_HARMLESS = re.compile(r"[\d.]*|true|false|yes|no|on|off", re.IGNORECASE)
_PARTS = ("longrepr", "sections")
_NAMES_OF_PYTEST = {"type", "style"}


class SecretFilter:
    """Masks the passwords and the values of options of some URLs.

    Args:
        urls: URLs of stores.
    """

    def __init__(self, urls: Iterable[str]) -> None:
        secrets = {form for url in urls for secret in _find_secrets(url) for form in _list_forms(secret)}
        self._pattern = re.compile("|".join(map(re.escape, sorted(secrets, key=len, reverse=True))) or "(?!)")

    def mask_text(self, text: str) -> str:
        """Return the text without secrets."""
        return self._pattern.sub(_MASK, text)

    def mask_report(self, config: pytest.Config, report: pytest.TestReport) -> pytest.TestReport:
        """Return the report of a test with no secret in its traceback, its captured output and its log."""
        data = config.hook.pytest_report_to_serializable(config=config, report=report)
        data |= {part: self._mask_value(data[part]) for part in _PARTS}
        masked: pytest.TestReport = config.hook.pytest_report_from_serializable(config=config, data=data)
        return masked

    def _mask_value(self, value: Any) -> Any:
        match value:
            case str():
                return self.mask_text(value)
            case list() | tuple():
                return type(value)(map(self._mask_value, value))
            case dict():
                return {
                    name: part if name in _NAMES_OF_PYTEST else self._mask_value(part) for name, part in value.items()
                }
        return value


def _find_secrets(url: str) -> Iterator[str]:
    """Yield the URL, its password, and the values of its options."""
    yield url
    user_and_password, at, _ = url.partition(":")[2].lstrip("/").rpartition("@")
    if at:
        yield user_and_password
        yield user_and_password.partition(":")[2]
    for option in url.partition("?")[2].split("&"):
        yield option.partition("=")[2]


def _list_forms(secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may be printed."""
    for text in {secret, unquote(secret)}:
        if not _HARMLESS.fullmatch(text):
            quoted = {repr(text), json.dumps(text)}
            yield from (text, *(form[1:-1] for form in quoted)) if len(text) >= _SHORT else quoted
