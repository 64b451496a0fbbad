"""Files that conversations go to and come from: whole or not there at all, compressed by name, for their owner only."""

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
"""A path, or a file that is open for bytes and stays the caller's to close."""

_GZIP = b"\x1f\x8b"
_PIECE = 1024 * 1024


def get_suffix(file: File) -> str:
    """Return how the name ends, without `.gz`, such as ".jsonl"; "" if it has none."""
    if not isinstance(file, str | os.PathLike):
        return ""
    path = Path(file)
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


@contextmanager
def open_to_write(file: File) -> Iterator[IO[bytes]]:
    """Give a file to write to. A path is there, or replaced, only when the body has ended without an error."""
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
        raise InvalidInput(f"file: must be a path, or a file open for bytes, not {class_name(file)}")


def _open_gzip(raw: IO[bytes], mode: str) -> GzipFile:
    from gzip import GzipFile  # only where there is such a file

    return GzipFile(fileobj=raw, mode=mode, filename="", mtime=0)


@contextmanager
def open_to_read(file: File) -> Iterator[IO[bytes]]:
    """Give a file to read from that can seek, unpacked. What cannot seek is taken down in a temporary file first.

    Raises `InvalidInput` if what is packed is damaged or broken off.
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
            raise InvalidInput("the file cannot be unpacked to its end: it is damaged, or was broken off") from error


def _open_seekable(opened: ExitStack, file: File) -> IO[bytes]:
    if isinstance(file, str | os.PathLike):
        return opened.enter_context(Path(file).open("rb"))
    _check_file(file, "read")
    if file.seekable():
        return file
    from tempfile import TemporaryFile  # only where a pipe is read

    copy = opened.enter_context(TemporaryFile())  # noqa: SIM115  # as the stack does
    while piece := file.read(_PIECE):
        copy.write(piece)
    copy.seek(0)
    return copy
