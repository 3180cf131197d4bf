"""A pytest plugin: a line without a broker, and real brokers without a cluster. Installed with Tamis, found by pytest.

Fixtures:
    tamis_line: makes a `FakeLine`, which runs a worker over frames in memory with your own settings and models.
    tamis_broker: an embedded broker that can do consumer groups; `.bootstrap` is its address.
    tamis_broker_with: picks an embedded broker by what a test needs, such as ``tamis_broker_with("transactions")``.
    tamis_kafka: Apache Kafka, which needs Java and Maven; where they are missing, the test is skipped.

With ``tamis_broker_kind = kafka`` in pytest's settings, the brokers are Apache Kafka as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..models.model import Model
    from .messages.frame import Frame
    from .transport.apache_kafka import ApacheKafka
    from .transport.embedded_broker import EmbeddedBroker


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("tamis_broker_kind", "what tamis_broker is: embedded (the default) or kafka", default="embedded")


@dataclass
class FakeLine:
    """A worker between a source and a sink in memory: your own settings and models, no broker, no thread.

    Args:
        store: a folder for the models. settings: as in the TOML file, such as ``{"lines": {"nir1": {...}}}``.
    """

    store: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from ..models.store import Store
        from .processing.inspection import Inspection
        from .processing.model_server import ModelServer
        from .services.worker import Worker
        from .settings.load import load
        from .transport.memory import MemorySink, MemorySource

        loaded = load(None, {"store": str(self.store), "poll_timeout_s": 0.01, **self.settings})
        self.source, self.sink, self._models = MemorySource([]), MemorySink(), Store(self.store)
        server = ModelServer(self._models, loaded.lines, reload_s=0.0)
        self.worker = Worker(loaded, self.source, self.sink, Inspection(loaded, server))

    def publish(self, model: Model, name: str = "default") -> str:
        """Makes a model current, as `tamis fit` does; returns its version."""
        return self._models.publish(name, model)

    def arrives(self, *messages: Frame | bytes, headers: dict[str, str] | None = None) -> None:
        """Frames (as Arrow), or the bytes of a message with its headers, arrive on the spectra topic."""
        from .messages.codec import encode
        from .messages.frame import Frame
        from .messages.record import ARROW, Record

        settings, records = self.worker.settings, self.source.records
        for message in messages:
            is_frame = isinstance(message, Frame)
            sent = encode(message, ARROW, settings.frame_max_bytes) if is_frame else [(message, dict(headers or {}))]
            for n, one in enumerate(sent, start=len(records)):
                records.append(Record(settings.topics.spectra, 0, n, None, *one, float(n)))

    def run(self) -> FakeLine:
        """Runs the worker over all that has arrived."""
        self.worker.run()
        return self

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """One dictionary a spectrum, in the order in which they were sent."""
        from .messages.predictions import decode_predictions

        sent = self.sink.messages.get(self.worker.settings.topics.predictions, [])
        return [row for message in sent for row in decode_predictions(message.value, message.headers)]

    @property
    def rejected(self) -> list[str]:
        """Why each message, or each group of rows, was set aside."""
        sent = self.sink.messages.get(self.worker.settings.topics.rejects, [])
        return [message.headers["error"] for message in sent]

    @property
    def committed(self) -> int:
        """The offset up to which the worker is done."""
        return self.source.committed


@pytest.fixture
def tamis_line(tmp_path: Path) -> Callable[..., FakeLine]:
    """``tamis_line(lines={"nir1": {"model": "fat"}})`` makes a `FakeLine` with these settings."""
    return lambda **settings: FakeLine(tmp_path / "tamis-store", settings)


@pytest.fixture(scope="session")
def tamis_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """Apache Kafka, one broker, shared by the processes of pytest-xdist."""
    from .. import BrokerAbsent
    from .transport.apache_kafka import shared

    own = tmp_path_factory.getbasetemp()
    try:
        with shared(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) as cluster:
            yield cluster
    except BrokerAbsent as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tamis_broker_with(request: pytest.FixtureRequest) -> Iterator[Callable[..., EmbeddedBroker | ApacheKafka]]:
    """A broker that has all the named capabilities; each kind is started once, and stopped at the end."""
    from .transport.embedded_broker import CAPABILITIES, EmbeddedBroker

    chosen = request.config.getini("tamis_broker_kind")
    if chosen not in ("embedded", "kafka"):
        raise pytest.UsageError(f"tamis_broker_kind = {chosen}: expected embedded or kafka")
    kafka = request.getfixturevalue("tamis_kafka") if chosen == "kafka" else None
    running: dict[str, EmbeddedBroker] = {}

    def pick(*needed: str) -> EmbeddedBroker | ApacheKafka:
        known = frozenset().union(*CAPABILITIES.values())
        if unknown := set(needed) - known:
            raise ValueError(f"no broker is known for {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if kafka is not None:  # it has them all
            return kafka
        able = [kind for kind, has in CAPABILITIES.items() if has.issuperset(needed)]
        if not able:
            pytest.skip(f"no embedded broker has {', '.join(needed)}; tamis_broker_kind = kafka would")
        kind = next((kind for kind in able if kind in running), able[0])
        if kind not in running:
            running[kind] = EmbeddedBroker(kind)
            running[kind].start()
        return running[kind]

    yield pick
    for broker in running.values():
        broker.stop()


@pytest.fixture
def tamis_broker(tamis_broker_with: Callable[..., EmbeddedBroker | ApacheKafka]) -> EmbeddedBroker | ApacheKafka:
    """A broker with consumer groups, on a free port of loopback."""
    return tamis_broker_with("groups")
