"""What a bundle holds, and which backend computes it."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..applicability_domain import ApplicabilityDomain
from ..class_scores import Validation
from ..instruments import Instruments
from ..model import class_names
from ..prediction_interval import PredictionInterval
from ..preprocess import Pipeline
from ..simca import Simca


class Backend(NamedTuple):
    """How to compute a model: networks by `engine` in `precision`, and the rest by numpy."""

    engine: str  # openvino or numpy
    precision: str
    rest: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}" + ("" if self.rest == "fp32" else f", rest {self.rest}")


DTYPE: dict[str, type] = {"fp32": np.float32, "fp64": np.float64}
NUMPY = [Backend("numpy", "fp32", "fp32"), Backend("numpy", "fp64", "fp64")]


@dataclass(frozen=True)
class Report:
    """The backend that serves, its error against float64 in sd of the values, and why others were refused."""

    backend: Backend
    error: float
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """What a bundle holds, read but not yet compiled."""

    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]
    pipeline: Pipeline

    @property
    def domain(self) -> ApplicabilityDomain:
        return ApplicabilityDomain.from_arrays(self.arrays)

    @property
    def kind(self) -> str:
        """The kind that computes the values, or the scores of classes."""
        kind = self.manifest["kind"]
        return kind if kind == "pls-da" else kind.removesuffix("-da")

    @property
    def classes(self) -> list[str]:
        return class_names(self.manifest.get("class_of", ""), self.manifest["targets"])

    @property
    def validation(self) -> Validation | None:
        class_of = self.manifest.get("class_of", "")
        if not isinstance(class_of, str):
            raise ValueError(f"expected the name of a column in class_of, got {class_of!r:.80}")
        if not class_of:
            return None
        calibration, k = self.arrays["calibration"], len(self.classes)
        if calibration.shape != (k + 1, k) or not np.isfinite(calibration).all():
            raise ValueError(f"expected a finite calibration of {k} classes, got shape {calibration.shape}")
        return Validation.from_arrays(self.classes, self.arrays)

    @property
    def interval(self) -> PredictionInterval | None:
        return PredictionInterval.from_arrays(self.arrays, len(self.manifest["targets"]))

    @property
    def instruments(self) -> Instruments:
        return Instruments.from_parts(self.manifest, self.arrays, len(self.pipeline.grid))

    @property
    def simca(self) -> Simca | None:
        return Simca.from_arrays(self.arrays) if self.manifest.get("class_of") else None

    @property
    def about_encoder(self) -> Any:
        """The kind, grid and pre-treatment of a committee's encoder by name; None where it has none."""
        return json.loads(self.arrays["encoder.about"].tobytes()) if "encoder.about" in self.arrays else None
