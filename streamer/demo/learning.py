"""`tamis demo --learn`: the same fermentation; each laboratory value arrives an hour after its sample and is learned.

A worker and a trainer run side by side. Each spectrum is predicted with the knowledge at the time of its measurement:
the replay waits until a value is learned or refused, and until the worker serves the new version.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ... import require_learn
from ..messages.labels import Label, encode_labels
from ..pages.charts import DISC, Chart, Figure, Kind, page_of, write_page
from ..studies.pages import TEMPLATE, Section
from ..studies.tables import Listing
from ..tools.top import Scrape
from .fermentation import STEP_S, TARGET, UNIT, at_samples, prepare, say, scores, write_figures
from .plant import Plant, plant, running

DELAY_H = 1.0  # from the sample to the laboratory's value
SPAN_S = 600.0  # the fermenter changes little in ten minutes: spectra so close to a sample share its value


def run_learning_demo(out: Path, json_path: Path | None, stop: Callable[[], bool]) -> bool:
    """Runs the demo and prints its results. False if spectra were lost."""
    require_learn("tamis demo --learn")
    began_s = time.monotonic()
    store, fitted, spectra, hplc = prepare(out)
    hours = np.arange(len(spectra)) * STEP_S / 3600
    nearest = at_samples(hours, hplc)
    due = np.searchsorted(hours, hplc[:, 0] + DELAY_H)  # the spectrum before which a value arrives
    due = due[due < len(spectra)].tolist()
    trainer = {"model": TARGET, "folder": str(out / "trainer"), "buffer_max_bytes": 64 << 20}
    trainer |= {"label_span_s": SPAN_S, "pretrain_spectra": 0}
    verdicts: list[dict[str, Any]] = []
    with plant(store, stop) as line:
        say(f"broker on {line.settings.brokers}; starting a worker and a trainer (logs: {out}/*.log)")
        with (
            running("worker", line.settings, out / "worker.log", {"TAMIS_RELOAD_S": "0.1"}) as worker,
            running("trainer", line.settings, out / "trainer.log", {"TAMIS_TRAINER": json.dumps(trainer)}),
        ):
            for i, (begin, end) in enumerate(zip([0, *due], [*due, len(spectra)], strict=True)):
                line.predict(spectra[begin:end])
                if end == len(spectra):
                    break
                at, value = int(nearest[i]), float(hplc[i, 1])
                label = Label(spectra.spectrum_id[at], {TARGET: value}, spectra.time[at])
                verdicts.append(_learn(line, label, out / "trainer" / "verdicts.jsonl", worker))
                predicted = line.rows[label.spectrum_id][TARGET]
                measured = f"hour {hplc[i, 0] + DELAY_H:4.1f}: laboratory {value:4.1f} {UNIT}"
                say(f"{measured}, predicted {predicted:4.1f}; {_outcome(verdicts[-1])}")
    rows = [line.rows[name] for name in spectra.spectrum_id]
    before = fitted.model.predict(spectra.spectra, spectra.axis).values[:, 0]
    after = np.array([row[TARGET] for row in rows])
    served = np.array([int(row["model_version"].removeprefix("v")) for row in rows], float)
    figures = {
        "spectra_in": len(spectra),
        "predictions_out": len(line.rows),
        "prequential_rmsep": scores(after[nearest], hplc).rmsep,
        "static_rmsep": scores(before[nearest], hplc).rmsep,
        "labels": len(verdicts),
        "versions": len(np.unique(served)),
        **{name: sum(one["outcome"] == name for one in verdicts) for name in ("promoted", "refused")},
        "seconds": round(time.monotonic() - began_s, 1),
    }
    curves = np.array([hours, before, after, served])
    write_page(_page(figures, curves, hplc, verdicts), report := out / "learning.html")
    write_figures(figures, json_path)
    say(
        f"RMSEP {figures['prequential_rmsep']:.2f} {UNIT} while learning, {figures['static_rmsep']:.2f} without; "
        f"each value predicted before it was known. {figures['versions']} versions served, {figures['refused']} "
        f"candidates refused, {figures['seconds']:.0f} s; report: {report}"
    )
    return len(line.rows) == len(spectra)


def _learn(line: Plant, label: Label, path: Path, worker: str) -> dict[str, Any]:
    """The gate's verdict on the model that has learned from a label. If promoted, it is served on return."""

    def verdicts() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    before = len(verdicts())
    line.send(line.settings.topics.labels, encode_labels([label]))
    line.wait(lambda: len(verdicts()) > before, "a verdict")
    new = json.loads(verdicts()[-1])
    if (version := new["version"]) is not None:
        line.wait(lambda: any(Scrape.of([worker]).rows("tamis_model_info", version=version)), f"{version} to be served")
    return new


def _outcome(verdict: dict[str, Any]) -> str:
    return f"{verdict['outcome']} {verdict['version'] or ''}"


def _page(figures: dict[str, Any], curves: np.ndarray, hplc: np.ndarray, verdicts: list[dict[str, Any]]) -> str:
    """`curves`: (4, n) hours, predictions of the first version and of the served one, and the served version."""
    hours, before, after, served = curves
    low, high = np.percentile(np.concatenate([before, after]), [0.5, 99.5])
    x_label, text = "hours since the start", f"Predicted and measured {TARGET} over the fermentation"
    chart = Chart([hours], [[low, high], hplc[:, 1]], x_label, f"{TARGET}, {UNIT}", height=320)
    for values, css in ((before, "out"), (after, "flow")):
        chart.line(hours, np.where((values >= low) & (values <= high), values, np.nan), css)
    laboratory = [Kind("lab", DISC, "laboratory, known one hour later", np.ones(len(hplc), bool))]
    chart.kinds(hplc[:, 0], hplc[:, 1], laboratory)
    steps = Chart([hours], [served], x_label, "version", height=160)
    steps.line(hours, served, "process")
    lines = [("out", "the first version throughout"), ("flow", "the version served at the time")]
    rows = [
        [f"{hour + DELAY_H:.1f}", f"{value:.1f}", _outcome(one), one["reason"]]
        for (hour, value), one in zip(hplc, verdicts, strict=False)
    ]
    return page_of(
        "Fermentation: the model learns while it runs",
        subtitle="Each spectrum was predicted with what was known when it was measured. A laboratory value arrives "
        f"{DELAY_H:g} h after its sample.",
        figures={
            "RMSEP while learning": f"{figures['prequential_rmsep']:.2f} {UNIT}",
            "RMSEP without learning": f"{figures['static_rmsep']:.2f} {UNIT}",
            "laboratory values": str(figures["labels"]),
            "versions served": str(figures["versions"]),
            "candidates refused": str(figures["refused"]),
        },
        sections=[
            Section("Predict first, then learn", figures=[Figure(chart, "Glucose", text, "", laboratory, lines)]),
            Section("", figures=[Figure(steps, "Versions", "The version that predicted each spectrum")]),
            Section("Verdicts of the gate", [Listing("", ("hour", "laboratory", "verdict", "reason"), rows)]),
        ],
        template=TEMPLATE,
    )
