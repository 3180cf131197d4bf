"""Messages that wait together: one prediction, one answer, and a delivery in the background."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

import numpy as np
import pytest
import structlog

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.messages.record import RAW
from tamis.streamer.processing.message_batch import MessageBatch
from tamis.streamer.processing.process_limits import STEP, ProcessLimits
from tamis.streamer.testing import FakeLine
from tamis.streamer.transport.memory import MemorySink

from ..support.spectra import frame, simulate


@pytest.fixture
def line(tamis_line: Callable[..., FakeLine], model: Model) -> FakeLine:
    made = tamis_line()
    made.publish(model)
    return made


def test_results_go_out_while_the_next_messages_are_predicted(line: FakeLine, grid: Axis) -> None:
    """A slow broker does not stop the line; what it has not confirmed is not committed."""
    predicted, confirmed = Event(), []

    class Slow(MemorySink):
        def flush(self, timeout_s: float, progress: Any = None) -> bool:
            if not confirmed:  # the first round is confirmed only once a later message has been predicted
                assert predicted.wait(20)
            confirmed.append(line.committed)
            return super().flush(timeout_s, progress)

    line.sink = line.worker.sink = Slow()
    process = line.worker.inspection.process

    def seen(batch: MessageBatch, clock: float) -> Any:
        if batch.records[-1].offset == 1:
            predicted.set()
        return process(batch, clock)

    line.worker.inspection.process = seen  # type: ignore[method-assign]
    line.arrives(frame(grid, seed=1, line="left"), frame(grid, seed=2, line="right"))
    assert len(line.run().predictions) == 8
    assert confirmed[0] == 0
    assert line.committed == 2


def test_small_messages_that_wait_together_are_answered_together_and_each_row_is_known_by_its_own_result_id(
    line: FakeLine, grid: Axis
) -> None:
    line.arrives(*[frame(grid, n=2, seed=seed) for seed in range(200)])
    line.run()
    sent = line.sink.messages["tamis.predictions"]
    assert len(sent) == 2  # of 256 and of 144 rows
    assert len({message.headers["result_id"] for message in sent}) == 2
    assert [row["result_id"] for row in line.predictions] == [
        f"tamis.spectra-0-{i}-0" for i in range(200) for _ in "ab"
    ]


@pytest.mark.parametrize("encoding", ["arrow", "json"])
def test_bare_numbers_give_the_same_results_together_as_alone(
    tamis_line: Any, model: Model, grid: Axis, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """One message of another size, one of other headers and one that is broken interrupt those that are alike."""
    spectra = simulate(40, grid)[0].astype(np.float32)
    head = {"content-type": RAW, "dtype": "float32", "bands": str(len(grid)), "axis": grid.id, "line": "nir1"}
    results = []
    for together in (1, 100):
        monkeypatch.setattr("tamis.streamer.transport.memory.MAX_POLL_RECORDS", together)
        line = tamis_line(predictions={"encoding": encoding})
        line.publish(model)
        for i, row in enumerate(spectra):
            value = spectra[i - 2 : i + 1].tobytes() if i == 7 else row.tobytes()[: -1 if i == 11 else None]
            line.arrives(value, headers=head | ({"instrument": "other"} if i == 13 else {}))
        with structlog.testing.capture_logs():
            line.run()
        apart = ("result_id", "model_version")
        rows = [{k: v for k, v in row.items() if k not in apart} for row in line.predictions]
        results.append((rows, line.rejected, line.committed))
    one_by_one, joined = results
    assert len(one_by_one[0]) == 41
    assert len(one_by_one[1]) == 1
    assert joined[1:] == one_by_one[1:]
    for one, other in zip(one_by_one[0], joined[0], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            a, b = one[name], other[name]
            assert a == b or a == pytest.approx(b, rel=1e-4, nan_ok=True), name


@pytest.mark.parametrize("sizes", [[1] * 500, [500], [STEP - 1, 1, STEP + 1, 200, 168]])
def test_process_limits_do_not_depend_on_how_rows_are_grouped(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    n = sum(sizes)
    values, t2, q = rng.normal(size=(n, 1)), rng.chisquare(3, n), rng.chisquare(5, n)
    t2[::50] *= 30
    skip = rng.random(n) < 0.1
    limits = [ProcessLimits(30, 256) for _ in range(2)]
    found = []
    for one, parts in zip(limits, ([1] * n, sizes), strict=True):
        learned = one.update(np.linspace(-1, 1, 40)[:, None], t2[:40], q[:40], skip[:40])
        assert not one.learning
        assert len(learned.odd) == 40
        ends = np.cumsum(parts)
        each = [one.update(values[a:b], t2[a:b], q[a:b], skip[a:b]) for a, b in zip(ends - parts, ends, strict=True)]
        found.append((np.concatenate([v.odd for v in each]), np.concatenate([v.high for v in each])))
    assert found[0][0].sum() >= 5
    for alone, together in zip(*found, strict=True):
        np.testing.assert_array_equal(alone, together)
