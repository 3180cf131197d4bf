"""A frame: many spectra of one line and instrument."""

from dataclasses import dataclass, field

import numpy as np

from ...models.axis import Axis
from ...models.rows import Rows

QUANTITIES = ("absorbance", "reflectance", "counts", "unknown")
REFERENCES = ("", "white", "dark")
MAX_TARGETS = 64  # columns of laboratory values in one frame
MAX_TEXT = 512  # characters of an id or a name: they are repeated in results, rejects, logs and labels
# Columns of a frame or of its predictions: no target may have such a name.
RESERVED = frozenset(
    (
        *(
            "spectrum",
            "sensors",
            "spectrum_id",
            "time",
            "object_id",
            "x",
            "y",
            "line",
            "instrument",
            "axis",
            "axis_unit",
        ),
        *("quantity", "t2", "q", "t2_process_limit", "q_process_limit", "trusted", "odd", "warm_up", "frozen"),
        *("reason", "model", "model_version", "error", "original"),
    )
)


@dataclass(frozen=True, slots=True)
class Frame(Rows):
    """Spectra of one line and instrument on one axis; of several sensors, the bands of one follow those of another.

    Attributes:
        spectra: (n, bands) float32 or uint16.
        spectrum_id: n texts, unique within the frame.
        time: (n,) datetime64[us], UTC; NaT if unknown.
        object_id: n texts that group several spectra of one object.
        x, y: (n,) float64, position on the belt; with a line camera, the pixel and the number of its line.
        targets: name -> (n,) float64, NaN where not measured.
        reference: "white" or "dark" if these spectra are a reference of the camera; else "".
    """

    line: str
    instrument: str
    axis: Axis
    quantity: str
    spectra: np.ndarray
    spectrum_id: list[str]
    time: np.ndarray
    object_id: list[str] | None = None
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    reference: str = ""

    def __len__(self) -> int:
        return len(self.spectrum_id)
