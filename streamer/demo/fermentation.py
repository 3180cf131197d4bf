"""`tamis demo`: a real fermentation, followed as a plant would follow it, through a broker and a worker process.

The data come with chemotools (Cabaneros Lopez et al.): 21 calibration spectra with glucose by HPLC, then 1,629 on-line
spectra of a fermentation, one every 75 seconds, with 34 HPLC values.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ... import NotInstalled, __version__
from ...models.evaluation import Scores
from ...models.store import Store
from ..files.frames import read_frames
from ..files.options import ReadOptions
from ..fitting.fit import FitOptions, FitResult, fit_and_publish
from ..fitting.training_data import LaboratoryOptions
from ..messages.frame import Frame
from ..pages.charts import refuse_unwritable, write_page
from ..pages.run_report import Finding, Run, page
from ..settings.tables import PREFIX
from .plant import LINE, MODEL, Plant, plant, running

TARGET, UNIT = MODEL, "g/L"
STEP_S = 75.0  # 1.25 minutes between two process spectra
FRAME_SPECTRA = 32  # in a message
# As in chemotools' own example for these spectra; the number of latent variables is cross-validated.
PREPROCESS = "cut 950 1500, baseline, savgol 15 2 1"
# The real start is not recorded; any will do.
START = np.datetime64("2026-01-01T00:00:00", "us")
NUMBERS, FLAGS = ("t2", "q", "t2_process_limit", "q_process_limit"), ("trusted", "odd", "frozen", "warm_up")
COUNTED = slice(1, -1)  # laboratory values in RMSEP: the first is in the warm-up, the last at the frozen end


def run_demo(out: Path, json_path: Path | None, rate: float, stop: Callable[[], bool]) -> bool:
    """Runs the demo and prints its results. False if spectra were lost."""
    began_s = time.monotonic()
    store, fitted, spectra, hplc = prepare(out)
    say(f"fitted {TARGET}: {_about(fitted)}, version {fitted.version}")
    with plant(store, stop) as line:
        say(f"broker on {line.settings.brokers}; starting the worker (log: {out / 'worker.log'})")
        with running("worker", line.settings, out / "worker.log", {}), _progress(line, len(spectra)):
            start_s = time.monotonic()
            for sent in range(0, len(spectra), FRAME_SPECTRA):
                line.measure(spectra[sent : sent + FRAME_SPECTRA])
                line.wait(lambda due_s=start_s + (sent + FRAME_SPECTRA) / rate: time.monotonic() >= due_s)
            line.wait(lambda: len(spectra) <= len(line.rows) + line.rejected)
    figures, run = _judge(line, start_s, fitted, len(spectra), hplc)
    figures["seconds"] = round(time.monotonic() - began_s, 1)
    run.figures["run time"] = f"{figures['seconds']:.0f} s"
    write_page(page(run), report := out / "report.html")
    write_figures(figures, json_path)
    for finding in run.findings:
        say(f"{finding.level:<7} {finding.title}: {finding.text}")
    say(
        f"RMSEP {figures['rmsep']:.2f} {UNIT}, R2 {figures['r2']:.3f} over {run.lab_used.sum()} of {len(run.lab_used)} "
        "laboratory values (the first is in the warm-up, the last at the frozen end), "
        f"{figures['seconds']:.0f} s; report: {report}"
    )
    return figures["spectra_in"] == figures["predictions_out"] + figures["rejected"]


def _about(fitted: FitResult) -> str:
    spectra, variables = fitted.model.training["spectra"], fitted.metrics["latent_variables"]
    return f"PLSR on {spectra} calibration spectra, {variables} latent variables"


def say(text: str) -> None:
    print(text, flush=True)


def write_figures(figures: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        write_page(json.dumps(figures, indent=1) + "\n", path)


def data() -> tuple[Path, Path, np.ndarray]:
    """The folder of the calibration, the file of process spectra, and (34, 2) hours and glucose by HPLC."""
    spec = find_spec("chemotools")
    if spec is None or spec.origin is None:
        raise NotInstalled("the demo's data come with chemotools: pip install 'tamis[demo]'")
    folder = Path(spec.origin).parent / "datasets" / "data"
    hplc = np.genfromtxt(folder / "fermentation_hplc.csv", delimiter=",", names=True)
    return folder, folder / "fermentation_spectra.csv", np.column_stack([hplc["time"], hplc[TARGET]])


def fit_calibration(folder: Path, store: Store) -> FitResult:
    options = FitOptions(
        targets=[TARGET],
        name=MODEL,
        preprocess=PREPROCESS,
        units={TARGET: UNIT},
        laboratory=LaboratoryOptions(labels=folder / "train_hplc.csv"),
        reading=ReadOptions(axis_unit="cm-1"),
    )
    return fit_and_publish(folder / "train_spectra.csv", options, store)


def prepare(out: Path) -> tuple[Store, FitResult, Frame, np.ndarray]:
    """A store with the fitted model, the process spectra with times and names, and the laboratory values."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:  # of a real line
        del os.environ[name]
    refuse_unwritable(out / "report.html")
    store = Store(out / "store")
    calibration, process, hplc = data()
    (frame,) = read_frames(process, line=LINE, instrument="ATR", axis_unit="cm-1", frame_spectra=10_000)
    order = np.arange(len(frame))
    times = START + (order * STEP_S * 1e6).astype("timedelta64[us]")  # the file has neither times nor names
    spectra = replace(frame, spectrum_id=[f"ferm-{i:04d}" for i in order], time=times)
    return store, fit_calibration(calibration, store), spectra, hplc


def at_samples(hours: np.ndarray, hplc: np.ndarray) -> np.ndarray:
    """The spectrum nearest in time to each laboratory value."""
    return np.abs(hours[:, None] - hplc[:, 0]).argmin(axis=0)


def scores(predicted: np.ndarray, hplc: np.ndarray) -> Scores:
    """Of predictions at the samples, without the values that do not count."""
    return Scores.of(hplc[COUNTED, 1], predicted[COUNTED])


def _judge(
    line: Plant, start_s: float, fitted: FitResult, spectra_in: int, hplc: np.ndarray
) -> tuple[dict[str, Any], Run]:
    """The figures, and the run for its report."""
    rows = [line.rows[name] for name in sorted(line.rows)]
    hours = np.array([_hours(row) for row in rows])
    values = np.array([row[TARGET] for row in rows])
    columns = {name: np.array([row[name] for row in rows], float) for name in NUMBERS}
    columns |= {name: np.array([row[name] for row in rows], bool) for name in FLAGS}
    limits = fitted.model.limits
    far = np.array([columns[name] / limits[name][1] for name in ("t2", "q")])  # multiples of the 99 % limits
    outside = float((far > 1).any(axis=0).mean())
    predicted = values[at_samples(hours, hplc)]
    used = np.zeros(len(hplc), bool)
    used[COUNTED] = True
    found = scores(predicted, hplc)
    figures = {
        "spectra_in": spectra_in,
        "predictions_out": len(rows),
        "rejected": line.rejected,
        "outside_calibration_fraction": outside,
        **{f"{name}_spectra": int(columns[name].sum()) for name in ("warm_up", "frozen", "odd")},
        "latent_variables": fitted.metrics["latent_variables"],
        **{name: getattr(found, name) for name in ("rmsep", "r2", "bias")},
    }
    each_second = np.bincount((np.array(line.arrived_s) - start_s).astype(int))
    run = Run(
        title="Fermentation: glucose, predicted on-line",
        subtitle=f"{len(rows)} ATR spectra in {hours[-1]:.1f} hours; {_about(fitted)}, {PREPROCESS}",
        target=TARGET,
        unit=UNIT,
        hours=hours,
        values=values,
        **columns,
        t2_limits=np.array(limits["t2"]),
        q_limits=np.array(limits["q"]),
        lab_hours=hplc[:, 0],
        lab_values=hplc[:, 1],
        lab_predicted=predicted,
        lab_used=used,
        findings=_findings(rows, columns, np.median(far, axis=1), outside),
        figures={
            "RMSEP": f"{found.rmsep:.2f} {UNIT}",
            "R²": f"{found.r2:.3f}",
            "bias": f"{found.bias:+.1f} {UNIT}",
            "spectra in": str(spectra_in),
            "predictions out": str(len(rows)),
            "rejected": str(line.rejected),
            "outside the calibration": f"{100 * outside:.0f} %",
        },
        versions={
            f"model {MODEL}": ", ".join(sorted({row["model_version"] for row in rows})),
            "tamis": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scikit-learn", "kafka-python", "pyarrow")},
        },
        wall_s=0.5 + np.arange(len(each_second)),
        spectra_per_s=each_second,
    )
    return figures, run


def _findings(
    rows: list[dict[str, Any]], flags: dict[str, np.ndarray], far: np.ndarray, outside: float
) -> list[Finding]:
    """`far`: the median T2 and Q as multiples of their 99 % limits; `outside`: the share of spectra above one."""
    frozen, warm_up = flags["frozen"], flags["warm_up"]
    findings = []
    if frozen.any():
        which = [rows[i]["spectrum_id"] for i in np.flatnonzero(frozen)]
        names = ", ".join(which[:3]) + ", ..." * (len(which) > 3)
        text = f"{len(which)} spectra are bit-identical to their neighbour ({names}): the sensor is stuck."
        findings.append(Finding("alarm", "Frozen sensor", text))
    if outside:
        text = (
            f"{100 * outside:.0f} % of the spectra lie outside the calibration's 99 % limits (the median T2 is "
            f"{far[0]:.0f} times its limit, the median Q {far[1]:.0f} times). These predictions are extrapolations and "
            "are marked as not trusted, even where they agree with the laboratory."
        )
        findings.append(Finding("warning", "Extrapolation", text))
    if n := int(warm_up.sum()):
        fall = f"predictions fall from {rows[0][TARGET]:.0f} to {rows[n][TARGET]:.0f} {UNIT}"
        findings.append(Finding("warning", "Warm-up", f"The first {n} spectra are unusual for this process: {fall}."))
    if n := int((flags["odd"] & ~warm_up & ~frozen).sum()):
        text = f"{n} more spectra are outside the limits that were learned from the process itself."
        findings.append(Finding("info", "Unusual for this process", text))
    return findings


def _hours(row: dict[str, Any]) -> float:
    """Of a prediction, since the start of the fermentation."""
    return float((np.datetime64(row["time"].replace(tzinfo=None), "us") - START) / np.timedelta64(1, "h"))


@contextmanager
def _progress(line: Plant, spectra: int) -> Iterator[None]:
    """Shows the predictions so far: a live table on a terminal, elsewhere a line every tenth of the way."""
    shown = {0}

    def print_tenth() -> None:
        n = len(line.rows)
        if 10 * n // spectra not in shown:
            shown.add(10 * n // spectra)
            row = list(line.rows.values())[-1]
            trust = "frozen sensor" if row["frozen"] else "trusted" if row["trusted"] else "not trusted"
            say(f"{n:5d} of {spectra} spectra, hour {_hours(row):4.1f}: {TARGET} {row[TARGET]:5.1f} {UNIT}, {trust}")

    if not sys.stdout.isatty():
        line.show = print_tenth
        yield
        return
    from rich.live import Live

    with Live(refresh_per_second=8, transient=True) as live:
        line.show = lambda: live.update(_table(line, spectra))
        yield


def _table(line: Plant, spectra: int) -> Any:
    from rich.table import Table

    table = Table(title=f"{len(line.rows)} of {spectra} spectra, {line.rejected} rejected", min_width=100)
    for name in ("spectrum", "hour", f"{TARGET} ({UNIT})", "T2", "Q", "trusted", "reason"):
        table.add_column(name, no_wrap=name != "reason")
    for row in list(line.rows.values())[-12:]:
        cells = (f"{_hours(row):.2f}", f"{row[TARGET]:.2f}", f"{row['t2']:.0f}", f"{row['q']:.1e}")
        style = "red" if row["frozen"] else "yellow" if row["odd"] else ""
        table.add_row(row["spectrum_id"], *cells, "yes" if row["trusted"] else "no", row["reason"], style=style)
    return table
