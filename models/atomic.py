"""Files that are written whole or not at all: after a crash or on a full disk there is the old file or the new one."""

from __future__ import annotations

import glob
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A writer that was killed leaves its draft behind; none takes an hour to write.
ABANDONED_S = 3600.0


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a draft's path, beside `path`, to write to; at the end the draft is synced and replaces `path`.

    If the block fails, or the replacing does, the draft is removed and `path` stays as it was.
    """
    draft = draft_beside(path)
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def draft_beside(path: Path) -> Path:
    """A name that no other process or thread uses; drafts of `path` that were abandoned are removed."""
    remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.tmp")
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def remove_abandoned(folder: Path, pattern: str) -> None:
    for left in folder.glob(pattern):
        with suppress(OSError):  # another process has just renamed or removed it
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """A file's bytes, or a folder's names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
