"""scikit-learn's own checks of every estimator, none skipped: pandas and SCIPY_ARRAY_API are there for them."""

import unittest
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tamis.models.committee import CommitteeClassifier, CommitteeRegressor
from tamis.models.model import ESTIMATORS, estimator_class
from tamis.models.network_estimators import CNNClassifier, CNNRegressor, SpectraTrClassifier, SpectraTrRegressor
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.plsda import PLSDA

from ..support.models import brief

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
