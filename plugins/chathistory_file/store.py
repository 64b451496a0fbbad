"""What the store does, in terms of the rest of the package.

Readers take no lock: they open a file once and see it as it was then. Writers hold the conversation's lock from the
look at its head to the end of the write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import quote

from chathistory.checks import class_name
from chathistory.errors import ConfigError, Conflict, InvalidInput
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.storage.open_guard import OpenGuard
from chathistory.storage.recovery import FoundRecords
from chathistory.storage.store import (
    Cursor,
    Damaged,
    Head,
    HistoryStore,
    Key,
    Leftovers,
    Page,
    ReadResult,
    Record,
    Revision,
    Traits,
    check_append,
    check_position,
    check_range,
)
from chathistory.storage.url import Option, StoreURL, seconds
from chathistory_file.faults import (
    Damage,
    LaterLayout,
    error_of,
    faults,
    is_of_the_file,
    is_of_the_process,
    unreadable_is_damage,
)
from chathistory_file.layout import Files, is_folder, opened, scope_folder, size_of
from chathistory_file.leftovers import notes, remove_leftovers
from chathistory_file.lines import LF, Batch, batch_of
from chathistory_file.listing import Folder, folder_at, scopes_below
from chathistory_file.locks import Locks
from chathistory_file.reading import bodies_from, kept_lines
from chathistory_file.recovering import Recovery, put_in_order, restore
from chathistory_file.source import LARGEST_RECORD
from chathistory_file.states import State, look, state_of
from chathistory_file.writing import append, begin, cut, remove, remove_beside, replace

__all__ = ["FileStore"]

SLICE = 8 * 1024 * 1024  # bytes of bodies after which a slice ends early
TAIL = 32 * 1024  # bytes read at first, so that a usual tail comes with the head
_LOCK_TIMEOUT = 10.0


class FileStore(HistoryStore):
    """Conversations in files below one folder, which the first append makes.

    root: the folder; `~` is the user's own. lock_timeout: seconds that a writer waits for another one.
    """

    traits = Traits(
        durable=True,
        shared=True,
        largest_record=LARGEST_RECORD,
        not_reached=("freed blocks of the disk", "snapshots of the file system", "backups"),
    )
    options: ClassVar[Mapping[str, Option]] = {
        "lock_timeout": Option(seconds, _LOCK_TIMEOUT, "seconds that a writer waits for another writer's lock")
    }

    def __init__(self, root: str | os.PathLike[str], *, lock_timeout: float = _LOCK_TIMEOUT) -> None:
        if not isinstance(root, str | os.PathLike):
            raise ConfigError(f"root: must be the path of a folder, not {class_name(root)}")
        self.root = _absolute(os.fsdecode(root))
        self._open_guard = OpenGuard()
        self._locks = Locks(self.root, timeout=lock_timeout, open_guard=self._open_guard)
        self._recovery = Recovery()

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        if url.location.startswith("//") and not url.location.startswith("///"):
            raise ConfigError("file: knows no hosts; write file:./folder, file:/folder or file:///folder")
        return cls(url.path, lock_timeout=url.options.get("lock_timeout", _LOCK_TIMEOUT))

    @classmethod
    def anchored(cls, url: StoreURL, folder: str) -> StoreURL:
        if not url.path or url.location.startswith("//") or url.path.startswith("~"):  # an error, a host, a home
            return url
        return StoreURL(url.scheme, quote(Path(folder, url.path).as_posix(), safe="/:"), url.options)

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        self._open_guard.check()
        lines = [body.encode() for body in check_append(bodies, revision, self.traits, first=first)]
        files = Files.of(self.root, key)
        with faults("append", key):
            is_folder(files.folder)
            return self._locks.run(
                files, lambda: _append(files, key, lines, after=after, revision=revision, first=first)
            )

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        self._open_guard.check()
        check_range(start, stop)
        files = Files.of(self.root, key)
        with faults("read", key):
            if not is_folder(files.folder):
                return None
            with unreadable_is_damage(files.main):
                return look(files, lambda state: self._slice(state, start, stop), own=key.__eq__, step=TAIL)

    def _slice(self, state: State, start: int, stop: int | None) -> ReadResult:
        head = state.head
        low = max(start if start >= 0 else head.end + start, head.start)
        high = head.end if stop is None else min(stop, head.end)
        find = self._recovery.bodies if state.moved else bodies_from
        return ReadResult(head, _records(find(state, low, high), low) if low < high else [])

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        self._open_guard.check()
        if limit < 1:
            raise InvalidInput("a page has at least one item")
        below = decode_cursor(after) if after is not None else None
        with faults("listing", Key(scope, "-")):
            path = scope_folder(self.root, scope)
            if not is_folder(path):
                return Page([])
            listed = self._folder(path).newest(below=below, limit=limit)
        return Page(listed.heads, encode_cursor(listed.heads[-1]) if listed.more else None, listed.damaged)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        self._open_guard.check()
        return self._keys(Key("default" if scope is None else scope, "-"), everywhere=scope is None)

    def _keys(self, key: Key, *, everywhere: bool) -> Iterator[Key]:
        with faults("listing", key):
            if not everywhere:
                path = scope_folder(self.root, key.scope)
                if is_folder(path):
                    yield from self._folder(path).keys()
                return
            for folder in map(self._folder, scopes_below(self.root)[0]):
                try:
                    yield from folder.keys()
                except OSError as error:  # `damaged_keys` tells of the folder
                    if is_of_the_process(error):
                        raise

    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        self._open_guard.check()
        return self._damaged_keys(Key("default" if scope is None else scope, "-"), everywhere=scope is None)

    def _damaged_keys(self, key: Key, *, everywhere: bool) -> Iterator[Damaged]:
        with faults("listing", key):
            paths, linked = scopes_below(self.root) if everywhere else folder_at(scope_folder(self.root, key.scope))
            yield from linked
            for folder in map(self._folder, paths):
                try:
                    yield from folder.damaged()
                except OSError as error:
                    if not everywhere or is_of_the_process(error):
                        raise
                    yield Damaged(None, folder.name, error_of("listing", error))

    def forget(self, key: Key, *, before: int) -> Head | None:
        self._open_guard.check()
        check_position("before", before)
        files = Files.of(self.root, key)
        with faults("forget", key):
            if not is_folder(files.folder):
                return None
            return self._locks.run(files, lambda: _forget(files, key, before))

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self._open_guard.check()
        files = Files.of(self.root, key)
        with faults("delete", key):
            if not is_folder(files.folder):
                return False
            return self._locks.run(files, lambda: _delete(files, key, version))

    def remove_leftovers(self, scope: str) -> Leftovers:
        """Remove what is in the folder of a scope beside conversations that can be read.

        Then looks at all files below the root, one after the other, for what names the scope: a folder that was moved,
        a copy. Such a place is told as left, and not removed; and so is a folder that is a link.
        """
        self._open_guard.check()
        with faults("removing leftovers", Key(scope, "-")):
            return remove_leftovers(self.root, scope, self._locks)

    def find_records(self, key: Key) -> FoundRecords | None:
        """Look at what is stored under a key, whatever the state of its head; see `chathistory.storage.recovery`.

        Raises `CorruptRecord` where the file is that of another conversation, or cannot be read.
        """
        self._open_guard.check()
        files = Files.of(self.root, key)
        with faults("read", key):
            if not is_folder(files.folder):
                return None
            with unreadable_is_damage(files.main):
                return self._recovery.find(files, key)

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        """Return the sound records of a range; see `chathistory.storage.recovery`."""
        self._open_guard.check()
        files = Files.of(self.root, found.key)
        with faults("read", found.key):
            if not is_folder(files.folder):
                return []
            with unreadable_is_damage(files.main):
                return self._recovery.read(files, found.key, start, stop)

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Store a new head in the place of the damaged one; see `chathistory.storage.recovery`.

        The file is written anew, with the sound lines of the records in the order of their positions. What is left over
        is set aside, in the file that `notes` names.
        """
        self._open_guard.check()
        files = Files.of(self.root, found.key)
        with faults("repair", found.key):
            if not is_folder(files.folder):
                raise Conflict(found.key, None)
            self._locks.run(files, lambda: restore(files, found, head))
        return head

    def notes(self, key: Key) -> Sequence[str]:
        """Say what is stored beside the records of a conversation; see `chathistory.storage.recovery`."""
        self._open_guard.check()
        files = Files.of(self.root, key)
        with faults("read", key):
            if not is_folder(files.folder):
                return []
            with unreadable_is_damage(files.main):
                return notes(files, key)

    def _folder(self, path: str) -> Folder:
        return Folder(path, is_held=self._locks.is_held)

    def close(self) -> None:
        if self._open_guard.cut():
            self._locks.close()


def _absolute(root: str) -> str:
    if root.startswith("file:"):
        raise ConfigError("root: must be the path of a folder, not a URL; open_store(...) makes a store of a URL")
    path = os.path.expanduser(root)  # noqa: PTH111  # without the Path, an unknown user is no RuntimeError
    if not path or "\0" in path or path.startswith("~"):
        raise ConfigError("file: needs the path of a folder, such as file:./history")
    return os.path.abspath(path)  # noqa: PTH100  # of now: the process may change its folder later


def _append(files: Files, key: Key, bodies: list[bytes], *, after: Head | None, revision: Revision, first: int) -> Head:
    with opened(files.main, os.O_RDWR | os.O_APPEND) as file:
        state = state_of(file, own=key.__eq__) if file is not None else None
        _check_version(key, state, after.revision.version if after else None)
        if state is not None and state.moved:
            put_in_order(files, state)
            return _append(files, key, bodies, after=after, revision=revision, first=first)
        if file is not None and file.size > (state.after if state else 0):
            cut(files, file.fd, after=state.after if state else 0, size=file.size)
        if file is None or state is None:
            head = Head(key, first, first + len(bodies), revision)
            begin(files, batch_of(bodies, head, first=first, at=0), updated=revision.updated)
            return head
        old = state.head
        head = Head(key, old.start, old.end + len(bodies), revision)
        batch = batch_of(bodies, head, first=old.end, at=state.after + (not state.ended))
        if not state.ended:
            batch = Batch(LF + batch.records, batch.commit)
        append(file.fd, batch, size=state.after, before=old.revision.updated, updated=revision.updated)
        return head


def _check_version(key: Key, state: State | None, version: str | None) -> None:
    head = state.head if state else None
    if version != (head.revision.version if head else None):
        raise Conflict(key, head)


def _records(bodies: Iterable[bytes], low: int) -> list[Record]:
    """Return the records of a range that begins at `low`; fewer if they are large, but at least one."""
    records: list[Record] = []
    room = SLICE
    for position, body in enumerate(bodies, low):
        room -= len(body)
        if records and room < 0:
            break
        records.append(Record(position, _text(body, position)))
    return records


def _text(body: bytes, position: int) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        reason = "the line is not UTF-8"
    raise Damage(position, reason)  # not raised above: the context would quote the text


def _forget(files: Files, key: Key, before: int) -> Head | None:
    with opened(files.main) as file:
        state = state_of(file, own=key.__eq__) if file is not None else None
        if state is None:
            return None
        old = state.head
        if state.moved and before > old.start:
            put_in_order(files, state)
            return _forget(files, key, before)
        start = min(max(before, old.start), old.end)
        head = Head(key, start, old.end, old.revision)
        if start > old.start or (state.tail and before > old.end):
            replace(files, kept_lines(state, start) if start < old.end else (), head)
        elif before > 0:
            remove_beside(files)
        return head


def _delete(files: Files, key: Key, version: str | None) -> bool:
    try:
        with opened(files.main) as file:
            state = state_of(file, own=key.__eq__) if file is not None else None
        found = state is not None
    except (Damage, LaterLayout):  # which does not stop who deletes whatever is there
        if version is not None:
            raise
        found, state = True, None
    except OSError as error:
        if version is not None or size_of(files.main) is None or not is_of_the_file(error, files.main):
            raise
        found, state = True, None
    if version is not None and state is not None:
        _check_version(key, state, version)
    remove(files)
    return found
