"""Bad rows: the spectra of a frame that no model should see, each with its reason."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .frame import MAX_TEXT, Frame

SATURATED = 65535  # of 16-bit counts
EARLIEST, LATEST = np.datetime64("1900-01-01", "us"), np.datetime64("2200-01-01", "us")


@dataclass(frozen=True, slots=True)
class BadRow:
    """One rejected spectrum. `original` is its JSON text if it could not even be read as numbers."""

    row: int
    spectrum_id: str
    reason: str  # a short fixed word, for counting
    text: str  # what was expected, and what it got
    spectrum: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    time: np.datetime64 = field(default_factory=lambda: np.datetime64("NaT", "us"))
    original: str | None = None

    def __str__(self) -> str:
        return f"row {self.row} ({self.spectrum_id}): {self.text}"


Screened = tuple[Frame, list[BadRow]]  # the good rows, and the bad ones with their reasons


def set_aside(frame: Frame, rows: Sequence[np.ndarray] | None, bad: Iterable[BadRow] = ()) -> Screened:
    """Sets aside spectra of another length than the axis, of an impossible time, and repeats of a spectrum_id.

    Args:
        rows: the n spectra if their lengths differ; None if `frame.spectra` holds them all.
        bad: rows that were set aside already.
    """
    bad = list(bad)
    keep = np.ones(len(frame), bool)
    keep[[row.row for row in bad]] = False
    bands = len(frame.axis)
    spectra = frame.spectra if rows is None else rows
    lengths = np.full(len(frame), frame.spectra.shape[1]) if rows is None else np.array([len(row) for row in rows])

    def aside(i: int, reason: str, text: str) -> None:
        time = frame.time[i] if EARLIEST <= frame.time[i] < LATEST else np.datetime64("NaT", "us")
        bad.append(BadRow(i, frame.spectrum_id[i][:MAX_TEXT], reason, text, spectra[i], time))
        keep[i] = False

    for i in np.flatnonzero(keep & (lengths != bands)).tolist():
        aside(i, "band_count", f"expected {bands} bands ({frame.axis}), got {lengths[i]}")
    for i in np.flatnonzero(keep & ((frame.time < EARLIEST) | (frame.time >= LATEST))).tolist():
        since_s = frame.time[i].astype(np.int64) / 1e6
        aside(i, "time", f"expected a time from 1900 to 2200, got {since_s:.16g} s since 1970; is it in another unit?")
    for texts in filter(None, (frame.spectrum_id, frame.object_id)):
        for i in np.flatnonzero(keep & (np.array([len(text) for text in texts]) > MAX_TEXT)).tolist():
            aside(i, "spectrum_id", f"expected at most {MAX_TEXT} characters in spectrum_id and object_id")
    if len(set(frame.spectrum_id)) != len(frame):
        first: dict[str, int] = {}
        for i in np.flatnonzero(keep).tolist():
            if first.setdefault(frame.spectrum_id[i], i) != i:
                aside(i, "duplicate_id", f"spectrum_id {frame.spectrum_id[i]!r} is already in this frame")
    if frame.spectra.shape[1] != bands:  # of different lengths, or all of a wrong one
        matrix = np.zeros((len(frame), bands), np.float32)
        for i in np.flatnonzero(keep).tolist():
            matrix[i] = spectra[i]
        frame = replace(frame, spectra=matrix)
    return (frame if keep.all() else frame[keep]), bad


def screen(frame: Frame, saturation: float | None, bad: list[BadRow]) -> Screened:
    """Sets aside the spectra that no model should see: not finite, or saturated (a band at or above `saturation`).

    `saturation` is in the frame's own quantity; without one, 16-bit counts saturate at 65535.
    """
    if saturation is None and frame.spectra.dtype == np.uint16:
        saturation = SATURATED
    with np.errstate(all="ignore"):
        if saturation is None and np.isfinite(frame.spectra @ np.ones(frame.spectra.shape[1], np.float32)).all():
            return frame, bad  # the sums are finite, so all numbers are: a product reads them but once
    finite = np.isfinite(frame.spectra)
    over = np.zeros_like(finite) if saturation is None else frame.spectra >= saturation
    good = np.all(finite & ~over, axis=1)
    if good.all():
        return frame, bad
    # Rows were set aside before; the others keep their numbers in the message.
    row_number = np.delete(np.arange(len(frame) + len(bad)), [row.row for row in bad])
    bad = list(bad)
    for i in np.flatnonzero(~good).tolist():
        not_finite = not finite[i].all()
        where = ~finite[i] if not_finite else over[i]
        band = int(where.argmax())
        wanted = "finite numbers" if not_finite else f"values below saturation at {saturation:g}"
        got = f"{frame.spectra[i, band]:g} at {frame.axis.place(band)}"
        text = f"expected {wanted}, got {got} ({where.sum()} of {len(where)} bands)"
        reason = "not_finite" if not_finite else "saturated"
        bad.append(BadRow(int(row_number[i]), frame.spectrum_id[i], reason, text, frame.spectra[i], frame.time[i]))
    return frame[good], bad
