"""The replay buffer: bounded on disk, whole after any kill, a fair sample of the past; labels find their spectra."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tamis import AxisMismatch, BadSettings, StoreUnusable
from tamis.models.axis import Axis
from tamis.ssl.replay_buffer import Buffer
from tamis.ssl.replay_layout import Asked
from tamis.ssl.unlabeled import Unlabeled

GRID = Axis(np.linspace(1000, 1600, 50), "nm")
SIZE = 4_000_000
NOON = np.datetime64("2026-01-01T12:00:00", "us")


def numbered(first: int, n: int) -> np.ndarray:
    """(n, 50): all values of a spectrum are its number."""
    return np.repeat(np.arange(first, first + n, dtype=np.float32)[:, None], len(GRID), axis=1)


def ids(first: int, n: int) -> list[str]:
    return [f"s{i}" for i in range(first, first + n)]


def fill(buffer: Buffer, first: int, n: int, frame: int = 256) -> None:
    for start in range(first, first + n, frame):
        k = min(frame, first + n - start)
        times = NOON + np.arange(start, start + k).astype("timedelta64[us]")
        buffer.add(numbered(start, k), GRID, ids(start, k), None, "i1", times, {"spectra:0": start + k})


def test_the_newest_and_a_fair_sample_of_the_past_are_kept_within_the_bytes(tmp_path: Path) -> None:
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        n = 8 * buffer.window
        sizes = []
        for first in range(0, n, buffer.window):
            fill(buffer, first, buffer.window)
            sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
        assert max(sizes) <= SIZE
        held = buffer.unlabeled()
        number = held.spectra[:, 0].astype(int)
        assert sorted(number[held.recent]) == list(range(n - buffer.window, n))
        past = number[~held.recent]
        assert len(np.unique(past)) == len(past) == buffer.reservoir
        # Each seventh of the past has a seventh of the reservoir, give or take five standard deviations.
        share = np.bincount(past // buffer.window, minlength=7) / buffer.reservoir
        assert np.abs(share - 1 / 7).max() < 5 * np.sqrt(6 / 49 / buffer.reservoir)
        batch = held.batch(64, np.random.default_rng(0))
        rows, _ = held.pair(batch, np.random.default_rng(0))
        assert held.recent[rows].sum() == 32


def test_the_sample_does_not_depend_on_frames_or_restarts(tmp_path: Path) -> None:
    kept = []
    for name, frame in (("a", 256), ("b", 37)):
        with Buffer(tmp_path / name, GRID, SIZE) as buffer:
            half = 2 * buffer.window
            fill(buffer, 0, half, frame)
        with Buffer(tmp_path / name, GRID, SIZE) as buffer:
            fill(buffer, half, half, frame)
            kept.append(buffer.unlabeled().spectra)
    np.testing.assert_array_equal(*kept)


def test_a_spectrum_seen_again_counts_once(tmp_path: Path) -> None:
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        assert buffer.add(numbered(0, 5), GRID, ids(0, 5), None, "i", NOON + np.zeros(5, "timedelta64[us]")) == 5
        assert buffer.add(numbered(3, 4), GRID, ids(3, 4), None, "i", NOON + np.zeros(4, "timedelta64[us]")) == 2
        assert sorted(buffer.unlabeled().spectra[:, 0]) == [0, 1, 2, 3, 4, 5, 6]
        assert buffer.fill().window == 7


def test_spectra_of_an_object_make_a_pair_across_conditions(tmp_path: Path) -> None:
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        times = NOON + np.zeros(3, "timedelta64[us]")
        buffer.add(numbered(0, 3), GRID, ids(0, 3), ["x", "y", ""], "one", times)
        buffer.add(numbered(10, 3), GRID, ids(10, 3), ["x", "x", "z"], "two", times)
        held = buffer.unlabeled()
    rng = np.random.default_rng(0)
    pairs = {
        tuple(sorted(held.spectra[list(rows), 0]))
        for _ in range(50)
        for rows in zip(*held.pair(np.arange(4), rng), strict=True)
    }
    assert pairs == {(0, 10), (0, 11), (1, 1), (2, 2), (12, 12)}


@pytest.mark.parametrize("first", ["label", "spectrum"])
def test_a_label_finds_its_spectrum_in_either_order(first: str, tmp_path: Path) -> None:
    steps = {
        "spectrum": lambda b: b.add(numbered(7, 1), GRID, ["s7"], ["o"], "i", np.array([NOON])),
        "label": lambda b: b.label("s7", {"fat": 3.5}, NOON + np.timedelta64(9, "h")),
    }
    for name in (first, *(steps.keys() - {first})):
        with Buffer(tmp_path / "b", GRID, SIZE) as buffer:  # reopened: both may be hours and restarts apart
            steps[name](buffer)
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        assert buffer.label("s7", {"water": 60.0}, NOON).is_joined
        known = buffer.labeled(["fat", "water"])
        assert (known.spectrum_id, known.values.tolist()) == (["s7"], [[3.5, 60.0]])
        np.testing.assert_array_equal(known.spectra, numbered(7, 1))
        fill(buffer, 100, 4 * buffer.window)  # evicts the unlabeled one, not the labeled one
        np.testing.assert_array_equal(buffer.labeled(["fat"]).spectra, numbered(7, 1))


def test_a_label_may_carry_its_spectrum(tmp_path: Path) -> None:
    finer = Axis(np.linspace(990, 1610, 300), "nm")
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        assert buffer.label("new", {"fat": 1.0}, NOON, np.linspace(0, 1, 300), finer).is_joined
        expected = np.interp(GRID.values, finer.values, np.linspace(0, 1, 300))
        np.testing.assert_allclose(buffer.labeled(["fat"]).spectra[0], expected, atol=1e-3)
        assert not buffer.label("unseen", {"fat": 1.0}, NOON).is_joined
        assert buffer.fill()[2:4] == (1, 1)


def test_a_spectrum_between_two_labels_belongs_to_the_earlier_one(tmp_path: Path) -> None:
    seconds = NOON + np.arange(5).astype("timedelta64[s]")
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        buffer.add(numbered(0, 5), GRID, ids(0, 5), None, "i", seconds)
        for name in ("s4", "s0"):  # the later one arrives first
            assert buffer.label(name, {"fat": 1.0}, NOON).is_joined
        labeled = buffer.labeled(["fat"])
        spectra, rows = buffer.beside(labeled, np.timedelta64(2, "s"))
    assert spectra[:, 0].tolist() == [1, 2, 3]
    assert [labeled.spectrum_id[row] for row in rows] == ["s0", "s0", "s4"]


CHILD = """
import sys
from tests.ssl.test_replay_buffer import GRID, SIZE, Buffer, fill
with Buffer(sys.argv[1], GRID, SIZE) as buffer:
    print("open", flush=True)
    start = buffer.positions().get("spectra:0", 0)
    fill(buffer, start, 1_000_000, 61)
"""


def test_a_kill_at_any_moment_leaves_it_whole(tmp_path: Path) -> None:
    path, rng = tmp_path / "b", np.random.default_rng(0)
    reached = 0
    for _ in range(5):
        command = [sys.executable, "-c", CHILD, str(path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env=dict(os.environ)
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"open\n"
            time.sleep(rng.uniform(0.05, 0.4))
            child.send_signal(signal.SIGKILL)
        with Buffer(path, GRID, SIZE) as buffer:
            position = buffer.positions().get("spectra:0", 0)
            held = buffer.unlabeled()
            number = held.spectra[:, 0].astype(int)
            end = number.max(initial=-1) + 1
            newest = list(range(max(0, end - buffer.window), end))
            assert sorted(number[held.recent]) == newest
            assert position <= end < position + 61, "a frame that was cut short is read again, and recognised"
            assert (held.spectra == number[:, None]).all(), "no spectrum is half written"
            assert position >= reached
            reached = position
    assert reached > 0


def test_invalid_data_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        broken = numbered(0, 3)
        broken[1, 4] = np.nan
        times = NOON + np.zeros(3, "timedelta64[us]")
        with pytest.raises(ValueError, match="1 spectra are not finite: rows 1"):
            buffer.add(broken, GRID, ids(0, 3), None, "i", times, {"p": 1})
        with pytest.raises(ValueError, match="got 3 spectra, 2 ids"):
            buffer.add(numbered(0, 3), GRID, ids(0, 2), None, "i", times)
        with pytest.raises(AxisMismatch):
            buffer.add(numbered(0, 3), Axis(np.linspace(1100, 1600, 50), "nm"), ids(0, 3), None, "i", times)
        with pytest.raises(ValueError, match="expected finite laboratory values of 's1'"):
            buffer.label("s1", {"fat": float("inf")}, NOON)
        assert (buffer.fill().window, buffer.positions()) == (0, {})
        with pytest.raises(StoreUnusable, match="another process has it open"):
            Buffer(tmp_path / "b", GRID, SIZE)
    with pytest.raises(BadSettings, match="its spectra are on the grid"):
        Buffer(tmp_path / "b", Axis(np.linspace(1000, 1600, 51), "nm"), SIZE)
    with pytest.raises(BadSettings, match="made for 4000000 bytes, expected 5000000"):
        Buffer(tmp_path / "b", GRID, 5_000_000)
    with pytest.raises(BadSettings, match="needs more than 1000 bytes"):
        Buffer(tmp_path / "c", GRID, 1_000)


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnusable, match="expected a buffer of spectra"):
        Buffer(tmp_path / "text", GRID, SIZE)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(StoreUnusable, match="another program's SQLite file"):
        Buffer(tmp_path / "other", GRID, SIZE)
    assert (tmp_path / "text").read_bytes() == b"no database" * 1000


def test_the_lengths_of_a_snapshot_must_agree() -> None:
    with pytest.raises(ValueError, match="expected condition of 2 spectra"):
        Unlabeled(np.ones((2, 3), np.float32), np.zeros(2, int), np.zeros(1, int), np.ones(2, bool))


def test_a_value_given_again_by_another_message_is_remembered_and_one_read_twice_is_not(tmp_path: Path) -> None:
    def give(value: float, offset: int) -> None:
        buffer.label("s1", {"fat": value}, NOON, positions={"labels:0": offset})

    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        fill(buffer, 0, 3)
        give(3.0, 1)
        first = buffer.joined
        give(3.0, 1)
        assert np.isnan(buffer.labeled(["fat"]).previous).all()
        assert buffer.joined == first
        give(3.0, 2)
        assert buffer.labeled(["fat"]).previous.tolist() == [[3.0]]
        assert buffer.joined == first + 1
        give(3.5, 3)
        labeled = buffer.labeled(["fat", "water"])
        assert (labeled.values[0, 0], labeled.previous[0, 0], len(labeled.values)) == (3.5, 3.0, 1)


FIRST_VERSION = """
DROP VIEW seen;
CREATE TABLE old_0 (id INTEGER PRIMARY KEY, number INTEGER);
INSERT INTO old_0 SELECT id, number FROM seen_0;
DROP TABLE seen_0; DROP TABLE seen_1;
ALTER TABLE old_0 RENAME TO seen_0;
CREATE TABLE seen_1 (id INTEGER PRIMARY KEY, number INTEGER);
CREATE VIEW seen AS SELECT * FROM seen_0 UNION ALL SELECT * FROM seen_1;
CREATE TABLE old (arrival INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER UNIQUE, spectrum_id TEXT, object INTEGER,
  condition INTEGER, time INTEGER, "values" TEXT, slot INTEGER UNIQUE, joined INTEGER);
INSERT INTO old SELECT arrival, id, spectrum_id, object, condition, time, "values", slot, joined FROM labels;
DROP TABLE labels;
ALTER TABLE old RENAME TO labels;
PRAGMA user_version = 0
"""


def test_a_file_of_an_earlier_version_is_opened_and_continued(tmp_path: Path) -> None:
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        fill(buffer, 0, 3)
        buffer.label("s1", {"fat": 3.0}, NOON)
        buffer.label("waits", {"fat": 4.0}, NOON)
        buffer.label("new", {"fat": 1.0}, NOON, np.ones(50), GRID)
    with closing(sqlite3.connect(tmp_path / "b")) as old:
        old.executescript(FIRST_VERSION)
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        assert buffer.labeled(["fat"]).values.tolist() == [[3.0], [1.0]]
        buffer.label("s1", {"fat": 3.1}, NOON, positions={"labels:0": 9})
        buffer.label("new", {"fat": 1.1}, NOON, positions={"labels:0": 10})
        assert buffer.labeled(["fat"]).previous.tolist() == [[3.0], [1.0]]
        fill(buffer, 0, 3)
        assert buffer.added == 3, "its spectra are recognised"
        buffer.add(numbered(7, 1), GRID, ["waits"], None, "i1", np.array([NOON]))
        assert buffer.labeled(["fat"]).values.tolist() == [[3.1], [1.1], [4.0]]
    with closing(sqlite3.connect(tmp_path / "b")) as later:
        later.execute("PRAGMA user_version = 4")
    with pytest.raises(StoreUnusable, match="made by a later version of Tamis"):
        Buffer(tmp_path / "b", GRID, SIZE)


def test_a_file_from_before_lots_can_hold_them(tmp_path: Path) -> None:
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        fill(buffer, 0, 3)
        buffer.label("s1", {"fat": 3.0}, NOON)
    with closing(sqlite3.connect(tmp_path / "b")) as old:
        old.executescript("ALTER TABLE labels DROP COLUMN since; PRAGMA user_version = 2")
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        asked = Asked("i1", "", int(NOON.astype(np.int64)))
        buffer.label("lot 1", {"fat": 4.0}, NOON, asked=asked, since=NOON - np.timedelta64(1, "h"))
        buffer.lots.join(is_all_read=True)
        assert buffer.labeled(["fat"]).values.tolist() == [[3.0], [4.0]]


def test_the_process_is_the_newest_spectra_and_an_even_share_of_the_others(tmp_path: Path) -> None:
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        assert buffer.process(8).shape == (0, len(GRID))
        fill(buffer, 0, 100)
        assert buffer.process(8)[:, 0].tolist() == [0, 19, 38, 58, 77, 97, 98, 99]
        assert len(buffer.process(1000)) == 100


def test_objects_that_two_instruments_have_seen(tmp_path: Path) -> None:
    """By any line, as measured and with repeats averaged, the newest object first."""
    day = np.timedelta64(1, "D")
    with Buffer(tmp_path / "b.sqlite", GRID, SIZE) as buffer:

        def sees(condition: str, level: float, *objects: str, time: np.datetime64 = NOON) -> None:
            n = len(objects)
            ids = [f"{condition}{level}{i}" for i in range(n)]
            buffer.add(np.full((n, len(GRID)), level), GRID, ids, objects, condition, np.full(n, time))

        sees("nir1/lab", 1.0, "a", "b", "c", "")
        sees("nir2/lab", 3.0, "a")
        sees("nir1/lab", 1.5, "d")
        sees("nir1/lab", 9.0, "d", time=NOON + day)  # it may be another object of the same name
        sees("nir1/belt", 5.0, "c", "a", "", "e", "d")
        assert buffer.pairs.newest(5) == {"belt": 5}
        objects = buffer.pairs.objects("lab", "belt")
        assert (len(objects), buffer.pairs.objects("lab", "probe")) == (2, [])
        lab, belt = buffer.pairs.spectra(objects, "lab", "belt")
        assert (lab[:, 0].tolist(), belt[:, 0].tolist()) == ([2.0, 1.0], [5.0, 5.0]), "a, then c"
