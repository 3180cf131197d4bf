"""White and dark references of a camera: refreshed by messages, kept over restarts, applied to counts."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ... import BadFile, BadMessage
from ...models.atomic import atomic_write
from ...models.axis import MAIN, Sensors
from ...models.reflectance import Reflectance, some_bands
from ..files.instruments.envi import read_references
from ..messages.frame import Frame
from ..settings.tables import Camera as Table

log = structlog.get_logger()

COUNTS = ("counts", "unknown")  # quantities that the references apply to


@dataclass
class _Mean:
    """(pixels, bands) sums of a reference, and how often each pixel was seen."""

    kind: str
    total: np.ndarray
    count: np.ndarray
    last: int = -1  # place of the newest pixel, counted through all scan lines


class CameraReferences:
    """The newest white and dark reference of one camera; the file `kept` keeps refreshed ones over restarts."""

    def __init__(self, table: Table, kept: Path | None = None) -> None:
        self.table, self.kept = table, kept
        self._dark: np.ndarray | None = None  # perhaps before there is a white one
        self._reflectance: Reflectance | None = None
        self._learning: _Mean | None = None
        if table.white:
            self._reflectance = read_references(table.white, table.dark or None)
            self._dark, pixels = self._reflectance.dark, len(self._reflectance.white)
            if pixels != table.pixels:
                raise BadFile(f"{table.white}: expected {table.pixels} pixels, as camera.pixels says, got {pixels}")
        self._first = self._reflectance  # what a change is measured against
        self._kept_ns = 0
        self.refresh()

    def update(self, frame: Frame, x: np.ndarray, y: np.ndarray) -> float | None:
        """Averages the messages of a reference that follow one another, and uses it once each pixel was seen.

        Args:
            x, y: (n,) pixel and scan line.

        Returns:
            Its change since the first reference: the median ratio of the light, less 1; for a dark reference the median
            rise, as a share of the first light. None: some pixels are still missing.

        Raises:
            BadMessage: it does not suit this camera; the reference before it stays.
        """
        if frame.quantity not in COUNTS:
            raise _unsuitable(frame, f"expected counts, as the camera has them, got {frame.quantity}")
        if isinstance(frame.axis, Sensors):
            raise _unsuitable(frame, f"expected the camera's bands alone, got {frame.axis}")
        shape = self.table.pixels, len(frame.axis)
        if self._first is not None and shape != (before := self._first.white.shape):
            raise _unsuitable(frame, f"expected {before[1]} bands, as the white one has, got {shape[1]}")
        places = y * shape[0] + x
        mean = self._learning
        if mean is None or (mean.kind, mean.total.shape) != (frame.reference, shape) or places.min() <= mean.last:
            # A reference that starts again replaces the one before.
            mean = self._learning = _Mean(frame.reference, np.zeros(shape), np.zeros(shape[0], int))
        mean.last = int(places.max())
        np.add.at(mean.total, x, frame.spectra)
        mean.count += np.bincount(x, minlength=shape[0])
        if not mean.count.all():
            return None
        light = mean.total / mean.count[:, None]
        white, dark = (light, self._dark) if frame.reference == "white" else (self._white, light)
        if white is not None:
            try:
                self._reflectance = Reflectance(white, dark)
            except ValueError as error:
                self._learning = None
                raise _unsuitable(frame, str(error)) from error
        self._first, self._dark = self._first or self._reflectance, dark
        self._save()
        first, now = self._first, self._reflectance
        if first is None or now is None:
            return 0.0
        is_dark, alive = frame.reference == "dark", ~first.dead
        rise = (now.dark - first.dark) if is_dark else (now.white - now.dark)
        return float(np.median(rise[alive] / (first.white - first.dark)[alive])) - (not is_dark)

    @property
    def _white(self) -> np.ndarray | None:
        return self._reflectance and self._reflectance.white

    def end_update(self, line: str) -> None:
        """Spectra follow: a reference that is still incomplete is dropped."""
        if self._learning is not None and not self._learning.count.all():
            log.warning("reference dropped: some pixels are missing", line=line, reference=self._learning.kind)
        self._learning = None

    def brightness(self, frame: Frame, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) mean of some bands, as reflectance if possible; (n,) whether the pixel is blind"""
        reflectance = self._for(frame)
        if reflectance is None:
            spans = frame.axis.spans  # raw frames for a model without the spectrum have none
            main = frame.spectra[:, spans.get(MAIN) or next(iter(spans.values()))]
            return main[:, some_bands(main.shape[1])].mean(axis=1, dtype=np.float32), np.zeros(len(x), bool)
        return reflectance.brightness(frame.spectra, x), reflectance.blind[x]

    def corrected(self, frame: Frame) -> Frame:
        """Counts as reflectance, if there is a white reference."""
        reflectance = self._for(frame)
        if reflectance is None or frame.x is None:
            return frame
        return replace(frame, spectra=reflectance(frame.spectra, frame.x), quantity="reflectance")

    def _for(self, frame: Frame) -> Reflectance | None:
        """None where the frame has no counts, or the camera no white reference; raises BadMessage for other bands."""
        if self._reflectance is None or frame.quantity not in COUNTS:
            return None
        if len(frame.axis) != (bands := self._reflectance.white.shape[1]):
            raise BadMessage(f"expected {bands} bands, as the references have, got {len(frame.axis)}", "band_count")
        return self._reflectance

    def _save(self) -> None:
        if self.kept is None:
            return
        arrays = {"white": self._white, "dark": self._dark}
        if self._first is not None and not self.table.white:  # that of the settings is read again
            arrays |= {"first_white": self._first.white, "first_dark": self._first.dark}
        try:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.kept) as draft:
                save_file({name: array for name, array in arrays.items() if array is not None}, draft)
            self._kept_ns = self.kept.stat().st_mtime_ns
        except (OSError, SafetensorError) as error:  # of a full disk it is the latter
            log.error("reference not saved: a restart would use the one before", path=str(self.kept), error=str(error))

    def refresh(self) -> None:
        """Loads what was saved, perhaps by another worker meanwhile, unless the files of the settings are newer."""
        try:
            kept_ns = 0 if self.kept is None else self.kept.stat().st_mtime_ns
        except OSError:
            return
        if self.kept is None or kept_ns == self._kept_ns:
            return
        self._kept_ns = kept_ns
        try:
            files = [Path(name).stat().st_mtime_ns for name in (self.table.white, self.table.dark) if name]
            if max(files, default=0) > kept_ns:
                return
            arrays = load_file(self.kept)
            if any(array.ndim != 2 or len(array) != self.table.pixels for array in arrays.values()):
                raise ValueError(f"expected {self.table.pixels} pixels")
            white, dark = arrays.get("white", self._white), arrays.get("dark", self._dark)
            if white is not None and self._white is not None and white.shape != self._white.shape:
                raise ValueError(f"expected {self._white.shape[1]} bands, as the white one before it has")
            now = None if white is None else Reflectance(white, dark)
            first = self._first or now
            if not self.table.white and now is not None and "first_white" in arrays:
                first = Reflectance(arrays["first_white"], arrays.get("first_dark"))
                if first.white.shape != now.white.shape:
                    raise ValueError(f"expected {now.white.shape[1]} bands in the first one, as the white one has")
        except (OSError, TypeError, ValueError, SafetensorError) as error:
            log.error("saved references ignored", path=str(self.kept), error=str(error))
            return
        self._dark, self._reflectance, self._first = dark, now, first


def _unsuitable(frame: Frame, why: str) -> BadMessage:
    return BadMessage(f"{frame.reference} reference: {why}", "reference")
