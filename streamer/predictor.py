"""Frames -> predictions, each with whether to trust it; versions are swapped between frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import numpy as np
import structlog

from .. import BadBundle, BadMessage, NoModel, StoreUnusable
from ..models.axis import Axis
from ..models.classes import Verdict
from ..models.model import Result
from ..models.serving import ServedModel
from ..models.store import Store
from .frame import Frame
from .oddity import FrozenSensor, ProcessLimit, ProcessVerdict
from .outcome import Predictions
from .settings.tables import Line, Process

log = structlog.get_logger()
MOST_WATCHES = 256  # lines x instruments: beyond, the one longest unheard is forgotten, or names could fill the memory


@dataclass(slots=True)
class Served:
    """published: seconds since 1970."""

    model: ServedModel
    version: str
    published: float


@dataclass(slots=True)
class Watch:
    """What is remembered of one line and instrument."""

    limit: ProcessLimit
    sensor: FrozenSensor = field(default_factory=FrozenSensor)
    version: str = ""


class Predictor:
    """Serves the current version of each line's model.

    Args:
        lines: settings of each line; ``"*"`` stands for the lines that have none of their own.
        reload_s: how often `refresh` looks into the store for a new current version.
        loader: loads it beside the loop, which goes on with the version before it; None: the loop waits. The first
            version of a model is always waited for.
        threads: of a network's prediction; 0 takes every core.
    """

    def __init__(
        self,
        store: Store,
        lines: Mapping[str, Line],
        process: Process,
        reload_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        loader: Executor | None = None,
        threads: int = 0,
    ) -> None:
        self.store = store
        self.lines = lines
        self.process = process
        self.reload_s = reload_s
        self.clock = clock
        self.threads = threads
        self.served: dict[str, Served] = {}
        self._watches: dict[tuple[str, str], Watch] = {}
        self._next_look = -np.inf
        self._refused: dict[str, str] = {}
        self._loader = loader
        self._loading: dict[str, tuple[str, Future[Served]]] = {}

    @property
    def missing(self) -> list[str]:
        """The models that settings name and that are not served (yet)."""
        return sorted({line.model for line in self.lines.values()} - self.served.keys())

    def axes(self) -> dict[str, Axis]:
        """The grids of the served models, by id: a message may name one instead of listing its values."""
        return {served.model.grid.id: served.model.grid for served in self.served.values()}

    def refresh(self) -> None:
        """Serves what was loaded since, and begins to load what is new and current.

        A version that can not be served leaves the one before it in place.

        Raises:
            BadBundle: a damaged bundle, and there is no version before it. StoreUnusable: likewise, of the store.
        """
        for name, (version, loading) in list(self._loading.items()):
            if loading.done():
                del self._loading[name]
                self._swap(name, version, loading.result)
        if self.clock() < self._next_look:
            return
        self._next_look = self.clock() + self.reload_s
        for name in sorted({line.model for line in self.lines.values()} - self._loading.keys()):
            served = self.served.get(name)
            try:
                version = self.store.current(name)
            except NoModel:
                continue
            except (BadBundle, StoreUnusable) as error:
                self._keep(name, error)
                continue
            if served is not None and version in (served.version, self._refused.get(name)):
                continue
            if served is None or self._loader is None:
                self._swap(name, version, partial(self._load, name, version))
            else:
                self._loading[name] = version, self._loader.submit(self._load, name, version)

    def _load(self, name: str, version: str) -> Served:
        model = self.store.serve(name, version, self.threads)
        return Served(model, version, datetime.fromisoformat(self.store.manifest(name, version)["created"]).timestamp())

    def _swap(self, name: str, version: str, loaded: Callable[[], Served]) -> None:
        before = self.served.get(name)
        try:
            self.served[name] = loaded()
        except NoModel:  # pruned since
            return
        except (BadBundle, StoreUnusable) as error:
            if isinstance(error, BadBundle) and before is not None:
                self._refused[name] = version
            self._keep(name, error)
        else:
            self._refused.pop(name, None)
            report = self.served[name].model.report
            log.info(
                "model loaded",
                model=name,
                version=version,
                before=before.version if before else None,
                computed_by=str(report.way),
                error_sd=float(f"{report.error:.1e}"),
                **({"not_by": report.refused} if report.refused else {}),
            )

    def _keep(self, name: str, error: BadBundle | StoreUnusable) -> None:
        if name not in self.served:
            raise error
        log.error("new version refused", model=name, kept=self.served[name].version, error=str(error))

    def predict(self, frame: Frame) -> Predictions:
        """Of one message. Raises as `predict_each`."""
        return self.predict_each(frame, [slice(0, len(frame))])[0]

    def predict_each(self, frame: Frame, parts: Sequence[slice]) -> list[Predictions]:
        """Of the messages that a frame was joined from, their rows given: each as if it had come alone.

        Raises:
            NoModel: the frame's line has no model. AxisMismatch: its axis does not cover the model's grid.
            BadMessage: it holds another quantity than the model was taught.
        """
        name, served = self.serving(frame.line)
        model = served.model
        if "unknown" not in (frame.quantity, model.quantity) and frame.quantity != model.quantity:
            raise BadMessage(
                f"line {frame.line!r}: expected {model.quantity}, as model {name!r} {served.version} was taught, "
                f"got {frame.quantity}",
                "quantity",
            )
        every = model.predict(frame.spectra, frame.axis)
        if len(parts) == 1:
            return [self._judged(frame, name, served, every)]
        return [self._judged(frame[rows], name, served, every[rows]) for rows in parts]

    def _judged(self, frame: Frame, name: str, served: Served, result: Result) -> Predictions:
        model = served.model
        watch = self._watch(frame, served.version)
        frozen = watch.sensor.update(frame.spectra, frame.spectrum_id)
        # Of classes, what is usual changes from object to object: only T2 and Q can be odd.
        values = result.values[:, :0] if model.class_of else result.values
        verdict = watch.limit.update(values, result.t2, result.q, skip=frozen)
        if verdict.warm_up_spectra:
            log.warning("warm-up", line=frame.line, instrument=frame.instrument, spectra=verdict.warm_up_spectra)
        # Asked so that NaN, which no comparison holds for, is outside.
        outside = ~((result.t2 <= model.limits["t2"][1]) & (result.q <= model.limits["q"][1]))
        outside |= ~np.isfinite(result.values).all(axis=1)
        named = _classes(model, result)
        unknown = np.zeros(len(frame), bool) if named is None else named.unknown
        return Predictions(
            line=frame.line,
            model=name,
            model_version=served.version,
            units=model.units,
            limits=model.limits,
            spectrum_id=frame.spectrum_id,
            time=frame.time,
            object_id=frame.object_id,
            x=frame.x,
            y=frame.y,
            values={target: result.values[:, i] for i, target in enumerate(model.targets)},
            t2=result.t2,
            q=result.q,
            t2_process_limit=np.full(len(frame), verdict.t2_limit),
            q_process_limit=np.full(len(frame), verdict.q_limit),
            trusted=~outside & ~frozen & ~unknown,
            odd=verdict.odd,
            warm_up=verdict.warm_up,
            frozen=frozen,
            reason=_reasons(model, result, outside, frozen, verdict, named),
            classes={} if named is None else class_columns(model.class_of, named),
        )

    def spread(self, frame: Frame, rows: np.ndarray) -> np.ndarray | None:
        """(rows,): how far the members of the line's committee differ over these spectra; None for other kinds."""
        _, served = self.serving(frame.line)
        return served.model.spread(frame.spectra[rows], frame.axis)

    def serving(self, line: str) -> tuple[str, Served]:
        """The name of the line's model and what is served of it; raises NoModel."""
        settings = self.lines.get(line, self.lines.get("*"))
        if settings is None:
            known = ", ".join(sorted(self.lines))
            raise NoModel(f"line {line!r} has no model in the settings; lines there: {known}")
        served = self.served.get(settings.model)
        if served is None:
            raise NoModel(f"line {line!r}: no model {settings.model!r} is published in {self.store.root}")
        return settings.model, served

    def _watch(self, frame: Frame, version: str) -> Watch:
        key = (frame.line, frame.instrument)
        watch = self._watches.pop(key, None)  # and put back as the last heard
        if watch is None or watch.version != version:  # another version has other scores: its limits are learned anew
            limit = ProcessLimit(self.process.learn_spectra, self.process.window_spectra)
            sensor = watch.sensor if watch else FrozenSensor()
            watch = Watch(limit, sensor, version)
        self._watches[key] = watch
        if len(self._watches) > MOST_WATCHES:
            line, instrument = next(iter(self._watches))
            del self._watches[line, instrument]
            log.warning("forgotten: too many lines and instruments", line=line, instrument=instrument)
        return watch


def _classes(model: ServedModel, result: Result) -> Verdict | None:
    if not model.class_of or result.distance is None:
        return None
    return Verdict(np.array(model.classes), result.values, result.distance)


def class_columns(class_of: str, named: Verdict) -> dict[str, np.ndarray]:
    """The columns of `Predictions.classes`."""
    return {
        class_of: named.names(),
        f"{class_of}_confidence": named.probability.max(axis=1),
        f"{class_of}_distance": named.distance.min(axis=1),
        f"{class_of}_ambiguity": named.ambiguity,
    }


def _reasons(
    model: ServedModel,
    result: Result,
    outside: np.ndarray,
    frozen: np.ndarray,
    verdict: ProcessVerdict,
    named: Verdict | None,
) -> list[str]:
    """In words, for each row: why it is not to be trusted, and what is odd about it."""
    reasons = [""] * len(outside)
    (t2_95, t2_99), (q_95, q_99) = model.limits["t2"], model.limits["q"]
    worth_telling = outside | frozen | verdict.odd | (result.t2 > t2_95) | (result.q > q_95)
    unknown = np.zeros(len(reasons), bool) if named is None else named.unknown
    worth_telling |= unknown
    for i in np.flatnonzero(worth_telling).tolist():
        t2, q = result.t2[i], result.q[i]
        parts = []
        if named is not None and unknown[i]:
            nearest = int(named.distance[i].argmin())
            parts.append(
                f"unknown: nearest to {named.classes[nearest]}, at {named.distance[i, nearest]:.3g} times its limit"
            )
        if frozen[i]:
            parts.append("frozen sensor: bit-identical to its neighbour")
        if outside[i]:
            over = [f"T2 {t2:.3g} > {t2_99:.3g}"] if t2 > t2_99 else []
            over += [f"Q {q:.3g} > {q_99:.3g}"] if q > q_99 else []
            far = f"extrapolation: {', '.join(over)} (99 % of the calibration)"
            parts.append(far if over else "no finite prediction")
        elif t2 > t2_95 or q > q_95:
            parts.append("near the edge: between the calibration's 95 % and 99 % limits")
        if verdict.odd[i]:
            parts.append(("warm-up, " if verdict.warm_up[i] else "") + _oddity(model, result, verdict, i))
        reasons[i] = "; ".join(parts)
    return reasons


def _oddity(model: ServedModel, result: Result, verdict: ProcessVerdict, i: int) -> str:
    what = [f"T2 above its usual {verdict.t2_limit:.3g}"] if result.t2[i] > verdict.t2_limit else []
    what += [f"Q above its usual {verdict.q_limit:.3g}"] if result.q[i] > verdict.q_limit else []
    what += [
        f"{model.targets[k]} {result.values[i, k]:.4g} outside {verdict.value_low[k]:.4g}..{verdict.value_high[k]:.4g}"
        for k in np.flatnonzero(verdict.odd_value[i])
    ]
    return f"odd for the process: {', '.join(what)}"
