"""What the store does, in terms of the rest of the package.

Readers take no lock: they open a file once and see it as it was then. Writers hold the conversation's lock from the
look at its head to the end of the write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import quote

from chathistory.checks import class_name
from chathistory.cursor import decode_cursor, encode_cursor
from chathistory.errors import ConfigError, Conflict, InvalidInput
from chathistory.lifeline import Lifeline
from chathistory.store import Cursor, Head, HistoryStore, Key, Page, Record, Slice, Stamp, Traits, check_append
from chathistory.url import Option, StoreURL, seconds
from chathistory_file.blocks import LF, batch
from chathistory_file.faults import Damage, faults
from chathistory_file.layout import File, Files, is_there, opened
from chathistory_file.listing import folders_below, keys_in, newest
from chathistory_file.locks import Locks
from chathistory_file.reading import State, look, records_from, state_of
from chathistory_file.writing import append, begin, remove, replace, set_aside

__all__ = ["FileStore"]

SLICE = 8 * 1024 * 1024  # bytes of bodies after which a slice ends early
TAIL = 32 * 1024  # bytes read at first, so that a usual tail comes with the head
_LOCK_TIMEOUT = 10.0


class FileStore(HistoryStore):
    """Conversations in files below one folder, which the first append makes.

    root: the folder; `~` is the user's own. lock_timeout: seconds that a writer waits for another one.
    """

    traits: ClassVar[Traits] = Traits(durable=True, shared=True)
    options: ClassVar[Mapping[str, Option]] = {
        "lock_timeout": Option(seconds, _LOCK_TIMEOUT, "seconds that a writer waits for another writer's lock")
    }

    def __init__(self, root: str | os.PathLike[str], *, lock_timeout: float = _LOCK_TIMEOUT) -> None:
        if not isinstance(root, str | os.PathLike):
            msg = f"root: must be the path of a folder, not {class_name(root)}"
            raise ConfigError(msg)
        self.root = _absolute(os.fsdecode(root))
        self._lifeline = Lifeline()
        self._locks = Locks(self.root, timeout=lock_timeout, lifeline=self._lifeline)

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        if url.location.startswith("//") and not url.location.startswith("///"):
            msg = "file: knows no hosts; write file:./folder, file:/folder or file:///folder"
            raise ConfigError(msg)
        return cls(url.path, lock_timeout=url.options.get("lock_timeout", _LOCK_TIMEOUT))

    @classmethod
    def anchored(cls, url: StoreURL, folder: str) -> StoreURL:
        if not url.path or url.location.startswith("//") or url.path.startswith("~"):  # an error, a host, a home
            return url
        return StoreURL(url.scheme, quote(Path(folder, url.path).as_posix(), safe="/:"), url.options)

    def append(self, key: Key, bodies: Sequence[str], *, after: Head | None, stamp: Stamp, first: int = 0) -> Head:
        self._lifeline.check()
        lines = [body.encode() + LF for body in check_append(bodies, stamp, self.traits, first=first)]
        files = Files.of(self.root, key)
        with faults("append", key), self._locks.held(files):
            with opened(files.main, os.O_RDWR | os.O_APPEND) as file:
                state = _current(key, file)
                _check_version(key, state, after.stamp.version if after else None)
                if file is not None:
                    _set_torn_aside(files, file, state)
                if file is not None and state is not None:
                    return _append(file, state, lines, stamp)
            head = Head(key, first, first + len(lines), stamp)
            begin(files, b"".join(batch(lines, head, first=first)), updated=stamp.updated)
            return head

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Slice | None:
        self._lifeline.check()
        with faults("read", key):
            path = Files.of(self.root, key).main
            return look(path, lambda state: _slice(_own(key, state), start, stop), step=TAIL)

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        self._lifeline.check()
        if limit < 1:
            msg = "a page has at least one item"
            raise InvalidInput(msg)
        below = decode_cursor(after) if after is not None else None
        key = Key(scope, "-")
        with faults("listing", key):
            heads = newest(Files.of(self.root, key).folder, below=below, count=limit + 1)
        return Page(heads[:limit], encode_cursor(heads[limit - 1]) if len(heads) > limit else None)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        self._lifeline.check()
        return self._keys(Key("default" if scope is None else scope, "-"), everywhere=scope is None)

    def _keys(self, key: Key, *, everywhere: bool) -> Iterator[Key]:
        with faults("listing", key):
            for folder in folders_below(self.root) if everywhere else [Files.of(self.root, key).folder]:
                yield from keys_in(folder)

    def forget(self, key: Key, *, before: int) -> Head | None:
        self._lifeline.check()
        files = Files.of(self.root, key)
        with faults("forget", key):
            if not is_there(files.folder):
                return None
            with self._locks.held(files), opened(files.main) as file:
                state = _current(key, file)
                return _forget(files, state, before) if state is not None else None

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self._lifeline.check()
        files = Files.of(self.root, key)
        with faults("delete", key):
            if not is_there(files.folder):
                return False
            with self._locks.held(files):
                found = _may_go(key, files, version)
                remove(files)
                return found

    def close(self) -> None:
        if self._lifeline.cut():
            self._locks.close()


def _absolute(root: str) -> str:
    if root.startswith("file:"):
        msg = "root: must be the path of a folder, not a URL; open_store(...) makes a store of a URL"
        raise ConfigError(msg)
    path = os.path.expanduser(root)  # noqa: PTH111  # without the Path, an unknown user is no RuntimeError
    if not path or "\0" in path or path.startswith("~"):
        msg = "file: needs the path of a folder, such as file:./history"
        raise ConfigError(msg)
    return os.path.abspath(path)  # noqa: PTH100  # of now: the process may change its folder later


def _current(key: Key, file: File | None) -> State | None:
    """Return the state of the conversation in an open file; None: there is no file, or no conversation in it."""
    state = state_of(file) if file is not None else None
    return _own(key, state) if state is not None else None


def _own(key: Key, state: State) -> State:
    if state.head.key != key:
        reason = "the file holds another conversation"
        raise Damage(None, reason)
    return state


def _check_version(key: Key, state: State | None, version: str | None) -> None:
    head = state.head if state else None
    if version != (head.stamp.version if head else None):
        raise Conflict(key, head)


def _set_torn_aside(files: Files, file: File, state: State | None) -> None:
    after = state.after if state else 0
    if file.size > after:
        set_aside(files, file.fd, after=after, size=file.size)


def _append(file: File, state: State, lines: list[bytes], stamp: Stamp) -> Head:
    old = state.head
    head = Head(old.key, old.start, old.end + len(lines), stamp)
    data = b"".join(batch(lines, head, first=old.end, at=state.after))
    append(file.fd, data, size=state.after, before=old.stamp.updated, updated=stamp.updated)
    return head


def _slice(state: State, start: int, stop: int | None) -> Slice:
    head = state.head
    low = max(start if start >= 0 else head.end + start, head.start)
    high = head.end if stop is None else min(stop, head.end)
    return Slice(head, _records(state, low, high) if low < high else [])


def _records(state: State, low: int, high: int) -> list[Record]:
    records: list[Record] = []
    room = SLICE
    for first, lines in records_from(state, low, high):
        room -= sum(map(len, lines))
        if room < 0:
            fit = _fitting(lines, room, at_least=0 if records else 1)
            return [*records, *map(Record, count(first), _texts(lines[:fit], first))]
        records += map(Record, count(first), _texts(lines, first))
    return records


def _fitting(lines: list[bytes], room: int, *, at_least: int) -> int:
    """Return how many lines may stay so that what is left of the room, which is below zero, is so no more."""
    fit = len(lines)
    while room < 0 and fit > at_least:
        fit -= 1
        room += len(lines[fit])
    return fit


def _texts(lines: list[bytes], first: int) -> list[str]:
    texts: list[str] = []
    try:
        texts.extend(map(bytes.decode, lines))  # up to the first that is none
    except UnicodeDecodeError:
        reason = "the line is not UTF-8"
        raise Damage(first + len(texts), reason) from None  # the cause would quote the text
    return texts


def _forget(files: Files, state: State, before: int) -> Head:
    old = state.head
    start = min(max(before, old.start), old.end)
    if start > old.start:
        head = Head(old.key, start, old.end, old.stamp)
        kept = (line + LF for _, lines in _runs(state, start) for line in lines)
        replace(files, batch(kept, head, first=start), updated=old.stamp.updated)
        return head
    return old


def _runs(state: State, start: int) -> Iterator[tuple[int, list[bytes]]]:
    return records_from(state, start, state.head.end) if start < state.head.end else iter(())


def _may_go(key: Key, files: Files, version: str | None) -> bool:
    """Tell whether there is a conversation to delete; damage does not stop who deletes whatever is there."""
    with opened(files.main) as file:
        try:
            state = _current(key, file)
        except Damage:
            if version is None:
                return True
            raise
    if state is not None and version is not None:
        _check_version(key, state, version)
    return state is not None
