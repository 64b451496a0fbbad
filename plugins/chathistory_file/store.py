"""What the store does, in terms of the rest of the package.

Readers take no lock: they open a file once and see it as it was then. Writers hold the conversation's lock from the
look at its head to the end of the write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import quote

from chathistory.checks import class_name
from chathistory.errors import ConfigError, Conflict
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.base_store import BaseStore
from chathistory.storage.checks import check_version
from chathistory.storage.url import Option, StoreURL, seconds
from chathistory.storage.values import Damaged, Head, Key, Leftovers, ReadResult, Record, Revision, SortKey, Traits
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


class FileStore(BaseStore):
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
        super().__init__()
        self.root = _absolute(os.fsdecode(root))
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

    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        files = Files.of(self.root, key)
        with faults("append", key):
            is_folder(files.folder)
            lines = [body.encode() for body in bodies]
            return self._locks.run(
                files, lambda: _append(files, key, lines, after=after, revision=revision, first=first)
            )

    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        with self._reading(key) as files:
            if files is None:
                return None
            return look(files, lambda state: self._read_state(state, start, stop), own=key.__eq__, step=TAIL)

    def _read_state(self, state: State, start: int, stop: int | None) -> ReadResult:
        wanted = state.head.narrow(start, stop)
        find = self._recovery.bodies if state.moved else bodies_from
        return ReadResult(state.head, _records(find(state, wanted.start, wanted.stop), wanted.start) if wanted else [])

    @contextmanager
    def _reading(self, key: Key) -> Iterator[Files | None]:
        """Translate the errors of reading a conversation; None: its scope has no folder."""
        files = Files.of(self.root, key)
        with faults("read", key):
            if not is_folder(files.folder):
                yield None
                return
            with unreadable_is_damage(files.main):
                yield files

    def _list_heads(self, scope: str, *, below: SortKey | None, count: int) -> Iterable[Head | Damaged]:
        with faults("listing", Key(scope, "-")):
            path = scope_folder(self.root, scope)
            return self._folder(path).newest(below=below, count=count) if is_folder(path) else []

    def _list_keys(self, scope: str | None) -> Iterator[Key]:
        with faults("listing", Key("default" if scope is None else scope, "-")):
            if scope is not None:
                path = scope_folder(self.root, scope)
                if is_folder(path):
                    yield from self._folder(path).keys()
                return
            for folder in map(self._folder, scopes_below(self.root)[0]):
                try:
                    yield from folder.keys()
                except OSError as error:  # `damaged_keys` tells of the folder
                    if is_of_the_process(error):
                        raise

    def _list_damaged_keys(self, scope: str | None) -> Iterator[Damaged]:
        everywhere = scope is None
        with faults("listing", Key("default" if scope is None else scope, "-")):
            paths, linked = scopes_below(self.root) if scope is None else folder_at(scope_folder(self.root, scope))
            yield from linked
            for folder in map(self._folder, paths):
                try:
                    yield from folder.damaged()
                except OSError as error:
                    if not everywhere or is_of_the_process(error):
                        raise
                    yield Damaged(None, folder.name, error_of("listing", error))

    def _forget_records(self, key: Key, before: int) -> Head | None:
        files = Files.of(self.root, key)
        with faults("forget", key):
            if not is_folder(files.folder):
                return None
            return self._locks.run(files, lambda: _forget(files, key, before))

    def _delete(self, key: Key, version: str | None) -> bool:
        files = Files.of(self.root, key)
        with faults("delete", key):
            if not is_folder(files.folder):
                return False
            return self._locks.run(files, lambda: _delete(files, key, version))

    def _remove_leftovers(self, scope: str) -> Leftovers:
        """Remove what is in the folder of a scope beside conversations that can be read.

        Then looks at all files below the root, one after the other, for what names the scope: a folder that was moved,
        a copy. Such a place is told as left, and not removed; and so is a folder that is a link.
        """
        with faults("removing leftovers", Key(scope, "-")):
            return remove_leftovers(self.root, scope, self._locks)

    def find_records(self, key: Key) -> FoundRecords | None:
        """Look at what is stored under a key, whatever the state of its head; see `chathistory.storage.abilities`.

        Raises `CorruptRecord` where the file is that of another conversation, or cannot be read.
        """
        self._check_open()
        with self._reading(key) as files:
            return None if files is None else self._recovery.find(files, key)

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        """Return the sound records of a range; see `chathistory.storage.abilities`."""
        self._check_open()
        with self._reading(found.key) as files:
            return [] if files is None else self._recovery.read(files, found.key, start, stop)

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Store a new head in the place of the damaged one; see `chathistory.storage.abilities`.

        The file is written anew, with the sound lines of the records in the order of their positions. What is left over
        is set aside, in the file that `notes` names.
        """
        self._check_open()
        files = Files.of(self.root, found.key)
        with faults("repair", found.key):
            if not is_folder(files.folder):
                raise Conflict(found.key, None)
            self._locks.run(files, lambda: restore(files, found, head))
        return head

    def notes(self, key: Key) -> Sequence[str]:
        """Say what is stored beside the records of a conversation; see `chathistory.storage.abilities`."""
        self._check_open()
        with self._reading(key) as files:
            return [] if files is None else notes(files, key)

    def _close(self) -> None:
        self._locks.close()

    def _folder(self, path: str) -> Folder:
        return Folder(path, is_held=self._locks.is_held)


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
        check_version(key, state.head if state else None, after)
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
        head = old.drop_below(before)
        if head.start > old.start or (state.tail and before > old.end):
            replace(files, kept_lines(state, head.start) if head.start < head.end else (), head)
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
    if version is not None and state is not None and state.head.revision.version != version:
        raise Conflict(key, state.head)
    remove(files)
    return found
