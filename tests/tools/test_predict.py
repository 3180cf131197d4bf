"""`tamis predict`: files in, a table out."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook

from tamis import BadFile, BadSettings
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.tools import predict as tool
from tamis.streamer.tools.predict import Summary, form_of, predict

from ..support.models import classified
from ..support.spectra import simulate
from ..support.two_sensors import NIR, measured, model_of_sensors

N = 700  # more than one block
READ = ReadOptions(axis_unit="nm", on_bad_row=str)


@pytest.fixture
def store(tmp_path: Path, grid: Axis) -> Store:
    store = Store(tmp_path / "store")
    spectra, values = simulate(60, grid)
    for components in (2, 3):
        model = Model.fit(
            spectra, grid, values, ["fat", "water"], pipeline=Pipeline(), estimator=PLSR(n_components=components)
        )
        store.publish("meat", model)
    return store


@pytest.fixture
def file(tmp_path: Path, grid: Axis) -> Path:
    spectra, _ = simulate(N, grid, seed=1)
    lines = [",".join(["spectrum_id", *map(repr, grid.values.tolist())])]
    lines += [",".join([f"=s{i}", *map(repr, row.tolist())]) for i, row in enumerate(spectra)]
    lines.insert(5, ",".join(["broken", *["x"] * len(grid)]))
    path = tmp_path / "monday.csv"
    path.write_text("\n".join(lines))
    return path


def run(store: Store, file: Path, out: Path, version: str | None = None) -> Summary:
    return predict(store, "meat", version, file, out, form_of(out, None), READ)


@pytest.mark.parametrize("form", ["csv", "parquet", "xlsx"])
def test_a_row_for_each_spectrum_with_what_the_model_predicts(form: str, store: Store, file: Path, grid: Axis) -> None:
    out = file.with_name(f"out.{form}")
    assert run(store, file, out)[::2] == (N, 1)  # the broken row is counted
    rows: list[dict[str, Any]]
    if form == "xlsx":
        assert load_workbook(out).worksheets[0]["A2"].data_type == "s"  # not a formula
        head, *body = load_workbook(out).worksheets[0].iter_rows(values_only=True)
        rows = [dict(zip(map(str, head), row, strict=True)) for row in body]
    else:
        rows = (pyarrow.csv.read_csv if form == "csv" else pq.read_table)(out).to_pylist()
    assert [row["spectrum_id"] for row in rows] == [f"=s{i}" for i in range(N)]
    expected = store.load("meat")[0].predict(simulate(N, grid, seed=1)[0], grid).values
    np.testing.assert_allclose([[row["fat"], row["water"]] for row in rows], expected, rtol=1e-4)
    assert all(row["fat_low"] < row["fat"] < row["fat_high"] for row in rows)
    assert {row["model_version"] for row in rows} == {"v0002"}
    assert "odd" not in rows[0]  # no process runs


def test_the_probability_of_a_class_is_called_as_in_rules(store: Store, file: Path, grid: Axis) -> None:
    store.publish("belt", classified(grid))
    out = file.with_name("out.csv")
    predict(store, "belt", None, file, out, "csv", ReadOptions(axis_unit="nm", on_bad_row=str))
    table = pyarrow.csv.read_csv(out)
    chances = [name for name in table.column_names if name.startswith("p[")]
    assert chances == [f"p[{name}]" for name in store.load("belt")[0].classes]
    np.testing.assert_allclose(sum(table[name].to_numpy() for name in chances), 1.0)
    assert not any("=" in name for name in table.column_names)


def test_a_version_is_chosen(store: Store, file: Path) -> None:
    assert run(store, file, file.with_name("out.csv"), "v0001").version == "v0001"


def test_spectra_that_do_not_suit_the_model_are_refused_and_nothing_is_written(store: Store, file: Path) -> None:
    out, other = file.with_name("out.csv"), file.with_name("other.csv")
    other.write_text("spectrum_id,500,510,520\na,1,2,3\n")
    with pytest.raises(BadFile, match=r"other\.csv: axis 500-520 nm, 3 bands does not cover"):
        predict(store, "meat", None, [file, other], out, "csv", ReadOptions(axis_unit="nm", on_bad_row=str))
    assert not out.exists()


def test_a_file_without_the_models_sensors_is_refused_and_says_how_to_give_them(store: Store, tmp_path: Path) -> None:
    store.publish("fat", model_of_sensors())
    nir = tmp_path / "nir.csv"
    spectrum = measured(1)[0][0, : len(NIR)]
    nir.write_text(f"spectrum_id,{','.join(map(str, NIR.values))}\na,{','.join(map(str, spectrum))}\n")
    how = "without visible, height: .*--sensor height=FILE-OR-COLUMNS --sensor visible=FILE-OR-COLUMNS$"
    with pytest.raises(BadFile, match=how):
        predict(store, "fat", None, nir, tmp_path / "out.csv", "csv", READ)


def test_a_sheet_that_would_be_too_long_is_refused(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "MAX_SHEET_ROWS", 600)
    out = file.with_name("out.xlsx")
    with pytest.raises(BadFile, match="a sheet holds"):
        run(store, file, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "given", "message"),
    [
        (None, "xlsx", "--xlsx needs a file: --to predictions.xlsx"),
        (Path("a.parquet"), "csv", "--csv does not suit --to a.parquet"),
        (Path("a.doc"), None, "expected a file that ends in .csv, .parquet or .xlsx, got a.doc"),
    ],
)
def test_forms_that_do_not_go_together(out: Path | None, given: tool.Format | None, message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        form_of(out, given)


def test_the_spectra_are_never_overwritten(store: Store, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(BadFile, match="got one of the spectra"):
        run(store, file, file)
    assert file.read_bytes() == before


def test_a_table_of_samples_keeps_their_names_and_says_which_band_is_missing(
    store: Store, tmp_path: Path, grid: Axis
) -> None:
    spectra, _ = simulate(3, grid, seed=1)
    cells = [list(map(repr, row.tolist())) for row in spectra]
    cells[1][3] = ""
    lines = [",".join(["Probe", *map(repr, grid.values.tolist())])]
    lines += [",".join([name, *row]) for name, row in zip(["P 7", "P 8", "P 7"], cells, strict=True)]
    (tmp_path / "tuesday.csv").write_text("\n".join(lines))
    run(store, tmp_path / "tuesday.csv", out := tmp_path / "out.parquet")
    rows = pq.read_table(out).to_pylist()
    assert [row["object_id"] for row in rows] == ["P 7", "P 8", "P 7"]
    place = f"{grid.values[3]:g} nm (1 of {len(grid)} bands)"
    assert [row["reason"] for row in rows] == ["", f"expected finite numbers, got nan at {place}", ""]


def test_a_folder_that_is_not_there_is_named(store: Store, file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=f"out.csv: there is no folder {tmp_path / 'later'}"):
        run(store, file, tmp_path / "later" / "out.csv")


@pytest.mark.parametrize("form", ["csv", "parquet", "xlsx"])
def test_of_several_files_some_may_name_their_samples(form: str, store: Store, tmp_path: Path, grid: Axis) -> None:
    spectra, _ = simulate(2, grid, seed=1)
    bands = ",".join(map(repr, grid.values.tolist()))
    lines = [",".join(map(repr, row.tolist())) for row in spectra]
    (tmp_path / "plain.csv").write_text("\n".join([bands, *lines]))
    (tmp_path / "named.csv").write_text("\n".join([f"sample,{bands}", *(f"s{i},{row}" for i, row in enumerate(lines))]))
    for names in (("plain", "named"), ("named", "plain")):
        out = tmp_path / f"out.{form}"
        predict(store, "meat", None, [tmp_path / f"{name}.csv" for name in names], out, form, READ)  # type: ignore[arg-type]
        if form == "xlsx":
            head, *rows = load_workbook(out)["predictions"].iter_rows(values_only=True)
            found = [row[head.index("object_id")] or "" for row in rows]
        else:
            found = (pyarrow.csv.read_csv if form == "csv" else pq.read_table)(out)["object_id"].to_pylist()
        of = {"plain": ["", ""], "named": ["s0", "s1"]}
        assert found == [name for each in names for name in of[each]]
