"""Where a frame's time goes, from the broker to the confirmed predictions: microseconds per spectrum, stage by stage.

    python -m tests.benchmarks.hot_path [--kind plsr] [--bands 700] [--rows 256] [--frames 300] [--json PATH]

Each stage runs alone on the same frames, in one thread; `whole` is the worker's own `handle`: all stages except reading
and delivering. Those two are measured with an embedded broker, in CPU time of this process. The limit is that of this
machine: the bytes that a stage must read or write at its copying speed, or the operations at the speed of its fastest
matrix product.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tamis.models.store import Store
from tamis.streamer.services.blas import set_up_blas

set_up_blas()

from tamis.streamer.messages.codec import decode  # noqa: E402
from tamis.streamer.messages.predictions import encode_predictions  # noqa: E402
from tamis.streamer.messages.record import ARROW, Message, Record  # noqa: E402
from tamis.streamer.messages.screening import screen  # noqa: E402
from tamis.streamer.processing.inspection import Inspection  # noqa: E402
from tamis.streamer.processing.model_server import ModelServer  # noqa: E402
from tamis.streamer.services.worker import Worker  # noqa: E402
from tamis.streamer.settings.load import load  # noqa: E402
from tamis.streamer.transport.embedded_broker import EmbeddedBroker  # noqa: E402 (BLAS is set up before NumPy's first product)
from tamis.streamer.transport.kafka_sink import KafkaSink  # noqa: E402
from tamis.streamer.transport.kafka_source import KafkaSource  # noqa: E402
from tamis.streamer.transport.memory import MemorySink, MemorySource  # noqa: E402

from .plant import Plant, fitted, messages  # noqa: E402

COMPONENTS = 10


def machine() -> tuple[float, float]:
    """Bytes copied per second, and operations per second of the fastest product, in float32, one thread."""
    source, target = np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32)
    a = np.ones((1024, 1024), np.float32)
    out = np.empty_like(a)
    copy_s = min(_times(lambda _: np.copyto(target, source), range(20)))
    product_s = min(_times(lambda _: np.matmul(a, a, out=out), range(20)))
    return source.nbytes / copy_s, 2 * 1024**3 / product_s


def _times(work: Callable[[Any], Any], items: Iterable[Any]) -> list[float]:
    took = []
    for item in items:
        begun = time.perf_counter()
        work(item)
        took.append(time.perf_counter() - begun)
    return took


def stages(kind: str, bands: int, made: list[Message]) -> tuple[dict[str, list[float]], list[Message]]:
    """Seconds of each frame, by stage; and the messages that the worker sent."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.publish("default", fitted(kind, bands))
        settings = load(None, {"store": folder})
        sink = MemorySink()
        inspection = Inspection(settings, ModelServer(store, settings.lines, threads=1))
        worker = Worker(settings, MemorySource([]), sink, inspection)
        worker.wait_for_models()
        model = inspection.models.served["default"].model
        axes, cap = settings.known_axes(), settings.frame_max_bytes

        def records(since: int) -> list[Record]:
            return [Record("t", 0, since + i, None, value, headers, 1.7e9 + since + i)
                    for i, (value, headers) in enumerate(made)]  # fmt: skip

        def handle(record: Record) -> None:
            for batch in worker.decode([record]):
                worker.handle(batch)

        for record in records(0)[:50]:  # learns the drift reference and the process limits
            handle(record)
        frames = [decode(record, axes, cap)[0] for record in records(0)]
        predictions = [inspection.predictor.predict(frame) for frame in frames]
        checked = list(zip(records(1_000_000), frames, predictions, strict=True))
        found = {
            "decode": _times(lambda record: decode(record, axes, cap), records(0)),
            "screen": _times(lambda frame: screen(frame, None, []), frames),
            "model": _times(lambda frame: model.predict(frame.spectra, frame.axis), frames),
            "limits and reasons": _times(inspection.predictor.predict, frames),
            "encode": _times(lambda some: list(encode_predictions(some, ARROW, cap, "x")), predictions),
            "drift": _times(
                lambda one: inspection.monitor.update([one[0]], (0, len(one[1])), one[1], one[2], model), checked
            ),
            "metrics": _times(lambda some: worker.metrics.record([some]), predictions),
        }  # fmt: skip
        found["limits and reasons"] = _less(found["limits and reasons"], found["model"])
        sink.messages.clear()
        found["whole"] = _times(handle, records(2_000_000))
        return found, [(message.value, message.headers) for message in sink.messages["tamis.predictions"]]


def _less(whole: list[float], part: list[float]) -> list[float]:
    """The rest of a stage without one part: minimum, median and median again of the differences."""
    return [max(0.0, pick(whole) - pick(part)) for pick in (np.min, np.median, np.median)]


def through_kafka(made: list[Message], results: list[Message]) -> dict[str, list[float]]:
    """CPU seconds per frame in this process: reading frames, and sending results until they are confirmed."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker("tansu") as broker:
        plant = Plant(Path(folder), broker)
        plant.send(made)
        client = broker.client_settings
        read, sent = [], []
        with closing(KafkaSource(broker.bootstrap, ["tamis.spectra"], "hot", client_settings=client)) as source:
            count = 0
            begun = time.process_time()
            while count < len(made):
                if got := len(source.poll(0.2)):
                    now = time.process_time()
                    read += [(now - begun) / got] if count else []
                    begun, count = now, count + got
        with closing(KafkaSink(broker.bootstrap, client_settings=client)) as sink:
            for i in range(0, len(results), 8):
                begun = time.process_time()
                for value, headers in results[i : i + 8]:
                    sink.send("tamis.predictions", value, headers=headers)
                sink.flush(30)
                sent.append((time.process_time() - begun) / len(results[i : i + 8]))
    return {"read from the broker": read, "send and confirm": sent}


def measure(kind: str, bands: int, rows: int, count: int) -> list[dict[str, Any]]:
    made = messages(count, bands, rows)
    found, results = stages(kind, bands, made)
    found |= through_kafka(made, results)
    bytes_a_second, operations_a_second = machine()
    spectra_bytes, result_bytes = 4 * bands * rows, len(results[-1][0])
    touched = {
        "read from the broker": spectra_bytes,
        "decode": spectra_bytes,
        "screen": spectra_bytes,
        "model": 2 * spectra_bytes,
        "encode": result_bytes,
        "drift": 2 * spectra_bytes,
        "send and confirm": result_bytes,
    }
    operations = {"model": 2 * rows * bands * (15 + 2 * COMPONENTS), "drift": 2 * rows * bands * 51}
    order = ["read from the broker", "decode", "screen", "model", "limits and reasons", "encode", "metrics", "drift",
             "whole", "send and confirm"]  # fmt: skip
    table = []
    for name in order:
        limit_s = max(touched.get(name, 0) / bytes_a_second, operations.get(name, 0) / operations_a_second)
        table.append({"stage": name, "median_us": round(1e6 * float(np.median(found[name])) / rows, 2),
                      "best_us": round(1e6 * float(np.min(found[name])) / rows, 2),
                      "limit_us": round(1e6 * limit_s / rows, 2) if limit_s else ""})  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="plsr")
    parser.add_argument("--bands", type=int, default=700)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    table = measure(given.kind, given.bands, given.rows, given.frames)
    for row in table:
        print(
            f"{row['stage']:22} {row['median_us']:8.2f} {row['best_us']:8.2f} {row['limit_us'] or '':>8} us a spectrum"
        )
    if given.json:
        given.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
