"""Laboratory values one by one: what is wrong is set aside with its reason, as it came; the others are learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis import NotDelivered, TamisError
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.record import ARROW, JSON
from tamis.streamer.services.outbox import Outbox
from tamis.streamer.transport.memory import MemorySink

from ..support.spectra import simulate
from ..support.trainer import START, Line


@pytest.fixture
def line(tmp_path: Path, model: Model, grid: Axis) -> Line:
    """Thirty spectra of a line whose model predicts fat in %; nothing is learned."""
    made = Line(tmp_path, replace(model, units={"fat": "%"}), refit_labels=0)
    made.spectra(simulate(30, grid, 5)[0], grid)
    return made


def one(spectrum_id: str, **values: Any) -> dict[str, Any]:
    return {"spectrum_id": spectrum_id, "values": values}


def learned(line: Line) -> dict[str, float]:
    line.run()
    with line.buffer() as buffer:
        labeled = buffer.labeled(["fat"])
    return dict(zip(labeled.spectrum_id, labeled.values[:, 0].tolist(), strict=True))


def test_of_thirty_values_the_one_below_its_limit_is_set_aside_alone(line: Line) -> None:
    given = [one(f"s{i}", fat="<0.5" if i == 17 else 5.0 + i / 10) for i in range(30)]
    line.values(*given)
    trainer = line.trainer()
    with capture_logs() as logs:
        trainer.run()
    metrics = trainer.meters.exposition().decode()
    assert 'tamis_labels_total{outcome="joined"} 29.0' in metrics
    assert 'tamis_label_rejects_total{reason="value"} 1.0' in metrics
    (reject,) = line.rejects
    assert json.loads(reject.value) == {"labels": [given[17]]}, "it can be corrected and sent again"
    assert reject.headers["error"] == (
        "tamis.labels[0]@1: s17: fat: '<0.5' is no number: it counts as not measured, as in files"
    )
    assert (reject.headers["source_topic"], reject.headers["source_offset"]) == ("tamis.labels", "1")
    assert any("'<0.5'" in str(entry) for entry in logs)


def test_marks_and_numbers_are_read_as_in_files(line: Line) -> None:
    line.values(one("s1", fat="10,3"), one("s2", fat=" 1,234 "), one("s3", fat="<0,5"), one("s4", fat="n.d."))
    line.values(one("s5", fat="1,234"))
    line.values(one("s6", fat="10.3"), one("s7", fat="1e1"), one("s8", fat="−2.5"), one("s9", fat="nan"))
    assert learned(line) == {"s1": 10.3, "s2": 1.234, "s6": 10.3, "s7": 10.0, "s8": -2.5}
    rejected = [reject.headers["spectrum_id"] for reject in line.rejects]
    assert rejected == ["s3", "s4", "s5", "s9"]


@pytest.mark.parametrize(
    ("label", "reason", "text"),
    [
        (one("s1", Fat=5), "target", "s1: unknown target 'Fat'; did you mean 'fat'?; known: fat"),
        (one("s1", protein=5), "target", "s1: unknown target 'protein'; known: fat"),
        (one("s1", fat=None), "value", "fat: expected a number, got None"),
        (one("s1", fat=True), "value", "fat: expected a number, got True"),
        (one("s1", fat=[1, 2]), "value", "fat: expected a number, got a list of 2"),
        (one("s1", fat="10.3 %"), "value", "fat: expected a number, got '10.3 %'; a unit goes beside it"),
        (one("s1", fat={"value": 5, "unit": "g/L"}), "unit", "fat: expected the unit '%', got 'g/L', which does not"),
        (one("s1", fat={"value": 5, "units": "%"}), "value", 'fat: expected {"value": 10.3, "unit": "%"}'),
        ({"spectrumid": "s1", "values": {"fat": 5}}, "json_shape",
         "labels[0]: unknown 'spectrumid'; did you mean 'spectrum_id'?"),
        ({"spectrum_id": "s1", "value": {"fat": 5}}, "json_shape", "did you mean 'values'?"),
        ({"spectrum_id": "s1", "values": {}}, "json_shape", 'expected "values"'),
        ({"spectrum_id": "", "values": {"fat": 5}}, "json_shape", "expected spectrum_id of 1 to 512 characters"),
        ({"spectrum_id": "s1", "values": {"fat": 5}, "time": "noon"}, "json_shape", 'expected "time" as ISO 8601'),
        ({"spectrum_id": "s1", "values": {"fat": 5}, "time": 1767322000000}, "json_shape", "is it in another unit?"),
        ({"spectrum_id": "s1", "values": {"fat": 5}, "line": "NIR1"}, "line",
         "nothing came from 'NIR1' yet; 's1' is of nir1/a"),
        ("s1=5", "json_shape", "expected an object with spectrum_id, got 's1=5'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_costs_no_other_value(label: Any, reason: str, text: str, line: Line) -> None:
    line.values(label, one("s2", fat=6.0))
    assert learned(line) == {"s2": 6.0}
    (reject,) = line.rejects
    assert reject.headers["reason"] == reason
    assert text in reject.headers["error"]
    assert json.loads(reject.value) == {"labels": [label]}


def test_not_a_number_in_json_costs_its_own_value(line: Line) -> None:
    line.values(one("s1", fat=float("nan")), one("s2", fat=6.0), one("s3", fat=float("inf")))
    assert learned(line) == {"s2": 6.0}
    assert [reject.headers["spectrum_id"] for reject in line.rejects] == ["s1", "s3"]


def test_a_line_that_the_settings_do_not_have_is_refused(line: Line) -> None:
    lines = {"nir1": line.settings.lines["*"]}
    line.settings = line.settings.model_copy(update={"lines": lines})
    line.values(one("s1", fat=5.0) | {"line": "nri1"}, one("s2", fat=6.0) | {"line": "nir1"})
    assert learned(line) == {"s2": 6.0}
    assert "unknown line 'nri1'; did you mean 'nir1'?; known: nir1" in line.rejects[0].headers["error"]


def test_a_value_in_another_unit_is_converted(line: Line) -> None:
    line.values(one("s1", fat={"value": 103, "unit": "g/kg"}), one("s2", fat={"value": "10,3", "unit": "g/100 g"}))
    assert learned(line) == {"s1": 10.3, "s2": 10.3}


def test_a_unit_for_a_model_without_units_is_refused(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, replace(model, units={}), refit_labels=0)
    line.spectra(simulate(3, grid, 5)[0], grid)
    line.values(one("s1", fat={"value": 103, "unit": "g/kg"}), one("s2", fat=7.0))
    assert learned(line) == {"s2": 7.0}
    assert "the model states no unit" in line.rejects[0].headers["error"]


def test_bad_values_of_one_label_leave_its_good_ones(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model, refit_labels=0)
    line.spectra(simulate(3, grid, 5)[0], grid)
    line.values({"spectrum_id": "s1", "values": {"fat": 5.0, "Fett": 5, "water": "x"}, "object_id": "o"})
    assert learned(line) == {"s1": 5.0}
    (reject,) = line.rejects
    assert json.loads(reject.value)["labels"] == [
        {"spectrum_id": "s1", "values": {"Fett": 5, "water": "x"}, "object_id": "o"}
    ]


@pytest.mark.parametrize("value", [b"\x00\xff", b"{}", b'{"labels": 5}', b'{"labels": []}', b'{"retract": {}}', b""])
def test_what_is_no_message_of_labels_is_kept_with_its_bytes(value: bytes, line: Line) -> None:
    line.arrives((value, {"content-type": "application/json"}), topic="labels")
    line.values(one("s2", fat=6.0))
    assert learned(line) == {"s2": 6.0}
    (reject,) = line.rejects
    assert reject.value == value
    assert reject.headers["error"].startswith("tamis.labels[0]@1: ")


@pytest.mark.parametrize("encoding", [ARROW, JSON])
def test_a_frame_with_values_may_have_other_columns_but_no_misspelt_one(encoding: str, line: Line, grid: Axis) -> None:
    spectra, fat = simulate(2, grid, 6)
    columns = {"fat": np.array([fat[0, 0], np.nan]), "temperature": np.array([21.0, 21.5]), "Fat": np.array([1.0, 2.0])}
    frame = Frame("nir1", "a", grid, "absorbance", spectra.astype(np.float32), ["x1", "x2"],
                  START + np.zeros(2, "timedelta64[s]"), targets=columns)  # fmt: skip
    line.arrives(*encode(frame, encoding, 900_000), topic="labels")
    assert learned(line) == {"x1": fat[0, 0]}
    assert [reject.headers["spectrum_id"] for reject in line.rejects] == ["x1", "x2"]
    assert "did you mean 'fat'?" in line.rejects[0].headers["error"]


def test_texts_beside_a_spectrum_are_read_as_values(line: Line, grid: Axis) -> None:
    rows = [{"spectrum_id": f"x{i}", "spectrum": [0.1 * i] * len(grid), "fat": text, "operator": "Max"}
            for i, text in enumerate(["10,3", "<0,5"])]  # fmt: skip
    line.values(axis=grid.values.tolist(), axis_unit="nm", quantity="absorbance", spectra=rows)
    assert learned(line) == {"x0": 10.3}
    assert "'<0,5' is no number" in line.rejects[0].headers["error"]


def test_values_of_another_models_target_are_left_to_its_trainer(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model, refit_labels=0)
    line.store.publish("proteins", replace(model, targets=["protein"]))
    line.settings = line.settings.model_copy(
        update={
            "lines": line.settings.lines | {"nir9": line.settings.lines["*"].model_copy(update={"model": "proteins"})}
        }
    )
    line.spectra(simulate(3, grid, 5)[0], grid)
    line.values(one("s1", fat=5.0, protein=3.0), one("s2", protein=3.0), {"line": "nir1", **one("s2", protein=3.0)})
    assert learned(line) == {"s1": 5.0}
    (reject,) = line.rejects
    assert "unknown target 'protein'" in reject.headers["error"], "nir1 is served by our model"


def test_labels_of_two_spectrometers_that_count_from_one_do_not_mix(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model, refit_labels=0)
    spectra, _ = simulate(6, grid, 5)
    line.spectra(spectra[:3], grid)
    line.spectra(spectra[3:], grid, line="nir2")
    line.values({"line": "nir2", **one("s1", fat=2.0)}, one("s0", fat=3.0))
    line.values(one("s2", fat=4.0), line="nir1")
    trainer = line.trainer()
    with capture_logs() as logs:
        trainer.run()
    with line.buffer() as buffer:
        labeled = buffer.labeled(["fat"])
        assert buffer.added == 6
    assert labeled.values[:, 0].tolist() == [2.0, 4.0]
    np.testing.assert_allclose(labeled.spectra, spectra[[4, 2]], rtol=1e-6)
    (reject,) = line.rejects
    assert reject.headers["reason"] == "ambiguous"
    assert "'s0' is the id of 2 spectra (nir1/a on 2026-01-02; nir2/a on 2026-01-02" in reject.headers["error"]
    assert any("a label has to name its line or instrument" in entry["event"] for entry in logs)


def test_a_counter_that_starts_anew_each_day_needs_the_day(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model, refit_labels=0)
    spectra, _ = simulate(2, grid, 5)
    for day in range(2):
        line.spectra(spectra[day:][:1], grid, time=START + np.array([day], "timedelta64[D]"))
    line.values(one("s0", fat=1.0) | {"time": "2026-01-02"}, one("s0", fat=2.0) | {"time": "2026-01-04T08:00:00Z"})
    line.values(one("s0", fat=9.0))
    line.run()
    with line.buffer() as buffer:
        labeled = buffer.labeled(["fat"])
    np.testing.assert_allclose(labeled.spectra, spectra, rtol=1e-6)
    assert labeled.values[:, 0].tolist() == [1.0, 2.0]
    assert "say which by line, instrument or time" in line.rejects[0].headers["error"]


class Refusing(MemorySink):
    """A broker that grants no right on the dead letters, or does not answer at first."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error, self.times = error, times

    def flush(self, timeout_s: float, progress: Any = None) -> bool:
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return False


def test_without_the_right_to_write_it_says_so_once_and_learns(line: Line) -> None:
    line.sink = Refusing(TamisError("missing right: Write on topic tamis.label-rejects"), 99)
    for i in range(3):
        line.values(one("s9", fat="x"), one(f"s{i}", fat=5.0))
    with capture_logs() as logs:
        assert len(learned(line)) == 3
    assert len([entry for entry in logs if "missing right" in str(entry)]) == 1
    assert line.source.committed == len(line.source.records)


def test_what_led_to_an_undelivered_reject_is_not_committed(line: Line) -> None:
    line.sink = Refusing(NotDelivered("no answer"), 1)
    outbox = Outbox(line.sink, 1.0)
    outbox.send("t", [(b"x", {})])
    assert not outbox.deliver()
    assert outbox.deliver()
    assert [record.value for record in line.sink.messages["t"]] == [b"x", b"x"]
