"""Models that are fitted quickly, and the precision of a served network."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.serving import compiled
from tamis.models.serving.compiled import TOLERANCE, ServedModel, serve
from tamis.models.serving.networks import precisions
from tamis.models.serving.parts import Backend, Parts

from .spectra import materials

Network = TypeVar("Network")

# The backends of a network. The processor decides which one is used, so tolerances depend on its precision.
WAYS = ["openvino bf16", "openvino fp32", "numpy fp32", "numpy fp64"]


def brief(network: type[Network], **parameters: Any) -> Network:
    """An estimator that is fitted quickly, on one core."""
    return network(**{"epochs": 3, "n_threads": 1, "device": "cpu", **parameters})


def classified(axis: Axis, estimator: Any = None, n: int = 200) -> Model:
    """A model of the three classes of `materials`."""
    spectra, sort = materials(n, axis)
    parts = {"pipeline": Pipeline.parse("snv, savgol 7 2 1"), "estimator": estimator or PLSDA()}
    return Model.fit(spectra, axis, sort, ["sort"], **parts, quantity="absorbance")


def serve_model(model: Model, threads: int = 0) -> ServedModel:
    """A model compiled as if it came from the store."""
    return serve(*model.to_parts(), model.calibration, threads)


def serve_only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets models be served in one way alone, such as "openvino bf16"; skips the test where there is no such way."""
    backend, precision = way.split()
    if backend == "openvino" and precision not in precisions():
        pytest.skip(f"{way}: not on this processor, or OpenVINO is not installed")
    backends = compiled._backends

    def chosen(parts: Parts) -> list[Backend]:
        return [one for one in backends(parts) if str(one).split(",")[0] == way]

    monkeypatch.setattr(compiled, "_backends", chosen)


def allowed(served: ServedModel) -> float:
    """How far served values may be from the fitted model's, in sd; depends on the backend's precision."""
    return TOLERANCE[served.report.backend.precision]
