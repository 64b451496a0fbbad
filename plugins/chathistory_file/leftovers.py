"""What is stored beside the conversations that can be read: naming it, removing it, and looking whether any is left."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from operator import attrgetter

from chathistory.storage.store import Key, Leftovers
from chathistory_file.faults import Damage, LaterLayout, is_of_the_process
from chathistory_file.layout import ASIDE, SUFFIX, TEMPORARY, Files, is_folder, is_ours, opened, scope_folder, size_of
from chathistory_file.locks import Locks
from chathistory_file.source import LARGEST_CHUNK, Source
from chathistory_file.states import look
from chathistory_file.writing import remove, remove_beside

__all__ = ["notes", "remove_leftovers"]

_SUFFIXES = (SUFFIX, ASIDE, TEMPORARY)


def notes(files: Files, key: Key) -> list[str]:
    """Return a sentence for each thing that is stored beside the records of a conversation that can be read."""
    state = look(files, lambda state: state, own=key.__eq__)
    main, aside, temporary = (f"{files.name}{suffix}" for suffix in _SUFFIXES)
    found = []
    if state is not None and state.moved:
        found.append(
            f"{main}: lines were put in or taken out, perhaps by an editor that changed the line ends; what is sound "
            "can be read, and the next append writes the file anew"
        )
    elif state is not None and state.tail:
        found.append(
            f"{main}: {state.tail} bytes behind the last append: one that was not completed, or whose end is destroyed;"
            f" the next append moves them to {aside}"
        )
    if (size := size_of(files.aside)) is not None:
        found.append(
            f"{aside}: {size} bytes that were set aside: of an append that was not completed, or damaged; look at "
            "them, or remove the file"
        )
    if size_of(files.temporary) is not None:
        found.append(f"{temporary}: a rewrite that was stopped; it has no meaning, and may be removed")
    return found


def remove_leftovers(root: str, scope: str, locks: Locks) -> Leftovers:
    """Remove what is in the folder of a scope beside conversations that can be read, and look what is left of it.

    Looks at all folders of the store, for whatever names the scope. Nothing that is reached through a link is touched.
    """
    folder = scope_folder(root, scope)
    if os.path.islink(folder):  # noqa: PTH114
        return Leftovers(0, (folder.rpartition("/")[2],), complete=False)
    removed = 0
    for stem in _stems(folder):
        files = Files(folder, stem)
        try:
            removed += locks.run(files, lambda files=files: _removed(files))  # type: ignore[misc]
        except OSError as error:  # what is still there is told
            if is_of_the_process(error):
                raise
    left = tuple(_left(root, folder, scope))
    return Leftovers(removed, left, complete=not left)


def _stems(folder: str) -> list[str]:
    """Return what the store's own files in a folder are called, without their suffixes."""
    names = os.listdir(folder) if is_folder(folder) else []  # noqa: PTH208
    stems = {name.removesuffix(suffix) for name in names for suffix in _SUFFIXES if name.endswith(suffix)}
    return sorted(filter(is_ours, stems))


def _removed(files: Files) -> int:
    """Remove what is beside a conversation, and what stands in its place if that cannot be read; under its lock."""
    if _can_be_read(files):
        return remove_beside(files)
    removed = sum(size_of(path) is not None for path in (files.aside, files.temporary, files.main))
    if removed and _is_regular_or_absent(files.main):
        remove(files)
        return removed
    return remove_beside(files) if removed else 0


def _can_be_read(files: Files) -> bool:
    try:
        return look(files, attrgetter("head"), own=files.are_of) is not None
    except (Damage, LaterLayout):
        return False
    except OSError as error:
        if is_of_the_process(error):
            raise
        return False


def _is_regular_or_absent(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def _left(root: str, folder: str, scope: str) -> Iterator[str]:
    """Yield the places below the root at which something of a scope is stored, or may be.

    Whatever is in the scope's own folder is of the scope.
    """
    named = f'"scope":{json.dumps(scope, ensure_ascii=False)},"id":'.encode()
    for path in _files_below(root):
        if path.startswith(f"{folder}/") or path == folder or (not _is_of_another(path) and _holds(path, named)):
            yield path[len(root) + 1 :]


def _files_below(root: str) -> Iterator[str]:
    """Yield all that is below a folder but folders, and folders that cannot be listed; does not follow links."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=attrgetter("name"))
        except FileNotFoundError:
            continue
        except OSError as error:
            if folder == root or is_of_the_process(error):
                raise
            yield folder
            continue
        inner = []
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry.path)
            else:
                yield entry.path
        folders += reversed(inner)


def _is_of_another(path: str) -> bool:
    """Tell whether a file is a conversation in its own place, not that of the scope, with nothing put in or behind."""
    folder, _, name = path.rpartition("/")
    files = Files(folder, name.removesuffix(SUFFIX))
    if not (name.endswith(SUFFIX) and is_ours(files.stem)):
        return False
    try:
        return look(files, lambda state: not (state.moved or state.tail), own=files.are_of) is True
    except (Damage, LaterLayout, OSError):
        return False


def _holds(path: str, text: bytes) -> bool:
    """Tell whether a file holds a text, or cannot be read, so that this cannot be told."""
    try:
        if size_of(path) is None:
            return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114  # one that cannot be listed
        with opened(path) as file:
            return file is not None and _is_in(Source(file.fd, file.size, step=4096), text)
    except (Damage, OSError):
        return True


def _is_in(source: Source, text: bytes) -> bool:
    step = LARGEST_CHUNK
    return any(
        text in source.take(start, min(start + step + len(text), source.size)) for start in range(0, source.size, step)
    )
