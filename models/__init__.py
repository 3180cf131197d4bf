"""Calibration models for spectra. Each name is loaded at its first use, so that PLSR imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import require_learn

if TYPE_CHECKING:
    from .axis import Axis
    from .committee import CommitteeClassifier, CommitteeRegressor
    from .model import Model
    from .network_estimators import CNNClassifier, CNNRegressor, SpectraTrClassifier, SpectraTrRegressor
    from .pls import PLSR, LocalPLS
    from .plsda import PLSDA
    from .preprocess import Pipeline
    from .store import Store

__all__ = [
    "PLSDA", "PLSR", "Axis", "CNNClassifier", "CNNRegressor", "CommitteeClassifier", "CommitteeRegressor", "LocalPLS",
    "Model", "Pipeline", "SpectraTrClassifier", "SpectraTrRegressor", "Store",
]  # fmt: skip

_NETWORKS = ("CNNClassifier", "CNNRegressor", "SpectraTrClassifier", "SpectraTrRegressor")
_MODULES = {
    **dict.fromkeys(_NETWORKS, "network_estimators"),
    **dict.fromkeys(("CommitteeClassifier", "CommitteeRegressor"), "committee"),
    **dict.fromkeys(("PLSR", "LocalPLS"), "pls"),
    **{"Axis": "axis", "Model": "model", "PLSDA": "plsda", "Pipeline": "preprocess", "Store": "store"},
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _NETWORKS:
        require_learn(name)
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
