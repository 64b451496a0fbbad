"""A scope's conversations, newest first, from one scan of its folder; all keys; and what is damaged among them.

A conversation's file is dated with its `updated`, so the scan alone gives the order, and only the heads of the page are
read. A date that is not ours gives itself away: it has a fraction of a microsecond (the kernel's own, after a crash or
a careless copy: that head is read to place it), or the head says otherwise (then all heads of the scope are read).

What cannot be read has its place in the order by the date of its file.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import TypeAlias

from chathistory.errors import ChatHistoryError, CorruptRecord, UnsupportedRecord
from chathistory.storage.values import Damaged, Head, Key, SortKey
from chathistory_file.errors import Damage, NewerLayout, OtherConversation, is_process_error, translate_error
from chathistory_file.files import (
    ASIDE,
    SUFFIX,
    TEMPORARY,
    ChunkReader,
    Paths,
    folder_exists,
    is_safe_name,
    open_existing,
    regular_file_size,
)
from chathistory_file.read import find_state, scan_lines
from chathistory_file.schema import CommitLine

__all__ = ["ScopeFolder", "ScopeFolders"]

_Row: TypeAlias = Head | Damaged | None


@dataclass(frozen=True, slots=True)
class _Scan:
    """The names in a folder: files that may be conversations, with their dates, and others that take the place of one.

    A date is in nanoseconds.
    """

    dates: dict[str, int]
    strays: list[str]


class ScopeFolder:
    """The folder of a scope. `is_locked` tells whether somebody writes to a conversation just now."""

    def __init__(self, path: str, *, is_locked: Callable[[Paths], bool]) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self._is_locked = is_locked

    def list_heads(self, *, below: SortKey | None, count: int) -> list[Head | Damaged]:
        """Return up to `count` heads, those below `below`, newest first, and what is damaged among them.

        The last head only tells that there is a next page, so what is damaged below the one before it is left to that.
        """
        scan, load = self._scan_files(), cache(self._load_row)
        rows = _take_newest(scan.dates, below, count, load)
        wrong = [name for name, (date, row) in rows.items() if _date_of(row, date) != date]
        if any(self._load_date(name) == scan.dates[name] for name in wrong):  # else there was an append since the scan
            dates = {name: _date_of(load(name), date) for name, date in scan.dates.items()}
            rows = _take_newest(dates, below, count, load)
        heads = [row for _, row in rows.values() if isinstance(row, Head) and (below is None or row.sort_key < below)]
        heads = heapq.nlargest(count, heads, key=attrgetter("sort_key"))
        last = heads[-2].sort_key if 1 < count == len(heads) else None
        damaged: list[Damaged] = [] if below is not None else list(self._iter_strays(scan))
        for name, (date, row) in rows.items():
            place = SortKey(date // 1000, name)
            if isinstance(row, Damaged) and (last is None or place >= last) and (below is None or place < below):
                damaged.append(row)
        return [*damaged, *heads]

    def iter_keys(self) -> Iterator[Key]:
        """Yield the keys of the conversations, those that are damaged too, if their key can be told."""
        for row in map(self._load_row, self._scan_files().dates):
            key = row.key if row is not None else None
            if key is not None:
                yield key

    def iter_damaged(self) -> Iterator[Damaged]:
        """Yield what is stored here and whose key cannot be told."""
        scan = self._scan_files()
        yield from self._iter_strays(scan)
        for row in map(self._load_row, scan.dates):
            if isinstance(row, Damaged) and row.key is None:
                yield row

    def _load_row(self, name: str) -> _Row:
        """Return the head in the file of that name, or what is wrong with it; None: it is gone, or just being made."""
        paths = Paths.in_folder(self.path, name.removesuffix(SUFFIX))
        try:
            state = find_state(paths, is_own=paths.belong_to)
        except (Damage, NewerLayout) as reason:
            return _describe_damage(paths, reason)
        except OSError as error:
            if is_process_error(error):
                raise
            return Damaged(_find_key(paths), paths.name + SUFFIX, translate_error("listing", error))
        if state is not None:
            return state.head
        if regular_file_size(paths.main) is None or self._is_locked(paths):
            return None
        with suppress(Damage, NewerLayout, OSError):  # somebody may have written a commit meanwhile
            if find_state(paths, is_own=paths.belong_to) is None and regular_file_size(paths.main) is not None:
                words = "no append to it was completed; the next one sets aside what is in the file"
                return Damaged(None, paths.name + SUFFIX, CorruptRecord(None, None, words))
        return None

    def _load_date(self, name: str) -> int | None:
        with suppress(FileNotFoundError):
            return os.stat(f"{self.path}/{name}").st_mtime_ns  # noqa: PTH116
        return None

    def _scan_files(self) -> _Scan:
        dates: dict[str, int] = {}
        strays: list[str] = []
        beside: list[str] = []
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith((ASIDE, TEMPORARY)):
                    beside.append(name)
                elif name.endswith(SUFFIX):
                    if is_safe_name(name.removesuffix(SUFFIX)) and entry.is_file(follow_symlinks=False):
                        with suppress(FileNotFoundError):  # deleted just now
                            dates[name] = entry.stat(follow_symlinks=False).st_mtime_ns
                    else:
                        strays.append(name)
        for name in beside:
            stem = os.path.splitext(name)[0]  # noqa: PTH122
            if stem + SUFFIX not in dates and is_safe_name(stem):
                strays.append(name)
        return _Scan(dates, strays)

    def _iter_strays(self, scan: _Scan) -> Iterator[Damaged]:
        for name in scan.strays:
            reason = "it is not a file of this store, but its name ends like one"
            if not name.endswith(SUFFIX):
                path = f"{self.path}/{name}"
                main = os.path.splitext(path)[0] + SUFFIX  # noqa: PTH122
                if regular_file_size(path) is None or regular_file_size(main) is not None:
                    continue
                reason = "it was left beside a conversation that is gone"
            yield Damaged(None, f"{self.name}/{name}", CorruptRecord(None, None, reason))


def _date_of(row: _Row, date: int) -> int:
    """Return the date that the head tells, in nanoseconds; where there is none, that of the file."""
    return 1000 * row.revision.updated if isinstance(row, Head) else date


def _take_newest(
    dates: dict[str, int], below: SortKey | None, count: int, load: Callable[[str], _Row]
) -> dict[str, tuple[int, _Row]]:
    """Load the newest files until `count` heads below `below` are among them, and all that have the same date.

    A date with a fraction of a microsecond is not ours, so that head is loaded to place it.
    """
    heap = [(-(_date_of(load(name), date) if date % 1000 else date), name) for name, date in dates.items()]
    if below is not None:
        heap = [entry for entry in heap if -entry[0] <= below.updated * 1000 + 999]
    heapq.heapify(heap)
    rows: dict[str, tuple[int, _Row]] = {}
    date, left = None, count
    while heap and (left > 0 or heap[0][0] == date):
        date, name = heapq.heappop(heap)
        row = load(name)
        rows[name] = (-date, row)
        left -= isinstance(row, Head) and (below is None or row.sort_key < below)
    return rows


def _describe_damage(paths: Paths, reason: Damage | NewerLayout) -> Damaged:
    """Return the row of a conversation whose head cannot be read."""
    key = None if isinstance(reason, OtherConversation) else _find_key(paths)
    error: ChatHistoryError
    if isinstance(reason, Damage):
        error = CorruptRecord(key, reason.position, reason.reason)
    elif key is not None:
        error = UnsupportedRecord(key, 0, reason.layout)
    else:
        error = CorruptRecord(None, None, f"a later version wrote it, in layout {reason.layout}")
    return Damaged(key, paths.name + SUFFIX, error)


def _find_key(paths: Paths) -> Key | None:
    """Return the key of a damaged conversation: its names tell it, or, if one was cut, a sound commit in the file."""
    key = paths.decode_key()
    if key is not None:
        return key
    with suppress(Damage, NewerLayout, OSError), open_existing(paths.main) as file:
        if file is not None:
            for scanned in scan_lines(ChunkReader(file.fd, file.size, step=4096), 0, file.size):
                for line in scanned.lines:
                    if isinstance(line, CommitLine) and paths.belong_to(line.head.key):
                        return line.head.key
    return None


@dataclass(frozen=True, slots=True)
class ScopeFolders:
    """The folders that may hold conversations, and what has the name of one and is a link."""

    paths: list[str]
    damaged: list[Damaged]

    @classmethod
    def in_root(cls, root: str) -> ScopeFolders:
        """Find the folders of all scopes."""
        found = cls([], [])
        with suppress(FileNotFoundError), os.scandir(root) as entries:
            for entry in entries:
                if is_safe_name(entry.name):
                    if entry.is_dir(follow_symlinks=False):
                        found.paths.append(entry.path)
                    elif entry.is_symlink():
                        found.damaged.extend(cls.at_path(entry.path).damaged)
        return found

    @classmethod
    def at_path(cls, path: str) -> ScopeFolders:
        """Look at the folder of one scope."""
        try:
            return cls([path] if folder_exists(path) else [], [])
        except OSError as error:
            return cls([], [Damaged(None, path.rpartition("/")[2], translate_error("listing", error))])
