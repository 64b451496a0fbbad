"""What is stored beside the conversations that can be read: naming it, removing it, and looking whether any is left."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from operator import attrgetter

from chathistory.storage.values import Key, Leftovers
from chathistory_file.errors import Damage, NewerLayout, is_process_error
from chathistory_file.files import (
    ASIDE,
    LARGEST_CHUNK,
    SUFFIX,
    TEMPORARY,
    ChunkReader,
    Paths,
    folder_exists,
    is_safe_name,
    open_existing,
    regular_file_size,
)
from chathistory_file.locks import Locks
from chathistory_file.read import find_state
from chathistory_file.write import remove_all, remove_side_files

__all__ = ["describe_leftovers", "remove_leftovers"]

_SUFFIXES = (SUFFIX, ASIDE, TEMPORARY)


def describe_leftovers(paths: Paths, key: Key) -> list[str]:
    """Return a sentence for each thing that is stored beside the records of a conversation that can be read."""
    state = find_state(paths, is_own=key.__eq__)
    main, aside, temporary = (f"{paths.name}{suffix}" for suffix in _SUFFIXES)
    found = []
    if state is not None and state.commit.has_moved:
        found.append(
            f"{main}: lines were put in or taken out, perhaps by an editor that changed the line ends; what is sound "
            "can be read, and the next append writes the file anew"
        )
    elif state is not None and state.tail_size:
        found.append(
            f"{main}: {state.tail_size} bytes behind the last append: one that was not completed, or whose end is "
            f"destroyed; the next append moves them to {aside}"
        )
    if (size := regular_file_size(paths.aside)) is not None:
        found.append(
            f"{aside}: {size} bytes that were set aside: of an append that was not completed, or damaged; look at "
            "them, or remove the file"
        )
    if regular_file_size(paths.temporary) is not None:
        found.append(f"{temporary}: a rewrite that was stopped; it has no meaning, and may be removed")
    return found


def remove_leftovers(root: str, folder: str, scope: str, locks: Locks) -> Leftovers:
    """Remove what is in the folder of a scope beside conversations that can be read, and look what is left of it.

    Looks at all folders of the store, for whatever names the scope. Nothing that is reached through a link is touched.
    """
    if os.path.islink(folder):  # noqa: PTH114
        return Leftovers(0, (folder.rpartition("/")[2],), complete=False)
    names = os.listdir(folder) if folder_exists(folder) else []  # noqa: PTH208
    stems = {name.removesuffix(suffix) for name in names for suffix in _SUFFIXES if name.endswith(suffix)}
    removed = 0
    for stem in sorted(filter(is_safe_name, stems)):
        paths = Paths.in_folder(folder, stem)
        try:
            removed += locks.run(paths, _remove_conversation_leftovers, paths)
        except OSError as error:  # what is still there is reported as left
            if is_process_error(error):
                raise
    named = f'"scope":{json.dumps(scope, ensure_ascii=False)},"id":'.encode()
    left = tuple(
        path[len(root) + 1 :]
        for path in _iter_files(root)
        # whatever is in the scope's own folder is of the scope
        if path.startswith(f"{folder}/")
        or path == folder
        or (not _is_sound_conversation(path) and _may_contain(path, named))
    )
    return Leftovers(removed, left, complete=not left)


def _remove_conversation_leftovers(paths: Paths) -> int:
    """Remove what is beside a conversation, and what stands in its place if that cannot be read; under its lock."""
    try:
        is_readable = find_state(paths, is_own=paths.belong_to) is not None
    except (Damage, NewerLayout):
        is_readable = False
    except OSError as error:
        if is_process_error(error):
            raise
        is_readable = False
    if is_readable:
        return remove_side_files(paths)
    removed = sum(regular_file_size(path) is not None for path in (paths.aside, paths.temporary, paths.main))
    is_removable = True
    with suppress(FileNotFoundError):
        is_removable = stat.S_ISREG(os.lstat(paths.main).st_mode)
    if removed and is_removable:
        remove_all(paths)
        return removed
    return remove_side_files(paths) if removed else 0


def _iter_files(root: str) -> Iterator[str]:
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
            if folder == root or is_process_error(error):
                raise
            yield folder
            continue
        yield from (entry.path for entry in found if not entry.is_dir(follow_symlinks=False))
        folders += [entry.path for entry in reversed(found) if entry.is_dir(follow_symlinks=False)]


def _is_sound_conversation(path: str) -> bool:
    """Return whether a file is a conversation in its own place, with nothing put in or behind it."""
    folder, _, name = path.rpartition("/")
    paths = Paths.in_folder(folder, name.removesuffix(SUFFIX))
    if not (name.endswith(SUFFIX) and is_safe_name(paths.stem)):
        return False
    try:
        state = find_state(paths, is_own=paths.belong_to)
    except (Damage, NewerLayout, OSError):
        return False
    return state is not None and not (state.commit.has_moved or state.tail_size)


def _may_contain(path: str, text: bytes) -> bool:
    """Return whether a file holds a text, or cannot be read, so that this cannot be told."""
    try:
        if regular_file_size(path) is None:
            return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114  # one that cannot be listed
        with open_existing(path) as file:
            if file is None:
                return False
            reader = ChunkReader(file.fd, file.size, step=4096)
            starts = range(0, file.size, LARGEST_CHUNK)
            return any(text in reader.read(at, min(at + LARGEST_CHUNK + len(text), file.size)) for at in starts)
    except (Damage, OSError):
        return True
