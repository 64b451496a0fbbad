"""Leftovers: files and bytes that belong to no readable conversation. Names them, removes them, and checks again."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from operator import attrgetter

from chathistory.storage.values import Key, Leftovers
from chathistory_file.errors import Damage, OtherLayout, is_process_error
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
    """Return a sentence for each leftover of a readable conversation.

    Args:
        paths: The paths of the conversation.
        key: Its key.

    Raises:
        Damage: The head of the conversation is damaged.
        OtherLayout: A later version wrote it.
    """
    state = find_state(paths, is_own=key.__eq__)
    main, aside, temporary = (f"{paths.name}{suffix}" for suffix in _SUFFIXES)
    notes = []
    if state is not None and state.commit.has_moved:
        notes.append(
            f"{main}: lines were inserted or removed, perhaps by an editor that changed the line ends; all sound lines "
            "can be read, and the next append rewrites the file"
        )
    elif state is not None and state.tail_size:
        notes.append(
            f"{main}: {state.tail_size} bytes after the last append: of an append that was not completed, or of one "
            f"with a destroyed end; the next append moves them to {aside}"
        )
    if (size := regular_file_size(paths.aside)) is not None:
        notes.append(
            f"{aside}: {size} bytes that were set aside: of an append that was not completed, or damaged; look at "
            "them, or remove the file"
        )
    if regular_file_size(paths.temporary) is not None:
        notes.append(f"{temporary}: a rewrite that was interrupted; it is not used and may be removed")
    return notes


def remove_leftovers(root: str, folder: str, scope: str, locks: Locks) -> Leftovers:
    """Remove everything in the folder of a scope except readable conversations, and report what is left.

    Looks for the scope's name in all folders of the store. Nothing that is reached through a link is touched.

    Args:
        root: The folder of the store.
        folder: The folder of the scope.
        scope: The scope.
        locks: The locks of the store.

    Returns:
        How many files were removed, and the paths of what is left, relative to the root.
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
        except OSError as error:  # a file that is still there is reported below
            if is_process_error(error):
                raise
    named = f'"scope":{json.dumps(scope, ensure_ascii=False)},"id":'.encode()
    left = tuple(
        path[len(root) + 1 :]
        for path in _iter_files(root)
        # everything in the scope's own folder belongs to the scope
        if path.startswith(f"{folder}/")
        or path == folder
        or (not _is_sound_conversation(path) and _may_contain(path, named))
    )
    return Leftovers(removed, left, complete=not left)


def _remove_conversation_leftovers(paths: Paths) -> int:
    """Remove the side files of a conversation, and its own file if it cannot be read. Runs under its lock."""
    try:
        is_readable = find_state(paths, is_own=paths.belong_to) is not None
    except (Damage, OtherLayout):
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
    """Yield the paths of all files below a folder, and of folders that cannot be listed; does not follow links."""
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
    """Return True if a file is a conversation under its own name, with nothing inserted or appended."""
    folder, _, name = path.rpartition("/")
    paths = Paths.in_folder(folder, name.removesuffix(SUFFIX))
    if not (name.endswith(SUFFIX) and is_safe_name(paths.stem)):
        return False
    try:
        state = find_state(paths, is_own=paths.belong_to)
    except (Damage, OtherLayout, OSError):
        return False
    return state is not None and not (state.commit.has_moved or state.tail_size)


def _may_contain(path: str, text: bytes) -> bool:
    """Return True if a file contains a text, or cannot be read, so that it may contain it."""
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
