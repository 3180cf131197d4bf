"""How the bytes of a replay buffer are divided, how spectra lie in its SQLite file, and what is read from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .unlabeled import digests_of

APPLICATION_ID = 0x54414D42  # "TAMB": sets it apart from any other SQLite file
PAGE_BYTES = 4096
CHUNK_BYTES = 65_536  # a row of slots: SQLite walks its pages from the first one on
SLOT_EXTRA_BYTES = 110  # a spectrum's row and indices, and its share of the page that a chunk does not fill
LABEL_BYTES = 3_072  # of a label's id and values at most
SEEN_BYTES = 48  # of one remembered id, with its condition and time
FIXED_BYTES = 524_288  # schema, and the names of conditions

SCHEMA_VERSION = 3
DAY_US = 86_400_000_000

# A spectrum is known by its id, its condition (line and instrument) and its day.
# seen_0 and seen_1 take turns: when the one being filled is full, the other is emptied.
TABLES_OF_SEEN = """
CREATE TABLE seen_0 (id INTEGER, condition INTEGER, day INTEGER, time INTEGER, number INTEGER,
  PRIMARY KEY (id, condition, day)) WITHOUT ROWID;
CREATE TABLE seen_1 (id INTEGER, condition INTEGER, day INTEGER, time INTEGER, number INTEGER,
  PRIMARY KEY (id, condition, day)) WITHOUT ROWID;
CREATE VIEW seen AS SELECT * FROM seen_0 UNION ALL SELECT * FROM seen_1
"""
# line, instrument, asked_time: of its spectrum, as far as the label says. source, day: of the spectrum itself, once it
# is known. condition: the same, unless the label carried the spectrum. place: of the message that gave the values.
# previous: the values that these replaced. requested: the values that a repeat was asked for. learned: a version.
# since: the first moment of a lot, whose last one is asked_time; its slot holds the mean of its spectra.
TABLE_OF_LABELS = """
CREATE TABLE labels (arrival INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER, spectrum_id TEXT, line TEXT DEFAULT '',
  instrument TEXT DEFAULT '', asked_time INTEGER, source INTEGER, day INTEGER, object INTEGER, condition INTEGER,
  time INTEGER, "values" TEXT, slot INTEGER UNIQUE, joined INTEGER, place INTEGER, previous TEXT, requested TEXT,
  learned TEXT, since INTEGER);
CREATE INDEX labels_by_id ON labels (id)
"""
_OTHER_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE state (added INTEGER, seen_from INTEGER, seen_now INTEGER, joined INTEGER);
INSERT INTO state VALUES (0, 0, 0, 0);
CREATE TABLE chunks (chunk INTEGER PRIMARY KEY, spectra BLOB);
CREATE TABLE spectra (slot INTEGER PRIMARY KEY, number INTEGER UNIQUE, object INTEGER, condition INTEGER, time INTEGER);
CREATE TABLE conditions (code INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE positions (name TEXT PRIMARY KEY, position INTEGER)
"""
SCHEMA = f"{_OTHER_TABLES};{TABLES_OF_SEEN};{TABLE_OF_LABELS}"
INSTRUMENT_OF_SLOTS = """
SELECT slot, name FROM spectra JOIN conditions ON condition = code UNION ALL
SELECT slot, coalesce(name, '/' || instrument) FROM labels LEFT JOIN conditions ON condition = code WHERE slot NOT NULL
"""
MAX_CONDITIONS = 256  # lines and instruments; further ones are all called "other"
MAX_TEXT = 512  # characters of an id or a name
MAX_VALUES_BYTES = 1_000  # of one spectrum's laboratory values, as JSON, with those that they replaced


@dataclass(frozen=True, eq=False)
class Labeled:
    """Spectra with laboratory values, in the order in which both were there.

    Attributes:
        spectra: (n, bands) float32. values: (n, targets), NaN for a missing one. spectrum_id: n texts.
        object: (n,) int64 codes, equal = the same object.
        time: (n,) datetime64[us], of the spectrum; of the latest value if its label carried the spectrum.
        joined: (n,) int64, rising: numbers, from 1 on, each joining of a value and a spectrum, and each value given
            again by another message.
        previous: (n, targets), the value that an earlier message gave for the same spectrum, NaN for none.
    """

    spectra: np.ndarray
    values: np.ndarray
    spectrum_id: list[str]
    object: np.ndarray
    time: np.ndarray
    joined: np.ndarray
    previous: np.ndarray


class Fill(NamedTuple):
    """What a buffer holds: spectra in the window, in the reservoir, labeled; waiting labels; bytes of its files."""

    window: int
    reservoir: int
    labeled: int
    waiting: int
    bytes: int


class Layout(NamedTuple):
    """How many fit: spectra in the window and in the reservoir, labeled spectra, labels that wait, remembered ids.

    A quarter of the bytes is for labeled spectra (the oldest labels leave), an eighth, 256 MB at most, for the
    write-ahead log, a sixteenth for remembered ids, a thirty-second for labels that wait for their spectrum, and the
    rest, in halves, for the window and the reservoir.

    Attributes:
        at_once: spectra in one transaction. log_bytes: for the write-ahead log.
    """

    window: int
    reservoir: int
    labels: int
    waiting: int
    memory: int
    at_once: int
    log_bytes: int

    @classmethod
    def within(cls, max_bytes: int, bands: int) -> Layout | None:
        """None if not even one of each fits."""
        row_bytes = 4 * bands
        log_bytes = min(max_bytes // 8, 1 << 28)
        # In the log, for each spectrum: itself, and at worst its move to the reservoir and 5 pages of tables.
        at_once = log_bytes // 2 // (2 * row_bytes + 5 * PAGE_BYTES)
        labels = max_bytes // 4 // (row_bytes + LABEL_BYTES)
        waiting = max_bytes // 32 // LABEL_BYTES
        memory = max_bytes // 16 // SEEN_BYTES // 2
        room = max_bytes - log_bytes - max_bytes // 4 - max_bytes // 16 - max_bytes // 32 - FIXED_BYTES
        window = room // 2 // (row_bytes * 66 // 64 + SLOT_EXTRA_BYTES)
        at_once = min(at_once, window)
        if min(at_once, labels, waiting) < 1:
            return None
        return cls(window, window, labels, waiting, memory, at_once, log_bytes)


class Given(NamedTuple):
    """Laboratory values of one spectrum as they are stored, and whether they are new.

    Attributes:
        values: JSON. place: of the message that gave them. previous: JSON, the values that it replaced.
        is_again: values changed, or another message gave the same: not the same message read twice.
    """

    values: str
    place: int | None
    previous: str | None
    is_again: bool

    @classmethod
    def after(
        cls,
        stored: str,
        stored_place: int | None,
        previous: str | None,
        values: Mapping[str, float],
        place: int | None,
        *,
        can_repeat: bool = True,
    ) -> Given:
        """`can_repeat`: the same values by another message are a repeat. Raises ValueError for too many values."""
        known = json.loads(stored)
        text = json.dumps(known | {target: float(value) for target, value in values.items()})
        if len(text) > MAX_VALUES_BYTES:
            raise ValueError(f"expected values of at most {MAX_VALUES_BYTES} bytes, got {len(text)}")
        is_other = text != stored
        is_again = is_other or (can_repeat and place is not None and place != stored_place)
        if not is_again:
            place = stored_place
        else:
            replaced = {target: known[target] for target in values if target in known}
            previous = json.dumps(json.loads(previous or "{}") | replaced)
            if len(text) + len(previous) > MAX_VALUES_BYTES:
                previous = None  # dozens of targets: a repeat of theirs is not recognised
        return cls(text, place, previous, is_again)


def reservoir_places(leaving: np.ndarray, size: int, seed: int) -> np.ndarray:
    """(k,) consecutive numbers that leave the window -> (k,) places in the reservoir; `size` or more means none."""
    # One block of the counter for each: the draw depends on seed and number, not on frames or restarts.
    counter = np.random.Philox(key=seed).advance(int(leaving[0]))
    u = np.random.Generator(counter).random((len(leaving), 4))[:, 0]
    return np.where(leaving < size, leaving, (u * (leaving + 1)).astype(np.int64))


class Slots:
    """Spectra in numbered slots of equal size, many of them in one row of the table `chunks`."""

    def __init__(self, db: Any, bands: int) -> None:
        self._db, self._bands = db, bands
        self._per_chunk = max(1, CHUNK_BYTES // (4 * bands))

    def _blobs(self, slots: np.ndarray, *, readonly: bool) -> Iterator[tuple[Any, slice]]:
        """An open chunk at the first byte of some slots, and which they are; those side by side go together."""
        breaks = np.flatnonzero((np.diff(slots) != 1) | (slots[1:] % self._per_chunk == 0)) + 1
        for start, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(slots)], strict=True):
            if end > start:
                chunk, place = divmod(int(slots[start]), self._per_chunk)
                with self._db.blobopen("chunks", "spectra", chunk, readonly=readonly) as blob:
                    blob.seek(4 * self._bands * place)
                    yield blob, slice(start, end)

    def write(self, slots: np.ndarray, rows: np.ndarray) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO chunks VALUES (?, zeroblob(?))",
            [(chunk, 4 * self._bands * self._per_chunk) for chunk in np.unique(slots // self._per_chunk).tolist()],
        )
        rows = np.ascontiguousarray(rows, dtype="<f4")
        for blob, part in self._blobs(slots, readonly=False):
            blob.write(rows[part].data)

    def read(self, slots: np.ndarray) -> np.ndarray:
        """(n,) slots -> (n, bands)"""
        rows = np.empty((len(slots), self._bands), dtype="<f4")
        for blob, part in self._blobs(slots, readonly=True):
            rows[part] = np.frombuffer(blob.read(rows[part].nbytes), dtype="<f4").reshape(-1, self._bands)
        return rows


def spread_rows(n: int, most: int) -> np.ndarray:
    """At most so many of n rows, in order: a quarter are the last ones, the others lie even.

    >>> spread_rows(10, 4).tolist(), spread_rows(3, 8).tolist()
    ([0, 4, 8, 9], [0, 1, 2])
    """
    if n <= most:
        return np.arange(n)
    others = n - most // 4
    return np.concatenate([np.linspace(0, others - 1, most - most // 4).astype(np.int64), np.arange(others, n)])


def condition_of(line: str, instrument: str) -> str:
    """How a line and an instrument are named in a buffer.

    >>> condition_of("nir1", "a/b"), Asked("nir1").fits(condition_of("nir1", "a/b"), 7)
    ('nir1/a/b', True)
    """
    return f"{line.replace('/', '|')}/{instrument}"[:MAX_TEXT]


class Asked(NamedTuple):
    """What a label says of its spectrum: '' and None for nothing.

    Attributes:
        time: microseconds since 1970; the spectrum was measured then, or before.
    """

    line: str = ""
    instrument: str = ""
    time: int | None = None

    def fits(self, condition: str, time: int) -> bool:
        line, _, instrument = condition.partition("/")
        is_there = self.line.replace("/", "|") in ("", line) and self.instrument in ("", instrument)
        return is_there and (self.time is None or time <= self.time or time // DAY_US == self.time // DAY_US)


class UnknownOrigin(ValueError):
    """A label of a line or instrument that never sent anything, though its id is there; the text names whose."""


class AmbiguousSpectrum(ValueError):
    """A label that may belong to several spectra; the text names them."""


def place_of(positions: Mapping[str, int] | None) -> int | None:
    """A number for the message that ends at these positions of its stream."""
    return digests_of([json.dumps(dict(positions), sort_keys=True)])[0] if positions else None


def columns_of(rows: Sequence[Sequence[int]], n: int) -> np.ndarray:
    """m rows of n whole numbers -> (n, m)"""
    return np.array(rows, dtype=np.int64).reshape(-1, n).T


def micros(time: np.datetime64) -> int:
    """Since 1970"""
    return int(np.asarray(time).astype("datetime64[us]").astype(np.int64))
