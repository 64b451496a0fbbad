"""The store: its hooks, and the steps of an append, a forget and a delete.

Readers take no lock: they open a file once and see it as it is then. Writers hold the conversation's lock from reading
its head to the end of the write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import quote

from chathistory.checks import class_name
from chathistory.errors import ConfigError, Conflict
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.base_store import BaseStore
from chathistory.storage.checks import check_version
from chathistory.storage.url import Option, StoreURL, parse_seconds
from chathistory.storage.values import Damaged, Head, Key, Leftovers, ReadResult, Record, Revision, SortKey, Traits
from chathistory_file.errors import (
    Damage,
    OtherLayout,
    is_file_error,
    is_process_error,
    translate_error,
    translate_errors,
)
from chathistory_file.files import Paths, folder_exists, open_existing, regular_file_size
from chathistory_file.leftovers import describe_leftovers, remove_leftovers
from chathistory_file.listing import ScopeFolder, ScopeFolders
from chathistory_file.locks import Locks
from chathistory_file.read import FileState, iter_bodies, iter_kept_lines, load_state, use_state
from chathistory_file.recovery import FileRecovery, restore_order
from chathistory_file.schema import LARGEST_RECORD, LF, Batch, encode_batch
from chathistory_file.write import (
    append_batch,
    begin_file,
    remove_all,
    remove_side_files,
    replace_file,
    set_tail_aside,
)

__all__ = ["FileStore"]

P = ParamSpec("P")
T = TypeVar("T")

_LARGEST_READ = 8 * 1024 * 1024  # bytes of bodies after which a read ends early
_FIRST_READ_SIZE = 32 * 1024  # bytes to read first: they usually include the last messages
_LOCK_TIMEOUT = 10.0


class FileStore(BaseStore):
    """Conversations in files below one folder, which the first append creates."""

    traits = Traits(
        durable=True,
        shared=True,
        largest_record=LARGEST_RECORD,
        not_reached=("freed blocks of the disk", "snapshots of the file system", "backups"),
    )
    options: ClassVar[Mapping[str, Option]] = {
        "lock_timeout": Option(parse_seconds, _LOCK_TIMEOUT, "seconds that a writer waits for another writer's lock")
    }

    def __init__(self, root: str | os.PathLike[str], *, lock_timeout: float = _LOCK_TIMEOUT) -> None:
        """Open the store in a folder, which need not exist.

        Args:
            root: The path of the folder; a leading `~` is the home folder of the user.
            lock_timeout: Seconds that a writer waits for another writer's lock.

        Raises:
            ConfigError: `root` is not the path of a folder.
        """
        super().__init__()
        if not isinstance(root, str | os.PathLike):
            raise ConfigError(f"root: must be the path of a folder, not {class_name(root)}")
        path = os.path.expanduser(os.fsdecode(root))  # noqa: PTH111  # Path.expanduser raises for an unknown user
        if path.startswith("file:"):
            raise ConfigError("root: must be the path of a folder, not a URL; pass a URL to open_store(...)")
        if not path or "\0" in path or path.startswith("~"):
            raise ConfigError("file: must have the path of a folder, such as file:./history")
        self.root = os.path.abspath(path)  # noqa: PTH100  # absolute, because the process may change its folder later
        self._locks = Locks(self.root, timeout=lock_timeout, check_open=self._open_guard.check)
        self._recovery = FileRecovery()

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        if url.location.startswith("//") and not url.location.startswith("///"):
            raise ConfigError("file: must not name a host; write file:./folder, file:/folder or file:///folder")
        return cls(url.path, lock_timeout=url.options.get("lock_timeout", _LOCK_TIMEOUT))

    @classmethod
    def resolve_relative(cls, url: StoreURL, base_dir: str) -> StoreURL:
        if not url.path or url.location.startswith("//") or url.path.startswith("~"):  # an error, a host, a home
            return url
        return StoreURL(url.scheme, quote(Path(base_dir, url.path).as_posix(), safe="/:"), url.options)

    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        lines = [body.encode() for body in bodies]
        paths = Paths.for_key(self.root, key)
        with translate_errors("append", key):
            folder_exists(paths.folder)  # raises if it is a link
            return self._locks.run(
                paths, _append_under_lock, paths, key, lines, after=after, revision=revision, first=first
            )

    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        paths = Paths.for_key(self.root, key)
        with translate_errors("read", key, reads=paths.main):
            if not folder_exists(paths.folder):
                return None
            read = partial(_read_run, start=start, stop=stop, recovery=self._recovery)
            return use_state(paths, read, is_own=key.__eq__, step=_FIRST_READ_SIZE)

    def _forget_records(self, key: Key, before: int) -> Head | None:
        return self._run_under_lock("forget", key, _forget_under_lock, before)

    def _delete(self, key: Key, version: str | None) -> bool:
        return bool(self._run_under_lock("delete", key, _delete_under_lock, version))

    def _list_heads(self, scope: str, *, below: SortKey | None, count: int) -> Iterable[Head | Damaged]:
        with translate_errors("listing", Key(scope, "-")):
            path = self._folder_of(scope)
            return self._scope_folder(path).list_heads(below=below, count=count) if folder_exists(path) else []

    def _list_keys(self, scope: str | None) -> Iterator[Key]:
        with translate_errors("listing", Key(scope or "default", "-")):
            if scope is None:
                paths = ScopeFolders.in_root(self.root).paths
            else:
                paths = [path for path in (self._folder_of(scope),) if folder_exists(path)]
            for path in paths:
                try:
                    yield from self._scope_folder(path).iter_keys()
                except OSError as error:  # one of many folders: `_list_damaged_keys` names it
                    if scope is not None or is_process_error(error):
                        raise

    def _list_damaged_keys(self, scope: str | None) -> Iterator[Damaged]:
        with translate_errors("listing", Key(scope or "default", "-")):
            found = ScopeFolders.in_root(self.root) if scope is None else ScopeFolders.at_path(self._folder_of(scope))
            yield from found.damaged
            for folder in map(self._scope_folder, found.paths):
                try:
                    yield from folder.iter_damaged()
                except OSError as error:
                    if scope is not None or is_process_error(error):
                        raise
                    yield Damaged(None, folder.name, translate_error("listing", error))

    def _remove_leftovers(self, scope: str) -> Leftovers:
        """Remove everything in the folder of a scope except readable conversations.

        Then searches all files below the root for the name of the scope: in a folder that was moved, in a copy. Such
        files are reported as left and not removed. So is the folder of the scope itself if it is a link.
        """
        with translate_errors("removing leftovers", Key(scope, "-")):
            return remove_leftovers(self.root, self._folder_of(scope), scope, self._locks)

    def _close(self) -> None:
        self._locks.close()

    def find_records(self, key: Key) -> FoundRecords | None:
        """Return the range of sound records under a key, also with a damaged head; see `chathistory.storage.abilities`.

        Args:
            key: The conversation.

        Returns:
            None if nothing is stored under the key.

        Raises:
            CorruptRecord: The file holds another conversation, or cannot be read.
            UnsupportedRecord: A later version wrote it.
        """
        self._check_open()
        return self._read_files(key, self._recovery.find)

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        """Return the sound records of a range; see `chathistory.storage.abilities`.

        Args:
            found: The result of `find_records`.
            start: The first position.
            stop: The position after the last one.
        """
        self._check_open()
        return self._read_files(found.key, self._recovery.read, start, stop) or []

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Replace the damaged head with a new one; see `chathistory.storage.abilities`.

        Rewrites the file with the sound lines of the records, ordered by position. The rest is set aside, in the file
        that `list_notes` names.

        Args:
            found: The result of `find_records`.
            head: The new head.

        Returns:
            The new head.

        Raises:
            Conflict: The file has changed since `find_records`.
        """
        self._check_open()
        restored = self._run_under_lock("repair", found.key, self._recovery.restore, found.token, head)
        if restored is None:
            raise Conflict(found.key, None)
        return restored

    def list_notes(self, key: Key) -> Sequence[str]:
        """Return a sentence for each leftover next to a conversation; see `chathistory.storage.abilities`.

        Args:
            key: The conversation.
        """
        self._check_open()
        return self._read_files(key, describe_leftovers) or []

    def _read_files(
        self, key: Key, look: Callable[Concatenate[Paths, Key, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        """Return the result of `look` for a conversation; None if its scope has no folder."""
        paths = Paths.for_key(self.root, key)
        with translate_errors("read", key, reads=paths.main):
            return look(paths, key, *args, **kwargs) if folder_exists(paths.folder) else None

    def _run_under_lock(
        self,
        operation: str,
        key: Key,
        change: Callable[Concatenate[Paths, Key, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T | None:
        """Run a change under the conversation's lock, and return its result; None if its scope has no folder."""
        paths = Paths.for_key(self.root, key)
        with translate_errors(operation, key):
            if not folder_exists(paths.folder):
                return None
            return self._locks.run(paths, change, paths, key, *args, **kwargs)

    def _folder_of(self, scope: str) -> str:
        return Paths.for_key(self.root, Key(scope, "-")).folder

    def _scope_folder(self, path: str) -> ScopeFolder:
        return ScopeFolder(path, is_locked=self._locks.is_locked)


def _append_under_lock(
    paths: Paths, key: Key, bodies: list[bytes], *, after: Head | None, revision: Revision, first: int
) -> Head:
    with open_existing(paths.main, os.O_RDWR | os.O_APPEND) as file:
        state = load_state(file, is_own=key.__eq__)
        check_version(key, state.head if state else None, after)
        if state is not None and state.commit.has_moved:
            restore_order(paths, state)
            return _append_under_lock(paths, key, bodies, after=after, revision=revision, first=first)
        committed = state.after if state else 0
        if file is not None and file.size > committed:
            set_tail_aside(paths, file.fd, after=committed, size=file.size)
        if state is None:
            head = Head(key, first, first + len(bodies), revision)
            begin_file(paths, encode_batch(bodies, head, first=first, at=0), updated=revision.updated)
            return head
        head = Head(key, state.head.start, state.head.end + len(bodies), revision)
        batch = encode_batch(bodies, head, first=state.head.end, at=state.after + (not state.is_ended))
        if not state.is_ended:
            batch = Batch(LF + batch.records, batch.commit)
        append_batch(state, batch, updated=revision.updated)
        return head


def _read_run(state: FileState, *, start: int, stop: int | None, recovery: FileRecovery) -> ReadResult:
    """Return the head and the records of a range; fewer records if they are large, but at least one."""
    wanted, records, left = state.head.narrow(start, stop), list[Record](), _LARGEST_READ
    if not wanted:
        return ReadResult(state.head, records)
    bodies = recovery.iter_bodies(state, wanted) if state.commit.has_moved else iter_bodies(state, wanted)
    for position, body in enumerate(bodies, wanted.start):
        left -= len(body)
        if records and left < 0:
            break
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = None
        if text is None:  # not raised in the handler: the error's context would quote the text
            raise Damage(position, "the line is not UTF-8")
        records.append(Record(position, text))
    return ReadResult(state.head, records)


def _forget_under_lock(paths: Paths, key: Key, before: int) -> Head | None:
    with open_existing(paths.main) as file:
        state = load_state(file, is_own=key.__eq__)
        if state is None:
            return None
        old, head = state.head, state.head.drop_below(before)
        if state.commit.has_moved and before > old.start:
            restore_order(paths, state)
            return _forget_under_lock(paths, key, before)
        if head.start > old.start or (state.tail_size and before > old.end):
            replace_file(paths, iter_kept_lines(state, head.start) if head.start < head.end else (), head)
        elif before > 0:
            remove_side_files(paths)
        return head


def _delete_under_lock(paths: Paths, key: Key, version: str | None) -> bool:
    try:
        with open_existing(paths.main) as file:
            state = load_state(file, is_own=key.__eq__)
        is_found = state is not None
    except (Damage, OtherLayout):  # a delete without a version removes a damaged conversation, too
        if version is not None:
            raise
        is_found, state = True, None
    except OSError as error:
        if version is not None or regular_file_size(paths.main) is None or not is_file_error(error, paths.main):
            raise
        is_found, state = True, None
    if state is not None and version not in (None, state.head.revision.version):
        raise Conflict(key, state.head)
    remove_all(paths)
    return is_found
