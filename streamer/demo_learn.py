"""`tamis demo --learn`: the same fermentation; laboratory values arrive an hour after sampling: test, then train.

A worker and a trainer run side by side. A spectrum is predicted by what was known when it was measured: the replay
waits until a laboratory value that has come is learned, or refused, and the new version is served.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .. import TamisError
from .broker import EmbeddedBroker
from .demo import (
    FRAME_SPECTRA,
    LINE,
    PATIENCE_S,
    START,
    STEP_S,
    TARGET,
    UNIT,
    data,
    fit_calibration,
    own_store,
    running,
    timed,
)
from .frame import Frame
from .labels import Label, encode_labels
from .outcome import decode_predictions
from .page import DISC, Chart, Kind, figure, page_of, write_page
from .settings.tables import Settings, Topics
from .sink import KafkaSink
from .source import KafkaSource, ensure_topics
from .transport.from_settings import kafka_sink
from .wire import ARROW, encode

DELAY_H = 1.0  # from sampling to the laboratory's value
SPAN_S = 600.0  # the fermenter changes little in ten minutes: spectra so near a sample share its value


class _Line:
    """Sends spectra, and waits for their predictions; sends a label, and waits until it is learned and served."""

    def __init__(self, settings: Settings, sink: KafkaSink, source: KafkaSource, verdicts: Path, worker: str) -> None:
        self.settings, self.sink, self.source = settings, sink, source
        self.verdicts, self.worker = verdicts, worker
        self.rows: list[dict[str, Any]] = []
        self.sent = 0

    def spectra(self, frame: Frame) -> None:
        for value, headers in encode(frame, ARROW, self.settings.frame_max_bytes):
            self.sink.send(self.settings.topics.spectra, value, key=LINE.encode(), headers=headers)
        self.sink.flush(10)
        self.sent += len(frame)
        self._wait(lambda: len(self.rows) >= self.sent, "predictions")

    def label(self, label: Label) -> dict[str, Any]:
        """What the gate said of it."""
        before = len(self._said())
        value, headers = encode_labels([label])
        self.sink.send(self.settings.topics.labels, value, key=LINE.encode(), headers=headers)
        self.sink.flush(10)
        self._wait(lambda: len(self._said()) > before, "a verdict")
        said = self._said()[-1]
        if said["version"] is not None:
            self._wait(
                lambda: f'version="{said["version"]}"' in self._served(), f"the worker to serve {said['version']}"
            )
        return said

    def _said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.verdicts.read_text().splitlines()] if self.verdicts.exists() else []

    def _served(self) -> str:
        with urllib.request.urlopen(f"{self.worker}/metrics", timeout=2) as answer:  # noqa: S310 (our own, on loopback)
            lines = answer.read().decode().splitlines()
        return next((line for line in lines if line.startswith("tamis_model_info{")), "")

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            for record in self.source.poll(0.05):
                self.rows += decode_predictions(record.value, record.headers)
            if time.monotonic() > deadline:
                raise TamisError(f"waited {PATIENCE_S:.0f} s for {what}")


def run_learning_demo(out: Path, json_path: Path | None, stop: Callable[[], bool]) -> bool:
    """Runs it all and tells what was seen; False where it was stopped."""
    began = time.monotonic()
    store = own_store(out)
    calibration, process, hplc = data()
    static = fit_calibration(calibration, store).model
    frames = list(timed(process))
    spectra = np.vstack([frame.spectra for frame in frames])
    names = [name for frame in frames for name in frame.spectrum_id]
    hours = np.arange(len(spectra)) * STEP_S / 3600
    nearest = np.abs(hours[:, None] - hplc[:, 0]).argmin(axis=0)
    before = static.predict(spectra, frames[0].axis).values[:, 0]
    due = np.searchsorted(hours, hplc[:, 0] + DELAY_H)  # the spectrum before which a value arrives
    said: list[dict[str, Any]] = []
    with EmbeddedBroker("tansu") as broker:
        settings = Settings(
            brokers=broker.bootstrap,
            store=str(store.root),
            topics=Topics(partitions=1),  # type: ignore[call-arg]
            kafka=dict(broker.client_settings),
        )
        topics = settings.topics
        names_of = [topics.spectra, topics.predictions, topics.rejects, topics.labels]
        ensure_topics(settings.brokers, names_of, 1, create=True, client_settings=settings.kafka)
        learning = {
            "TAMIS_TRAINER": json.dumps(
                {
                    "model": TARGET,
                    "folder": str(out / "trainer"),
                    "buffer_max_bytes": 64 << 20,
                    "label_span_s": SPAN_S,
                    "pretrain_spectra": 0,
                }
            )
        }
        print(f"broker on {broker.bootstrap}; worker and trainer starting, their logs are in {out}", flush=True)
        source = KafkaSource(settings.brokers, [topics.predictions], "tamis-demo", client_settings=settings.kafka)
        with (
            running("worker", settings, out / "worker.log", {"TAMIS_RELOAD_S": "0.1"}) as worker,
            running("trainer", settings, out / "trainer.log", learning),
            closing(kafka_sink(settings)) as sink,
            closing(source),
        ):
            line = _Line(settings, sink, source, out / "trainer" / "verdicts.jsonl", worker)
            at = 0
            for i, until in [*enumerate(due.tolist()), (-1, len(spectra))]:
                whole = frames[0]
                while at < min(until, len(spectra)) and not stop():
                    part = slice(at, min(until, at + FRAME_SPECTRA, len(spectra)))
                    times = START + (np.arange(part.start, part.stop) * STEP_S * 1e6).astype("timedelta64[us]")
                    line.spectra(
                        Frame(
                            *(LINE, whole.instrument, whole.axis, whole.quantity),
                            *(spectra[part], names[part], times),
                        )
                    )
                    at = part.stop
                if stop():
                    print("stopped")
                    return False
                if i >= 0 and until < len(spectra):
                    moment = START + np.timedelta64(round(hplc[i, 0] * 3.6e9), "us")
                    said.append(line.label(Label(names[nearest[i]], {TARGET: float(hplc[i, 1])}, moment)))
                    predicted = _value(line.rows, names[nearest[i]])
                    print(
                        f"hour {hplc[i, 0] + DELAY_H:4.1f}: {TARGET} {hplc[i, 1]:4.1f} {UNIT} arrives, was predicted "
                        f"{predicted:5.1f}; {said[-1]['outcome']} {said[-1]['version'] or ''}",
                        flush=True,
                    )
    rows = {row["spectrum_id"]: row for row in line.rows}
    after = np.array([rows[name][TARGET] for name in names])
    versions = [rows[name]["model_version"] for name in names]
    used = slice(1, -1)  # the first lies in the warm-up, the last at the frozen end
    error = {"static": (before[nearest] - hplc[:, 1])[used], "learning": (after[nearest] - hplc[:, 1])[used]}
    rmsep = {name: float(np.sqrt(np.mean(values**2))) for name, values in error.items()}
    figures = {
        "spectra_in": len(spectra),
        "predictions_out": len(rows),
        "prequential_rmsep": rmsep["learning"],
        "static_rmsep": rmsep["static"],
        "labels": len(said),
        "versions": len(set(versions)),
        "promoted": sum(one["outcome"] == "promoted" for one in said),
        "refused": sum(one["outcome"] == "refused" for one in said),
        "seconds": round(time.monotonic() - began, 1),
    }
    report = out / "learning.html"
    write_page(_page(figures, hours, before, after, versions, hplc, said), report)
    if json_path is not None:
        write_page(json.dumps(figures, indent=1) + "\n", json_path)
    print(
        f"RMSEP, each value predicted before it was known: {rmsep['learning']:.2f} {UNIT} while learning, "
        f"{rmsep['static']:.2f} without; {figures['versions']} versions served, {figures['refused']} refused, "
        f"{figures['seconds']:.0f} s; report: {report}"
    )
    return len(rows) == len(spectra)


def _value(rows: list[dict[str, Any]], name: str) -> float:
    return next((row[TARGET] for row in reversed(rows) if row["spectrum_id"] == name), float("nan"))


def _page(
    figures: dict[str, Any],
    hours: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    versions: list[str],
    hplc: np.ndarray,
    said: list[dict[str, Any]],
) -> str:
    every = np.ones(len(hplc), bool)
    low, high = np.percentile(np.concatenate([before, after]), [0.5, 99.5])
    chart = Chart([hours], [[low, high], hplc[:, 1]], "hours since the start", f"{TARGET}, {UNIT}", height=320)
    inside = [np.where((values >= low) & (values <= high), values, np.nan) for values in (before, after)]
    chart.line(hours, inside[0], "out")
    chart.line(hours, inside[1], "flow")
    lab = [Kind("lab", DISC, "laboratory, known one hour later", every)]
    chart.kinds(hplc[:, 0], hplc[:, 1], lab)
    number = np.array([int(version[1:]) for version in versions], float)
    steps = Chart([hours], [number], "hours since the start", "version that predicted", height=160)
    steps.line(hours, number, "process")
    head = (
        "<header><h1>Fermentation: the model learns while it runs</h1><p class=sub>Every spectrum was predicted with "
        f"what was known when it was measured; a laboratory value arrives {DELAY_H:g} h after its sample.</p></header>"
    )
    told = {
        "RMSEP while learning": f"{figures['prequential_rmsep']:.2f} {UNIT}",
        "RMSEP of the first version": f"{figures['static_rmsep']:.2f} {UNIT}",
        "laboratory values": str(figures["labels"]),
        "versions served": str(figures["versions"]),
        "candidates refused": str(figures["refused"]),
    }
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told.items())
    lines = [("out", "the first version, all the way"), ("flow", "the version that was served")]
    pictures = figure(chart, "Glucose", f"Predicted and measured {TARGET} over the fermentation", "", lab, lines)
    pictures += figure(steps, "Versions", "The version that predicted each spectrum", "")
    rows = "".join(
        f"<tr><td>{hplc[i, 0] + DELAY_H:.1f}<td>{hplc[i, 1]:.1f}<td>{escape(one['outcome'])} {one['version'] or ''}"
        f"<td style='text-align:left'>{escape(one['reason'])}"
        for i, one in enumerate(said)
    )
    table = (
        "<h2>What the gate said</h2><table><thead><tr><th>hour<th>laboratory<th>outcome"
        f"<th style='text-align:left'>reason<tbody>{rows}</table>"
    )
    return page_of(
        "Fermentation: the model learns",
        [head, f"<dl class=figures>{tiles}</dl>", "<h2>Test, then learn</h2>", pictures, table],
    )
