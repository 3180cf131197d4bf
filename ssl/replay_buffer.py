"""Unlabeled spectra on disk, bounded in bytes: a recent window and a reservoir; laboratory values join their spectra.

One SQLite file in WAL mode holds everything, so each call takes effect whole or not at all, even if the process is
killed. Spectra are written in place, in slots of equal size: the file grows to its bound and no further.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from .. import BadSettings, StoreUnusable
from ..models.axis import Axis
from ..models.instruments import Instruments
from .label_rows import Identity, LabelRow, LabelRows, Taken
from .lot_rows import LotRows
from .object_pairs import ObjectPairs
from .replay_file import ReplayFile
from .replay_layout import (
    DAY_US,
    INSTRUMENT_OF_SLOTS,
    MAX_CONDITIONS,
    MAX_TEXT,
    Asked,
    Fill,
    Labeled,
    Layout,
    Slots,
    columns_of,
    condition_of,
    micros,
    place_of,
    reservoir_places,
    spread_rows,
)
from .unlabeled import Unlabeled, digests_of, on_grid


class Buffer(AbstractContextManager):
    """Spectra on one grid, in a file that one process and one thread may hold open.

    The window is first in, first out. The reservoir is a uniform sample of all spectra that have left it (algorithm R:
    Vitter, ACM TOMS 11 (1985) 37-57, doi 10.1145/3147.3165), drawn from `seed` and the spectrum's number alone. The
    files never exceed `max_bytes`, which `replay_layout.Layout` divides.

    A spectrum is known by its id, its condition (line and instrument) and its day in UTC: two spectrometers that count
    from 1, or a counter that starts anew each day, do not mix. A power cut may lose the last calls whole, with their
    stream positions, and the stream is read again from there.

    Attributes:
        window, reservoir, labels, waiting, memory: how many fit; at least `memory` ids are remembered.
        ids_collide: whether any id was seen under two conditions. at_once: how many spectra one transaction takes.
        instruments: of the model that is learned from; spectra are kept as measured, and mapped as they are read.

    Every method raises StoreUnusable if the file is damaged.
    """

    def __init__(self, path: str | Path, grid: Axis, max_bytes: int, seed: int = 0) -> None:
        """Opens the file, or makes it; an existing file keeps its seed.

        Raises:
            BadSettings: the file was made for another grid or size, or `max_bytes` is too little.
            StoreUnusable: it is damaged or no buffer, another process has it open, or it cannot be made.
        """
        self.path, self.grid, self.max_bytes = Path(path), grid, max_bytes
        self.instruments = Instruments()
        layout = Layout.within(max_bytes, len(grid))
        if layout is None:
            raise BadSettings(f"a buffer on {grid} needs more than {max_bytes} bytes")
        self.window, self.reservoir, self.labels, self.waiting, self.memory, self.at_once, log_bytes = layout
        self._file = ReplayFile(self.path, log_bytes)
        self._run, self._one, self._many = self._file.run, self._file.one, self._file.many
        self._transaction = self._file.transaction
        self._slots = Slots(self._file.db, len(grid))
        self._labels = LabelRows(
            *(self._file, self.window + self.reservoir, self.labels, self.waiting), read=self._read, write=self._write
        )
        self.lots = LotRows(self._file, self._labels, self._read, self._spectra)
        self.pairs = ObjectPairs(self._file, self._read)
        try:
            self._check(seed)
        except BaseException:
            self._file.close()
            raise

    def _check(self, seed: int) -> None:
        if self._file.is_new:
            made = {"grid": json.dumps(self.grid.to_json()), "max_bytes": self.max_bytes, "seed": seed}
            with self._transaction():
                self._many("INSERT INTO about VALUES (?, ?)", made.items())
        about = dict(self._run("SELECT name, value FROM about"))
        grid = Axis.from_json(json.loads(about["grid"]))
        if grid != self.grid:
            raise BadSettings(f"{self.path}: its spectra are on the grid {grid} ({grid.id}), expected "
                              f"{self.grid} ({self.grid.id}); name another file")  # fmt: skip
        if int(about["max_bytes"]) != self.max_bytes:
            raise BadSettings(f"{self.path}: made for {about['max_bytes']} bytes, expected {self.max_bytes}; "
                              f"keep that setting, or name another file")  # fmt: skip
        self.seed = int(about["seed"])
        self.ids_collide = "ids_collide" in about

    def close(self) -> None:
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        spectra: np.ndarray,
        axis: Axis,
        spectrum_id: Sequence[str],
        object_id: Sequence[str] | None,
        condition: str,
        time: np.ndarray,
        positions: Mapping[str, int] | None = None,
    ) -> int:
        """Keeps spectra, and in the same transaction how far their stream has been read; returns how many were new.

        The last `memory` ids are recognised, evicted or not. More than `at_once` spectra take several transactions,
        with the positions in the last one: if the call is repeated after a kill, spectra that it had kept are
        recognised.

        Args:
            spectra: (n, bands) on `axis`. object_id: "" or None if the object is not known.
            condition: of `replay_layout.condition_of`. time: (n,) datetime64.
            positions: such as {"tamis.spectra:0": 1234}; other names keep their position.

        Raises:
            ValueError: shapes or lengths that do not agree, or a spectrum that is not finite. AxisMismatch: `axis` does
                not cover the grid. StoreUnusable: the disk is full, or the file is damaged; then nothing has changed.
        """
        rows = on_grid(spectra, axis, self.grid)
        ids, objects = digests_of(spectrum_id), digests_of(object_id if object_id is not None else [""] * len(rows))
        stamps = np.asarray(time).astype("datetime64[us]").astype(np.int64).tolist()
        if not len(rows) == len(ids) == len(objects) == len(stamps):
            raise ValueError(f"got {len(rows)} spectra, {len(ids)} ids, {len(objects)} objects and {len(stamps)} times")
        new = 0
        for start in range(0, max(1, len(rows)), self.at_once):
            part, end = slice(start, start + self.at_once), start + self.at_once
            with self._transaction():
                code = self._condition(condition)
                new += self._keep(rows[part], ids[part], objects[part], code, stamps[part])
                if end >= len(rows):
                    self._move(positions)
        return new

    def label(
        self,
        spectrum_id: str,
        values: Mapping[str, float],
        time: np.datetime64,
        spectrum: np.ndarray | None = None,
        axis: Axis | None = None,
        object_id: str = "",
        positions: Mapping[str, int] | None = None,
        *,
        asked: Asked = Asked(),  # noqa: B008 (nothing of it can change)
        confirms: bool | None = None,
        since: np.datetime64 | None = None,
    ) -> Taken:
        """Keeps laboratory values of a spectrum or lot; a later value of a target replaces an earlier one.

        If the spectrum is not known, the label waits for it; at most `waiting` labels do, the newest.

        Args:
            positions: equal ones are the same message; `Labeled.previous` is a value that another one gave before.
            values: target -> value. time: of the values. spectrum: (bands,) on `axis`, if the label carries it.
            asked: which spectrum it is, where several have that id; of a carried spectrum, its line and instrument.
            confirms: True: the values have to be those that were given before. False: the same values once more, by
                another message, are no repeat.
            since: the first moment of a lot, whose last one is `asked.time`; see `lot_rows`.

        Raises:
            AmbiguousSpectrum: it is not clear which spectrum is meant.
            ValueError: no values, one that is not finite, too many of them, or a spectrum that is not finite.
            AxisMismatch, StoreUnusable: as in `add`.
        """
        if not values or not all(math.isfinite(value) for value in values.values()):
            raise ValueError(f"expected finite laboratory values of {spectrum_id!r}, got {dict(values)}")
        if spectrum is not None and axis is None:
            raise ValueError(f"the label of {spectrum_id!r} carries a spectrum without its axis")
        carried = None if spectrum is None or axis is None else on_grid(np.atleast_2d(spectrum), axis, self.grid)
        (obj,) = digests_of([object_id])
        stamp = micros(time)
        with self._transaction():
            with_it = None if carried is None else (carried, self._identity_of_carried(spectrum_id, asked, stamp))
            taken = self._labels.keep(
                spectrum_id, asked, values, obj, stamp, place_of(positions), with_it, confirms=confirms
            )
            if since is not None:
                self.lots.span(taken.arrival, micros(since))
            self._move(positions)
        return taken

    def _identity_of_carried(self, spectrum_id: str, asked: Asked, stamp: int) -> Identity:
        """Of a spectrum that says its line, or of the one known spectrum of that day; else of its own."""
        day = stamp // DAY_US
        if not (asked.line or asked.instrument):
            (key,) = digests_of([spectrum_id])
            known = self._run("SELECT condition FROM seen WHERE id = ? AND day = ?", key, day)
            if len(known) == 1:
                return Identity(known[0][0], day)
        return Identity(self._condition(condition_of(asked.line, asked.instrument)), day)

    def retract(
        self,
        spectrum_id: str,
        targets: Collection[str] = (),
        asked: Asked = Asked(),  # noqa: B008 (nothing of it can change)
        positions: Mapping[str, int] | None = None,
    ) -> LabelRow | None:
        """Takes laboratory values out again, all if no target is named; None if there are none.

        Raises AmbiguousSpectrum.
        """
        with self._transaction():
            gone = self._labels.retract(spectrum_id, asked, targets)
            self._move(positions)
        return gone

    def joined_since(self, number: int) -> list[LabelRow]:
        """The labels that were joined, or given again, after the one of this number, in their order."""
        return self._labels.joined_since(number)

    def learn(
        self, version: str, until: int, held: Collection[tuple[str, str, float]], targets: Sequence[str]
    ) -> list[LabelRow]:
        """Notes that a version was fitted on the values up to a number; gives those that it is the first to have.

        `held`: spectrum_id, target and value of those that it was not fitted on. `targets`: a label needs all of them.
        """
        with self._transaction():
            return self._labels.learn(version, until, held, targets)

    def request(self, spectrum_id: str, target: str, value: float) -> LabelRow | None:
        """Notes that a repeat of a value is asked for; None if it was before, or the value is not there any more."""
        with self._transaction():
            return self._labels.request(spectrum_id, target, value)

    def positions(self) -> dict[str, int]:
        """How far each stream has been read: exactly as far as its spectra are kept."""
        return dict(self._run("SELECT name, position FROM positions"))

    def unlabeled(self) -> Unlabeled:
        """All spectra of window and reservoir."""
        kept = self._run("SELECT slot, coalesce(object, -1 - slot), condition FROM spectra ORDER BY slot")
        slot, objects, condition = columns_of(kept, 3)
        return Unlabeled(self._spectra(slot), objects, condition, slot < self.window)

    def labeled(self, targets: Sequence[str]) -> Labeled:
        """The labeled spectra that have a value of one of the targets."""
        values, before, ids, kept = [], [], [], []
        for text, earlier, spectrum_id, *row in self._run(
            'SELECT "values", previous, spectrum_id, slot, coalesce(object, -1 - joined), time, joined FROM labels '
            "WHERE slot IS NOT NULL ORDER BY joined"
        ):
            measured, replaced = json.loads(text), json.loads(earlier or "{}")
            if any(target in measured for target in targets):
                values.append([measured.get(target, np.nan) for target in targets])
                before.append([replaced.get(target, np.nan) for target in targets])
                ids.append(spectrum_id)
                kept.append(row)
        slot, objects, time, joined = columns_of(kept, 4)
        of_targets, previous = np.array([values, before], np.float64).reshape(2, len(kept), len(targets))
        return Labeled(self._spectra(slot), of_targets, ids, objects, time.astype("datetime64[us]"), joined, previous)

    def process(self, most: int) -> np.ndarray:
        """(n, bands): so many unlabeled spectra at most, the newest last; a quarter are the newest, the others even."""
        (slot,) = columns_of(self._run("SELECT slot FROM spectra ORDER BY number"), 1)
        return self._spectra(slot[spread_rows(len(slot), most)])

    def beside(self, labeled: Labeled, span: np.timedelta64) -> tuple[np.ndarray, np.ndarray]:
        """Unlabeled spectra (m, bands) measured under a labeled one's condition within `span` of it, before or after.

        Also (m,), the row of `labeled` that each belongs to: the nearest in time, the earlier of two equally near.
        """
        reach = int(np.timedelta64(span, "us").astype(np.int64))
        known = dict(self._run("SELECT joined, condition FROM labels WHERE condition IS NOT NULL AND since IS NULL"))
        conditions = np.array([known.get(joined, -1) for joined in labeled.joined.tolist()])
        slots, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for condition in set(conditions.tolist()) - {-1}:
            of = np.flatnonzero(conditions == condition)
            of = of[np.argsort(labeled.time[of], kind="stable")]
            at = labeled.time[of].astype(np.int64)
            near = self._run(
                "SELECT slot, time FROM spectra WHERE condition = ? AND time BETWEEN ? AND ? ORDER BY slot",
                condition, int(at[0] - reach), int(at[-1] + reach),
            )  # fmt: skip
            slot, time = columns_of(near, 2)
            nearest = np.searchsorted(at[:-1] + at[1:], 2 * time)  # twice the middles between labels
            apart = np.abs(time - at[nearest])
            within = (apart > 0) & (apart <= reach)  # 0: the labeled spectrum itself
            slots.append(slot[within])
            rows.append(of[nearest[within]])
        return self._spectra(np.concatenate(slots)), np.concatenate(rows)

    @property
    def added(self) -> int:
        """How many spectra were ever added, each counted once."""
        return int(self._one("SELECT added FROM state"))

    @property
    def joined(self) -> int:
        """The `Labeled.joined` of the newest label; 0 before the first."""
        return int(self._one("SELECT joined FROM state"))

    def fill(self) -> Fill:
        added = self.added
        ((labeled, waiting),) = self._run("SELECT count(slot), count(*) - count(slot) FROM labels")
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
        window = min(added, self.window)
        return Fill(window, min(added - window, self.reservoir), labeled, waiting, size)

    def _keep(self, rows: np.ndarray, ids: list[int], objects: list[Any], condition: int, stamps: list[int]) -> int:
        days = [stamp // DAY_US for stamp in stamps]
        (name,) = self._run("SELECT name FROM conditions WHERE code = ?", condition)[0]
        seen = self._run(
            "SELECT seen.id, seen.day, seen.condition FROM json_each(?) AS given JOIN seen ON seen.id = given.value",
            json.dumps(ids),
        )
        known = {(key, day) for key, day, of in seen if of == condition}
        if not self.ids_collide and any(of != condition for *_, of in seen):
            self._run("INSERT INTO about VALUES ('ids_collide', 'yes')")
            self.ids_collide = True
        for arrival, i in self._labels.wait_for(ids, name, stamps, ids_collide=self.ids_collide):
            self._labels.join(arrival, rows[i : i + 1], objects[i], condition, stamps[i])
        first = {key: i for i, key in reversed(list(enumerate(zip(ids, days, strict=True))))}
        fresh = sorted(i for key, i in first.items() if key not in known)
        if not fresh:
            return 0
        ((added, seen_from, seen_now),) = self._run("SELECT added, seen_from, seen_now FROM state")
        if added - seen_from >= self.memory:
            seen_from, seen_now = added, 1 - seen_now
            self._run(f"DELETE FROM seen_{seen_now}")  # noqa: S608 (0 or 1)
        numbers = range(added, added + len(fresh))
        slots = np.arange(added, added + len(fresh)) % self.window
        self._to_reservoir(np.arange(max(0, added - self.window), max(0, added + len(fresh) - self.window)))
        self._write(slots, rows[fresh])
        self._many(
            "REPLACE INTO spectra VALUES (?, ?, ?, ?, ?)",
            [(s, n, objects[i], condition, stamps[i]) for s, n, i in zip(slots.tolist(), numbers, fresh, strict=True)],
        )
        self._many(
            f"INSERT INTO seen_{seen_now} VALUES (?, ?, ?, ?, ?)",  # noqa: S608 (0 or 1)
            [(ids[i], condition, days[i], stamps[i], n) for i, n in zip(fresh, numbers, strict=True)],
        )  # sorted by id it would touch as many pages: ids are spread evenly
        self._run("UPDATE state SET added = ?, seen_from = ?, seen_now = ?", added + len(fresh), seen_from, seen_now)
        return len(fresh)

    def _to_reservoir(self, leaving: np.ndarray) -> None:
        """(k,) consecutive numbers that leave the window: each goes to a place of the reservoir, or nowhere."""
        if not len(leaving):
            return
        places = reservoir_places(leaving, self.reservoir, self.seed)
        last = {int(place): int(n) for place, n in zip(places, leaving, strict=True) if place < self.reservoir}
        source = np.array(list(last.values()), np.int64) % self.window
        goal = np.array(list(last), np.int64) + self.window
        self._write(goal, self._read(source))
        moves = zip(goal.tolist(), source.tolist(), strict=True)
        self._many("UPDATE OR REPLACE spectra SET slot = ? WHERE slot = ?", moves)

    def _condition(self, name: str) -> int:
        name = name[:MAX_TEXT]
        known = dict(self._run("SELECT name, code FROM conditions"))
        if name not in known and len(known) >= MAX_CONDITIONS - 1:
            name = "other"
        self._run("INSERT OR IGNORE INTO conditions VALUES (?, ?)", len(known), name)
        return known.get(name, len(known))

    def _move(self, positions: Mapping[str, int] | None) -> None:
        self._many("REPLACE INTO positions VALUES (?, ?)", (positions or {}).items())

    def _spectra(self, slots: np.ndarray) -> np.ndarray:
        """(n,) slots -> (n, grid bands), as the master of `instruments` would have measured them"""
        rows = self._read(slots)
        if self.instruments.maps:
            of = dict(self._run(INSTRUMENT_OF_SLOTS))
            names = np.array([of.get(slot, "").partition("/")[2] for slot in slots.tolist()], object)
            for name in set(names.tolist()):
                rows[names == name] = self.instruments.mapped(rows[names == name], name)
        return rows

    def _read(self, slots: np.ndarray) -> np.ndarray:
        """(n,) slots -> (n, grid bands)"""
        with self._file.explained():
            rows = self._slots.read(slots)
        if not np.isfinite(rows).all():  # only finite spectra are written
            raise StoreUnusable(f"{self.path}: damaged: expected finite spectra; move it away to begin anew")
        return rows

    def _write(self, slots: np.ndarray, rows: np.ndarray) -> None:
        with self._file.explained():
            self._slots.write(slots, rows)
