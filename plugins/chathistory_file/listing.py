"""A scope's conversations, newest first, from one scan of its folder; and all keys.

A conversation's file is dated with its `updated`, so the scan alone gives the order, and only the heads of the page are
read. A date that is not ours gives itself away: it has a fraction of a microsecond (the kernel's own, after a crash or
a careless copy: that head is read to place it), or the head says otherwise (then all heads of the scope are read).
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import attrgetter
from typing import TypeAlias

from chathistory.errors import CorruptRecord
from chathistory.names import safe_name
from chathistory.store import Head, Key
from chathistory_file.faults import faults
from chathistory_file.layout import SUFFIX, Files, is_ours, named
from chathistory_file.reading import State, look

__all__ = ["Order", "folders_below", "keys_in", "newest"]

Order: TypeAlias = tuple[int, str]
"""What listings are ordered by: (updated, id)."""

_Dated: TypeAlias = tuple[int, str]  # the date in nanoseconds, negative so that a heap gives the newest, and the name


def order(head: Head) -> Order:
    """Return the place of a head in the listing of its scope."""
    return head.stamp.updated, head.key.id


def newest(folder: str, *, below: Order | None, count: int) -> list[Head]:
    """Return up to `count` heads of the folder's conversations, those below `below`, newest first."""
    found = _scan(folder)
    heads = _by_date(folder, found, below, count)
    if heads is None:
        heads = [head for _, name in found if (head := head_at(folder, name)) is not None]
    return heapq.nlargest(count, (head for head in heads if below is None or order(head) < below), key=order)


def _scan(folder: str) -> list[_Dated]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                    try:
                        found.append((-entry.stat(follow_symlinks=False).st_mtime_ns, name))
                    except FileNotFoundError:  # deleted just now
                        continue
    except FileNotFoundError:
        pass
    return found


def _by_date(folder: str, found: list[_Dated], below: Order | None, count: int) -> list[Head] | None:
    """Return at least the `count` newest heads below `below`; None: the dates cannot be relied upon."""
    dated = [entry for entry in found if entry[0] % 1000 == 0]
    dated += [entry for date, name in found if date % 1000 for entry in _placed(folder, name)]
    if below is not None:
        dated = [entry for entry in dated if -entry[0] <= below[0] * 1000]
    heapq.heapify(dated)
    heads: list[Head] = []
    while dated and len(heads) < count:
        for date, name in _of_one_date(dated):
            head = head_at(folder, name)
            if head is None:
                continue
            if head.stamp.updated * 1000 != -date and _date_of(folder, name) == -date:
                return None
            if below is None or order(head) < below:
                heads.append(head)
    return heads


def _placed(folder: str, name: str) -> list[_Dated]:
    head = head_at(folder, name)
    return [] if head is None else [(-1000 * head.stamp.updated, name)]


def _of_one_date(dated: list[_Dated]) -> Iterator[_Dated]:
    """Take the entries of the newest date from the heap."""
    date = dated[0][0]
    while dated and dated[0][0] == date:
        yield heapq.heappop(dated)


def _date_of(folder: str, name: str) -> int | None:
    with suppress(FileNotFoundError):
        return os.stat(f"{folder}/{name}").st_mtime_ns  # noqa: PTH116
    return None


def head_at(folder: str, name: str) -> Head | None:
    """Return the head in the file of that name; None: there is no conversation in it, or one of another name (a copy).

    Raises `CorruptRecord` and what else `faults` makes.
    """
    stem = name.removesuffix(SUFFIX)
    if not is_ours(stem):
        return None
    files = Files(folder, stem)
    with faults("listing", named(folder, stem)):
        head = look(files.main, _head)
    return head if head is not None and _place(head.key) == files.name else None


_head: Callable[[State], Head] = attrgetter("head")


def _place(key: Key) -> str:
    return f"{safe_name(key.scope)}/{safe_name(key.id)}"


def keys_in(folder: str) -> Iterator[Key]:
    """Yield the keys of a folder's conversations, those whose head is damaged too, as long as their names tell."""
    for _, name in _scan(folder):
        try:
            head = head_at(folder, name)
        except CorruptRecord as error:
            if error.key is None or _place(error.key) != Files(folder, name.removesuffix(SUFFIX)).name:
                raise
            yield error.key
        else:
            if head is not None:
                yield head.key


def folders_below(root: str) -> list[str]:
    """Return the folders that may hold conversations."""
    try:
        with os.scandir(root) as entries:
            return [entry.path for entry in entries if is_ours(entry.name) and entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
