"""What one object is: the same in every command, and printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.files.table import Table
from tamis.streamer.fitting.objects import objects_of
from tamis.streamer.fitting.pretrain import read_gold, read_unlabeled
from tamis.streamer.fitting.training_data import LaboratoryOptions
from tamis.streamer.studies.comparison import compare
from tamis.streamer.studies.tasks import CompareOptions
from tests.support.spectra import simulate

N = 40
GRID = Axis(np.arange(1100.0, 1500.0, 20.0), "nm")
FOURS = [f"m{i // 4}" for i in range(N)]
ROWS = [f"s{i}" for i in range(N)]


def write(path: Path, seed: int = 0, /, **columns: list[str]) -> Path:
    spectra, values = simulate(N, GRID, seed)
    columns = {"fat": [f"{value:.4f}" for value in values[:, 0]]} | columns
    lines = [",".join([*columns, *(f"{nm:g}" for nm in GRID.values)])]
    for i in range(N):
        lines.append(",".join([*(of[i] for of in columns.values()), *(f"{v:.6g}" for v in spectra[i])]))
    path.write_text("\n".join(lines) + "\n")
    return path


def table_of(path: Path, **columns: list[str]) -> Table:
    return read_table(write(path / "t.csv", **columns), ReadOptions(axis_unit="nm", texts=["g"]))


def run(path: Path | list[Path], **options: object) -> tuple[object, list[str]]:
    said: list[str] = []
    given = {"targets": ["fat"], "models": ["plsr"], "reading": ReadOptions(axis_unit="nm")} | options
    files = path if isinstance(path, list) else [path]
    done = compare(CompareOptions(files=files, **given), tell=said.append)  # type: ignore[arg-type]
    return next(iter(done.tasks.values())), said


@pytest.mark.parametrize(
    ("columns", "group", "says"),
    [
        ({"Sample ID": FOURS}, None, "10 objects by column Sample ID, 4 spectra each; these stay together"),
        ({"Probennummer": FOURS}, None, "10 objects by column Probennummer"),
        ({"id": [str(i // 4) for i in range(N)]}, None, "10 objects by column id"),
        ({"object_id": ROWS, "sample_id": FOURS}, None, "10 objects by column sample_id"),
        ({"sample_id": FOURS}, "row", "40 objects: each row is one"),
        ({"sample_id": ROWS}, None, "40 objects: each row is one (--group COLUMN names them otherwise)"),
        ({"sample_id": [f"m{i % 4}" for i in range(N)]}, None, "each row is one (sample_id has 4 names, too few"),
        ({"file_name": FOURS}, None, "40 objects: each row is one"),  # a file is a day, not an object
        ({"G": [f"1.{i // 2}" for i in range(N)]}, "g", "20 objects by column G"),  # 1.1 is not 1.10
        ({"g": ["" if i % 5 == 0 else FOURS[i] for i in range(N)]}, "g", "18 objects by column g, 1 to 4 spectra each"),
        (
            {"g": ["" if i % 5 == 0 else str(i // 4) for i in range(N)]},
            "g",
            "; 8 rows without a name are an object each",
        ),
    ],
)
def test_the_objects_are_found_and_said(
    columns: dict[str, list[str]], group: str | None, says: str, tmp_path: Path
) -> None:
    assert says in str(objects_of(table_of(tmp_path, **columns), group))


def test_rows_that_are_left_out_are_not_counted(tmp_path: Path) -> None:
    objects = objects_of(table_of(tmp_path, g=["" if i < 8 else FOURS[i] for i in range(N)]), "g")
    assert "; 2 rows without a name" in str(objects[np.arange(6, N)])
    assert "without a name" not in str(objects[np.arange(8, N)])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"] * N, "expected names of several objects in column 'g', got 'a' in all 40 rows; --group row"),
        ([""] * N, "expected names of several objects in column 'g', got '' in all 40 rows"),
    ],
)
def test_names_that_name_nothing_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=message):
        objects_of(table_of(tmp_path, g=names), "g")


def test_a_target_names_no_object(tmp_path: Path) -> None:
    classes = [f"sort {i % 5}" for i in range(N)]
    assert objects_of(table_of(tmp_path, sample=classes), None, ["sample"]).column is None


@pytest.mark.parametrize("name", ["sample_id", "plot"])
def test_spectra_with_one_laboratory_value_are_of_one_object(name: str, tmp_path: Path) -> None:
    spectra = write(tmp_path / "s.csv", **{name: FOURS, "fat": ["" for _ in ROWS]})
    (tmp_path / "lab.csv").write_text(f"{name},fat\n" + "".join(f"m{i},{i * i % 7 + i / 10}\n" for i in range(10)))
    task, said = run(spectra, laboratory=LaboratoryOptions(labels=tmp_path / "lab.csv"))
    parts = [set(task.samples.group[rows].tolist()) for rows in (task.train, task.test)]  # type: ignore[attr-defined]
    assert not parts[0] & parts[1]
    assert f"10 objects by column {name}, 4 spectra each; these stay together" in said


def test_compare_says_how_rows_were_split_and_which_were_not_used(tmp_path: Path) -> None:
    split = ["extra" if i % 4 == 3 else "test" if i % 4 == 0 else "cal" for i in range(N)]
    task, _ = run(write(tmp_path / "s.csv", sample_id=FOURS, Split=split), split="split")
    assert "10 rows with other words ('extra') are neither in training nor in test" in task.split  # type: ignore[attr-defined]
    assert "10 of 10 objects by column sample_id are in training AND test" in task.split  # type: ignore[attr-defined]


def test_blanks_are_no_pair_of_one_object(tmp_path: Path) -> None:
    names = ["" if i < 8 else f"m{i // 2}" for i in range(N)]
    path = write(tmp_path / "s.csv", sample_id=names, inst=["a", "b"] * 20)
    task, _ = run(path, pairs="inst")
    labeled, _ = task.context.pairs  # type: ignore[attr-defined]
    table = read_table(path, ReadOptions(axis_unit="nm"))
    rows = [int(np.abs(table.spectra - spectrum).sum(axis=1).argmin()) for spectrum in labeled]
    assert "" not in table.columns["sample_id"][rows].tolist()


def test_numbers_as_values_of_a_column_are_found_as_they_are_written(tmp_path: Path) -> None:
    kind = ["a" if i % 2 else "b" for i in range(N)]
    path = write(tmp_path / "s.csv", kind=kind, year=[f"{2020 + i % 3}" for i in range(N)])
    task, _ = run(path, targets=["kind"], models=["pls-da"], test={"year": ["2021"]})
    assert len(task.test) == sum(i % 3 == 1 for i in range(N))  # type: ignore[attr-defined]


def test_rows_of_one_object_get_their_labels_together_in_a_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", sample_id=FOURS, sensor=["a"] * 20 + ["b"] * 20)
    task, _ = run(path, stream="sensor", labels=[10])
    labeled = task._labeled(10, 0)  # type: ignore[attr-defined]
    group = task.samples.group  # type: ignore[attr-defined]
    assert labeled.sum() == 12 + 8  # of 5 objects with 4 rows each: 13 and 10 at most
    assert not set(group[labeled].tolist()) & set(group[~labeled].tolist())


@pytest.mark.parametrize(
    ("first", "second", "objects"),
    [
        (ROWS, ROWS, N),  # one sample under two instruments
        ([FOURS[i] for i in range(N)], ROWS, 10 + N),
        (["", *ROWS[1:]], ["", *ROWS[1:]], N + 1),
        ([f"1.{i}" for i in range(N)], [f"2.{i}" for i in range(N)], 2 * N),  # 1.1 is not 1.10
    ],
)
def test_an_object_may_be_in_several_files_to_pretrain_on(
    first: list[str], second: list[str], objects: int, tmp_path: Path
) -> None:
    files = [
        write(tmp_path / "a.csv", sample_id=first, plot=first),
        write(tmp_path / "b.csv", 1, sample_id=second, plot=second),
    ]
    for group in (None, "plot"):
        said: list[str] = []
        unlabeled, _ = read_unlabeled(files, group, None, ReadOptions(axis_unit="nm"), said.append)
        assert len(unlabeled.spectra) == 2 * N
        assert len(np.unique(unlabeled.object)) == objects
        assert str(objects) in said[0]


def test_a_gold_file_is_read_as_the_others_are(tmp_path: Path) -> None:
    spectra = write(tmp_path / "s.csv", spectrum_id=ROWS, fat=["" for _ in ROWS])
    (tmp_path / "lab.csv").write_text(
        "spectrum_id,fat\n" + "".join(f"s{i},{i}\n" for i in reversed(range(1, N))) + "s0,<1\n"
    )
    reading, said = ReadOptions(axis_unit="nm"), list[str]()
    gold = read_gold(spectra, ["fat"], reading, LaboratoryOptions(labels=tmp_path / "lab.csv"), said.append)
    assert gold.values[:, 0].tolist() == [float(i) for i in range(1, N)]
    assert any("1 of 40 cells of fat are no numbers ('<1')" in note for note in said)
