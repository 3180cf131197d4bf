"""A file is written whole or not at all."""

import os
from pathlib import Path

import pytest

from tamis.models.atomic import ABANDONED_S, atomic_write


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("old")

    def fails() -> None:
        with atomic_write(path) as draft:
            draft.write_text("ne")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fails()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_write_replaces_the_file_and_removes_abandoned_drafts(tmp_path: Path) -> None:
    path, abandoned, recent = tmp_path / "kept", tmp_path / ".kept.1.tmp", tmp_path / ".kept.2.tmp"
    for file in (path, abandoned, recent):
        file.write_text("old")
    long_ago = abandoned.stat().st_mtime - ABANDONED_S - 1
    os.utime(abandoned, (long_ago, long_ago))
    with atomic_write(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == [".kept.2.tmp", "kept"]
