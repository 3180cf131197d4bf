"""`tamis labels`, as somebody in a laboratory types it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.messages.labels import GivenLabels, decode_labels
from tamis.streamer.services.label_log import LabelLog
from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from ..support.kafka import source
from ..support.models import classified
from ..support.spectra import simulate

Here = Callable[..., Any]


@pytest.fixture
def labels(
    here: Here, tamis_broker: EmbeddedBroker, tmp_path: Path, model: Model, request: pytest.FixtureRequest
) -> Here:
    """`tamis labels` beside a store with a model of fat in %, with topics of its own."""
    Store(tmp_path / "store").publish("default", replace(model, units={"fat": "%"}))
    prefix = re.sub(r"\W", "-", request.node.name)[:60]

    def call(*words: str, **more: str) -> Any:
        own = {"TAMIS_BROKERS": tamis_broker.bootstrap, "TAMIS_TOPICS__PREFIX": prefix, "TAMIS_STORE": "store"}
        return here("labels", *words, TAMIS_TRAINER__METRICS_PORT="9", **own, **more)

    def sent(n: int) -> list[GivenLabels]:
        found: list[GivenLabels] = []
        with closing(source(tamis_broker, f"{prefix}.labels")) as reader:
            while len(found) < n:
                found += [decode_labels(record, {}, 900_000) for record in reader.poll(0.2)]
        return found

    call.sent = sent  # type: ignore[attr-defined]
    return call


def test_a_value_is_sent_with_who_and_when(labels: Any) -> None:
    done = labels("add", "a1", "fat=10,3", "--line", "nir1", "--time", "2026-01-31T10:00:00Z", "--unit", "g/kg")
    assert done.returncode == 0, done.stderr
    assert "labels: values: 1, spectra: 1" in done.stdout
    assert "no trainer answers at http://127.0.0.1:9: unless one runs elsewhere, the values wait in" in done.stderr
    ((given, _, bad, _),) = labels.sent(1)
    assert not bad
    (label,) = given
    assert (label.spectrum_id, label.values, label.units) == ("a1", {"fat": 10.3}, {"fat": "g/kg"})
    assert (label.line, label.time, label.confirms) == ("nir1", np.datetime64("2026-01-31T10:00:00", "us"), False)
    assert re.fullmatch(r".+@.+", label.who)
    assert not np.isnat(label.sent)


def test_a_file_of_the_laboratory_is_sent_as_it_is_read_elsewhere(labels: Any, tmp_path: Path) -> None:
    (tmp_path / "week.csv").write_text(
        "Probe;Fat (g/kg);line;Datum;Note\nm1;103,5;nir2;2026-01-31;\nm2;<5;;;low\nm3;98;;;\n"
    )
    done = labels("add", "week.csv", "--line", "nir1")
    assert done.returncode == 0, done.stderr
    assert "1 of 3 cells of Fat (g/kg) are no numbers ('<5'): not measured there" in done.stderr
    ((given, *_),) = labels.sent(1)
    assert [(one.spectrum_id, one.values, one.units, one.line) for one in given] == [
        ("m1", {"fat": 103.5}, {"fat": "g/kg"}, "nir2"),
        ("m3", {"fat": 98.0}, {"fat": "g/kg"}, "nir1"),
    ]


def test_lots_are_sent_by_hand_and_as_a_file(labels: Any, tmp_path: Path) -> None:
    span = ("--from", "2026-01-31T06:00:00Z", "--to", "2026-01-31T07:10:00Z")
    done = labels("add", "7", "fat=3,4", "--line", "nir1", *span)
    assert done.returncode == 0, done.stderr
    assert "labels: values: 1, lots: 1" in done.stdout
    (tmp_path / "lots.csv").write_text(
        "lot;from;to;fat\n8;2026-01-31T07:10:00Z;2026-01-31T08:00:00Z;3,5\n9;2026-02-01T07:10:00Z;2026-02-01T08:00:00Z;3,6\n"
    )
    assert labels("add", "lots.csv", "--line", "nir1").returncode == 0
    given = [label for one in labels.sent(2) for label in one.labels]
    assert [(one.spectrum_id, one.values, one.line) for one in given] == [
        (f"lot {name}", {"fat": value}, "nir1") for name, value in (("7", 3.4), ("8", 3.5), ("9", 3.6))
    ]
    assert str(given[0].since) == "2026-01-31T06:00:00.000000"
    assert str(given[1].time) == "2026-01-31T08:00:00.000000"


def test_a_composition_is_sent_as_shares_of_all_classes(labels: Any, tmp_path: Path, grid: Axis) -> None:
    Store(tmp_path / "store").publish("default", classified(grid, n=60))
    span = ("--line", "nir1", "--from", "2026-01-31", "--to", "2026-01-31")
    wrong = labels("add", "7", "PET=30", "PR=70", *span)
    assert (wrong.returncode, "unknown class 'PR'" in wrong.stderr) == (2, True)
    assert labels("add", "7", "PET=30", "PE=60", "unknown=30", *span).returncode == 0
    ((label,), *_) = labels.sent(1)[0]
    assert label.values == {"sort=PE": 0.5, "sort=PET": 0.25, "sort=PVC": 0.0}
    assert label.time - label.since == np.timedelta64(86_399, "s")


def test_a_model_of_classes_asks_for_lots(labels: Any, tmp_path: Path, grid: Axis) -> None:
    Store(tmp_path / "store").publish("default", classified(grid, n=60))
    for words in (["a1", "sort=PET"], ["a1", "PET=1"]):
        done = labels("add", *words)
        assert done.returncode == 2
        assert "this model predicts classes (sort) and learns from the compositions of lots only" in done.stderr
        assert "tamis labels add L7 'PE=30' 'PET=70' --line belt --from 2026-01-31T06:00 --to" in done.stderr
    done = labels("add", "L7", "sort=PET", "--line", "a", "--from", "2026-01-31", "--to", "2026-01-31")
    assert "expected CLASS=SHARE, such as PE=30, got 'sort=PET'" in done.stderr


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("PETT,PE\n5,40", "unknown class 'PETT'; did you mean 'PET'?; known: PE, PET, PVC, unknown; a column that"),
        ("PETT (%),PE\n5,40", "unknown class 'PETT (%)'; did you mean 'PET'?"),
        ("PET,supplier\n5,40", "unknown class 'supplier'; known: PE, PET, PVC, unknown; a column that is no class"),
        ("PET,PE\n,", "lots.csv: line 2: lot L1 has no shares: fill them in, or leave the line out"),
        ("PET,PE\n3O,70", "lots.csv: line 2: PET: expected a share, got '3O'"),
    ],
)
def test_a_composition_in_a_file_is_whole_or_refused(
    table: str, text: str, labels: Any, tmp_path: Path, grid: Axis
) -> None:
    """A class that is left out would be learned as a share of nothing, and the others as too much."""
    Store(tmp_path / "store").publish("default", classified(grid, n=60))
    header, shares = table.split("\n")
    span = "2026-01-31T06:00:00Z,2026-01-31T07:00:00Z"
    (tmp_path / "lots.csv").write_text(f"lot,from,to,{header}\nL1,{span},{shares}\n")
    done = labels("add", "lots.csv", "--line", "nir1")
    assert done.returncode in (1, 2)
    assert text in done.stderr
    assert "nothing was sent" in done.stderr
    assert "sent" not in done.stdout


def test_a_composition_in_a_file_may_have_unknown_materials_and_notes(labels: Any, tmp_path: Path, grid: Axis) -> None:
    Store(tmp_path / "store").publish("default", classified(grid, n=60))
    (tmp_path / "lots.csv").write_text(
        "lot,from,to,line,date,Note,pet,PE (%),unknown\n"
        "L1,2026-01-31T06:00,2026-01-31T07:00,nir2,2026-01-31,wet,30,60,30\n"
    )
    done = labels("add", "lots.csv")
    assert done.returncode == 0, done.stderr
    ((label,), *_) = labels.sent(1)[0]
    assert (label.line, label.values) == ("nir2", {"sort=PE": 0.5, "sort=PET": 0.25, "sort=PVC": 0.0})


def test_a_row_of_units_counts(labels: Any, tmp_path: Path) -> None:
    (tmp_path / "week.csv").write_text("sample,fat,ash\n,g/kg,%\nm1,103.5,1.1\nm2,98.1,1.2\nm3,97.2,1.3\n")
    assert labels("add", "week.csv").returncode == 0
    ((given, *_),) = labels.sent(1)
    assert {label.units["fat"] for label in given} == {"g/kg"}
    assert [label.values for label in given] == [{"fat": 103.5}, {"fat": 98.1}, {"fat": 97.2}]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a1", "Fat=5"], "a1: unknown target 'Fat'; did you mean 'fat'?; known: fat; nothing was sent"),
        (["a1", "fat=5", "--unit", "g/L"], "expected the unit '%', got 'g/L', which does not convert"),
        (["a1", "fat=<0.5"], "expected TARGET=VALUE, such as fat=10.3, got 'fat=<0.5'; nothing was sent"),
        (["a1", "fat"], "expected TARGET=VALUE, such as fat=10.3, got 'fat'"),
        (["a1", "fat=5", "fat=6"], "expected one value of fat, got 5 and 6"),
        (["a1", "fat=5", "--unit", "fta=g/kg"], "--unit names 'fta', which has no value here (fat)"),
        (["7", "fat=5", "--from", "2026-01-31", "--line", "nir1"], "a lot needs --line, --from and --to"),
        (["7", "fat=5", "--from", "2026-02-01", "--to", "2026-01-31", "--line", "a"], "the start of a lot before"),
        (["lots.csv"], "line 2: a lot needs its line: a column `line`, or --line; nothing was sent"),
        (["a1", "fat=5", "--unit", "%", "--unit", "g/kg"], "--unit: expected one unit of each target"),
        (["a1", "fat=5", "--time", "0001-01-01"], "expected a time such as 2026-01-31 or 2026-01-31T14:05"),
        (["columns.csv"], "expected one column of fat, got 'fat' and 'Fat (g/kg)'"),
        (["missing.csv"], "expected TARGET=VALUE after 'missing.csv', or a file of that name: there is none"),
        (["a1", "fat=5", "--time", "31.1.2026"], "expected a time such as 2026-01-31 or 2026-01-31T14:05"),
        (["names.csv"], "no column of names, such as spectrum_id or sample: name it with --key; available: fat, x"),
        (["twice.csv"], "line 3: another value of fat of m1, 5.6, than above it: leave one, or their mean"),
        (["empty.csv"], "empty.csv: expected laboratory values, got an empty file"),
        (["none.csv"], "none.csv: expected laboratory values in 'fat', got none; nothing was sent"),
        (["other.csv"], "expected a column of 'fat', got 'sample', 'fatt'; did you mean 'fat'?"),
    ],
)
def test_what_cannot_be_right_is_refused_before_it_is_sent(
    words: list[str], text: str, labels: Any, tmp_path: Path
) -> None:
    (tmp_path / "lots.csv").write_text("lot,from,to,fat\n1,2026-01-31,2026-01-31,5.1\n2,2026-02-01,2026-02-01,5.2\n")
    (tmp_path / "names.csv").write_text("fat,x\n5.1,u\n5.2,v\n5.3,w\n")
    (tmp_path / "columns.csv").write_text("sample,fat,Fat (g/kg)\nm1,5.1,51\nm2,,150\n")
    (tmp_path / "other.csv").write_text("sample,fatt\nm1,5.1\nm2,5.2\n")
    (tmp_path / "none.csv").write_text("lot,from,to,line,fat\n1,2026-01-31,2026-01-31,nir1,\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "twice.csv").write_text("sample,fat\nm1,5.1\nm1,5.6\n")
    done = labels("add", *words)
    assert done.returncode in (1, 2)
    assert text in done.stderr
    assert "sent" not in done.stdout


def test_a_misspelt_target_beside_a_right_one_is_refused_and_other_columns_are_named(
    labels: Any, tmp_path: Path, grid: Axis
) -> None:
    spectra, values = simulate(40, grid)
    model = Model.fit(spectra, grid, values, ["fat", "protein"], pipeline=Pipeline(), estimator=PLSR(2))
    Store(tmp_path / "store").publish("default", model)
    (tmp_path / "week.csv").write_text("sample,fat,protien (%),ash,date,remark\nm1,5.1,12.1,1.1,2026-01-31,wet\n")
    wrong = labels("add", "week.csv")
    assert wrong.returncode in (1, 2)
    assert "unknown target 'protien (%)'; did you mean 'protein'?; rename the column" in wrong.stderr
    assert "sent" not in wrong.stdout
    (tmp_path / "week.csv").write_text("sample,fat,protein,ash,date,remark\nm1,5.1,12.1,1.1,2026-01-31,wet\n")
    right = labels("add", "week.csv")
    assert right.returncode == 0, right.stderr
    assert "week.csv: left out, since the model does not predict it: 'ash'\n" in right.stderr
    ((label,), *_) = labels.sent(1)[0]
    assert label.values == {"fat": 5.1, "protein": 12.1}


def test_a_column_that_is_used_or_another_quantity_is_no_misspelt_target(
    labels: Any, tmp_path: Path, grid: Axis
) -> None:
    spectra, values = simulate(40, grid)
    model = Model.fit(spectra, grid, values, ["fat", "lysine"], pipeline=Pipeline(), estimator=PLSR(2))
    Store(tmp_path / "store").publish("default", model)
    (tmp_path / "week.csv").write_text("lys. vial,line,batch,fat,lime\n7,2,31,5.1,0.1\n8,2,31,5.2,0.1\n")
    done = labels("add", "week.csv", "--key", "lys. vial")
    assert done.returncode == 0, done.stderr
    assert "week.csv: left out, since the model does not predict it: 'lime'\n" in done.stderr
    (first, _), *_ = labels.sent(1)[0]
    assert (first.spectrum_id, first.line, first.values) == ("7", "2", {"fat": 5.1})


def history(folder: Path) -> None:
    log = LabelLog(folder / "trainer")
    for at, (name, value) in enumerate((("a1", 10.3), ("a2", 130.0))):
        facts = {"label": f"g-{at}", "spectrum_id": name, "target": "fat", "value": value}
        log.append("given", place=f"t[0]@{at}", row=0, who="ada@lab", sent="2026-01-31T10:00:00.000000Z", **facts)
        log.append("joined", grid="g", number=at + 1, line="nir1", instrument="a", **facts)
    log.append("learned", label="g-0", target="fat", value=10.3, version="v0002")
    log.append("held", label="g-1", target="fat", value=130.0, reason="ten times too high: a decimal point?")


def test_the_list_says_what_became_of_each_value(labels: Any, tmp_path: Path) -> None:
    assert "no laboratory values in trainer/labels.jsonl, which the trainer writes" in labels("list").stdout
    history(tmp_path)
    assert labels("list").stdout.splitlines() == [
        "given\tby\tline\tspectrum\tvalue\twhat became of it",
        "2026-01-31T10:00:00Z\tada@lab\tnir1/a\ta1\tfat = 10.3\tlearned in v0002",
        "2026-01-31T10:00:00Z\tada@lab\tnir1/a\ta2\tfat = 130\theld: ten times too high: a decimal point?",
    ]
    assert len(labels("list", "--held").stdout.splitlines()) == 2
    assert len(labels("list", "--limit", "1").stdout.splitlines()) == 2


def test_the_list_shows_shares_of_a_lot_with_three_digits(labels: Any, tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "trainer")
    for at, (name, target) in enumerate((("lot L7", "sort=PE"), ("a1", "fat"))):
        facts = {"label": f"g-{at}", "spectrum_id": name, "target": target, "value": 5 / 52}
        log.append("given", place=f"t[0]@{at}", row=0, sent="2026-01-31T10:00:00.000000Z", **facts)
    shown = [line.split("\t")[4] for line in labels("list").stdout.splitlines()[1:]]
    assert shown == ["sort=PE = 0.0962", "fat = 0.0961538"]


def test_retract_says_how_a_lot_is_named(labels: Any) -> None:
    said = " ".join(labels("retract", "--help").stdout.split())
    assert "is no longer served. A lot is named as in the list: 'lot L7'." in said


def test_a_held_value_is_confirmed_and_another_is_not(labels: Any, tmp_path: Path) -> None:
    history(tmp_path)
    refused = labels("confirm", "a1", "fat")
    assert refused.returncode == 2
    assert (
        "no fat of a1 is held in trainer/labels.jsonl (fat = 10.3: learned in v0002); nothing was sent"
        in refused.stderr
    )
    done = labels("confirm", "a2")
    assert "sent the confirmation of fat = 130 of a2 to" in done.stdout, done.stderr
    ((given, *_),) = labels.sent(1)
    assert [(one.spectrum_id, one.values, one.confirms, one.line) for one in given] == [
        ("a2", {"fat": 130.0}, True, "nir1")
    ]


def test_a_value_that_was_given_already_is_pointed_out(labels: Any, tmp_path: Path) -> None:
    history(tmp_path)
    again = labels("add", "a2", "fat=130")
    assert (
        "fat of a2 was given already: 2026-01-31T10:00:00Z by ada@lab (held); if it is right, confirm it"
        in again.stderr
    )
    other = labels("add", "a1", "fat=99", "--unit", "g/kg")
    assert "fat of a1 was given with another value, 10.3, which it replaces" in other.stderr


def test_a_retraction_is_sent_with_its_reason(labels: Any) -> None:
    done = labels("retract", "a1", "fat", "--reason", "mixed up", "--line", "nir1")
    assert done.returncode == 0, done.stderr
    ((_, retractions, _, _),) = labels.sent(1)
    (one,) = retractions
    assert (one.spectrum_id, one.targets, one.reason, one.line) == ("a1", ("fat",), "mixed up", "nir1")


def test_waiting_for_a_trainer_that_does_not_come_fails(labels: Any) -> None:
    done = labels("add", "a1", "fat=5", "--wait", "0.3")
    assert done.returncode == 1
    assert "fat of a1: not taken by a trainer in 0.3 s" in done.stdout
