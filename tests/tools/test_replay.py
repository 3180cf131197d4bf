"""Replays: what is sent, under which names, and when."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.messages.codec import decode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.record import Record
from tamis.streamer.tools.replay import Replay, ReplayOptions, Sent, fingerprint, sent_before
from tamis.streamer.transport.memory import MemorySink

AXIS = Axis(np.array([1000.0, 1100.0, 1200.0, 1300.0]), "nm")
START = np.datetime64("2026-01-02T03:04:05", "us")


def recording(path: Path, n: int, step_ms: int | None = 10) -> Path:
    nowhere = np.full(n, np.datetime64("NaT", "us"))
    times = nowhere if step_ms is None else START + np.arange(n) * np.timedelta64(step_ms, "ms")
    spectra = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
    write_parquet(path, [Frame("nir1", "i", AXIS, "absorbance", spectra, [f"s{i}" for i in range(n)], times)])
    return path


def replay(*paths: Path, frame: int = 4, **how: Any) -> tuple[Sent, list[Frame], float]:
    sink = MemorySink()
    whole = Replay(ReplayOptions(reading=ReadOptions(frame_spectra=frame), **how), "t", 900_000)
    began = time.monotonic()
    sent = whole.run(list(paths), sink)
    took_s = time.monotonic() - began
    records = [Record("t", 0, i, m.key, m.value, m.headers, 0.0) for i, m in enumerate(sink.messages["t"])]
    return sent, [decode(record, {}, 900_000)[0] for record in records], took_s


def names(frames: list[Frame]) -> list[str]:
    return [name for frame in frames for name in frame.spectrum_id]


def test_files_are_sent_whole_and_in_their_order(tmp_path: Path) -> None:
    sent, frames, _ = replay(recording(tmp_path / "a.parquet", 6), recording(tmp_path / "b.parquet", 5))
    assert (sent.spectra, sent.frames) == (11, 4)
    assert names(frames) == [f"s{i}" for i in range(6)] + [f"s{i}" for i in range(5)]
    assert frames[0].time[1] == START + np.timedelta64(10, "ms")


@pytest.mark.parametrize("limit", [1, 4, 7, 10, 23])
def test_a_limit_is_kept_to_the_spectrum(tmp_path: Path, limit: int) -> None:
    sent, frames, _ = replay(recording(tmp_path / "a.parquet", 10), limit=limit, loop=True)
    assert sent.spectra == len(names(frames)) == limit


def test_a_loop_gives_new_names_and_goes_on_in_time(tmp_path: Path) -> None:
    _, frames, _ = replay(recording(tmp_path / "a.parquet", 4), loop=True, limit=12)
    assert names(frames) == [f"s{i}{turn}" for turn in ("", "~2", "~3") for i in range(4)]
    times = np.concatenate([frame.time for frame in frames])
    assert (np.diff(times) > np.timedelta64(0, "us")).all()


def test_an_empty_file_is_refused_and_does_not_loop_for_ever(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = recording(tmp_path / "a.parquet", 4)
    parquet.write_table(parquet.read_table(path).slice(0, 0), path)
    with pytest.raises(BadFile, match="expected spectra, got none"):
        replay(path, loop=True)


def test_a_rate_is_not_exceeded(tmp_path: Path) -> None:
    sent, _, took_s = replay(recording(tmp_path / "a.parquet", 20), rate=50.0)
    assert took_s >= 16 / 50, "the fifth frame of four is due when sixteen spectra have gone"
    assert sent.spectra == 20


def test_recorded_distances_in_time_are_kept(tmp_path: Path) -> None:
    _, frames, took_s = replay(recording(tmp_path / "a.parquet", 12, step_ms=40), realtime=True)
    assert took_s >= float((frames[-1].time[0] - frames[0].time[0]) / np.timedelta64(1, "s"))


def test_without_times_there_is_no_pace_to_keep(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="spectrum 's0' has no time to keep: give --rate instead"):
        replay(recording(tmp_path / "a.parquet", 4, step_ms=None), realtime=True)


def test_a_stopped_replay_ends_between_frames(tmp_path: Path) -> None:
    sink = MemorySink()
    whole = Replay(ReplayOptions(reading=ReadOptions(frame_spectra=4), loop=True), "t", 900_000)
    sent = whole.run([recording(tmp_path / "a.parquet", 8)], sink, stopping=lambda: len(sink.messages["t"]) >= 5)
    assert (sent.frames, sent.spectra) == (5, 20)


# --- resuming ---------------------------------------------------------------------------------------------------------


def noted(*paths: Path, **how: Any) -> str:
    return fingerprint(paths, ReadOptions(**how))


def test_progress_belongs_to_the_files_not_to_their_names(tmp_path: Path) -> None:
    here = recording(tmp_path / "monday.parquet", 10)
    note = noted(here)
    moved = here.rename(tmp_path / "tuesday.parquet")
    assert sent_before("shift", noted(moved), 5, note) == 5, "the same file under another name"
    assert sent_before("shift", noted(moved, frame_spectra=3), 5, note) == 5, "and in other messages"


@pytest.mark.parametrize(
    "kind", ["another name", "the same name", "longer", "one more file", "other values", "other names"]
)
def test_other_files_are_sent_from_their_beginning_and_it_is_said(kind: str, tmp_path: Path) -> None:
    note = noted(recording(tmp_path / "monday.parquet", 10))
    other = tmp_path / ("tuesday.parquet" if kind == "another name" else "monday.parquet")
    more: tuple[Path, ...] = ()
    if kind in ("other values", "other names"):
        spectra, ids = np.arange(40, dtype=np.float32).reshape(10, 4), [f"s{i}" for i in range(10)]
        spectra[0, 0] += kind == "other values"
        ids[0] = "t0" if kind == "other names" else "s0"
        times = START + np.arange(10) * np.timedelta64(10, "ms")
        write_parquet(other, [Frame("nir1", "i", AXIS, "absorbance", spectra, ids, times)])
    else:
        recording(other, 10 if kind == "one more file" else 11)
        more = (recording(tmp_path / "b.parquet", 10),) if kind == "one more file" else ()
    with capture_logs() as logs:
        assert sent_before("shift", noted(other, *more), 5, note) == 0
    assert [(one["before"], one["sent_before"]) for one in logs] == [("monday.parquet", 5)]


def test_progress_that_an_earlier_version_kept_is_taken_as_it_is(tmp_path: Path) -> None:
    assert sent_before("shift", noted(recording(tmp_path / "a.parquet", 10)), 5, "") == 5
    assert sent_before("new", noted(tmp_path / "a.parquet"), 0, "") == 0
