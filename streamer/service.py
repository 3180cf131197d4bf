"""Puts a worker or a replay together from the settings: which source, which sink, which server."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog

from .. import BadFile
from ..models.store import Store
from .camera import Cameras
from .formats import parts as compressions
from .monitoring.watchdog import Watchdog
from .predictor import Predictor
from .replay import Replay, Sent
from .security import weaknesses
from .settings import Settings
from .simulate import Belt, write_truth
from .sink import FileSink, KafkaSink, Sink
from .source import FileSource, KafkaSource, Source, ensure_topics
from .watch import DriftWatch
from .wire import ARROW, JSON, RAW, encode
from .worker import Worker

log = structlog.get_logger()

# The producer's own cap lies above the frames': headers and the record's envelope take their share.
_ENVELOPE_BYTES = 16_384
TELL_WAITING_S = 5.0
BROKER_DEFAULT_BYTES = 1 << 20  # what a topic takes unless told otherwise


class Stop(Protocol):
    """Whether the operating system has asked us to stop, and whom to tell."""

    on_stop: list[Callable[[], None]]

    def __call__(self) -> bool: ...

    def wait(self, while_true: Callable[[], bool]) -> None:
        """Until it is asked for, or what holds meanwhile does not hold any more."""
        ...


def kafka_sink(settings: Settings, transactional_id: str | None = None) -> KafkaSink:
    return KafkaSink(
        settings.brokers,
        max_message_bytes=settings.frame_max_bytes + _ENVELOPE_BYTES,
        transactional_id=transactional_id,
        client_settings=settings.kafka,
    )


def kafka_source(settings: Settings, topics: Sequence[str], group: str, partitions: Sequence[int] = ()) -> KafkaSource:
    return KafkaSource(
        settings.brokers,
        topics,
        group,
        auto_offset_reset=settings.start_at,
        partitions=partitions,
        in_flight_max_bytes=settings.in_flight_max_bytes,
        frame_max_bytes=settings.frame_max_bytes,
        stall_s=settings.stall_s,
        client_settings=settings.kafka,
    )


def ensure(settings: Settings, names: Sequence[str]) -> None:
    """Topics that are there; says where the connection to the broker is weak."""
    for weakness in weaknesses(settings.kafka):
        log.warning("the connection to the broker is weak", why=weakness)
    largest = settings.frame_max_bytes + 2 * _ENVELOPE_BYTES
    ensure_topics(
        settings.brokers,
        names,
        settings.topics.partitions,
        create=settings.topics.create,
        max_message_bytes=largest if largest > BROKER_DEFAULT_BYTES else None,
        client_settings=settings.kafka,
    )


def run_worker(
    settings: Settings, stop: Stop, read_from: Path | None, write_to: Path | None, reading: Mapping[str, Any]
) -> None:
    """A worker until it is told to stop, or until a recorded file ends.

    Raises:
        TamisError: why it could not start or go on, and what the operator can do.
    """
    topics = settings.topics
    needed = [topics.spectra] if read_from is None else []
    needed += [topics.predictions, topics.rejects] if write_to is None else []
    needed += [topics.decisions] if write_to is None and settings.decides else []
    needed += [topics.label_requests] if write_to is None and settings.requests.per_hour > 0 else []
    cameras = Cameras(None if read_from is not None else Path(settings.drift.folder) / "cameras")
    cameras.check(settings.lines)  # before a broker is looked for
    with ExitStack() as parts:
        # A recorded file is the same each time it is read: there a new version is waited for.
        loader = parts.enter_context(ThreadPoolExecutor(1, "load")) if read_from is None else None
        predictor = Predictor(
            Store(settings.store),
            settings.lines,
            settings.process,
            settings.reload_s,
            loader=loader,
            threads=settings.predict_threads,
        )
        if needed:
            log.info("looking for the broker", brokers=settings.brokers, group=settings.group)
            ensure(settings, needed)
        # The sink first: what a transaction of our slot left open is aborted before we ask where to go on.
        sink: Sink = parts.enter_context(closing(_sink(settings, read_from, write_to)))
        source: Source = parts.enter_context(closing(_source(settings, read_from, reading)))
        folder = Path(settings.drift.folder) if read_from is None else None
        drift = DriftWatch(settings.drift, folder, loader)
        apart = settings.decides and write_to is None and settings.transactional_id is not None
        decisions = parts.enter_context(closing(kafka_sink(settings))) if apart else None
        worker = Worker(
            *(settings, source, sink, predictor),
            drift=drift,
            cameras=cameras,
            decisions=decisions,
            live=read_from is None,
        )
        parts.enter_context(Watchdog(worker.alive))
        stop.on_stop.append(worker.stop)
        if stop():
            return
        if needed:
            from .monitoring.http_server import MetricsServer  # with uvicorn: only where a server starts

            server = MetricsServer(
                settings.metrics.host, settings.metrics.port, worker.meters, worker.alive, worker.ready
            )
            parts.enter_context(server)
            log.info(
                "worker started",
                metrics=server.url,
                start_at=settings.start_at,
                guarantee=settings.processing_guarantee,
                slot=settings.transactional_id,
            )
        worker.run()
    log.info("worker stopped", **worker.totals())


def run_trainer(settings: Settings, stop: Stop) -> None:
    """A trainer until it is told to stop: at the lowest priority, on one thread, lest the worker beside it wait.

    Raises:
        TamisError: why it could not start or go on, and what the operator can do.
    """
    os.nice(19)
    from .monitoring.http_server import MetricsServer
    from .trainer import Trainer, one_thread

    topics = settings.topics
    with ExitStack() as parts:
        log.info("looking for the broker", brokers=settings.brokers, group=settings.trainer.group)
        ensure(settings, [topics.spectra, topics.labels])
        source = kafka_source(settings, [topics.spectra, topics.labels], settings.trainer.group)
        parts.enter_context(closing(source))
        trainer = Trainer(settings, source, Store(settings.store))
        parts.enter_context(Watchdog(trainer.alive))
        stop.on_stop.append(trainer.stop)
        if stop():
            return
        port = settings.trainer.metrics_port
        server = MetricsServer(settings.metrics.host, port, trainer.meters, trainer.alive, trainer.ready)
        parts.enter_context(server)
        log.info("trainer started", metrics=server.url, model=settings.trainer.model)
        with one_thread():
            trainer.run()
    log.info("trainer stopped")


def run_pretrain(
    settings: Settings,
    files: Sequence[Path],
    recipe: Mapping[str, Any],
    name: str | None,
    out: Path | None,
    how: Mapping[str, Any],
) -> bool:
    """Pretrains on files and tells what came of it; False where the gate refused it, or it was stopped."""
    from rich.console import Console
    from rich.progress import Progress

    from ..ssl.pretrain import Interrupted, Recipe
    from .pretraining import pretrain_files

    for path in (out, how["checkpoint"]):  # said before the work, not after
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise BadFile(f"{path}: expected a file to write, in a folder that is there")
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("pretraining", total=recipe["steps"])

        def progress(step: int, loss: float) -> None:
            bar.update(task, completed=step + 1, description=f"pretraining, loss {loss:.3f}")

        try:
            made = Recipe(**recipe)
            done = pretrain_files(files, made, store=Store(settings.store), name=name, progress=progress, **how)
        except Interrupted as error:
            print(f"{error}; --checkpoint goes on from there" if how["checkpoint"] else str(error))
            return False
    if done.verdict is not None:
        for check in done.verdict.checks:
            print(f"{'ok    ' if check.passed else 'FAIL  '} {check.name}: {check.told}")
        print(f"{name} {done.version}: published" if done.version else f"{name}: refused; {done.verdict.reason}")
        return done.version is not None
    assert done.health is not None
    assert out is not None
    if int(os.environ.get("RANK", "0")) == 0:
        try:
            done.encoder.save(out)
        except OSError as error:
            raise BadFile(f"can not write {out}: {error.strerror}") from error
        told = done.health
        print(
            f"{out}: {done.encoder.kind} on {done.encoder.grid}, {done.encoder.width} features; loss {told.loss:.3f}, "
            f"effective rank {told.rankme:.1f}, alignment {told.alignment:.3f}, uniformity {told.uniformity:.2f}"
        )
    return True


def _source(settings: Settings, read_from: Path | None, reading: Mapping[str, Any]) -> Source:
    if read_from is not None:
        return FileSource(read_from, settings.frame_max_bytes, reading)
    return kafka_source(settings, [settings.topics.spectra], settings.group, settings.partitions)


def _sink(settings: Settings, read_from: Path | None, write_to: Path | None) -> Sink:
    if write_to is not None:
        return FileSink(write_to)
    # A transaction commits offsets, and a recorded file has none.
    return kafka_sink(settings, settings.transactional_id if read_from is None else None)


def run_tail(settings: Settings, stop: Stop, topic: str, new_only: bool, limit: int | None) -> None:
    """Prints what workers send, a line of JSON a spectrum, decision or reject, until stopped or at `limit`."""
    import orjson

    from .outcome import decode_predictions

    rejects = topic == settings.topics.rejects
    ensure(settings, [topic])
    settings = settings.model_copy(update={"start_at": "latest" if new_only else "earliest"})
    source = kafka_source(settings, [topic], f"tamis-tail-{uuid.uuid4().hex[:8]}")  # of its own, that never commits
    told, waited_since = 0, time.monotonic()
    with closing(source):
        while not stop() and (limit is None or told < limit):
            if waited_since is not None and time.monotonic() - waited_since > TELL_WAITING_S:
                waited_since = None
                print(f"nothing more in {topic} yet; waiting (Ctrl-C ends this)", file=sys.stderr, flush=True)
            for record in source.poll(0.2):
                waited_since = time.monotonic() if waited_since is not None else None
                try:
                    rows = [dict(record.headers)] if rejects else decode_predictions(record.value, record.headers)
                except (ValueError, OverflowError) as error:  # Arrow's and JSON's errors are ValueErrors
                    log.warning("no predictions", place=record.place, error=str(error).partition("\n")[0])
                    continue
                for row in rows[: None if limit is None else limit - told]:
                    print(orjson.dumps(row, option=orjson.OPT_UTC_Z).decode(), flush=True)
                    told += 1


def run_simulate(settings: Settings, stop: Stop, belt: Belt, seconds: float, lines: int, truth: Path | None) -> Sent:
    """Sends a simulated belt to the spectra topic at the camera's pace; tells how far it fell behind."""
    topics, sent = settings.topics, Sent()
    ensure(settings, [topics.spectra])
    with closing(kafka_sink(settings)) as sink:
        begun, start = time.monotonic(), np.datetime64(time.time_ns() // 1000, "us")
        if truth is not None:
            write_truth(truth, belt, seconds, start)
        for number, frame in enumerate(belt.frames(seconds, start, lines), start=1):
            seen_s = number * lines / belt.lines_per_s  # a line is sent once it was seen
            while not stop() and (wait_s := begun + seen_s - time.monotonic()) > 0:
                time.sleep(min(wait_s, 0.2))
            if stop():
                break
            if len(frame):
                for value, headers in encode(frame, ARROW, settings.frame_max_bytes):
                    sink.send(topics.spectra, value, key=frame.line.encode(), headers=headers)
                    sent.frames += 1
                sent.spectra += len(frame)
            sent.seconds = time.monotonic() - begun
            sent.behind_s = max(sent.behind_s, sent.seconds - seen_s)
        sink.flush(30.0)
    return sent


def run_replay(settings: Settings, stop: Stop, files: Sequence[Path], encoding: str, how: dict[str, Any]) -> Sent:
    """Replays files to the spectra topic, with a progress bar on a terminal."""
    for path in files:
        compressions(str(path))  # told before a broker is looked for
    content_type = {"arrow": ARROW, "raw": RAW, "json": JSON}[encoding]
    topics = settings.topics
    ensure(settings, [topics.spectra])
    name = how.pop("resume")
    group = f"tamis-replay-{name}"
    once = bool(name) and settings.processing_guarantee == "exactly_once"
    with ExitStack() as parts:
        # The sink first: it aborts what a replay of this name left open.
        sink = parts.enter_context(closing(kafka_sink(settings, group if once else None)))
        before = 0
        if name:
            resume = how["resume"] = parts.enter_context(closing(kafka_source(settings, [topics.spectra], group, [0])))
            before = resume.committed(topics.spectra, 0)
        replay = Replay(topic=topics.spectra, content_type=content_type, most_bytes=settings.frame_max_bytes, **how)
        if not sys.stderr.isatty():
            return replay.run(files, sink, stopping=stop, before=before)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from .records import count_spectra

        counts = [count_spectra(path) for path in files]
        total = None if replay.loop or None in counts else sum(count for count in counts if count)
        if replay.limit is not None:
            total = min(total or replay.limit, replay.limit)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, TextColumn("{task.fields[pace]}"), transient=True) as bar:
            task = bar.add_task("replay", total=total, pace="")

            def show(sent: Sent) -> None:
                bar.update(
                    task,
                    completed=before + sent.spectra,
                    pace=f"{sent.spectra / max(sent.seconds, 1e-9):.0f} spectra/s",
                )

            return replay.run(files, sink, show, stop, before)
