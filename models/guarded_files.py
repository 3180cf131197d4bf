"""Files of a store: never one that a link leads out of it to, no pipes, and errors that an operator can act on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from .. import BadBundle, StoreUnusable


def read_inside(root: Path, path: Path, max_bytes: int) -> bytes | None:
    """A file's bytes, None if it does not exist. Raises BadBundle for a link out of the store, a pipe, a large file."""
    real = real_inside(root, path)
    with explained(path, "read"), suppress(FileNotFoundError), open(real, "rb", opener=_open_plain) as file:
        size = plain_size(file.fileno(), path, max_bytes)
        return file.read(size)  # not read(): a buffer of that size is allocated
    return None


def real_inside(root: Path, path: Path) -> str:
    """The path with its links followed. Raises BadBundle if that is not in the store."""
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(os.path.realpath(root)):
        raise BadBundle(f"{path}: expected a file in the store {root}, got a link to {real}")
    return real


def plain_size(handle: int, path: Path, max_bytes: int) -> int:
    """Bytes in an open file. Raises BadBundle if it is none, or too large."""
    there = os.fstat(handle)
    if not S_ISREG(there.st_mode) or there.st_size > max_bytes:
        raise BadBundle(f"{path}: expected a file of at most {max_bytes} bytes, got {there.st_size} bytes")
    return there.st_size


@contextmanager
def explained(path: Path, verb: str) -> Iterator[None]:
    """An error of the operating system becomes one that says what an operator can do about it."""
    try:
        yield
    except OSError as error:
        raise StoreUnusable(
            f"cannot {verb} {path}: {error.strerror or error}; check that the folder exists on a disk with room, and "
            f"that user {os.getuid()} may {verb} it"
        ) from error


def _open_plain(path: str, flags: int) -> int:
    """Follows no link, and does not wait for a pipe's writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
