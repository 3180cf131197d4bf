"""Objects under three sensors: an NIR spectrometer, a visible one, and a height."""

from __future__ import annotations

import numpy as np

from tamis.models.axis import Axis, Sensors
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline, usual_by_sensor

NIR, VISIBLE = Axis(np.linspace(1000.0, 1600.0, 61), "nm"), Axis(np.linspace(400.0, 700.0, 31), "nm")
HEIGHT = Axis(np.arange(1), "index")
SENSORS = Sensors({"spectrum": NIR, "visible": VISIBLE, "height": HEIGHT})
TREATED = usual_by_sensor(SENSORS, "savgol 7 2 1")


def measured(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, bands) of all sensors, and fat (n,): NIR sees fat and water, the visible fat and colour, the height water."""
    rng = np.random.default_rng(seed)
    fat, water, colour = rng.uniform(1.0, 5.0, (3, n, 1))
    nir = fat * _band(NIR, 1200, 40) + water * _band(NIR, 1400, 40)
    visible = 300 + 50 * fat * _band(VISIBLE, 480, 30) + 80 * colour * _band(VISIBLE, 600, 40)
    nir += 0.3 + rng.normal(0, 0.003, nir.shape)
    visible += rng.normal(0, 0.5, visible.shape)
    return np.hstack([nir, visible, 20 * water + rng.normal(0, 0.1, (n, 1))]), fat[:, 0]


def _band(axis: Axis, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((axis.values - centre) / width) ** 2)


def model_of_sensors() -> Model:
    """PLSR for `fat` on 60 objects."""
    spectra, fat = measured(60)
    return Model.fit(
        spectra, SENSORS, fat, ["fat"], pipeline=Pipeline.parse(TREATED), estimator=PLSR(6), quantity="absorbance"
    )
