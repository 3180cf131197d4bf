"""The models that `two_sensors` compares: of one sensor, of several, with and without unlabeled spectra.

References:
    SO-PLS: Naes, Tomic, Mevik & Martens, J. Chemometrics 25 (2011) 28-40, doi 10.1002/cem.1357.
    Block scaling: Westerhuis, Kourti & MacGregor, J. Chemometrics 12 (1998) 301-321,
    doi 10.1002/(SICI)1099-128X(199809/10)12:5<301::AID-CEM515>3.0.CO;2-S.
    Stacking: Breiman, Machine Learning 24 (1996) 49-64, doi 10.1007/BF00117832.
    Canonical correlation: Hotelling, Biometrika 28 (1936) 321-377, doi 10.1093/biomet/28.3-4.321; for regression with
    few labels: Kakade & Foster, COLT 2007, 82-96, doi 10.1007/978-3-540-72927-3_8. PLS-SVD of two blocks: Streissguth,
    Bookstein, Sampson & Barr, The Enduring Effects of Prenatal Alcohol Exposure (1993); Wegelin, Univ. of Washington
    TR 371 (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeClassifier, CommitteeRegressor
from tamis.models.committee_members import _fit_linear, _pls_path, member_weights, ridge_path, weights_by_error
from tamis.models.cross_validation import Folds, folds_of
from tamis.models.model_selection import choose_class_pretreatment, choose_pretreatment
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.several_sensors import Canonical, learn_shared, sensors_axis
from tamis.models.weighted_pls import weighted_pls

Errors = tuple[float, float]  # in cross-validation within the 30, and on test rows
Out = tuple[np.ndarray, np.ndarray]  # predictions of the 30 out of fold, and of test rows
ONE_SENSOR = "sensor "
# Shown for each response.
REFERENCES = ("PLSR, blocks scaled", "weighted CCA, unlabeled", "mean of two committees", "PLS-DA, blocks scaled",
              "committee of sensors", "committee of sensors, unlabeled")  # fmt: skip
BY_HAND = 10  # principal components of each sensor for CCA without shrinkage
SO_MOST = 6  # latent variables of each block


def values_models(
    sensors: Sequence[np.ndarray], y: np.ndarray, lab: np.ndarray, pool: np.ndarray, test: np.ndarray, draw: int
) -> dict[str, Errors]:
    """Of each model by name; sensors (n, bands) each, y (n,), rows of the 30, of all unlabeled spectra, of the test."""
    mean, sd = y[lab].mean(), y[lab].std()
    target = (y[lab] - mean) / sd
    folds = folds_of(len(lab), 10, draw)
    treated = [_treated(spectra, y, lab, pool, draw) for spectra in sensors]
    scaled = [(Z - Z[pool].mean(axis=0)) / np.sqrt(Z[pool].var(axis=0).sum()) for Z in treated]
    together = np.hstack(scaled)

    def linear(Z: np.ndarray, path: Any = _pls_path) -> Out:
        fit, out, _ = _fit_linear(path, Z[lab], target, folds)
        return out, fit.predict(Z[test])[:, 0]

    def committee(X: np.ndarray, **parameters: Any) -> Out:
        made = CommitteeRegressor(random_state=draw, **parameters).fit(X[lab], target)
        return made.unseen_[:, 0], made.predict(X[test])

    def stack(*outs: Out) -> Out:
        of_lab, of_test = (np.column_stack([out[i] for out in outs]) for i in (0, 1))
        weights = member_weights(of_lab, target, weights_by_error(of_lab, target))
        return of_lab @ weights, of_test @ weights

    pls = [linear(Z) for Z in treated]
    ridge = [linear(Z, ridge_path) for Z in scaled]
    committees = [committee(X) for X in sensors]
    blocks = [X.shape[1] for X in sensors]
    raw = np.hstack([X / np.sqrt(X[pool].var(axis=0).sum()) for X in sensors])
    shared = learn_shared(raw[pool], blocks)
    sizes = [Z.shape[1] for Z in scaled]
    shrunken = linear(_canonical(together, sizes, pool), ridge_path)
    by_hand = linear(_by_hand(scaled, pool), ridge_path)
    outs = {f"{ONE_SENSOR}{k + 1}, PLSR": out for k, out in enumerate(pls)}
    outs |= {f"{ONE_SENSOR}{k + 1}, committee": out for k, out in enumerate(committees)}
    outs |= {
        "PLSR, plain concatenation": linear(np.hstack(treated)),
        "PLSR, blocks scaled": linear(together),
        "ridge, blocks scaled": linear(together, ridge_path),
        "SO-PLS": _so_pls(scaled, target, lab, test, folds),
        "mean of two PLSR": (np.mean([out for out, _ in pls], axis=0), np.mean([new for _, new in pls], axis=0)),
        "stack of two PLSR": stack(*pls),
        "principal components, unlabeled (control)": linear(_principal(together, pool), ridge_path),
        "weighted CCA, the 30 alone": linear(_by_hand(scaled, lab), ridge_path),
        "weighted CCA, unlabeled": by_hand,
        "PLS-SVD, unlabeled": linear(_by_hand(scaled, pool, whiten=False), ridge_path),
        "shrunken CCA, the 30 alone": linear(_canonical(together, sizes, lab), ridge_path),
        "shrunken CCA, unlabeled": shrunken,
        "stack of linear models": stack(*pls, *ridge, linear(together, ridge_path)),
        "stack of linear models and CCA, unlabeled": stack(*pls, *ridge, linear(together, ridge_path), shrunken),
        "mean of two committees": tuple(np.mean([out[i] for out in committees], axis=0) for i in (0, 1)),
        "stack of two committees": stack(*committees),
        "committee, plain concatenation": committee(raw),
        "committee of sensors": committee(raw, blocks=blocks),
        "committee of sensors, unlabeled": committee(raw, blocks=blocks, shared=shared),
    }
    true = (y[test] - mean) / sd
    return {name: (_rmse(out - target), _rmse(new - true)) for name, (out, new) in outs.items()}


def _rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))


def _treated(spectra: np.ndarray, y: np.ndarray, lab: np.ndarray, pool: np.ndarray, draw: int) -> np.ndarray:
    """(n, bands) -> (n, bands'), with what suits this sensor best in cross-validation within the 30."""
    axis = Axis(np.arange(spectra.shape[1]), "index")
    text, _, _ = choose_pretreatment(spectra[lab], axis, y[lab], None, draw)
    pipeline = Pipeline.parse(text)
    pipeline.fit(spectra[pool], axis)
    return pipeline.transform(spectra, axis)


def _principal(Z: np.ndarray, rows: np.ndarray, most: int = 20) -> np.ndarray:
    """(n, bands) -> (n, at most 20): scores on the principal components of some rows."""
    mean = Z[rows].mean(axis=0)
    _, _, along = np.linalg.svd(Z[rows] - mean, full_matrices=False)
    return (Z - mean) @ along[: min(most, len(rows) - 1)].T


def _by_hand(scaled: Sequence[np.ndarray], rows: np.ndarray, *, whiten: bool = True) -> np.ndarray:
    """Canonical variables of the first ten principal components by some rows, times their correlation there.

    With `whiten` false those of the greatest covariance, each sensor's by itself, times their share of the largest.
    """
    scores = [_principal(Z, rows, BY_HAND) for Z in scaled]
    if whiten:
        scores = [one / one[rows].std(axis=0) for one in scores]
    left, size, right = np.linalg.svd(scores[0][rows].T @ scores[1][rows] / len(rows), full_matrices=False)
    first, second = scores[0] @ left, scores[1] @ right.T
    return (first + second) * size if whiten else np.hstack([first, second]) * np.tile(size / size[0], 2)


def _canonical(together: np.ndarray, sizes: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """As the product learns it."""
    step = Canonical(tuple(sizes))
    step.fit(together[rows], sensors_axis(sizes))
    return step(together)


def _so_pls(scaled: Sequence[np.ndarray], y: np.ndarray, lab: np.ndarray, test: np.ndarray, folds: Folds) -> Out:
    """Both orders; latent variables of the first block, then of what the second adds, by cross-validation."""
    best: tuple[float, Out] = (np.inf, (y, y))
    for first, second in (scaled, scaled[::-1]):
        X, Z = first[lab], second[lab]
        for a in range(SO_MOST + 1):
            out = np.empty((len(y), SO_MOST + 1))
            for rows, held_out in folds:
                out[held_out] = _sequential(X[rows], Z[rows], y[rows], X[held_out], Z[held_out], a)
            errors = ((out - y[:, None]) ** 2).mean(axis=0)
            if errors.min() < best[0]:
                b = int(errors.argmin())
                best = float(errors[b]), (out[:, b], _sequential(X, Z, y, first[test], second[test], a)[:, b])
    return best[1]


def _sequential(
    X: np.ndarray, Z: np.ndarray, y: np.ndarray, new_X: np.ndarray, new_Z: np.ndarray, a: int
) -> np.ndarray:
    """(m, 7): with a latent variables of X, then 0 to 6 of Z's part that is orthogonal to them."""
    fit = weighted_pls(X, y[:, None], max(a, 1))
    rotations = fit.rotations[:, :a]
    scores, new = (X - fit.x_mean) @ rotations, (new_X - fit.x_mean) @ rotations
    start = y.mean() + new @ fit.y_loadings[0, :a]
    rest = y - y.mean() - scores @ fit.y_loadings[0, :a]
    onto = np.linalg.pinv(scores) @ (Z - Z.mean(axis=0))
    added = weighted_pls(Z - Z.mean(axis=0) - scores @ onto, rest[:, None], SO_MOST)
    further = added.predict_components(new_Z - Z.mean(axis=0) - new @ onto)[:, :, 0]
    return start[:, None] + np.column_stack([np.zeros(len(new)), further])


def classes_models(
    sensors: Sequence[np.ndarray], y: np.ndarray, lab: np.ndarray, pool: np.ndarray, test: np.ndarray, draw: int
) -> dict[str, Errors]:
    """As `values_models`, for names of classes: one less the balanced accuracy."""
    names = y[lab]
    codes, true = (np.searchsorted(np.unique(names), some) for some in (names, y[test]))

    def fitted(model: Any, X: np.ndarray) -> Out:
        """Probabilities of the 30 out of fold, and of test rows."""
        model.fit(X[lab], names)
        return model.validation_.probability, model.predict_proba(X[test])

    blocks = [X.shape[1] for X in sensors]
    raw = np.hstack([X / np.sqrt(X[pool].var(axis=0).sum()) for X in sensors])
    shared = learn_shared(raw[pool], blocks)
    treated = [_treated_for_classes(X, y, lab, pool, draw) for X in sensors]
    together = np.hstack([(Z - Z[pool].mean(axis=0)) / np.sqrt(Z[pool].var(axis=0).sum()) for Z in treated])
    sizes = [Z.shape[1] for Z in treated]
    pls = [fitted(PLSDA(random_state=draw), Z) for Z in treated]
    # A height alone is too little for a committee.
    committees = [fitted(CommitteeClassifier(random_state=draw), X) for X in sensors if X.shape[1] > 1]
    outs: dict[str, Out] = {f"{ONE_SENSOR}{k + 1}, PLS-DA": out for k, out in enumerate(pls)}
    outs |= {f"{ONE_SENSOR}{k + 1}, committee": out for k, out in enumerate(committees)}
    outs |= {
        "PLS-DA, plain concatenation": fitted(PLSDA(random_state=draw), np.hstack(treated)),
        "PLS-DA, blocks scaled": fitted(PLSDA(random_state=draw), together),
        "mean of one PLS-DA a sensor": tuple(np.mean([out[i] for out in pls], axis=0) for i in (0, 1)),
        "PLS-DA on shrunken CCA, unlabeled": fitted(PLSDA(random_state=draw), _canonical(together, sizes, pool)),
        "mean of one committee a sensor": tuple(np.mean([out[i] for out in committees], axis=0) for i in (0, 1)),
        "committee, plain concatenation": fitted(CommitteeClassifier(random_state=draw), raw),
        "committee of sensors": fitted(CommitteeClassifier(blocks=blocks, random_state=draw), raw),
        "committee of sensors, unlabeled": fitted(
            CommitteeClassifier(blocks=blocks, shared=shared, random_state=draw), raw
        ),
    }
    return {name: (_missed(codes, out), _missed(true, new)) for name, (out, new) in outs.items()}


def _missed(true: np.ndarray, probability: np.ndarray) -> float:
    hit = probability.argmax(axis=1) == true
    return 1 - float(np.mean([hit[true == code].mean() for code in np.unique(true)]))


def _treated_for_classes(
    spectra: np.ndarray, names: np.ndarray, lab: np.ndarray, pool: np.ndarray, draw: int
) -> np.ndarray:
    axis = Axis(np.arange(spectra.shape[1]), "index")
    is_spectrum = spectra.shape[1] >= 15
    text = choose_class_pretreatment(spectra[lab], axis, names[lab], None, draw) if is_spectrum else "autoscale"
    pipeline = Pipeline.parse(text)
    pipeline.fit(spectra[pool], axis)
    return pipeline.transform(spectra, axis)
