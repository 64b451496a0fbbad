"""Configuration files: find them, check who owns them, and read them.

The search goes from the working directory upward to the root of a repository, the user's home, or the root of the file
system, whichever comes first. It finds the nearest `chathistory.toml`, and the nearest `pyproject.toml` with a table
`tool.chathistory`. After them comes `config.toml` in the user's configuration folder.

A file that the search finds decides where messages are stored, so it must belong to the user or to root. Otherwise
anybody could leave one in a shared folder such as /tmp. git has the same rule for repositories.
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
    """The settings in a configuration file.

    Attributes:
        path: The path of the file.
        values: The values by the full names of settings, such as "trimming.keep_tokens"; and "profile", the one to use.
        profiles: The values of each profile, by its name.
    """

    path: Path
    values: dict[str, Source]
    profiles: Mapping[str, dict[str, Source]]


def find_user_file() -> Path:
    """Return the path of the user's configuration file, which need not exist."""
    from platformdirs import user_config_path  # not needed by `import chathistory`

    return user_config_path("chathistory", appauthor=False) / "config.toml"


def find_files() -> list[ConfigFile]:
    """Return the files that the search finds, and the user's own, in order of precedence, highest first."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # without a home this must not fail
    folders: list[Path] = []
    with suppress(FileNotFoundError):  # the working directory was removed, so there is nothing to find
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
    """Return a file that the caller names.

    Args:
        path: The path; "~" is expanded.

    Raises:
        ConfigError: The file cannot be read, is not valid, or is a pyproject.toml without our table.
    """
    named = Path(path).expanduser().absolute()
    file = _read_file(named, must_exist=True)
    if file is None:
        raise Source(str(named)).make_error("must have a table [tool.chathistory]")
    return file


def _read_file(path: Path, *, found: bool = False, must_exist: bool = False) -> ConfigFile | None:
    """Return the settings of a file; None: it does not exist or has no table for us. Raises `ConfigError`."""
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
        tool = (
            _parse_toml(source, data).get("tool") if b"chathistory" in data else None
        )  # a file without our name may be invalid
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
        words = "must be text in UTF-8"
    except RecursionError:
        words = "is nested too deep"
    except ValueError as error:  # its text may quote a secret of the file
        position = _POSITION.search(str(error))
        words = f"is not valid TOML{f' ({position[0]})' if position else ''}"
    raise source.make_error(words)


def check_owner(path: Path, owner: int) -> None:
    """Check that a file belongs to the user of this process, or to root.

    Args:
        path: The file.
        owner: The user id of its owner.

    Raises:
        ConfigError: It belongs to somebody else.
    """
    if hasattr(os, "geteuid") and owner not in {os.geteuid(), 0}:
        raise Source(str(path)).make_error(
            "belongs to another user, so it is not read: it would decide where your messages are "
            "stored. If you trust it, pass it with --config or CHATHISTORY_CONFIG"
        )


def _read_table(source: Source, known: frozenset[str]) -> dict[str, Source]:
    """Return the values of a table by the full names of the settings. Raises `ConfigError` for unknown names."""
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
