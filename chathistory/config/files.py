"""Which configuration files are read, whether they may be, and what is in them.

Looked for from the working directory upward, to the root of a repository, the user's home, or the root of the file
system, whichever comes first: the nearest `chathistory.toml`, and the nearest `pyproject.toml` with a table
`tool.chathistory`. Then `config.toml` in the user's own folder for such things.

A file that is found like this decides where messages are stored, so it must belong to the user (or to root): else
anybody could leave one in a folder that others pass through, such as /tmp. git has the same rule for its repositories.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chathistory.config.layers import OPTION, Layer, Source, Value, error_at, near, shown_name
from chathistory.config.settings import SETTINGS

__all__ = ["AT_TOP", "NAME", "check_owner", "layer_of", "layers_found", "users_file"]

NAME = "chathistory.toml"
_PROJECT = "pyproject.toml"
_OPTIONS = OPTION.rstrip(".")
_IN_PROFILE = frozenset({*SETTINGS, _OPTIONS})
AT_TOP = _IN_PROFILE | {"profile", "profiles"}
_PLACE = re.compile(r"at line \d+, column \d+|at end of document")


def users_file() -> Path:
    """Return the path of the user's own file, which need not exist."""
    from platformdirs import user_config_path  # noqa: PLC0415 - not needed by `import chathistory`

    return user_config_path("chathistory", appauthor=False) / "config.toml"


def layers_found() -> list[Layer]:
    """Return what the files say that are found from the working directory, and the user's own, uppermost first."""
    layers = []
    for name in (NAME, _PROJECT):
        found = (layer for folder in _folders() if (layer := _layer(folder / name, found=True)))
        layers += [layer] if (layer := next(found, None)) else []
    own = _layer(users_file())
    return [*layers, own] if own else layers


def layer_of(path: str | os.PathLike[str]) -> Layer:
    """Return what the file says that the caller names. Raises `ConfigError` if there is none, or no table for us."""
    file = Path(path).expanduser().absolute()
    layer = _layer(file, named=True)
    if layer is None:
        raise error_at(Source(str(file)), "has no table tool.chathistory")
    return layer


def _folders() -> Iterator[Path]:
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was removed; nothing is to be found there
        return
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # without a home, this is no error
    for folder in (here, *here.parents):
        yield folder
        if folder in {home, home.resolve()} or (folder / ".git").exists():
            return


def _layer(path: Path, *, found: bool = False, named: bool = False) -> Layer | None:
    """Return what a file says; None if it is not there or has nothing for us. Raises `ConfigError`, and says where."""
    try:
        with path.open("rb") as file:
            data, owner = file.read(), os.fstat(file.fileno()).st_uid
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if named:
            raise error_at(Source(str(path)), str(error.strerror)) from error
        return None
    except OSError as error:
        raise error_at(Source(str(path)), f"cannot be read: {error.strerror}") from error
    table = _table(path, data)
    if table is None:
        return None
    if found:
        check_owner(path, owner)
    return _read(path, table, found=found)


def _table(path: Path, data: bytes) -> dict[str, Any] | None:
    """Return the table of a file that is ours; None: there is none in this pyproject.toml."""
    if path.name != _PROJECT:
        return _parsed(path, data)
    if b"chathistory" not in data:  # it may be what it likes, even broken
        return None
    tool = _parsed(path, data).get("tool")
    table = tool.get("chathistory") if isinstance(tool, dict) else None
    return None if table is None else _as_table(table, Source(str(path), "tool.chathistory"))


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        words = "is not text in UTF-8"
    except RecursionError:
        words = "is nested too deep"
    except ValueError as error:  # its words may quote what is there
        where = _PLACE.search(str(error))
        words = f"is not valid TOML{f' ({where[0]})' if where else ''}"
    raise error_at(Source(str(path)), words)


def check_owner(path: Path, owner: int) -> None:
    """Raise `ConfigError` for a file of another user than this process's, or root."""
    if hasattr(os, "geteuid") and owner not in {os.geteuid(), 0}:
        words = f"belongs to another user, and would decide where your messages are stored; if you trust it: {_TRUST}"
        raise error_at(Source(str(path)), words)


_TRUST = "name it with --config or CHATHISTORY_CONFIG"


def _read(path: Path, table: Mapping[str, Any], *, found: bool) -> Layer:
    prefix = "tool.chathistory." if path.name == _PROJECT else ""

    def at(*keys: str) -> Source:
        return Source(str(path), prefix + ".".join(keys), path, found)

    _check_names(table, AT_TOP, at())
    profile = table.get("profile")
    if not (profile is None or isinstance(profile, str)):
        raise error_at(at("profile"), "the name of a profile is due")
    profiles = {}
    for name, part in _as_table(table.get("profiles", {}), at("profiles")).items():
        place = at("profiles", name)
        _check_names(_as_table(part, place), _IN_PROFILE, place)
        profiles[name] = _values(part, lambda *keys, name=name: at("profiles", name, *keys))
    chosen = None if profile is None else Value(profile, at("profile"))
    return Layer(_values(table, at), chosen, profiles, file=path)


def _values(table: Mapping[str, Any], at: Any) -> dict[str, Value]:
    values = {name: Value(table[name], at(name)) for name in SETTINGS if name in table}
    options = _as_table(table.get(_OPTIONS, {}), at(_OPTIONS))
    return values | {OPTION + name: Value(value, at(_OPTIONS, name)) for name, value in options.items()}


def _as_table(value: object, source: Source) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise error_at(source, "a table is due")
    return value


def _check_names(table: Mapping[str, Any], known: frozenset[str], source: Source) -> None:
    for name in table:
        if name not in known:
            raise error_at(source, f"there is no setting {shown_name(name)}", near(name, known))
