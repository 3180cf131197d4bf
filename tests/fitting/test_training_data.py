"""What a target is: numbers or classes, decided over the whole column; and what fit says of it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.models.store import Store
from tamis.streamer.files.options import BadRowInFile, ReadOptions
from tamis.streamer.fitting.fit import FitOptions, FitResult, fit_and_publish
from tamis.streamer.fitting.training_data import LaboratoryOptions, read_training, summary_of
from tests.support.spectra import simulate

N = 40
GRID = Axis(np.arange(1100.0, 1500.0, 20.0), "nm")
SPECTRA, VALUES = simulate(N, GRID)
FAT = [f"{value:.3f}" for value in VALUES[:, 0]]
HIGH = (VALUES[:, 0] > np.median(VALUES[:, 0])).tolist()


def of(low: str, high: str) -> list[str]:
    return [high if is_high else low for is_high in HIGH]


def some(word: str, n: int) -> list[str]:
    return [word] * n + FAT[n:]


def write(path: Path, **columns: Any) -> Path:
    spectra = {f"{nm:g}": SPECTRA[:, i] for i, nm in enumerate(GRID.values)}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns | spectra), path)
        return path
    lines = [",".join([*columns, *spectra])]
    for i in range(N):
        lines.append(
            ",".join([*(cells[i] for cells in columns.values()), *(f"{of[i]:.6g}" for of in spectra.values())])
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def fit(path: Path, *targets: str, **options: Any) -> tuple[FitResult, str]:
    said: list[str] = []
    laboratory = LaboratoryOptions(labels=options.pop("labels", None), classes=options.pop("classes", ()))
    done = fit_and_publish(
        path,
        FitOptions(
            targets=targets or ["k"],
            reading=ReadOptions(axis_unit="nm"),
            laboratory=laboratory,
            tell=said.append,
            **options,
        ),
        Store(path.parent / "store"),
    )
    return done, "\n".join(said)


@pytest.mark.parametrize(
    ("cells", "left_out", "says"),
    [
        (some("<0.05", 5), 5, "5 of 40 cells of k are no numbers ('<0.05'): not measured there"),
        (some("<0.05", 25), 25, "25 of 40 cells of k"),
        (some("n.d.", 2), 2, "2 of 40 cells of k are no numbers ('n.d.')"),
        ([*FAT[:-3], "Spuren", '"< 0,05"', "n. d."], 3, "3 of 40 cells of k"),
        (["3.5*", *FAT[1:]], 1, "1 of 40 cells of k are no numbers ('3.5*')"),
        ([*FAT[:-4], "", "NA", "null", "-9999"], 4, "k are -9999, far from all others"),
    ],
)
def test_what_is_no_number_among_numbers_is_not_measured(
    cells: list[str], left_out: int, says: str, tmp_path: Path
) -> None:
    done, said = fit(write(tmp_path / "s.csv", k=cells))
    assert done.dropped == left_out
    assert done.model.class_of is None or done.model.class_of == ""
    assert says in said
    assert f"{left_out} {'row' if left_out == 1 else 'rows'} left out" in done.summary()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ["3.4.5"] * 5 + FAT[5:],
            r"35 of 40 cells of k are numbers, the others are not \('3\.4\.5'; rows 2, 3, 4, 5, 6\)",
        ),
        ([f"{fat} %" for fat in FAT], "not a number, though it begins with one; .* --unit k=%, or give --classes k"),
        (
            [f'"{float(fat) * 1e3:,.1f}"' for fat in FAT],
            r"got cells such as '3,548\.0': write them without marks of thousands",
        ),
        (of("<0.05", ">0.05"), r"no number in column k: all 40 cells mean 'not measured' \('>0\.05', '<0\.05'\)"),
        (["n.d."] * N, "no number in column k: all 40 cells mean 'not measured'"),
        (["n.d."] * 36 + FAT[36:], "expected at least 5 spectra with k, got 4 of 40"),
        (["12"] * N, "k is 12 in all 40 rows: there is nothing to learn"),
        (of("1", "mixed"), "20 of 40 cells of k are numbers, the others are not"),
    ],
)
def test_a_target_in_doubt_is_refused(cells: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=message):
        fit(write(tmp_path / "s.csv", k=cells))


@pytest.mark.parametrize(
    ("low", "high", "classes", "names"),
    [
        ("0", "1", ["k"], ["0", "1"]),
        ("1.0", "2.0", ["k"], ["1.0", "2.0"]),
        ("01", "1", ["k"], ["01", "1"]),
        ("no", "yes", [], ["no", "yes"]),
        ("False", "True", [], ["False", "True"]),
        ("Größe", "éé", [], ["Größe", "éé"]),
        ("PE ", "PET", [], ["PE", "PET"]),
        ("1A", "2B", [], ["1A", "2B"]),
        ("5 %", "10 %", ["k"], ["10 %", "5 %"]),
        ("<0.05", ">0.05", ["k"], ["<0.05", ">0.05"]),
    ],
)
def test_classes_are_texts_or_are_asked_for(
    low: str, high: str, classes: list[str], names: list[str], tmp_path: Path
) -> None:
    done, _ = fit(write(tmp_path / "s.csv", k=of(low, high)), classes=classes)
    assert list(done.model.targets) == [f"k={name}" for name in names]


@pytest.mark.parametrize(
    ("column", "classes", "names"),
    [
        (pa.array([1.0 + high for high in HIGH]), ["k"], ["1", "2"]),
        (pa.array([1234567 + high for high in HIGH]), ["k"], ["1234567", "1234568"]),
        (pa.array([None, *(1.0 + high for high in HIGH[1:])]), ["k"], ["1", "2"]),
        (pa.array(HIGH), [], ["false", "true"]),
        (pa.array([None, *HIGH[1:]]), [], ["false", "true"]),
        (pa.array(of("a ", "b\u00a0")).dictionary_encode(), [], ["a", "b"]),
    ],
)
def test_classes_in_parquet(column: pa.Array, classes: list[str], names: list[str], tmp_path: Path) -> None:
    done, _ = fit(write(tmp_path / "s.parquet", k=column), classes=classes)
    assert list(done.model.targets) == [f"k={name}" for name in names]
    assert done.dropped == column.null_count


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, *(int(float(fat) * 1000) for fat in FAT[1:])]),
        pa.array([None, *map(Decimal, FAT[1:])]),
        pa.array([None, *FAT[1:]]),
        pa.array(["<0.05", *FAT[1:]]),
    ],
)
def test_numbers_in_parquet(column: pa.Array, tmp_path: Path) -> None:
    done, _ = fit(write(tmp_path / "s.parquet", k=column))
    assert (done.model.kind, done.dropped) == ("plsr", 1)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([date(2026, 1, 1 + i % 28) for i in range(N)]), "no numbers in column 'k'"),
        (
            pa.array([str(i * i) for i in range(N)]),
            "the 40 different numbers in column k are texts .*: write them as numbers",
        ),
    ],
)
def test_neither_numbers_nor_classes(column: pa.Array, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=message):
        fit(write(tmp_path / "s.parquet", k=column))


def test_one_class_in_two_forms_of_a_number_is_reported(tmp_path: Path) -> None:
    cells = ["1.0" if high and i % 2 else "1" if high else "2" for i, high in enumerate(HIGH)]
    _, said = fit(write(tmp_path / "s.csv", k=cells), classes=["k"])
    assert "k has '1' (9 rows) and '1.0' (11 rows)" in said


def test_a_target_called_sample_is_not_its_own_group(tmp_path: Path) -> None:
    ranks = np.argsort(np.argsort(VALUES[:, 0]))
    done, _ = fit(write(tmp_path / "s.csv", sample=[f"sort {rank // 8}" for rank in ranks]), "sample")
    assert len(done.model.targets) == 5


def test_a_target_that_is_not_there_is_looked_for(tmp_path: Path) -> None:
    spectra = write(tmp_path / "s.csv", spectrum_id=[f"s{i}" for i in range(N)])
    (tmp_path / "lab.csv").write_text("spectrum_id,Fat (%),moisture\ns1,1,2\n")
    for target, near in (("fat", "Fat (%)"), ("moistur", "moisture")):
        with pytest.raises(BadFile) as error:
            fit(spectra, target, labels=tmp_path / "lab.csv")
        assert f"lab.csv: no column {target!r} (there is {near!r}); columns of numbers: Fat (%), moisture" in str(
            error.value
        )


def test_a_table_of_one_value_a_row_is_refused(tmp_path: Path) -> None:
    spectra = write(tmp_path / "s.csv", sample_id=[f"s{i}" for i in range(N)])
    rows = "".join(f"s{i},{name},{i}\n" for i in range(N) for name in ("fat", "protein"))
    (tmp_path / "lab.csv").write_text(f"sample_id,parameter,value\n{rows}")
    with pytest.raises(BadFile, match="'fat' is a value of column 'parameter': give each target a column of its own"):
        fit(spectra, "fat", labels=tmp_path / "lab.csv")


def test_a_key_needs_a_file_of_laboratory_values(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="--key joins a file of laboratory values: give it with --laboratory FILE"):
        read_training(
            write(tmp_path / "s.csv", k=FAT), ReadOptions(axis_unit="nm"), LaboratoryOptions(key="k"), ["k"], print
        )


def test_the_laboratorys_file_may_lie_among_the_spectra(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"m{i}.txt").write_text(
            "".join(f"{nm:g}\t{v:.6g}\n" for nm, v in zip(GRID.values, SPECTRA[i], strict=True))
        )
    (tmp_path / "lab.csv").write_text("File,fat\n" + "".join(f"m{i}.txt,{i}\n" for i in range(6)))
    for given in (tmp_path, tmp_path / "*"):
        laboratory = LaboratoryOptions(labels=tmp_path / "lab.csv")
        table, _ = read_training(given, ReadOptions(axis_unit="nm"), laboratory, ["fat"], lambda text: None)
        assert table.columns["fat"].tolist() == [0, 1, 2, 3, 4, 5]


def test_bad_rows_are_summed_up_by_reason() -> None:
    bad = [BadRowInFile("a.csv", row, f"expected a number in column '1100', got 'x{row}'") for row in range(2, 9)]
    bad += [BadRowInFile("a.csv", row, f"spectrum_id 's{row}' is already in this file") for row in (9, 12)]
    first, second = summary_of(bad)
    assert first == "a.csv: 7 rows left out (2, 3, 4, 5, 6, ...): expected a number in column '1100', got 'x2'"
    assert second.startswith("a.csv: 2 rows left out (9, 12): spectrum_id 's9' is already in this file, and is not")
    assert second.endswith("if they are repeats of a sample, call the column sample_id")
