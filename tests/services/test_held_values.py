"""Laboratory values that are not plausible: held by the trainer, named, and learned once a second value agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.services.trainer import Trainer

from ..support.spectra import simulate
from ..support.trainer import Line


def test_a_mistyped_first_value_changes_no_prediction_until_it_is_corrected(
    tmp_path: Path, model: Model, grid: Axis
) -> None:
    line = Line(tmp_path, model)
    spectra, fat = simulate(20, grid, 5)
    before = line.predict(spectra, grid)
    ids = line.spectra(spectra, grid)
    line.labels(ids[:1], 100 * fat[:1, 0])
    trainer = Trainer(line.settings, line.source, line.store)
    trainer.run()
    np.testing.assert_array_equal(line.predict(spectra, grid), before)
    (verdict,) = line.verdicts
    assert verdict["outcome"] == "held"
    assert "fat of s0" in verdict["reason"]
    assert "a hundred times too high" in verdict["reason"]
    assert b"tamis_labels_held 1.0" in trainer.meters.exposition()
    line.labels(ids[:1], fat[:1, 0])
    trainer = Trainer(line.settings, line.source, line.store)
    trainer.run()
    assert b"tamis_labels_held 0.0" in trainer.meters.exposition()
    assert line.verdicts[-1]["outcome"] == "promoted"
    assert np.abs(line.predict(spectra, grid) - before).max() < 0.2 * fat[:, 0].std()


def test_an_implausible_value_counts_once_it_is_given_again_by_another_message(
    tmp_path: Path, model: Model, grid: Axis
) -> None:
    line = Line(tmp_path, model)
    spectra, fat = simulate(20, grid, 5)
    ids = line.spectra(spectra, grid)
    line.labels(ids[:1], fat[:1, 0] + 0.1)
    assert [verdict["outcome"] for verdict in line.run().verdicts] == ["held"]
    line.run()
    assert {verdict["outcome"] for verdict in line.verdicts} == {"held"}, "the same message, read twice, is no repeat"
    line.labels(ids[:1], fat[:1, 0] + 0.1)
    assert line.run().verdicts[-1]["outcome"] == "promoted"
    assert line.store.manifest("default")["training"]["labels"] == 60 + 1


def test_values_in_another_unit_are_held_and_named(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model)
    spectra, fat = simulate(20, grid, 9)
    line.labels(line.spectra(spectra, grid), 10 * fat[:, 0])
    (verdict,) = line.run().verdicts
    assert (verdict["outcome"], line.store.current("default")) == ("held", "v0001")
    assert verdict["reason"].count("ten times too high: a decimal point, or g/kg for %?") == 3
    assert "and 17 more" in verdict["reason"]
