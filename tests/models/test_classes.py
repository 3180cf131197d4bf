"""Classes as targets: calibrated, with unknown materials reported, and served as they were fitted."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadBundle
from tamis.models.axis import Axis
from tamis.models.class_scores import UNKNOWN, ClassScores, Verdict
from tamis.models.committee import CommitteeClassifier
from tamis.models.model import Model
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.serving.compiled import serve
from tamis.models.simca import Simca
from tamis.models.store import Store
from tamis.ssl.self_training import self_train
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.files.table import read_table

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


def test_a_limit_holds_for_spectra_that_the_components_have_not_seen() -> None:
    """Few spectra of many bands: in their own components they would lie far closer than the next ones do."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 80))

    def draw(n: int) -> np.ndarray:
        return rng.normal(size=(n, 6)) @ mixing + rng.normal(size=(n, 80))

    X, codes = np.vstack([draw(40), draw(40) + 5]), np.repeat([0, 1], 40)
    folds = [(np.flatnonzero(np.arange(80) % 5 != k), np.flatnonzero(np.arange(80) % 5 == k)) for k in range(5)]
    simca, own = Simca.fit(X, codes, folds)
    assert np.mean(simca.distance(draw(2_000))[:, 0] > 1) < 0.04
    assert np.mean(own > 1) < 0.06


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
    # Each class weighs the same in them; so it must where they are held against the truth.
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


def test_a_new_campaign_is_learned_from_its_unlabeled_spectra(grid: Axis) -> None:
    """Each class is moved by its own amount, as another campaign's optics would: what is surest pulls the rest over."""
    X, y = materials(200, grid)
    spectra, sort = materials(200, grid, seed=3)
    tilt = 0.9 * (grid.values - grid.values[0]) / np.ptp(grid.values)
    static = np.mean(PLSDA().fit(X, y).predict(spectra + tilt) == sort)
    adapted = np.mean(self_train(PLSDA(), X, y, spectra + tilt).predict(spectra + tilt) == sort)
    assert adapted >= static


def test_what_lies_in_two_classes_is_ambiguous_and_what_lies_in_one_or_none_is_not() -> None:
    distance = np.array([[0.3, 0.6, 2.0], [0.9, 5.0, 0.95], [0.2, 1.01, 3.0], [1.2, 1.3, 1.4], [0.0, 0.0, 9.0]])
    ambiguity = Verdict(np.array(["a", "b", "c"]), np.full((5, 3), 1 / 3), distance).ambiguity
    np.testing.assert_allclose(ambiguity, [0.5, 0.9 / 0.95, 0, 0, 0])


def test_figures_of_merit_count_unknown_against_recovery_and_not_against_purity() -> None:
    scores = ClassScores.of(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 2, 1, 1, 1]), 2)
    np.testing.assert_allclose(scores.recovery, [0.5, 1.0])
    np.testing.assert_allclose(scores.purity, [1.0, 2 / 3])
    assert scores.balanced_accuracy == 0.75


@pytest.fixture
def sorts(grid: Axis, tmp_path: Path) -> Path:
    """90 spectra of three sorts, each object twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    spectra, sort = materials(90, grid)
    path = tmp_path / "sorts.parquet"
    write_parquet(path, [frame(grid, 90, spectra=spectra.astype(np.float32))])
    table = pq.read_table(path)
    columns = {
        "sort": sort,
        "item": [f"i{i // 2}" for i in range(90)],
        "day": ["mon" if i < 60 else "tue" for i in range(90)],
        "share": np.linspace(0, 1, 90).tolist(),
    }
    for name, values in columns.items():
        table = table.append_column(name, pa.array(list(values)))
    pq.write_table(table, path)
    return path


def test_fit_and_compare_as_a_user_types_them(sorts: Path, tmp_path: Path, here: Any) -> None:
    done = here("fit", "sorts.parquet", "--target", "sort", "--group", "item", "--store", "s")
    assert done.returncode == 0, done.stderr
    assert "pls-da on 90 spectra" in done.stdout
    assert "out of fold: balanced accuracy" in done.stdout
    words = ["--group", "item", "--test", "day=tue", "--hide", "PVC", "--models", "pls-da,pls-da-self,committee"]
    done = here("compare", "sorts.parquet", "--target", "sort", *words, "--json", "c.json", "--html", "c.html")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["classes"] == ["PE", "PET"]
    assert {cell["model"] for cell in found["cells"]} == {"pls-da", "pls-da-self", "committee"}
    assert all(0.5 < cell["balanced_accuracy"] <= 1 for cell in found["cells"])
    assert "as PET" in (tmp_path / "c.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "--target", "sort", "--target", "item"), "expected one target if it holds classes"),
        (("fit", "--target", "item"), "expected at least 5 spectra of each class in column 'item', got 2 of i0"),
        (("fit", "--target", "sort", "--model", "local-pls"), "column 'sort' holds classes, and local-pls cannot"),
        (
            ("compare", "--target", "sort", "--models", "best"),
            "unknown model 'best' of classes; known: plsr, pls-da, committee",
        ),
        (("compare", "--target", "sort", "--test", "day=sun"), "column 'day': no row has 'sun'; values there: "),
        (("compare", "--target", "sort", "--hide", "Glass"), "column 'sort': no row has 'Glass'; values there: "),
        (("compare", "--target", "sort", "--test", "month=may"), "no column 'month'"),
        (
            ("compare", "--target", "share", "--test", "day=tue"),
            "--test and --hide are for a target of classes: share is",
        ),
    ],
)
def test_a_target_that_makes_no_classes_is_refused_by_name(
    words: tuple[str, ...], message: str, sorts: Path, here: Any
) -> None:
    command, *rest = words
    done = here(command, sorts, *rest)
    assert done.returncode in (1, 2)
    assert message in done.stderr, done.stderr


def test_polymers_of_another_campaign(shared_data: Path) -> None:
    """A static PCA with logistic regression has .860 there."""
    table = read_table(shared_data / "plastics_scanner_nir.parquet")
    sort, item, campaign = (table.columns[name] for name in ("label", "item", "campaign"))
    known = np.isin(sort, ["PET", "HDPE", "PP", "PS"]) & np.isfinite(table.spectra).all(axis=1)
    first = known & (campaign == "20230419")
    others = known & ~first
    treat = Pipeline.parse("snv, savgol 15 2 1")
    X, y = treat.fit(table.spectra[first], table.axis), sort[first]
    is_test = np.isin(item, np.unique(item[others])[::2]) & others
    seen, asked = (treat.transform(table.spectra[rows], table.axis) for rows in (others & ~is_test, is_test))
    model = self_train(PLSDA(), X, y, seen, item[first])
    called = np.searchsorted(model.classes_, model.predict(asked))
    assert ClassScores.of(np.searchsorted(model.classes_, sort[is_test]), called, 4).balanced_accuracy >= 0.9
