"""What a bundle holds, which backend computes it, and the model that a worker gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..applicability_domain import ApplicabilityDomain
from ..axis import Axis
from ..class_scores import Validation, probabilities
from ..model import Model, Result, class_names
from ..preprocess import Pipeline
from ..simca import Simca


class Backend(NamedTuple):
    """How to compute a model: networks by `engine` in `precision`, and the rest by numpy."""

    engine: str  # openvino or numpy
    precision: str
    rest: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}" + ("" if self.rest == "fp32" else f", rest {self.rest}")


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
    def validation(self) -> Validation | None:
        class_of = self.manifest.get("class_of", "")
        if not isinstance(class_of, str):
            raise ValueError(f"expected the name of a column in class_of, got {class_of!r:.80}")
        if not class_of:
            return None
        classes = class_names(class_of, self.manifest["targets"])
        calibration, k = self.arrays["calibration"], len(classes)
        if calibration.shape != (k + 1, k) or not np.isfinite(calibration).all():
            raise ValueError(f"expected a finite calibration of {k} classes, got shape {calibration.shape}")
        return Validation.from_arrays(classes, self.arrays)

    @property
    def simca(self) -> Simca | None:
        return Simca.from_arrays(self.arrays) if self.manifest.get("class_of") else None


class ServedModel:
    """A model as a worker uses it.

    Attributes:
        kind, grid, targets, units, quantity, class_of, classes, limits: as of `model.Model`.
        validation: for a model of classes, its out-of-fold predictions; else None.
        error_sd: target -> root mean square error of cross-validation, if it is known.
        encoder: for a committee that has one: `grid`, and `embed` for spectra on it; else None.
        report: how it is computed.
    """

    def __init__(
        self,
        parts: Parts,
        predict: Callable[[np.ndarray, Axis], Result],
        encoder: Any,
        model: Model | None,
        report: Report,
    ) -> None:
        manifest = parts.manifest
        self.kind: str = manifest["kind"]
        self.targets: list[str] = manifest["targets"]
        self.units: dict[str, str] = manifest["units"]
        self.quantity: str = manifest["quantity"]
        self.class_of: str = manifest.get("class_of", "")
        self.classes = class_names(self.class_of, self.targets)
        self.grid, self.limits = parts.pipeline.grid, (parts.domain if model is None else model).limits
        self.validation, self.encoder, self.report = parts.validation, encoder, report
        errors = manifest.get("metrics", {}).get("rmsecv", {})
        self.error_sd = {name: float(error) for name, error in errors.items()}
        self._predict, self._model = predict, model
        # Backends are compared by the scores: probabilities near 1 would hide their differences.
        self._calibration = parts.arrays["calibration"] if self.class_of else None

    def predict(self, spectra: np.ndarray, axis: Axis) -> Result:
        """(n, bands) of any numeric type, on any axis that covers the grid; raises AxisMismatch."""
        result = self._predict(spectra, axis)
        if self._calibration is not None:
            result = replace(result, values=probabilities(result.values, self._calibration))
        return result

    def spread(self, spectra: np.ndarray, axis: Axis) -> np.ndarray | None:
        """As `model.Model.spread`."""
        return None if self._model is None else self._model.spread(spectra, axis)
