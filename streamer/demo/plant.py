"""A plant in miniature: an embedded broker, real worker and trainer processes, and a client that sends and reads."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from ... import TamisError
from ...models.store import Store
from ..messages.codec import encode
from ..messages.frame import Frame
from ..messages.predictions import decode_predictions
from ..messages.record import ARROW, Message
from ..settings.tables import Settings, Topics
from ..transport.embedded_broker import EmbeddedBroker, dying_with_parent
from ..transport.from_settings import ensure, kafka_sink
from ..transport.kafka_sink import KafkaSink
from ..transport.kafka_source import KafkaSource

LINE, MODEL = "fermentation", "glucose"
PATIENCE_S = 120.0  # without any progress


class Plant:
    """The client's side of a broker.

    Attributes:
        rows: the predictions so far, by spectrum_id.
        arrived_s: when each of them arrived, by the monotonic clock.
        rejected: how many spectra were rejected.
        show: called after each poll.
    """

    def __init__(self, settings: Settings, sink: KafkaSink, source: KafkaSource, stop: Callable[[], bool]) -> None:
        self.settings, self.sink, self.source, self.stop = settings, sink, source, stop
        self.rows: dict[str, dict[str, Any]] = {}
        self.arrived_s: list[float] = []
        self.rejected = 0
        self.show: Callable[[], None] = lambda: None

    def measure(self, frame: Frame) -> None:
        self.send(self.settings.topics.spectra, *encode(frame, ARROW, self.settings.frame_max_bytes))

    def predict(self, frame: Frame) -> None:
        """Send spectra, and wait for their predictions."""
        self.measure(frame)
        self.wait(lambda: all(name in self.rows for name in frame.spectrum_id))

    def send(self, topic: str, *messages: Message) -> None:
        for value, headers in messages:
            self.sink.send(topic, value, key=LINE.encode(), headers=headers)
        self.sink.flush(10)

    def wait(self, done: Callable[[], bool], what: str = "predictions") -> None:
        """Read predictions until `done`. Raises TamisError if stopped, or after 45 s without a prediction."""
        begin_s = time.monotonic()
        while not done():
            for record in self.source.poll(0.05):
                if record.topic == self.settings.topics.rejects:
                    self.rejected += int(record.headers.get("rows", "1"))
                    continue
                rows = decode_predictions(record.value, record.headers)
                self.rows |= {row["spectrum_id"]: row for row in rows}
                self.arrived_s += [time.monotonic()] * len(rows)
            self.show()
            if self.stop():
                raise TamisError("stopped")
            if time.monotonic() - max([begin_s, *self.arrived_s[-1:]]) > PATIENCE_S:
                raise TamisError(f"waited {PATIENCE_S:.0f} s for {what}; {len(self.rows)} predictions came back")


@contextmanager
def plant(store: Store, stop: Callable[[], bool]) -> Iterator[Plant]:
    """A broker with its topics, and a client of it."""
    with EmbeddedBroker("tansu") as broker:
        topics = Topics(partitions=1)  # type: ignore[call-arg]
        client = dict(broker.client_settings)
        given = {"brokers": broker.bootstrap, "store": str(store.root), "topics": topics, "kafka": client}
        settings = Settings(**given)
        ensure(settings, [topics.spectra, topics.predictions, topics.rejects, topics.labels])
        results = [topics.predictions, topics.rejects]
        source = KafkaSource(settings.brokers, results, "tamis-demo", client_settings=client)
        with closing(kafka_sink(settings)) as sink, closing(source):
            yield Plant(settings, sink, source, stop)


@contextmanager
def running(command: str, settings: Settings, log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A real worker or trainer process that is ready, stopped with SIGTERM at the end; gives its metrics address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = os.environ | {
        "TAMIS_BROKERS": settings.brokers,
        "TAMIS_STORE": settings.store,
        "TAMIS_LINES": json.dumps({LINE: {"model": MODEL}}),
        "TAMIS_METRICS__PORT": str(port),
        "TAMIS_TRAINER__METRICS_PORT": str(port),
        "TAMIS_POLL_TIMEOUT_S": "0.2",
        "TAMIS_DRIFT__FOLDER": str(Path(settings.store).parent / "drift"),
        "TAMIS_KAFKA": json.dumps(settings.kafka),
        **environment,
    }
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tamis.streamer.cli", command], env=variables, stdout=file, stderr=file,
            preexec_fn=dying_with_parent(),
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(OSError):  # it does not listen yet, or answers 503
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise TamisError(f"the {command} did not start; the end of {log}:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
