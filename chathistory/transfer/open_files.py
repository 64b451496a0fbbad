"""Opens the files of exports and imports: written completely or not at all, gzipped by name, readable by the owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from chathistory.checks import class_name
from chathistory.errors import InvalidInput
from chathistory.log.clock import fresh_token

if TYPE_CHECKING:
    from gzip import GzipFile

__all__ = ["File", "get_suffix", "open_to_read", "open_to_write"]

File = str | os.PathLike[str] | IO[bytes]
"""A path, or a file that is open for bytes; the caller closes such a file."""

_GZIP = b"\x1f\x8b"
_PIECE = 1024 * 1024


def get_suffix(file: File) -> str:
    """Return the suffix of a file's name without `.gz`, such as ".jsonl"; "" if it has none, or is an open file.

    Args:
        file: A path, or an open file.
    """
    if not isinstance(file, str | os.PathLike):
        return ""
    path = Path(file)
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


@contextmanager
def open_to_write(file: File) -> Iterator[IO[bytes]]:
    """Yield a file that is open for writing bytes.

    A path is created, or replaced, only when the `with` block has ended without an error. Only its owner may read it.
    It is gzipped if its name ends in `.gz`.

    Args:
        file: A path, or a file open for bytes, which is yielded as it is.

    Raises:
        InvalidInput: `file` is neither of these.
        OSError: The file cannot be written.
    """
    if not isinstance(file, str | os.PathLike):
        _check_file(file, "write")
        yield file
        return
    path = Path(file)
    part = path.with_name(f".{path.name[:100]}.{fresh_token()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            if path.suffix == ".gz":
                with _open_gzip(raw, "wb") as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _check_file(file: object, method: str) -> None:
    if not callable(getattr(file, method, None)):
        raise InvalidInput(f"file: must be a path or a file open for bytes, not {class_name(file)}")


def _open_gzip(raw: IO[bytes], mode: str) -> GzipFile:
    from gzip import GzipFile  # imported only for a gzipped file

    return GzipFile(fileobj=raw, mode=mode, filename="", mtime=0)


@contextmanager
def open_to_read(file: File) -> Iterator[IO[bytes]]:
    """Yield a seekable file that is open for reading bytes, decompressed if it is gzipped.

    A file that is not seekable, such as a pipe, is copied into a temporary file first.

    Args:
        file: A path, or a file open for bytes.

    Raises:
        InvalidInput: `file` is neither of these, or it is gzipped and damaged or incomplete.
        OSError: The file cannot be read.
    """
    with ExitStack() as opened:
        raw = _open_seekable(opened, file)
        begin = raw.tell()
        packed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(begin)
        if not packed:
            yield raw
            return
        from gzip import BadGzipFile
        from zlib import error as damaged

        try:
            yield cast("IO[bytes]", opened.enter_context(_open_gzip(raw, "rb")))
        except (EOFError, BadGzipFile, damaged) as error:
            raise InvalidInput(
                "the file cannot be decompressed to its end: it is damaged or incomplete; export or transfer it again"
            ) from error


def _open_seekable(opened: ExitStack, file: File) -> IO[bytes]:
    if isinstance(file, str | os.PathLike):
        return opened.enter_context(Path(file).open("rb"))
    _check_file(file, "read")
    if file.seekable():
        return file
    from tempfile import TemporaryFile  # imported only when a pipe is read

    copy = opened.enter_context(TemporaryFile())  # noqa: SIM115  # the stack closes it
    while piece := file.read(_PIECE):
        copy.write(piece)
    copy.seek(0)
    return copy
