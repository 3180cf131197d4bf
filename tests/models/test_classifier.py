"""Classes as targets: calibrated, with unknown materials reported, and served as they were fitted."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadBundle
from tamis.models.axis import Axis
from tamis.models.class_scores import UNKNOWN
from tamis.models.committee import CommitteeClassifier
from tamis.models.model import Model
from tamis.models.plsda import PLSDA
from tamis.models.serving.compiled import serve
from tamis.models.store import Store

from ..support.models import WAYS, allowed, brief, classified, serve_only
from ..support.spectra import frame, materials, strangers


def test_a_material_outside_the_training_is_called_unknown(grid: Axis) -> None:
    model = classified(grid)
    of_known = model.predict(materials(400, grid, seed=5)[0], grid)
    of_strange = model.predict(strangers(100, grid), grid)
    assert of_known.distance is not None
    assert of_strange.distance is not None
    assert np.mean(of_known.distance.min(axis=1) > 1) < 0.05
    assert np.mean(of_strange.distance.min(axis=1) > 1) > 0.95


@pytest.mark.parametrize("estimator", [PLSDA(), CommitteeClassifier()], ids=["pls-da", "committee"])
def test_probabilities_are_calibrated(grid: Axis, estimator: Any) -> None:
    """Classes that overlap: of the spectra called with 70 %, some 70 % are right."""
    rng = np.random.default_rng(3)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        spectra, sort = materials(n, grid, seed=int(rng.integers(1_000_000)))
        return spectra + rng.normal(0, 0.25, spectra.shape), sort

    X, y = draw(300)
    spectra, sort = draw(3_000)
    chance = estimator.fit(X, y).predict_proba(spectra)
    called, sure = estimator.classes_[chance.argmax(axis=1)], chance.max(axis=1)
    # Each class weighs the same in the probabilities, and so in the check of them.
    weight = 1 / np.unique(sort, return_counts=True)[1][np.unique(sort, return_inverse=True)[1]]
    for low, high in ((0.4, 0.6), (0.6, 0.8), (0.8, 0.95)):
        rows = (sure >= low) & (sure < high)
        right = np.average(called[rows] == sort[rows], weights=weight[rows])
        assert abs(right - np.average(sure[rows], weights=weight[rows])) < 0.12, (low, high, rows.sum())


@lru_cache
def classifier(kind: str, axis: Axis) -> Model:
    from tamis.models.network_estimators import CNNClassifier, SpectraTrClassifier

    made = {
        "pls-da": PLSDA, "committee-da": CommitteeClassifier,
        "cnn-da": lambda: brief(CNNClassifier, epochs=10), "spectratr-da": lambda: brief(SpectraTrClassifier, epochs=2),
    }[kind]()  # fmt: skip
    return classified(axis, made, n=90)


@pytest.mark.parametrize(
    ("kind", "way"),
    [*((kind, "") for kind in ("pls-da", "committee-da", "cnn-da", "spectratr-da")),
     *(("spectratr-da", way) for way in WAYS)],
)  # fmt: skip
def test_each_classifier_is_served_as_it_was_fitted(
    kind: str, way: str, grid: Axis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(kind, grid)
    store = Store(tmp_path)
    store.publish("sorts", model)
    if way:
        serve_only(way, monkeypatch)
    served = store.serve("sorts", "v0001")
    assert str(served.report.backend).startswith(way)
    assert (served.class_of, served.classes) == ("sort", ["PE", "PET", "PVC"])
    spectra = np.vstack([materials(20, grid, seed=4)[0], strangers(5, grid)])
    expected, got = model.predict(spectra, grid), served.predict(spectra.astype(np.float32), grid)
    np.testing.assert_allclose(got.values, expected.values, atol=max(2e-3, allowed(served)))
    assert got.distance is not None
    assert expected.distance is not None
    np.testing.assert_allclose(got.distance, expected.distance, rtol=1e-3)
    loaded, _ = store.load("sorts")
    np.testing.assert_allclose(loaded.predict(spectra, grid).values, expected.values, atol=1e-6)
    assert served.validation is not None
    assert len(served.validation.codes) == 90


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest, arrays: manifest.update(class_of=["sort"]), "expected the name of a column in class_of"),
        (lambda manifest, arrays: arrays.pop("simca.mean"), "simca.mean"),
        (lambda manifest, arrays: arrays.update({"simca.mean": arrays["simca.mean"][:, :3]}), "no model"),
        (lambda manifest, arrays: arrays.update({"calibration": arrays["calibration"][:, :2]}), "no model|no backend"),
        (lambda manifest, arrays: arrays.update({"validation.codes": arrays["validation.codes"] + 7}), "of 3 classes"),
        (lambda manifest, arrays: arrays.update({"validation.codes": arrays["validation.codes"] * 0}), "of each class"),
        (lambda manifest, arrays: arrays.pop("validation.probability"), "validation.probability"),
        (lambda manifest, arrays: manifest.update(targets=["sort=PE"]), "no model"),
    ],
)
def test_a_poisoned_bundle_of_classes_is_refused(change: Any, message: str, grid: Axis) -> None:
    manifest, arrays = classified(grid, n=60).to_parts()
    change(manifest, arrays)
    with pytest.raises(BadBundle, match=message):
        serve(manifest, arrays)


def test_a_line_reports_class_confidence_and_unknown(tamis_line: Any, grid: Axis) -> None:
    line = tamis_line()
    line.publish(classified(grid))
    spectra, sort = materials(30, grid, seed=6)
    line.arrives(frame(grid, 35, spectra=np.vstack([spectra, strangers(5, grid)]).astype(np.float32)))
    rows = line.run().predictions
    known, strange = rows[:30], rows[30:]
    assert np.mean([row["sort"] == name for row, name in zip(known, sort, strict=True)]) > 0.7
    assert all(abs(row["sort=PE"] + row["sort=PET"] + row["sort=PVC"] - 1) < 1e-9 for row in rows)
    assert {row["sort"] for row in strange} == {UNKNOWN}
    assert not any(row["trusted"] for row in strange)
    assert all("unknown: nearest to" in row["reason"] and "times its limit" in row["reason"] for row in strange)
    assert not any("sort=" in row["reason"] for row in rows), "a class that changes from object to object is not odd"
