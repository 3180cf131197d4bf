"""Frames and references of a small line camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from tamis.models.axis import Axis
from tamis.streamer.messages.frame import Frame
from tamis.streamer.processing.camera import Camera
from tamis.streamer.settings.tables import Camera as Table

NM = Axis(np.linspace(950, 1700, 12), "nm")
PIXELS = 9
START = np.datetime64("2026-01-02T03:04:05", "us")


def shot(spectra: np.ndarray, y: int = 0, x: int = 0, pixels: int = PIXELS, **changes: Any) -> Frame:
    """Camera lines of so many pixels, from pixel `x` of line `y` on."""
    n = len(spectra)
    down, across = np.divmod(x + np.arange(n), pixels)
    made = Frame("belt", "camera", NM, "counts", spectra.astype(np.float32), [f"{y}-{i}" for i in range(n)],
                 np.full(n, START), x=across.astype(float), y=(y + down).astype(float))  # fmt: skip
    return replace(made, **changes)


def references() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    dark = rng.uniform(100, 200, (PIXELS, 12))
    return dark + rng.uniform(1000, 3000, (PIXELS, 12)), dark


def camera(folder: Path | None = None, pixels: int = PIXELS, **table: Any) -> Camera:
    return Camera(Table(pixels=pixels, **table), folder and folder / "kept.safetensors")


def labelled(image: np.ndarray) -> tuple[np.ndarray, int]:
    labels = np.zeros(image.shape, np.int64)
    return labels, int(ndimage.label(image, np.ones((3, 3), int), output=labels))  # type: ignore[arg-type]
