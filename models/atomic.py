"""Files that are written whole or not at all: after a crash or on a full disk there is the old file or the new one."""

import glob
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A writer that was killed leaves its draft behind; no draft takes an hour to write.
ABANDONED_S = 3600.0


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a draft's path beside `path` to write to. At the end the draft is synced and replaces `path`.

    If anything fails, the draft is removed and `path` stays as it was. Abandoned drafts of `path` are removed first.
    """
    remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.tmp")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def remove_abandoned(folder: Path, pattern: str) -> None:
    for left in folder.glob(pattern):
        with suppress(OSError):  # another process has just renamed or removed it
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def sync(path: Path) -> None:
    """Forces a file's bytes, or a folder's entries, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
