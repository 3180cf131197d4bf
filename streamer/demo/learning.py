"""`tamis demo --learn`: the same fermentation; each laboratory value arrives an hour after its sample and is learned.

A worker and a trainer run side by side. Each spectrum is predicted with the knowledge at the time of its measurement:
the replay waits until a value is learned or refused, and until the worker serves the new version. In a second act the
fermentation begins again, and the laboratory errs.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import require_learn
from ...models.model import Calibration, Model
from ...models.store import Store
from ..messages.labels import Label, encode_labels
from ..pages.charts import write_page
from ..tools.top import Scrape
from .acts import DELAY_H, Act, held_as, outcome, second_act
from .fermentation import STEP_S, TARGET, UNIT, prepare, say, scores, write_figures
from .learning_page import Story, page
from .plant import Plant, plant, running

SPAN_S = 600.0  # the fermenter changes little in ten minutes: spectra so close to a sample share its value


def run_learning_demo(out: Path, json_path: Path | None, stop: Callable[[], bool]) -> bool:
    """Runs the demo and prints its results. False if spectra were lost."""
    require_learn("tamis demo --learn")
    began_s = time.monotonic()
    store, fitted, spectra, hplc = prepare(out)
    hours = np.arange(len(spectra)) * STEP_S / 3600
    first = Act(spectra, hours, hplc[:, 0], hplc[:, 1], hplc[:, 1], [""] * len(hplc))
    second = second_act(spectra, hours, hplc)
    trainer = {"model": TARGET, "folder": str(out / "trainer"), "buffer_max_bytes": 64 << 20}
    trainer |= {"label_span_s": SPAN_S, "pretrain_spectra": 0}
    with plant(store, stop) as line:
        say(f"broker on {line.settings.brokers}; starting a worker and a trainer (logs: {out}/*.log)")
        with (
            running("worker", line.settings, out / "worker.log", {"TAMIS_RELOAD_S": "0.1"}) as worker,
            running("trainer", line.settings, out / "trainer.log", {"TAMIS_TRAINER": json.dumps(trainer)}),
        ):
            learn = Learner(line, store, out / "trainer" / "verdicts.jsonl", worker)
            learn.play(first)
            say("second act: the fermentation begins again, and the laboratory errs")
            learn.play(second)
    assert fitted.model.calibration is not None
    _add_without(second, fitted.model, fitted.model.calibration, [first, second])
    rows = [[line.rows[name] for name in act.spectra.spectrum_id] for act in (first, second)]
    served = [np.array([row[TARGET] for row in of]) for of in rows]
    before = fitted.model.predict(spectra.spectra, spectra.axis).values[:, 0]
    versions = np.array([int(row["model_version"].removeprefix("v")) for row in rows[0]], float)
    verdicts = [one for each in first.verdicts for one in each]
    assert second.without is not None
    wrong = [i for i, slip in enumerate(second.slips) if slip]
    figures = {
        "spectra_in": len(spectra),
        "predictions_out": len(line.rows) - len(second.spectra),
        "prequential_rmsep": scores(served[0][first.nearest], hplc).rmsep,
        "static_rmsep": scores(before[first.nearest], hplc).rmsep,
        "max_distance": _farthest(first, served[0]),
        "labels": len(first.verdicts),
        "versions": len(np.unique(versions)),
        **{name: sum(one["outcome"] == name for one in verdicts) for name in ("promoted", "refused", "shadow")},
        "wrong_values": len(wrong),
        "wrong_values_held": sum(i < len(second.verdicts) and bool(held_as(second, i)) for i in wrong),
        "erring_rmsep": _rmse(served[1][second.nearest], second.true),
        "erring_rmsep_without_gate": _rmse(second.without[second.nearest], second.true),
        "seconds": round(time.monotonic() - began_s, 1),
    }
    story = Story(before, served[0], versions, served[1], store.log(TARGET))
    write_page(page(figures, first, second, story), report := out / "learning.html")
    write_figures(figures, json_path)
    say(
        f"RMSEP {figures['prequential_rmsep']:.2f} {UNIT} while learning, {figures['static_rmsep']:.2f} without; "
        f"each value predicted before it was known. {figures['versions']} versions served, {figures['refused']} "
        f"candidates refused, {figures['shadow']} in shadow"
    )
    say(
        f"the laboratory erred: {figures['wrong_values_held']} of {len(wrong)} wrong values held; RMSEP "
        f"{figures['erring_rmsep']:.2f} {UNIT}, a model fitted on all of them "
        f"{figures['erring_rmsep_without_gate']:.2f}. {figures['seconds']:.0f} s; report: {report}"
    )
    return all(name in line.rows for act in (first, second) for name in act.spectra.spectrum_id)


@dataclass
class Learner:
    """Sends spectra and values, and waits for what becomes of them. path: the trainer's verdicts."""

    line: Plant
    store: Store
    path: Path
    worker: str

    def play(self, act: Act) -> None:
        due, spectra = act.due.tolist(), act.spectra
        for i, (begin, end) in enumerate(zip([0, *due], [*due, len(spectra)], strict=True)):
            self.line.predict(spectra[begin:end])
            if end == len(spectra):
                break
            label = act.label(i)
            act.verdicts.append(self._learn(label))
            predicted = self.line.rows[label.spectrum_id][TARGET]
            slip = f" ({act.slips[i]}, it is {act.true[i]:.1f})" if act.slips[i] else ""
            measured = f"hour {act.sampled[i] + DELAY_H:4.1f}: laboratory {act.given[i]:5.1f} {UNIT}{slip}"
            say(f"{measured}, predicted {predicted:4.1f}; {outcome(act, i)}")

    def _learn(self, label: Label) -> list[dict[str, Any]]:
        """The trainer's verdicts after a label. The worker serves the current version on return."""
        before = len(self._verdicts())
        self.line.send(self.line.settings.topics.labels, encode_labels([label]))
        self.line.wait(lambda: len(self._verdicts()) > before, "a verdict")
        version = self.store.current(TARGET)
        is_served = f"{version} to be served"
        self.line.wait(lambda: any(Scrape.of([self.worker]).rows("tamis_model_info", version=version)), is_served)
        return [json.loads(line) for line in self._verdicts()[before:]]

    def _verdicts(self) -> list[str]:
        """Complete lines"""
        return self.path.read_text().split("\n")[:-1] if self.path.exists() else []


def _add_without(act: Act, model: Model, calibration: Calibration, acts: list[Act]) -> None:
    """What a model would have predicted that is fitted anew on every value, whatever it says."""
    from ...ssl.recipes import as_champion  # with torch

    fit, out, start = as_champion(model), np.empty(len(act.spectra)), 0
    earlier = [one for one in acts if one is not act]
    for i, end in enumerate([*act.due.tolist(), len(act.spectra)]):
        known = [(one, len(one.verdicts)) for one in earlier] + [(act, i)]
        spectra = np.vstack([one.spectra.spectra[one.nearest[:n]] for one, n in known])
        later = Calibration(
            np.asarray(_on(model, spectra, act), np.float32),
            np.concatenate([one.given[:n] for one, n in known])[:, None],
            calibration.group.max() + 1 + np.arange(len(spectra)),
        )
        fitted = fit(Calibration.joined([calibration, later]))
        out[start:end] = fitted.predict(_on(model, act.spectra.spectra[start:end], act))[:, 0]
        start = end
    act.without = out


def _on(model: Model, spectra: np.ndarray, act: Act) -> np.ndarray:
    from ...models.axis import resampler

    return resampler(act.spectra.axis, model.grid).apply(spectra)


def _rmse(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def _farthest(act: Act, served: np.ndarray) -> float:
    """From the laboratory's curve, between the first hour and the last sample but one."""
    inside = (act.hours > DELAY_H) & (act.hours <= act.sampled[-2])
    return float(np.abs(served - np.interp(act.hours, act.sampled, act.true))[inside].max())
