"""Builds a worker or a trainer from the settings, and runs it until it is stopped."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from ... import TamisError, require_learn
from ...models.store import Store
from ..drift.monitor import DriftMonitor
from ..files.options import ReadOptions
from ..monitoring.watchdog import watchdog
from ..processing.cameras import Cameras
from ..processing.clocks import Clocks
from ..processing.inspection import Inspection
from ..processing.model_server import ModelServer
from ..settings.tables import Settings
from ..transport.client import BrokerSilent
from ..transport.from_settings import ensure, kafka_sink, kafka_source
from ..transport.protocols import Sink, Source
from ..transport.recorded import FileSink, FileSource
from .blas import usable_cores
from .late_sink import LateSink
from .outbox import Outbox
from .place import Place
from .stop import Stop
from .worker import Worker

if TYPE_CHECKING:
    from .trainer import Trainer

log = structlog.get_logger()

_PAUSE_S = 0.5
_STARTING, _LEARNING = 5, 19  # of the trainer's priority: on a busy box it would never start at the lowest

Client = TypeVar("Client")


def run_worker(
    settings: Settings, stop: Stop, read_from: Sequence[Path] | None, write_to: Path | None, reading: ReadOptions
) -> None:
    """Runs a worker until it is stopped, or until its recorded files end.

    Raises:
        TamisError: why it could not start or continue, and what the operator can do.
    """
    topics, live = settings.topics, read_from is None
    needed = [topics.spectra] if live else []
    if write_to is None:
        needed += [topics.predictions, topics.rejects]
        needed += [topics.decisions] if settings.decides else []
        needed += [topics.label_requests] if settings.requests.per_hour > 0 else []
    folder = Path(settings.drift.folder) if live else None
    cameras = Cameras(folder and folder / "cameras")
    cameras.check(settings.lines)  # before connecting to a broker
    connect, totals = partial(patiently, stop), {}
    with suppress(Stopped), ExitStack() as parts:
        # From a recorded file results must be reproducible: a new version is loaded in the foreground.
        loader = parts.enter_context(ThreadPoolExecutor(1, "load")) if live else None
        models = ModelServer(
            *(Store(settings.store), settings.lines, settings.reload_s),
            loader=loader,
            threads=settings.predict_threads or usable_cores(),
        )
        if needed:
            log.info("connecting to the broker", brokers=settings.brokers, group=settings.group)
            connect(lambda: ensure(settings, needed))
        place = parts.enter_context(closing(Place(settings.group))) if live else None
        member = place and place.name
        slot = None  # a transaction commits offsets; a recorded file has none
        if settings.exactly_once and live and write_to is None:
            member = settings.transactions.slot or member  # a worker that was given a name has it in its group as well
            slot = f"{settings.group}-{member or gethostname()}"
        # It ends a transaction that our slot left open; the worker waits for that before it asks where to continue.
        late = partial(connect, lambda: kafka_sink(settings, slot))
        sink: Sink = FileSink(write_to) if write_to is not None else LateSink(late) if live else late()
        parts.enter_context(closing(sink))
        if read_from is not None:
            source: Source = FileSource(read_from, settings.frame_max_bytes, reading)
        else:
            own = {"member": member, "stored_by_sink": slot is not None}
            read = partial(kafka_source, settings, [topics.spectra], settings.group, settings.partitions, **own)
            source = connect(read)
        parts.enter_context(closing(source))
        # Decisions go out at once: they wait for no round of results.
        apart = settings.decides and write_to is None
        decisions = parts.enter_context(closing(connect(lambda: kafka_sink(settings)))) if apart else None
        clocks = Clocks(settings.clock_skew_max_s if live else math.inf)  # a recording is of then
        inspection = Inspection(settings, models, cameras, DriftMonitor(settings.drift, folder, loader), clocks)
        worker = Worker(settings, source, sink, inspection, decisions=decisions, live=live)
        parts.enter_context(watchdog(worker.alive))
        stop.on_stop.append(worker.stop)
        if stop():
            return
        if needed:
            reading_mode = {"start_at": settings.start_at, "guarantee": settings.processing_guarantee}
            url = _serve(parts, worker, settings.metrics.host, settings.metrics.port)
            log.info("worker started", metrics=url, **reading_mode, slot=slot, member=member)
        worker.wait_for_models()
        gc.freeze()  # else Python looks through all that was imported now and then, for 50 ms
        worker.run()
        totals = worker.metrics.totals()
    log.info("worker stopped", **totals)


def run_trainer(settings: Settings, stop: Stop) -> None:
    """Runs a trainer until it is stopped, on one thread at the lowest priority: the worker beside it comes first.

    Raises:
        TamisError: why it could not start or continue, and what the operator can do.
    """
    require_learn("the trainer")
    os.nice(_STARTING)
    from .learning import one_thread
    from .trainer import Trainer

    topics = settings.topics
    connect = partial(patiently, stop)
    with suppress(Stopped), ExitStack() as parts:
        log.info("connecting to the broker", brokers=settings.brokers, group=settings.trainer.group)
        read_from, group = [topics.spectra, topics.labels], settings.trainer.group
        member = parts.enter_context(closing(Place(group))).name
        connect(lambda: ensure(settings, read_from))
        source = connect(lambda: kafka_source(settings, read_from, group, member=member))
        parts.enter_context(closing(source))
        outbox = parts.enter_context(_outbox(settings, connect))
        trainer = Trainer(settings, source, Store(settings.store), outbox=outbox)
        parts.enter_context(watchdog(trainer.alive))
        stop.on_stop.append(trainer.stop)
        if stop():
            return
        url = _serve(parts, trainer, settings.metrics.host, settings.trainer.metrics_port, "trainer.metrics_port")
        log.info("trainer started", metrics=url, model=settings.trainer.model)
        os.nice(_LEARNING - _STARTING)
        with one_thread():
            trainer.run()
    log.info("trainer stopped")


@contextmanager
def _outbox(settings: Settings, connect: Callable[[Callable[[], Any]], Any]) -> Iterator[Outbox]:
    """Of a trainer: its dead letters and requests. Without their topics it learns all the same."""
    closed = {}
    for topic in (settings.topics.label_rejects, settings.topics.label_requests):
        try:
            connect(partial(ensure, settings, [topic]))
        except TamisError as error:
            closed[topic] = str(error)
    with closing(connect(lambda: kafka_sink(settings))) as sink:
        yield Outbox(sink, settings.flush_timeout_s, closed)


class Stopped(Exception):
    """A stop came before the service could start."""


def patiently(stop: Stop, connect: Callable[[], Client]) -> Client:
    """Calls `connect` until a broker answers; one that refuses us is not waited for. Raises Stopped."""
    while not stop():
        try:
            return connect()
        except BrokerSilent as error:
            log.error("waiting for a broker", error=str(error))
            time.sleep(_PAUSE_S)  # of several brokers, one that has just gone refuses at once
    raise Stopped


def _serve(parts: ExitStack, service: Worker | Trainer, host: str, port: int, setting: str = "") -> str:
    """Starts the server of metrics and probes; returns its URL."""
    from ..monitoring.http_server import WebServer, metrics_pages  # with uvicorn: only where a server starts

    pages = metrics_pages(service.meters, service.alive, service.ready)
    return parts.enter_context(WebServer(host, port, pages, "metrics", setting)).url
