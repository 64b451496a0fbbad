"""The conversations of a scope, newest first, from one scan of its folder; all keys; and the damaged conversations.

The modification time of a conversation's file is its `updated`. So the scan alone gives the order, and only the heads
of the page are read. A time that this store did not set is noticed in two ways. It has a fraction of a microsecond (the
kernel set it, after a crash or a careless copy): then that head is read for the order. Or it differs from the head's
time: then all heads of the scope are read.

A conversation that cannot be read is ordered by the date of its file.
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
from chathistory_file.errors import Damage, OtherConversation, OtherLayout, is_process_error, translate_error
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
    """The names in a folder.

    Attributes:
        dates: Files that may be conversations, with their modification times in nanoseconds.
        strays: Other entries with a name that ends like a file of this store.
    """

    dates: dict[str, int]
    strays: list[str]


class ScopeFolder:
    """The folder of a scope.

    Args:
        path: The path of the folder.
        is_locked: Whether somebody is writing to a conversation at this moment.
    """

    def __init__(self, path: str, *, is_locked: Callable[[Paths], bool]) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self._is_locked = is_locked

    def list_heads(self, *, below: SortKey | None, count: int) -> list[Head | Damaged]:
        """Return up to `count` heads, newest first, with the damaged conversations of the same range before them.

        The last head only shows that there is a next page. So damaged conversations after the last but one belong to
        that page.

        Args:
            below: Return only what sorts after this; None for the first page.
            count: The most heads to return.
        """
        scan, load = self._scan_files(), cache(self._load_row)
        rows = _take_newest(scan.dates, below, count, load)
        wrong = [name for name, (date, row) in rows.items() if _date_of(row, date) != date]
        if any(self._load_date(name) == scan.dates[name] for name in wrong):  # not if there was an append meanwhile
            dates = {name: _date_of(load(name), date) for name, date in scan.dates.items()}
            rows = _take_newest(dates, below, count, load)
        heads = [row for _, row in rows.values() if isinstance(row, Head) and (below is None or row.sort_key < below)]
        heads = heapq.nlargest(count, heads, key=attrgetter("sort_key"))
        last = heads[-2].sort_key if 1 < count == len(heads) else None
        damaged: list[Damaged] = [] if below is not None else list(self._iter_strays(scan))
        for name, (date, row) in rows.items():
            sort_key = SortKey(date // 1000, name)
            if isinstance(row, Damaged) and (last is None or sort_key >= last) and (below is None or sort_key < below):
                damaged.append(row)
        return [*damaged, *heads]

    def iter_keys(self) -> Iterator[Key]:
        """Yield the keys of the conversations, also of damaged ones where the key can be determined."""
        for row in map(self._load_row, self._scan_files().dates):
            key = row.key if row is not None else None
            if key is not None:
                yield key

    def iter_damaged(self) -> Iterator[Damaged]:
        """Yield the files of which the key cannot be determined."""
        scan = self._scan_files()
        yield from self._iter_strays(scan)
        for row in map(self._load_row, scan.dates):
            if isinstance(row, Damaged) and row.key is None:
                yield row

    def _load_row(self, name: str) -> _Row:
        """Return the head in the file of that name, or its damage; None if it is gone, or being created just now."""
        paths = Paths.in_folder(self.path, name.removesuffix(SUFFIX))
        try:
            state = find_state(paths, is_own=paths.belong_to)
        except (Damage, OtherLayout) as reason:
            return _describe_damage(paths, reason)
        except OSError as error:
            if is_process_error(error):
                raise
            return Damaged(_find_key(paths), paths.name + SUFFIX, translate_error("listing", error))
        if state is not None:
            return state.head
        if regular_file_size(paths.main) is None or self._is_locked(paths):
            return None
        with suppress(Damage, OtherLayout, OSError):  # a writer may have added a commit meanwhile
            if find_state(paths, is_own=paths.belong_to) is None and regular_file_size(paths.main) is not None:
                words = "no append to the file was completed; the next one sets its content aside"
                return Damaged(None, paths.name + SUFFIX, CorruptRecord(None, None, words))
        return None

    def _load_date(self, name: str) -> int | None:
        with suppress(FileNotFoundError):
            return os.stat(f"{self.path}/{name}").st_mtime_ns  # noqa: PTH116
        return None

    def _scan_files(self) -> _Scan:
        dates: dict[str, int] = {}
        strays: list[str] = []
        side_files: list[str] = []
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith((ASIDE, TEMPORARY)):
                    side_files.append(name)
                elif name.endswith(SUFFIX):
                    if is_safe_name(name.removesuffix(SUFFIX)) and entry.is_file(follow_symlinks=False):
                        with suppress(FileNotFoundError):  # it was just deleted
                            dates[name] = entry.stat(follow_symlinks=False).st_mtime_ns
                    else:
                        strays.append(name)
        for name in side_files:
            stem = os.path.splitext(name)[0]  # noqa: PTH122
            if stem + SUFFIX not in dates and is_safe_name(stem):
                strays.append(name)
        return _Scan(dates, strays)

    def _iter_strays(self, scan: _Scan) -> Iterator[Damaged]:
        for name in scan.strays:
            reason = "not a file of this store, although its name ends like one; move or remove it"
            if not name.endswith(SUFFIX):
                path = f"{self.path}/{name}"
                main = os.path.splitext(path)[0] + SUFFIX  # noqa: PTH122
                if regular_file_size(path) is None or regular_file_size(main) is not None:
                    continue
                reason = "left over from a conversation that is gone; look at it, or remove it"
            yield Damaged(None, f"{self.name}/{name}", CorruptRecord(None, None, reason))


def _date_of(row: _Row, date: int) -> int:
    """Return the time in the head, in nanoseconds; if there is no head, the file's time."""
    return 1000 * row.revision.updated if isinstance(row, Head) else date


def _take_newest(
    dates: dict[str, int], below: SortKey | None, count: int, load: Callable[[str], _Row]
) -> dict[str, tuple[int, _Row]]:
    """Load the newest files until they include `count` heads below `below`, and all with the same date.

    This store sets no date with a fraction of a microsecond. So the head of a file with such a date is loaded for its
    order.
    """
    heap = [(-(_date_of(load(name), date) if date % 1000 else date), name) for name, date in dates.items()]
    if below is not None:
        heap = [entry for entry in heap if -entry[0] <= below.updated * 1000 + 999]
    heapq.heapify(heap)
    rows: dict[str, tuple[int, _Row]] = {}
    date, missing = None, count
    while heap and (missing > 0 or heap[0][0] == date):
        date, name = heapq.heappop(heap)
        row = load(name)
        rows[name] = (-date, row)
        missing -= isinstance(row, Head) and (below is None or row.sort_key < below)
    return rows


def _describe_damage(paths: Paths, reason: Damage | OtherLayout) -> Damaged:
    """Return the row for a conversation with an unreadable head."""
    key = None if isinstance(reason, OtherConversation) else _find_key(paths)
    error: ChatHistoryError
    if isinstance(reason, Damage):
        error = CorruptRecord(key, reason.position, reason.reason)
    elif key is not None:
        error = UnsupportedRecord(key, 0, reason.layout)
    else:
        error = CorruptRecord(None, None, f"a later version wrote the file, in layout {reason.layout}; upgrade")
    return Damaged(key, paths.name + SUFFIX, error)


def _find_key(paths: Paths) -> Key | None:
    """Return the key of a damaged conversation: from its file names, or, if one was shortened, from a sound commit."""
    key = paths.decode_key()
    if key is not None:
        return key
    with suppress(Damage, OtherLayout, OSError), open_existing(paths.main) as file:
        if file is not None:
            for scanned in scan_lines(ChunkReader(file.fd, file.size, step=4096), 0, file.size):
                for line in scanned.lines:
                    if isinstance(line, CommitLine) and paths.belong_to(line.head.key):
                        return line.head.key
    return None


@dataclass(frozen=True, slots=True)
class ScopeFolders:
    """The folders that may hold conversations, and links with the name of one."""

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
        """Find the folder of one scope."""
        try:
            return cls([path] if folder_exists(path) else [], [])
        except OSError as error:
            return cls([], [Damaged(None, path.rpartition("/")[2], translate_error("listing", error))])
