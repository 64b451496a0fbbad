"""Which configuration files are read, whether they may be, and what is in them.

Looked for from the working directory upward, to the root of a repository, the user's home, or the root of the file
system, whichever comes first: the nearest `chathistory.toml`, and the nearest `pyproject.toml` with a table
`tool.chathistory`. Then `config.toml` in the user's configuration folder.

A file that is found like this decides where messages are stored, so it must belong to the user (or to root): else
anybody could leave one in a folder that others pass through, such as /tmp. git has the same rule for its repositories.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chathistory.config.settings import SETTINGS, TABLES
from chathistory.config.source import Source

__all__ = ["AT_TOP", "NAME", "ConfigFile", "check_owner", "find_files", "find_user_file", "read_file"]

NAME = "chathistory.toml"
_PROJECT = "pyproject.toml"
_IN_PROFILE = frozenset({*(name for name in SETTINGS if "." not in name), *TABLES})
AT_TOP = _IN_PROFILE | {"profile", "profiles"}
_POSITION = re.compile(r"at line \d+, column \d+|at end of document")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a configuration file sets.

    Attributes:
        path: Where it is.
        values: By the full names of settings, such as "trimming.keep_tokens"; and "profile", the one to use.
        profiles: The values of each profile, by its name.
    """

    path: Path
    values: dict[str, Source]
    profiles: Mapping[str, dict[str, Source]]


def find_user_file() -> Path:
    """Return the path of the user's own file, which need not exist."""
    from platformdirs import user_config_path  # not needed by `import chathistory`

    return user_config_path("chathistory", appauthor=False) / "config.toml"


def find_files() -> list[ConfigFile]:
    """Return the files that are found from the working directory, and the user's own, uppermost first."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # without a home, this is no error
    folders: list[Path] = []
    with suppress(FileNotFoundError):  # the working directory was removed: nothing can be found there
        here = Path.cwd()
        for folder in (here, *here.parents):
            folders.append(folder)
            if folder in {home, home.resolve()} or (folder / ".git").exists():
                break
    nearest = [
        next(filter(None, (_read_file(folder / name, found=True) for folder in folders)), None)
        for name in (NAME, _PROJECT)
    ]
    return [file for file in (*nearest, _read_file(find_user_file())) if file]


def read_file(path: str | os.PathLike[str]) -> ConfigFile:
    """Return the file that the caller names. Raises `ConfigError` if it, or our table in it, is missing."""
    named = Path(path).expanduser().absolute()
    file = _read_file(named, must_exist=True)
    if file is None:
        raise Source(str(named)).make_error("has no table tool.chathistory")
    return file


def _read_file(path: Path, *, found: bool = False, must_exist: bool = False) -> ConfigFile | None:
    """Return what a file sets; None if it does not exist or has nothing for us. Raises `ConfigError`."""
    source = Source(str(path), file=path, found=found)
    try:
        with path.open("rb") as file:
            data, owner = file.read(), os.fstat(file.fileno()).st_uid
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if must_exist:
            raise source.make_error(str(error.strerror)) from error
        return None
    except OSError as error:
        raise source.make_error(f"cannot be read: {error.strerror}") from error
    if path.name == _PROJECT:
        tool = _parse_toml(source, data).get("tool") if b"chathistory" in data else None  # else it may even be broken
        if not (isinstance(tool, dict) and "chathistory" in tool):
            return None
        source = source.at("tool.chathistory", tool["chathistory"])
    else:
        source = source.at("", _parse_toml(source, data))
    table = source.table()
    if found:
        check_owner(path, owner)
    profiles = source.at("profiles", table.get("profiles", {})).table()
    return ConfigFile(
        path,
        _read_table(source, AT_TOP),
        {name: _read_table(source.at(f"profiles.{name}", part), _IN_PROFILE) for name, part in profiles.items()},
    )


def _parse_toml(source: Source, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        words = "is not text in UTF-8"
    except RecursionError:
        words = "is nested too deep"
    except ValueError as error:  # its words may quote what is there
        position = _POSITION.search(str(error))
        words = f"is not valid TOML{f' ({position[0]})' if position else ''}"
    raise source.make_error(words)


def check_owner(path: Path, owner: int) -> None:
    """Raise `ConfigError` for a file of another user than this process's, or root."""
    if hasattr(os, "geteuid") and owner not in {os.geteuid(), 0}:
        raise Source(str(path)).make_error(
            "belongs to another user, and would decide where your messages are stored; "
            "if you trust it, name it with --config or CHATHISTORY_CONFIG"
        )


def _read_table(source: Source, known: frozenset[str]) -> dict[str, Source]:
    """Return the values of a table by the full names of their settings. Raises `ConfigError` for unknown names."""
    values: dict[str, Source] = {}
    for name, written in source.table().items():
        value = source.at(name, written)
        if name not in known:
            raise source.make_unknown_error("setting", name, known)
        if name == "profile" and not isinstance(written, str):
            raise value.make_error("must be the name of a profile")
        if name in TABLES:
            for key, part in value.table().items():
                if TABLES[name] and key not in TABLES[name]:
                    raise value.make_unknown_error("setting", key, TABLES[name])
                values[f"{name}.{key}"] = value.at(key, part)
        elif name != "profiles":
            values[name] = value
    return values
