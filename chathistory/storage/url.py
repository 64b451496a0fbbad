"""Store URLs: `scheme:location?option=value`, and the options that a backend declares.

    file:./history?lock_timeout=5      redis://user:secret@host/0?ttl=3600      memory:

A URL is split here, once, and by one rule for all schemes: a `#` or a `@` has no meaning of its own, so that no part
is cut off in silence. What the location means is the backend's business.
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
    """One option of a store URL: how its text is read, its value when not given, and a line of help.

    `parse` gets the text of the URL or the value given in code. It raises `ValueError`, whose words nobody sees, or
    `ConfigError` with words that do not quote the value: it may be a secret.
    """

    parse: Callable[[Any], Any]
    default: Any
    help: str


@dataclass(frozen=True, slots=True, repr=False)
class StoreURL:
    """A store URL in its parts. `repr` and `str` hide a password and the values of options.

    scheme: lower case, e.g. "redis+cluster".
    location: all between "scheme:" and "?", as written, e.g. "//host:6379/0" or "./history".
    options: by name; as read by the backend's `Option.parse` once `checked`, defaults filled in.
    """

    scheme: str
    location: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, **options: Any) -> Self:
        """Split `text`; `options` given in code join those of the URL. Raises `ConfigError`, quoting nothing of it."""
        scheme, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
        if not colon or not _SCHEME.fullmatch(scheme):
            raise ConfigError(
                'a store URL begins with its scheme and a colon, such as "file:./history" or "redis://localhost"'
            )
        location, _, query = rest.partition("?")
        parts = (part.partition("=") for part in query.split("&") if part)
        pairs = [(unquote(name), unquote(value)) for name, _, value in parts]
        return cls(scheme.lower(), location, _join_options(pairs, options.items()))

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return this URL with further options. Raises `ConfigError` for one that it has already."""
        return type(self)(self.scheme, self.location, _join_options(self.options.items(), options.items()))

    @property
    def path(self) -> str:
        """The location as a path: without a leading `//`, percent-escapes resolved ("%3F" for a question mark)."""
        return unquote(self.location.removeprefix("//"))

    def parse_options(self, declared: Mapping[str, Option]) -> Self:
        """Return this URL with every option read as `declared` says, and the defaults of those not given.

        Raises `ConfigError` for an option that is not declared (with the near match) or has a wrong value.
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
                expected = f"it cannot be read as what it is: {declared[name].help}"
            # not raised in the handler: the words and the context of other errors may hold a secret
            raise ConfigError(f"{self.scheme}: option {name!r} is wrong: {expected}")
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
                raise ConfigError(f"the option {_quote_option(name)} is given twice")
            options[name] = value
    return options


def _quote_option(name: str) -> str:
    """Return the name of an option for an error, if it looks like one: it may be half of a password with "?" in it."""
    return repr(name) if name.isidentifier() else "of that name"


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return words that help after an unknown name: the nearest known one, and all of them."""
    import difflib  # only for those who mistype

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (known: {', '.join(names) or 'none'})"


def parse_boolean(value: object) -> bool:
    """Read "true"/"false", "yes"/"no", "on"/"off", "1"/"0" (any case), or a bool."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    word = str(value).lower()
    if word not in words:
        raise ConfigError("must be true or false")
    return words[word]


def parse_seconds(value: object) -> float:
    """Read a duration above 0, as seconds: a number of them, or text such as "90s" or "12h". Raises `ConfigError`."""
    number = parse_duration(value).total_seconds()
    if not number:
        raise ConfigError("must be a duration above 0")
    return number


def parse_lifetime(value: object) -> float:
    """Read a duration above 0 and below 100 years, as seconds. Raises `ConfigError`."""
    number = parse_seconds(value)
    if number >= _CENTURY:
        raise ConfigError("must be a duration below 100 years")
    return number


_CENTURY = 100 * 365.25 * 86_400
