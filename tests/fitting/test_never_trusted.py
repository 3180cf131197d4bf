"""Rubbish is neither learned nor trusted: from files to predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tamis.models.axis import Axis

from ..support.spectra import simulate


def table(path: Path, axis: Axis, spectra: np.ndarray, values: np.ndarray) -> None:
    header = ",".join(["fat", *(f"{nm:g} nm" for nm in axis.values)])
    rows = [
        ",".join(map(repr, [value, *spectrum]))
        for value, spectrum in zip(values.tolist(), spectra.tolist(), strict=True)
    ]
    path.write_text("\n".join([header, *rows]))


def test_no_data_is_not_learned_and_never_trusted(grid: Axis, tmp_path: Path, here: Any) -> None:
    spectra, values = simulate(60, grid)
    spectra, fat = spectra.round(6), values[:, 0].round(4)
    table(tmp_path / "good.csv", grid, spectra, fat)
    spoiled = spectra.copy()
    spoiled[3, 20:26], spoiled[4], spoiled[5, 7] = -9999, 0.0, 1e30
    table(tmp_path / "spoiled.csv", grid, spoiled, np.where(np.arange(60) == 9, -9999, fat))
    table(tmp_path / "rest.csv", grid, np.delete(spectra, [3, 4, 5, 9], axis=0), np.delete(fat, [3, 4, 5, 9]))
    for name in ("spoiled", "rest"):
        done = here("fit", f"{name}.csv", "--target", "fat", "--name", name, "--store", "store")
        assert done.returncode == 0, done.stderr
        if name == "spoiled":
            for words in ("values of fat are -9999", "is -9999 (no data)", "is 1e+30 (no data)", "is 0 in all bands"):
                assert words in done.stderr, done.stderr
    served = {}
    for name in ("spoiled", "rest"):
        lines = json.dumps({"*": {"model": name}})
        done = here("worker", "--from", "spoiled.csv", "--to", name, "--store", "store", TAMIS_LINES=lines)
        assert done.returncode == 0, done.stderr
        rows = (tmp_path / name / "tamis.predictions.jsonl").read_text().splitlines()
        served[name] = [json.loads(row) for row in rows]
    np.testing.assert_allclose(*([row["fat"] for row in rows] for rows in served.values()), rtol=1e-6)
    trusted = {row["spectrum_id"]: row["trusted"] for row in served["spoiled"]}
    assert not any(trusted[f"spoiled-{2 + row}"] for row in (3, 4, 5)), "no data"
    assert sum(trusted.values()) >= 55
