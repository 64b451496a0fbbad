"""Keys, revisions and stores for the tests of the file store."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from chathistory_file import FileStore
from chathistory_file.files import Paths

from chathistory import Head, Key, Revision
from chathistory.storage.safe_names import safe_name

KEY = Key("default", "support/42")
SECOND = 1_000_000

_numbers = itertools.count(1)


def revision(updated: int | None = None, *, expires: int | None = None, payload: str = '{"title":"T"}') -> Revision:
    """Return a revision with a version of its own."""
    number = next(_numbers)
    return Revision(f"version-{number:018d}", SECOND * number if updated is None else updated, expires, payload)


def path_of(store: FileStore, key: Key = KEY, suffix: str = ".jsonl") -> Path:
    """Return the conversation's file, or a side file of it."""
    return Path(store.root, safe_name(key.scope), safe_name(key.id) + suffix)


def line_of(path: Path, position: int) -> range:
    """Return where the line of a record is in a file, with its line feed."""
    whole = path.read_bytes()
    at = 0
    for line in whole.split(b"\n"):
        if line.startswith(b"[%d," % position):
            return range(at, at + len(line) + 1)
        at += len(line) + 1
    raise LookupError(f"no line of record {position}")


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change a bit of a file, and keep its date: a disk does not report that it changes something."""
    whole = path.read_bytes()
    status = path.stat()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def names(folder: str | Path) -> list[str]:
    """Return the content of a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def open_files() -> list[str]:
    """Return the paths of the files that this process holds open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile: the folder's own, and those of other threads
            found.append(str(link.readlink()))
    return found


def fill_store(store: FileStore, *batches: list[str], key: Key = KEY) -> Head:
    """Append these batches."""
    head = None
    for bodies in batches:
        head = store.append(key, bodies, after=head, revision=revision())
    assert head is not None
    return head


def bodies_of(store: FileStore, key: Key = KEY) -> list[str] | None:
    """Return all readable bodies, slice by slice; None if there is no such conversation."""
    found, bodies = store.read(key), []
    while found is not None and found.records:
        bodies += [record.body for record in found.records]
        if found.records[-1].position == found.head.end - 1:
            break
        found = store.read(key, start=found.records[-1].position + 1)
    return None if found is None else bodies


@contextlib.contextmanager
def holding(store: FileStore, key: Key = KEY):
    """Hold the lock of a conversation, as a writer does."""
    locks, fds = store._locks, []
    path = f"{locks._folder}/{Paths.for_key(store.root, key).lock}"
    while not locks._try_lock(path, fds):
        pass
    try:
        yield
    finally:
        locks._release_lock(path, fds)


@contextlib.contextmanager
def fresh(store: FileStore):
    """Give another store on the same folder, as another process would open it."""
    with FileStore(store.root, lock_timeout=600) as other:
        yield other
