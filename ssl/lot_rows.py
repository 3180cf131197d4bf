"""Lots in a replay buffer: values of all spectra of a line from one moment to another."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .label_rows import LabelRows
from .replay_file import ReplayFile
from .replay_layout import Asked, columns_of, spread_rows

MOST_SPECTRA = 1_000  # of one lot, spread evenly over it: more change neither its mean nor what is learned


class LotSpectra(NamedTuple):
    """A lot: its name, the number of its joining, (targets,) values, and (n, bands) spectra."""

    name: str
    number: int
    values: np.ndarray
    spectra: np.ndarray


class LotRows:
    """The rows of the table of labels that have a first moment."""

    def __init__(
        self,
        file: ReplayFile,
        labels: LabelRows,
        measured: Callable[[np.ndarray], np.ndarray],
        mapped: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """`measured`, `mapped`: spectra in slots, as measured and as the model's master would have measured them."""
        self._file, self._labels, self._measured, self._mapped = file, labels, measured, mapped

    def span(self, arrival: int, since: int) -> None:
        """Makes a label the label of a lot, which is known by its name, its line and its last moment."""
        self._file.run("UPDATE labels SET since = ? WHERE arrival = ?", since, arrival)

    def join(self, *, is_all_read: bool) -> int:
        """Joins each lot that waits with the mean of its spectra, those of the instrument that has most; how many.

        It waits until a spectrum of its line from after its last moment is there, unless all that there is was read.
        """
        waiting = self._file.run(
            "SELECT arrival, line, instrument, since, asked_time FROM labels WHERE slot IS NULL AND since IS NOT NULL"
        )
        joined = 0
        for arrival, line, instrument, since, until in waiting:
            sources = self._sources(line, instrument)
            found = {source: self._slots([source], since, until) for source in sources}
            most = max(found, key=lambda source: len(found[source]), default=None)
            if most is None or not len(found[most]) or not (is_all_read or self._has_later(sources, until)):
                continue
            mean = self._measured(found[most]).mean(axis=0, dtype=np.float64).astype(np.float32)
            with self._file.transaction():
                self._labels.join(arrival, mean[None], None, None, until)
                self._file.run("UPDATE labels SET condition = ? WHERE arrival = ?", most, arrival)
            joined += 1
        return joined

    def joined(self, targets: Sequence[str]) -> list[LotSpectra]:
        """The joined lots that have all targets, as far as spectra of them are still there, in the order of joining."""
        lots = []
        for name, number, text, line, instrument, since, until in self._file.run(
            'SELECT spectrum_id, joined, "values", line, instrument, since, asked_time FROM labels '
            "WHERE slot IS NOT NULL AND since IS NOT NULL ORDER BY joined"
        ):
            values = json.loads(text)
            slots = self._slots(self._sources(line, instrument), since, until)
            if len(slots) and values.keys() >= set(targets):
                shares = np.array([values[target] for target in targets])
                lots.append(LotSpectra(name, number, shares, self._mapped(slots)))
        return lots

    def _sources(self, line: str, instrument: str) -> list[int]:
        """The codes of a line's conditions."""
        asked = Asked(line, instrument)
        return [code for code, name in self._file.run("SELECT code, name FROM conditions") if asked.fits(name, 0)]

    def _slots(self, sources: Sequence[int], since: int, until: int) -> np.ndarray:
        (slots,) = columns_of(
            self._file.run(
                "SELECT slot FROM spectra WHERE condition IN (SELECT value FROM json_each(?)) "
                "AND time BETWEEN ? AND ? ORDER BY number",
                *(json.dumps(sources), since, until),
            ),
            1,
        )
        return np.sort(slots[spread_rows(len(slots), MOST_SPECTRA)])

    def _has_later(self, sources: Sequence[int], until: int) -> bool:
        sql = "SELECT EXISTS (SELECT 1 FROM spectra WHERE condition IN (SELECT value FROM json_each(?)) AND time > ?)"
        return bool(self._file.one(sql, json.dumps(sources), until))
