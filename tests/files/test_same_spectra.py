"""One random table as CSV and as Parquet: both are read as what was written, or refused for a cause that is named."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings

from tamis import BadFile
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import BadRowInFile
from tamis.streamer.files.table import Table

from ..support.random_tables import Form, Truth, forms, write

# Refusals of what cannot be known: '2019' beside bands of 950 to 969 is a target or a band.
REFUSED = (
    r"may be part of the spectrum or not: .*--bands",
    r"'.*' may be .* or .*: the columns may be .*--bands",
    r"expected one unit for all wavelength columns",
)


def same_as(table: Table, truth: Truth) -> None:
    order = np.argsort(table.axis.values)
    np.testing.assert_allclose(table.axis.values[order], truth.axis, rtol=1e-12)
    np.testing.assert_array_equal(table.spectra[:, order], truth.spectra)
    assert set(table.columns) == set(truth.columns)
    for name, values in truth.columns.items():
        got = table.columns[name]
        assert got.dtype.kind == values.dtype.kind, name
        np.testing.assert_array_equal(got, values, name)


@pytest.mark.hypothesis
@settings(
    max_examples=2_000 if settings().max_examples > 50 else 50,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=settings().max_examples <= 50,
)
@given(forms())
def test_a_table_is_the_same_from_csv_and_parquet_or_refused(form: Form) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = write(form, Path(folder))
        for path in (written.parquet, written.csv):
            bad: list[BadRowInFile] = []
            try:
                table = read_table(path, written.reading, on_bad_row=bad.append, on_note=lambda path, note: None)
            except BadFile as error:
                assert any(re.search(cause, str(error)) for cause in REFUSED), error  # noqa: PT017
                event("refused")
                continue
            event("read")
            assert not bad
            same_as(table, written.truth)
