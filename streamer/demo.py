"""`tamis demo`: a real fermentation, followed as a plant would follow it, through a broker and a worker process.

The data come with chemotools (Cabaneros Lopez et al.): 21 calibration spectra with glucose by HPLC, then 1,629 spectra
of a fermentation on-line, one every 75 seconds, with 34 HPLC values by the way.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import TamisError, __version__
from ..models.pls import PLSR
from ..models.store import Store
from .broker import EmbeddedBroker, dying_with_parent
from .files.options import ReadOptions
from .fitting.fit import FitOptions, FitResult, fit_and_publish
from .frame import Frame
from .outcome import decode_predictions
from .page import write_page
from .records import read_frames, write_parquet
from .report import Finding, Run, write_report
from .settings.tables import Settings, Topics
from .sink import KafkaSink
from .source import KafkaSource, ensure_topics
from .tools.replay import Replay, ReplayOptions
from .transport.from_settings import kafka_sink

LINE = "fermentation"
TARGET, UNIT = "glucose", "g/L"
STEP_S = 75.0  # 1.25 minutes between two process spectra
# What chemotools' own example uses on these spectra; the number of latent variables is cross-validated.
PREPROCESS = "cut 950 1500, baseline, savgol 15 2 1"
FRAME_SPECTRA = 32
# Nobody noted the clock of that fermentation: any start will do, so long as times are in order.
START = np.datetime64("2026-01-01T00:00:00", "us")
PATIENCE_S = 45.0  # without any progress


@dataclass
class Seen:
    """What has come back so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: int = 0
    wall_s: list[float] = field(default_factory=list)
    count: list[int] = field(default_factory=list)


def run_demo(out: Path, json_path: Path | None, rate: float, stop: Callable[[], bool]) -> bool:
    """Runs it all and tells what was seen; False where spectra were lost or it was stopped."""
    began = time.monotonic()
    say = _Teller()
    store = own_store(out)
    calibration, process, hplc = data()
    fitted = fit_calibration(calibration, store)
    say(
        f"fitted {TARGET} on {fitted.model.training['spectra']} calibration spectra: PLSR, "
        f"{fitted.metrics['latent_variables']} latent variables, version {fitted.version}"
    )
    recording = out / "fermentation.parquet"
    spectra_in = write_parquet(recording, timed(process))
    with EmbeddedBroker("tansu") as broker:
        settings = Settings(
            brokers=broker.bootstrap,
            store=str(store.root),
            topics=Topics(partitions=1),  # type: ignore[call-arg]
            kafka=dict(broker.client_settings),
        )
        topics = settings.topics
        names = [topics.spectra, topics.predictions, topics.rejects]
        ensure_topics(settings.brokers, names, 1, create=True, client_settings=settings.kafka)
        say(f"broker on {broker.bootstrap}; worker starting, its log is {out / 'worker.log'}")
        with running("worker", settings, out / "worker.log"):
            seen = _follow(settings, recording, spectra_in, rate, say, stop)
    if stop():
        say("stopped")
        return False
    figures, run = _judge(seen, fitted, spectra_in, hplc)
    figures["seconds"] = round(time.monotonic() - began, 1)
    run.figures["run time"] = f"{figures['seconds']:.0f} s"
    report = out / "report.html"
    write_report(run, report)
    if json_path is not None:
        write_page(json.dumps(figures, indent=1) + "\n", json_path)
    for finding in run.findings:
        say(f"{finding.level:<7} {finding.title}: {finding.text}")
    say(
        f"RMSEP {figures['rmsep']:.2f} {UNIT}, R2 {figures['r2']:.3f} over {run.lab_used.sum()} laboratory values, "
        f"{figures['seconds']:.0f} s; report: {report}"
    )
    return figures["spectra_in"] == figures["predictions_out"] + figures["rejected"]


def own_store(out: Path) -> Store:
    """The folder is made; settings of a real line are forgotten: the demo is a plant of its own."""
    for name in [name for name in os.environ if name.startswith("TAMIS_")]:
        del os.environ[name]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TamisError(f"can not write into {out}: {error.strerror}") from error
    return Store(out / "store")


def data() -> tuple[Path, Path, np.ndarray]:
    """The calibration's folder, the process spectra, and (34, 2) hours and glucose."""
    spec = find_spec("chemotools")
    if spec is None or spec.origin is None:
        raise TamisError("the demo's data come with chemotools: pip install chemotools")
    folder = Path(spec.origin).parent / "datasets" / "data"
    with open(folder / "fermentation_hplc.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    hplc = np.array([(float(row["time"]), float(row[TARGET])) for row in rows])
    return folder, folder / "fermentation_spectra.csv", hplc


def fit_calibration(folder: Path, store: Store) -> FitResult:
    options = FitOptions(
        targets=[TARGET],
        kind=PLSR.kind,
        name=TARGET,
        preprocess=PREPROCESS,
        units={TARGET: UNIT},
        labels=folder / "train_hplc.csv",
        reading=ReadOptions(axis_unit="cm-1"),
    )
    return fit_and_publish(folder / "train_spectra.csv", options, store)


def timed(process: Path) -> Iterator[Frame]:
    """The process spectra with the times and names that the file leaves out."""
    at = 0
    for frame in read_frames(process, line=LINE, instrument="ATR", axis_unit="cm-1", frame_spectra=FRAME_SPECTRA):
        order = np.arange(at, at + len(frame))
        times = START + (order * STEP_S * 1e6).astype("timedelta64[us]")
        yield replace(frame, spectrum_id=[f"ferm-{i:04d}" for i in order], time=times)
        at += len(frame)


@contextmanager
def running(
    command: str, settings: Settings, log: Path, more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """A real worker or trainer process, ready to serve; stopped with SIGTERM as a supervisor would.

    Gives the address of its metrics.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "TAMIS_BROKERS": settings.brokers,
        "TAMIS_STORE": settings.store,
        "TAMIS_LINES": json.dumps({LINE: {"model": TARGET}}),
        "TAMIS_METRICS__PORT": str(port),
        "TAMIS_TRAINER__METRICS_PORT": str(port),
        "TAMIS_POLL_TIMEOUT_S": "0.2",
        "TAMIS_DRIFT__FOLDER": str(Path(settings.store).parent / "drift"),
        "TAMIS_KAFKA": json.dumps(settings.kafka),
        **more,
    }
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tamis.streamer.cli", command], env=environment, stdout=file, stderr=file,
            preexec_fn=dying_with_parent(),
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _answers(f"http://127.0.0.1:{port}/readyz"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TamisError(f"the {command} did not get ready; the end of {log}:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 (our own worker on loopback)
            return answer.status == 200
    except OSError:
        return False


def _follow(
    settings: Settings, recording: Path, spectra_in: int, rate: float, say: _Teller, stop: Callable[[], bool]
) -> Seen:
    """Replays in a thread of its own, and watches the predictions come back."""
    topics = settings.topics
    options = ReplayOptions(rate=rate, reading=ReadOptions(frame_spectra=FRAME_SPECTRA))
    replay = Replay(options, topics.spectra, settings.frame_max_bytes)
    failed: list[BaseException] = []

    def send(sink: KafkaSink) -> None:
        try:
            replay.run([recording], sink, stopping=stop)
        except BaseException as error:  # noqa: BLE001 (told by the thread that waits)
            failed.append(error)

    seen = Seen()
    source = KafkaSource(
        settings.brokers,
        [topics.predictions, topics.rejects],
        "tamis-demo",
        auto_offset_reset="earliest",
        client_settings=settings.kafka,
    )
    with closing(kafka_sink(settings)) as sink, closing(source), say.table(spectra_in) as show:
        sender = threading.Thread(target=send, args=(sink,), daemon=True)
        sender.start()
        start = moved = time.monotonic()
        while len(seen.rows) + seen.rejected < spectra_in and not stop():
            for record in source.poll(0.2):
                moved = time.monotonic()
                if record.topic == topics.rejects:
                    seen.rejected += int(record.headers.get("rows", "1"))
                else:
                    seen.rows += decode_predictions(record.value, record.headers)
                    seen.wall_s.append(moved - start)
                    seen.count.append(len(seen.rows))
            if failed:
                raise failed[0]
            if time.monotonic() - moved > PATIENCE_S:
                raise TamisError(
                    f"nothing came back for {PATIENCE_S:.0f} s; {len(seen.rows)} of {spectra_in} were there"
                )
            show(seen)
        sender.join(5)
    return seen


def _judge(seen: Seen, fitted: FitResult, spectra_in: int, hplc: np.ndarray) -> tuple[dict[str, Any], Run]:
    """The figures, and the page that shows them."""
    rows = sorted(seen.rows, key=lambda row: row["spectrum_id"])
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    hours = np.array([_hours(moment) for moment in column["time"]])
    values, t2, q = (column[name].astype(float) for name in (TARGET, "t2", "q"))
    frozen, warm_up, odd = (column[name].astype(bool) for name in ("frozen", "warm_up", "odd"))
    (_, t2_99), (_, q_99) = fitted.model.limits["t2"], fitted.model.limits["q"]
    outside = (t2 > t2_99) | (q > q_99)
    nearest = np.abs(hours[:, None] - hplc[:, 0]).argmin(axis=0)
    used = np.ones(len(hplc), bool)
    used[[0, -1]] = False  # the first lies in the warm-up, the last at the frozen end
    error = (values[nearest] - hplc[:, 1])[used]
    sst = ((hplc[used, 1] - hplc[used, 1].mean()) ** 2).sum()
    figures = {
        "spectra_in": spectra_in,
        "predictions_out": len(rows),
        "rejected": seen.rejected,
        "outside_calibration_fraction": float(outside.mean()),
        "warm_up_spectra": int(warm_up.sum()),
        "frozen_spectra": int(frozen.sum()),
        "odd_spectra": int(odd.sum()),
        "latent_variables": fitted.metrics["latent_variables"],
        "rmsep": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).sum() / sst),
        "bias": float(error.mean()),
    }
    came = np.diff(np.array(seen.count), prepend=0)
    each_second = np.bincount(np.array(seen.wall_s).astype(int), weights=came)
    run = Run(
        title="Fermentation: glucose, predicted on-line",
        subtitle=f"{len(rows)} ATR spectra in {hours[-1]:.1f} hours; PLSR on {fitted.model.training['spectra']} "
        f"calibration spectra, {fitted.metrics['latent_variables']} latent variables, {PREPROCESS}",
        target=TARGET,
        unit=UNIT,
        hours=hours,
        values=values,
        t2=t2,
        q=q,
        t2_limits=np.array(fitted.model.limits["t2"]),
        q_limits=np.array(fitted.model.limits["q"]),
        t2_process_limit=column["t2_process_limit"].astype(float),
        q_process_limit=column["q_process_limit"].astype(float),
        trusted=column["trusted"].astype(bool),
        odd=odd,
        frozen=frozen,
        warm_up=warm_up,
        lab_hours=hplc[:, 0],
        lab_values=hplc[:, 1],
        lab_predicted=values[nearest],
        lab_used=used,
        findings=_findings(figures, values, warm_up, frozen, odd, column["spectrum_id"], (t2 / t2_99, q / q_99)),
        figures={
            "RMSEP": f"{figures['rmsep']:.2f} {UNIT}",
            "R²": f"{figures['r2']:.3f}",
            "bias": f"{figures['bias']:+.1f} {UNIT}",
            "spectra in": str(spectra_in),
            "predictions out": str(len(rows)),
            "rejected": str(seen.rejected),
            "outside the calibration": f"{100 * figures['outside_calibration_fraction']:.0f} %",
        },
        versions={
            f"model {TARGET}": ", ".join(sorted(set(column["model_version"]))),
            "tamis": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scikit-learn", "kafka-python", "pyarrow")},
        },
        wall_s=0.5 + np.arange(len(each_second)),
        spectra_per_s=each_second,
    )
    return figures, run


def _findings(
    figures: dict[str, Any],
    values: np.ndarray,
    warm_up: np.ndarray,
    frozen: np.ndarray,
    odd: np.ndarray,
    names: np.ndarray,
    far: tuple[np.ndarray, np.ndarray],
) -> list[Finding]:
    """What a tired operator must know first. `far` is T2 and Q as multiples of their 99 % limits."""
    found = []
    if frozen.any():
        which = ", ".join(names[frozen][:3]) + (", ..." if frozen.sum() > 3 else "")
        text = f"{frozen.sum()} spectra are bit-identical to their neighbour ({which}): a sensor that stands still."
        found.append(Finding("alarm", "Frozen sensor", text))
    fraction = figures["outside_calibration_fraction"]
    if fraction > 0:
        over_t2, over_q = (np.median(values) for values in far)
        text = (
            f"{100 * fraction:.0f} % of the spectra lie outside the calibration's 99 % limits (in the median, T2 is "
            f"{over_t2:.0f} times its limit and Q {over_q:.0f} times). Every such prediction extrapolates and is "
            "marked as not trusted, however well it agrees with the laboratory."
        )
        found.append(Finding("warning", "Extrapolation", text))
    if warm_up.any():
        after = values[warm_up.sum()]
        text = (
            f"The first {warm_up.sum()} spectra are odd for the process: predictions fall from {values[0]:.0f} "
            f"to {after:.0f} {UNIT}."
        )
        found.append(Finding("warning", "Warm-up", text))
    others = int((odd & ~warm_up & ~frozen).sum())
    if others:
        text = f"{others} more spectra are beyond the limits that were learned from the process itself."
        found.append(Finding("info", "Odd for the process", text))
    return found


def _hours(moment: datetime) -> float:
    """Since the start of the fermentation."""
    return float((np.datetime64(moment.replace(tzinfo=None), "us") - START) / np.timedelta64(1, "h"))


class _Teller:
    """Speaks to the operator: a live table on a terminal, plain lines elsewhere."""

    def __call__(self, text: str) -> None:
        print(text, flush=True)

    @contextmanager
    def table(self, spectra_in: int) -> Iterator[Callable[[Seen], None]]:
        if not sys.stdout.isatty():
            yield _PlainProgress(spectra_in)
            return
        from rich.live import Live

        with Live(refresh_per_second=8, transient=True) as live:
            yield lambda seen: live.update(_table(seen, spectra_in))


@dataclass
class _PlainProgress:
    """A line every tenth of the way."""

    spectra_in: int
    told: int = 0

    def __call__(self, seen: Seen) -> None:
        tenth = 10 * len(seen.rows) // self.spectra_in
        if seen.rows and tenth > self.told:
            self.told = tenth
            row = seen.rows[-1]
            verdict = "frozen sensor" if row["frozen"] else "trusted" if row["trusted"] else "not trusted"
            print(
                f"{len(seen.rows):5d} of {self.spectra_in} spectra, hour {_hours(row['time']):4.1f}: "
                f"{TARGET} {row[TARGET]:5.1f} {UNIT}, {verdict}",
                flush=True,
            )


def _table(seen: Seen, spectra_in: int) -> Any:
    from rich.table import Table

    table = Table(title=f"{len(seen.rows)} of {spectra_in} spectra, {seen.rejected} rejected", min_width=100)
    for name in ("spectrum", "hour", f"{TARGET} ({UNIT})", "T2", "Q", "trusted", "reason"):
        table.add_column(name, no_wrap=name != "reason")
    for row in seen.rows[-12:]:
        cells = (f"{_hours(row['time']):.2f}", f"{row[TARGET]:.2f}", f"{row['t2']:.0f}", f"{row['q']:.1e}")
        style = "red" if row["frozen"] else "yellow" if row["odd"] else ""
        table.add_row(row["spectrum_id"], *cells, "yes" if row["trusted"] else "no", row["reason"], style=style)
    return table
