"""Parse store URLs, `scheme:location?option=value`, and the options that a backend declares.

    file:./history?lock_timeout=5      redis://user:secret@host/0?ttl=3600      memory:

All schemes are split by one rule: `#` and `@` have no meaning of their own, so no part is cut off silently. The backend
interprets the location.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from chathistory.durations import parse_duration
from chathistory.errors import ConfigError

__all__ = ["Option", "StoreURL", "parse_boolean", "parse_lifetime", "parse_seconds", "suggest_name"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a store URL.

    Attributes:
        parse: Converts the text of the URL, or the value that was given in code. It raises `ConfigError` with a text
            that completes "option x is invalid: ..." and does not quote the value, which may be a secret. A
            `ValueError` is also allowed; its text is not shown.
        default: The value of the option if it is not given.
        help: One line that says what the option does, with its unit.
    """

    parse: Callable[[Any], Any]
    default: Any
    help: str


@dataclass(frozen=True, slots=True, repr=False)
class StoreURL:
    """A store URL, split into its parts. `repr` and `str` hide a password and the values of options.

    Attributes:
        scheme: The scheme in lower case, such as "redis+cluster".
        location: The text between "scheme:" and "?", as written, such as "//host:6379/0" or "./history".
        options: The options by name. After `parse_options`: converted by `Option.parse`, with defaults.
    """

    scheme: str
    location: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, **options: Any) -> Self:
        """Split the text of a URL.

        Args:
            text: The URL, such as "file:./history".
            **options: Further options, in addition to those of the URL.

        Raises:
            ConfigError: It is not a URL with a scheme, or an option is given twice. The text is not quoted.
        """
        if not isinstance(text, str):
            raise ConfigError(f'a store URL must be text, such as "file:./history", not {type(text).__name__}')
        scheme, colon, rest = text.partition(":")
        if not colon or not _SCHEME.fullmatch(scheme):
            raise ConfigError(
                'a store URL must begin with a scheme and a colon, such as "file:./history" or "redis://localhost"; '
                + ("this one has no scheme (for a folder, write file:PATH)" if text else "this one is empty")
            )
        location, _, query = rest.partition("?")
        parts = (part.partition("=") for part in query.split("&") if part)
        pairs = [(unquote(name), unquote(value)) for name, _, value in parts]
        return cls(scheme.lower(), location, _join_options(pairs, options.items()))

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return this URL with further options.

        Args:
            options: The options by name.

        Raises:
            ConfigError: The URL has one of them already.
        """
        return type(self)(self.scheme, self.location, _join_options(self.options.items(), options.items()))

    @property
    def path(self) -> str:
        """The location as a path: without a leading `//`, and with percent-escapes decoded ("%3F" is "?")."""
        return unquote(self.location.removeprefix("//"))

    def parse_options(self, declared: Mapping[str, Option]) -> Self:
        """Return this URL with all options converted, and with the defaults of those that are not given.

        Args:
            declared: The options that the backend has, by name.

        Raises:
            ConfigError: An option is not declared (the text suggests the nearest name), or has a wrong value.
        """
        for name in self.options:
            if name not in declared:
                raise ConfigError(f"{self.scheme}: has no option {_quote_option(name)}{suggest_name(name, declared)}")
        values = {name: option.default for name, option in declared.items()}
        for name, value in self.options.items():
            try:
                values[name] = declared[name].parse(value)
                continue
            except ConfigError as error:
                expected = str(error)
            except (ValueError, TypeError, OverflowError):
                expected = f"its value cannot be read; expected: {declared[name].help}"
            # not raised in the handler: the text and the context of other errors may hold a secret
            raise ConfigError(f"{self.scheme}: option {name!r} is invalid: {expected}")
        return type(self)(self.scheme, self.location, values)

    def __str__(self) -> str:
        hidden = any("@" in str(part) for option in self.options.items() for part in option)  # a "?" in a password
        location = "//***" if hidden else _USERINFO.sub(r"\1***@", self.location)
        return f"{self.scheme}:{location}" + ("?..." if self.options else "")

    def __repr__(self) -> str:
        return f"StoreURL({str(self)!r})"


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_USERINFO = re.compile(r"^(/*).*@", re.DOTALL)  # greedy: a password may itself hold an @


def _join_options(*sources: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for source in sources:
        for name, value in source:
            if name in options:
                raise ConfigError(f"the option {_quote_option(name)} is given twice; give it once")
            options[name] = value
    return options


def _quote_option(name: str) -> str:
    """Return the name of an option for an error; it is hidden if it may be half of a password with a "?" in it."""
    return repr(name) if name.isidentifier() else "of that name"


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: the nearest known name, and a list of all.

    Args:
        name: The unknown name.
        known: The names that are known.
    """
    import difflib  # imported late: needed only after a mistake

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (known: {', '.join(names) or 'none'})"


def parse_boolean(value: object) -> bool:
    """Convert the value of an option to a bool.

    Args:
        value: "true", "false", "yes", "no", "on", "off", "1" or "0" (in any case), or a bool.

    Raises:
        ConfigError: It is something else.
    """
    values = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    word = str(value).lower()
    if word not in values:
        raise ConfigError("must be true or false")
    return values[word]


def parse_seconds(value: object) -> float:
    """Convert the value of an option to a number of seconds above 0.

    Args:
        value: A number of seconds, or text such as "90s" or "12h"; see `parse_duration`.

    Raises:
        ConfigError: It is not a duration, or it is 0.
    """
    number = parse_duration(value).total_seconds()
    if not number:
        raise ConfigError("must be a duration of more than 0, such as 30s or 12h")
    return number


def parse_lifetime(value: object) -> float:
    """Convert the value of an option to a number of seconds above 0 and below 100 years.

    Args:
        value: A number of seconds, or text such as "90s" or "12h"; see `parse_duration`.

    Raises:
        ConfigError: It is not such a duration.
    """
    number = parse_seconds(value)
    if number >= _CENTURY:
        raise ConfigError("must be a duration of less than 100 years, such as 30d")
    return number


_CENTURY = 100 * 365.25 * 86_400
