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
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeAlias

from chathistory.errors import ChatHistoryError, CorruptRecord, UnsupportedRecord
from chathistory.storage.values import Damaged, Head, Key, SortKey
from chathistory_file.faults import Damage, LaterLayout, OtherConversation, error_of, is_of_the_process
from chathistory_file.layout import ASIDE, SUFFIX, TEMPORARY, Files, is_folder, is_ours, opened, size_of
from chathistory_file.lines import Commit
from chathistory_file.source import Source
from chathistory_file.states import State, contents_of, look

__all__ = ["Folder", "folder_at", "scopes_below"]

_Dated: TypeAlias = tuple[int, str]  # the date in nanoseconds, negative so that a heap gives the newest, and the name

_head: Callable[[State], Head] = attrgetter("head")


@dataclass(slots=True)
class _Seen:
    """What was looked at: heads, and what is damaged with its place in the order."""

    heads: list[Head] = field(default_factory=list)
    damaged: list[tuple[SortKey, Damaged]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Scan:
    """The names in a folder: files with dates that may be conversations, and others that take the place of one."""

    dated: list[_Dated]
    strays: list[str]


class Folder:
    """The folder of a scope. `is_held` tells whether somebody writes to a conversation just now."""

    def __init__(self, path: str, *, is_held: Callable[[Files], bool]) -> None:
        self.path = path
        self._is_held = is_held

    @property
    def name(self) -> str:
        """What it is called below the root."""
        return self.path.rpartition("/")[2]

    def newest(self, *, below: SortKey | None, count: int) -> list[Head | Damaged]:
        """Return up to `count` heads, those below `below`, newest first, and what is damaged among them.

        The last head only tells that there is a next page, so what is damaged below the one before it is left to that.
        """
        scan = self._scan()
        seen = self._seen_by_date(scan.dated, below, count) or self._seen_all(scan.dated)
        heads = [head for head in seen.heads if below is None or head.sort_key < below]
        heads = heapq.nlargest(count, heads, key=attrgetter("sort_key"))
        last = heads[-2].sort_key if 1 < count == len(heads) else None
        damaged = [
            each for place, each in seen.damaged if (last is None or place >= last) and (below is None or place < below)
        ]
        strays = self._strays(scan) if below is None else ()
        return [*strays, *damaged, *heads]

    def keys(self) -> Iterator[Key]:
        """Yield the keys of the conversations, those that are damaged too, if their key can be told."""
        for _, name in self._scan().dated:
            found = self.look_at(name)
            if found is not None and found.key is not None:
                yield found.key

    def damaged(self) -> Iterator[Damaged]:
        """Yield what is stored here and whose key cannot be told."""
        scan = self._scan()
        yield from self._strays(scan)
        for _, name in scan.dated:
            found = self.look_at(name)
            if isinstance(found, Damaged) and found.key is None:
                yield found

    def look_at(self, name: str) -> Head | Damaged | None:
        """Return the head in the file of that name, or what is wrong with it; None: it is gone, or just being made."""
        files = Files(self.path, name.removesuffix(SUFFIX))
        try:
            head = look(files, _head, own=files.are_of)
        except (Damage, LaterLayout) as reason:
            return _damaged(files, reason)
        except OSError as error:
            if is_of_the_process(error):
                raise
            return Damaged(_told_key(files), files.name + SUFFIX, error_of("listing", error))
        if head is None and size_of(files.main) is not None and not self._is_held(files):
            return self._without_commit(files)
        return head

    def _without_commit(self, files: Files) -> Damaged | None:
        """Say what is in a file that has no commit; None: it is gone, or somebody has written one meanwhile."""
        with suppress(Damage, LaterLayout, OSError):
            if look(files, _head, own=files.are_of) is None and size_of(files.main) is not None:
                reason = "no append to it was completed; the next one sets aside what is in the file"
                return Damaged(None, files.name + SUFFIX, CorruptRecord(None, None, reason))
        return None

    def _scan(self) -> _Scan:
        dated: list[_Dated] = []
        strays: list[str] = []
        beside: list[str] = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    name = entry.name
                    if name.endswith((ASIDE, TEMPORARY)):
                        beside.append(name)
                    elif name.endswith(SUFFIX):
                        if is_ours(name.removesuffix(SUFFIX)) and entry.is_file(follow_symlinks=False):
                            with suppress(FileNotFoundError):  # deleted just now
                                dated.append((-entry.stat(follow_symlinks=False).st_mtime_ns, name))
                        else:
                            strays.append(name)
        except FileNotFoundError:
            pass
        if beside:
            names = {name.removesuffix(SUFFIX) for _, name in dated}
            strays += [name for name in beside if _stem(name) not in names and is_ours(_stem(name))]
        return _Scan(dated, strays)

    def _strays(self, scan: _Scan) -> Iterator[Damaged]:
        for name in scan.strays:
            reason = "it is not a file of this store, but its name ends like one"
            if not name.endswith(SUFFIX):
                if size_of(f"{self.path}/{name}") is None or size_of(f"{self.path}/{_stem(name)}{SUFFIX}") is not None:
                    continue
                reason = "it was left beside a conversation that is gone"
            yield Damaged(None, f"{self.name}/{name}", CorruptRecord(None, None, reason))

    def _seen_all(self, dated: list[_Dated]) -> _Seen:
        seen = _Seen()
        for entry in dated:
            self._see(seen, entry)
        return seen

    def _see(self, seen: _Seen, entry: _Dated) -> Head | None:
        """Look at a file and note what is seen; returns the head, if it has one."""
        date, name = entry
        found = self.look_at(name)
        if isinstance(found, Damaged):
            seen.damaged.append((SortKey(-date // 1000, name), found))
            return None
        if found is not None:
            seen.heads.append(found)
        return found

    def _seen_by_date(self, found: list[_Dated], below: SortKey | None, count: int) -> _Seen | None:
        """Look at the newest files until `count` heads below `below` are seen; None: the dates are not ours."""
        dated = [entry for entry in found if entry[0] % 1000 == 0]
        dated += [self._placed(entry) for entry in found if entry[0] % 1000]
        if below is not None:
            dated = [entry for entry in dated if -entry[0] <= below.updated * 1000 + 999]
        heapq.heapify(dated)
        seen = _Seen()
        left = count
        while dated and left > 0:
            for entry in _of_one_date(dated):
                head = self._see(seen, entry)
                if head is None:
                    continue
                if head.revision.updated * 1000 != -entry[0] and self._date_of(entry[1]) == -entry[0]:
                    return None
                if below is None or head.sort_key < below:
                    left -= 1
        return seen

    def _placed(self, entry: _Dated) -> _Dated:
        """Return an entry whose date is not ours with the date that its head tells."""
        found = self.look_at(entry[1])
        return (-1000 * found.revision.updated, entry[1]) if isinstance(found, Head) else entry

    def _date_of(self, name: str) -> int | None:
        with suppress(FileNotFoundError):
            return os.stat(f"{self.path}/{name}").st_mtime_ns  # noqa: PTH116
        return None


def _of_one_date(dated: list[_Dated]) -> Iterator[_Dated]:
    """Take the entries of the newest date from the heap."""
    date = dated[0][0]
    while dated and dated[0][0] == date:
        yield heapq.heappop(dated)


def _stem(name: str) -> str:
    return name.removesuffix(ASIDE) if name.endswith(ASIDE) else name.removesuffix(TEMPORARY)


def _damaged(files: Files, reason: Damage | LaterLayout) -> Damaged:
    """Return the row of a conversation whose head cannot be read."""
    key = None if isinstance(reason, OtherConversation) else _told_key(files)
    error: ChatHistoryError
    if isinstance(reason, Damage):
        error = CorruptRecord(key, reason.position, reason.reason)
    elif key is not None:
        error = UnsupportedRecord(key, 0, reason.layout)
    else:
        error = CorruptRecord(None, None, f"a later version wrote it, in layout {reason.layout}")
    return Damaged(key, files.name + SUFFIX, error)


def _told_key(files: Files) -> Key | None:
    """Return the key of a damaged conversation: its names tell it, or, if one was cut, a sound commit in the file."""
    key = files.named()
    if key is None:
        with suppress(Damage, LaterLayout, OSError), opened(files.main) as file:
            if file is not None:
                return next(_own_keys(Source(file.fd, file.size, step=4096), files), None)
    return key


def _own_keys(source: Source, files: Files) -> Iterator[Key]:
    """Yield the key that each commit names, if its place is that of the file."""
    for offset, line in source.lines(0, source.size):
        for piece in contents_of(line, ended=offset + len(line) < source.size):
            content = piece.content
            if isinstance(content, Commit) and files.are_of(content.head.key):
                yield content.head.key


def scopes_below(root: str) -> tuple[list[str], list[Damaged]]:
    """Return the folders that may hold conversations, and what has the name of one and is a link."""
    folders: list[str] = []
    damaged: list[Damaged] = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if not is_ours(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_symlink():
                    damaged += folder_at(entry.path)[1]
    except FileNotFoundError:
        pass
    return folders, damaged


def folder_at(path: str) -> tuple[list[str], list[Damaged]]:
    """Return the same for the folder of one scope."""
    try:
        return [path] if is_folder(path) else [], []
    except OSError as error:
        return [], [Damaged(None, path.rpartition("/")[2], error_of("listing", error))]
