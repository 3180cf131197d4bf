"""scikit-learn's own checks of every estimator, none skipped: pandas and SCIPY_ARRAY_API are there for them."""

import unittest
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeClassifier, CommitteeRegressor
from tamis.models.model import ESTIMATORS, estimator_class
from tamis.models.network_estimators import CNNClassifier, CNNRegressor, SpectraTrClassifier, SpectraTrRegressor
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.plsda import PLSDA

from ..support.models import brief
from ..support.spectra import materials, simulate

# Each check fits on tens of rows of a few bands; the networks' settings make one fit of it a fraction of a second.
ALL = [
    PLSR(n_components=1),
    LocalPLS(n_components=2, n_neighbors=20, distance_components=2),
    CommitteeRegressor(),
    PLSDA(),
    brief(CNNRegressor, epochs=10, batch_size=64, learning_rate=1e-2),
    brief(SpectraTrRegressor, epochs=3, batch_size=64),
    CommitteeClassifier(),
    brief(CNNClassifier, epochs=4, batch_size=64, learning_rate=2e-2),
    brief(SpectraTrClassifier, epochs=2, batch_size=64),
]


@parametrize_with_checks(ALL)
def test_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    try:
        check(estimator)
    except (unittest.SkipTest, pytest.skip.Exception) as skipped:
        pytest.fail(f"a check was skipped: {skipped}")


def test_every_estimator_is_among_them() -> None:
    assert {type(estimator) for estimator in ALL} >= {estimator_class(kind) for kind in ESTIMATORS}


PLS = {"x_mean", "rotations", "loadings"}
COMMITTEE = {"members", "bands", "weights_", "rmsecv_", "y_mean_", "y_sd_", "fold", "spreads", "scores", "y_ndim"}
NETWORK = {"x_mean", "x_sd", "y_mean", "y_sd", "y_ndim"}
CLASSES = {"classes", "calibration"}
BUNDLED = {
    "plsr": {*PLS, "y_mean", "y_loadings", "y_ndim"},
    "local-pls": {"X", "Y", "y_ndim"},
    "committee": COMMITTEE,
    "pls-da": {*PLS, "whitening", "centres", *CLASSES},
    "committee-da": {*COMMITTEE, *CLASSES},
    "cnn": NETWORK,
}


@pytest.mark.parametrize("kind", BUNDLED)
def test_the_arrays_of_a_bundle_keep_their_names(kind: str, grid: Axis) -> None:
    """Stored models must load with every later version."""
    estimator = brief(estimator_class(kind), epochs=1) if kind == "cnn" else estimator_class(kind)()
    spectra, values = materials(40, grid) if kind.endswith("-da") else simulate(40, grid)
    arrays = estimator.fit(np.asarray(spectra), values).arrays()
    assert {name for name in arrays if "." not in name} == BUNDLED[kind]
    groups = {name.split(".")[0] for name in arrays if "." in name}
    assert groups <= {"domain", "simca", "validation", "treatment", "member", "network"}
