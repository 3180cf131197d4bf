"""A random table as CSV, as Parquet and with a laboratory's file: the same calibration, or a clear refusal."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings

from tamis import BadFile
from tamis.models.store import Store
from tamis.streamer.fitting.fit import FitOptions, FitResult, fit_and_publish
from tamis.streamer.fitting.training_data import LaboratoryOptions

from ..support.random_tables import Form, forms, write

REFUSED = (
    r"may be part of the spectrum or not: .*--bands",
    r"'.*' may be .* or .*: the columns may be .*--bands",
    r"expected one unit for all wavelength columns",
    r"seems to be a spectrum: expected a header above it",  # all names are numbers
    r"expected at least 5 spectra with",
)
TO_JOIN = (
    *REFUSED,
    r"expected a column that names the (samples|spectra)",
    r"no value of column .* is in column",
    r"line \d+: expected \d+ cells, as the header has",  # 'Serial;00123' above 'id;5' seems to be the header
    r"no column '5'; columns of numbers",
    r"no column 'Code' to join by; available: Serial",
    r"line \d+: expected \d+ cells, as the header in line \d+ has",
    r"line \d+ is no header: expected the names of the columns",  # only '2019', below lines of the instrument
)


def refused_for(error: BadFile, causes: tuple[str, ...]) -> None:
    assert any(re.search(cause, str(error)) for cause in causes), error
    event("refused")


@pytest.mark.hypothesis
@pytest.mark.timeout(3_600)  # of `make fuzz`: 2,000 examples
@settings(
    max_examples=2_000 if settings().max_examples > 50 else 20,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=settings().max_examples <= 50,
)
@given(forms())
def test_a_calibration_is_the_same_from_csv_parquet_and_a_laboratory_s_file(form: Form) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = write(replace(form, rows=max(form.rows, 24)), Path(folder))
        key = "Code" if form.id_name == "Code" else None
        ways: dict[str, tuple[Path, LaboratoryOptions]] = {
            "parquet": (written.parquet, LaboratoryOptions()),
            "csv": (written.csv, LaboratoryOptions()),
        }
        if form.id_style != "none":
            ways["laboratory"] = (written.spectra_only, LaboratoryOptions(labels=written.laboratory, key=key))
        first: FitResult | None = None
        for way, (path, laboratory) in ways.items():
            options = FitOptions(
                targets=form.targets[:1],
                n_components=2,
                preprocess="snv",
                reading=written.reading,
                laboratory=laboratory,
            )
            try:
                result = fit_and_publish(path, options, Store(Path(folder) / way))
            except BadFile as error:
                refused_for(error, TO_JOIN if way == "laboratory" else REFUSED)
                continue
            event(f"fitted from {way}")
            first = first or result
            assert result.dropped == first.dropped
            order, first_order = (np.argsort(one.model.grid.values) for one in (result, first))
            np.testing.assert_allclose(
                result.model.estimator.coef_[order], first.model.estimator.coef_[first_order], rtol=1e-6, atol=1e-9
            )
            for figure in ("rmsec", "rmsecv"):
                assert result.metrics.get(figure) == pytest.approx(first.metrics.get(figure), rel=1e-6), way
