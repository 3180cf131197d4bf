"""Frames to predictions, each with whether to trust it."""

from collections.abc import Sequence

import numpy as np
import structlog

from ... import BadMessage
from ...models.class_scores import Verdict
from ...models.instruments import UNNAMED
from ...models.model import Result
from ...models.serving.compiled import ServedModel
from ..messages.frame import Frame
from ..messages.predictions import Predictions, interval_columns
from ..settings.tables import Process
from .model_server import ModelServer, Served
from .process_limits import FrozenSensor, ProcessLimits, ProcessVerdict

log = structlog.get_logger()

FROZEN_SPECTRA = 10  # identical spectra in a row that are logged: a producer may send one twice
MAX_WATCHES = 256  # lines x instruments; above that the least recent is forgotten, or names could fill the memory


class Predictor:
    """Predictions of messages by the models that are served; remembers what is usual for each line and instrument.

    Args:
        process: how limits are learned from the running process; None learns none.
    """

    def __init__(self, models: ModelServer, process: Process | None) -> None:
        self.models, self.process = models, process
        # line and instrument -> sensor, limits, and the version whose scores they are of
        self._watches: dict[tuple[str, str], tuple[FrozenSensor, ProcessLimits | None, str]] = {}
        self._foreign: set[tuple[str, str, str]] = set()  # line, instrument and version that were logged

    def predict(self, frame: Frame, bounds: Sequence[int] | np.ndarray = ()) -> Predictions:
        """Predictions of the messages in a joined frame, the same as if each had come alone.

        Args:
            bounds: message i has the rows from bounds[i] to bounds[i + 1]; () if it is one message.

        Raises:
            NoModel: the frame's line has no model. AxisMismatch: its axis does not cover the model's grid.
            BadMessage: it holds another quantity than the model's calibration.
        """
        name, served = self.models.serving(frame.line)
        model = served.model
        if "unknown" not in (frame.quantity, model.quantity) and frame.quantity != model.quantity:
            raise BadMessage(
                f"line {frame.line!r}: expected {model.quantity}, as model {name!r} {served.version} was taught, "
                f"got {frame.quantity}",
                "quantity",
            )
        result = model.predict(frame.spectra, frame.axis, frame.instrument)
        return self._judged(frame, name, served, result, bounds if len(bounds) else (0, len(frame)))

    def _judged(
        self, frame: Frame, name: str, served: Served, result: Result, bounds: Sequence[int] | np.ndarray
    ) -> Predictions:
        model, n = served.model, len(frame)
        sensor, limits = self._watch(frame, served.version)
        frozen = sensor.update(frame.spectra, frame.spectrum_id, bounds[:-1])
        _log_frozen(frame, sensor)
        # Of classes, what is usual changes from object to object: only T2 and Q can be odd.
        values = result.values[:, :0] if model.class_of else result.values
        verdict = _of_the_process(limits, values, result, frozen, bounds)
        if verdict.warm_up_spectra:
            log.warning("warm-up", line=frame.line, instrument=frame.instrument, spectra=verdict.warm_up_spectra)
        # Written so that NaN, which fails every comparison, is outside.
        outside = ~((result.t2 <= model.limits["t2"][1]) & (result.q <= model.limits["q"][1]))
        outside |= ~np.isfinite(result.values).all(axis=1)
        foreign = self._foreign_to(frame, name, served)
        unmapped = "" if model.instruments.serves(frame.instrument) else _unmapped(model, frame.instrument)
        named, unknown, classes, of = None, np.zeros(n, bool), {}, model.class_of
        if of and result.distance is not None:
            named = Verdict(np.array(model.classes), result.values, result.distance)
            unknown = named.unknown
            classes = {of: named.names(), f"{of}_confidence": named.probability.max(axis=1)}
            classes |= {f"{of}_distance": named.distance.min(axis=1), f"{of}_ambiguity": named.ambiguity}
        return Predictions(
            line=frame.line,
            model=name,
            model_version=served.version,
            units=model.units,
            limits=model.limits,
            **{name: getattr(frame, name) for name in ("spectrum_id", "time", "object_id", "x", "y")},
            values={target: result.values[:, i] for i, target in enumerate(model.targets)},
            t2=result.t2,
            q=result.q,
            t2_process_limit=verdict.high[:, 0],
            q_process_limit=verdict.high[:, 1],
            trusted=~outside & ~frozen & ~unknown & (not unmapped),
            odd=verdict.odd,
            warm_up=verdict.warm_up,
            frozen=frozen,
            reason=_reasons(model, result, outside, frozen, verdict, named, unknown, unmapped),
            foreign=foreign,
            classes=classes,
            intervals=interval_columns(result.values, result.half, model.targets),
        )

    def spread(self, frame: Frame, rows: np.ndarray) -> np.ndarray | None:
        """(rows,): how far the members of the line's committee differ over these spectra; None for other kinds."""
        _, served = self.models.serving(frame.line)
        return served.model.spread(frame.spectra[rows], frame.axis, frame.instrument)

    def _foreign_to(self, frame: Frame, name: str, served: Served) -> bool:
        """Whether the model was fitted on another instrument than the frame's and has no map of it; logs it once."""
        of, key = served.model.instruments, (frame.line, frame.instrument, served.version)
        if not of.is_foreign(frame.instrument):
            return False
        if key not in self._foreign:
            if len(self._foreign) >= MAX_WATCHES:
                self._foreign.clear()
            self._foreign.add(key)
            log.warning(
                "the model does not know this instrument; `tamis transfer` teaches it from objects seen by both; with "
                "--unlabeled, from spectra of the same kind of samples",
                **{"line": frame.line, "instrument": frame.instrument, "model": name, "version": served.version},
                known=of.names,
                trusted="by T2 and Q" if of.serves(frame.instrument) else "none",
            )
        return True

    def _watch(self, frame: Frame, version: str) -> tuple[FrozenSensor, ProcessLimits | None]:
        key, of = (frame.line, frame.instrument), self.process
        fresh = None if of is None else ProcessLimits(of.learn_spectra, of.window_spectra)
        sensor, limits, seen = self._watches.pop(key, (FrozenSensor(), fresh, version))  # and put back as the newest
        if seen != version:  # another version has other scores: its limits are learned again
            limits = fresh
        self._watches[key] = sensor, limits, version
        if len(self._watches) > MAX_WATCHES:
            line, instrument = next(iter(self._watches))
            del self._watches[line, instrument]
            log.warning("too many lines and instruments: the oldest is forgotten", line=line, instrument=instrument)
        return sensor, limits


def _of_the_process(
    limits: ProcessLimits | None,
    values: np.ndarray,
    result: Result,
    frozen: np.ndarray,
    bounds: Sequence[int] | np.ndarray,
) -> ProcessVerdict:
    if limits is None:
        return ProcessVerdict.unknown(len(values), 2 + values.shape[1])
    at, parts = 0, []
    for end in bounds[1:]:
        if limits.learning or end == bounds[-1]:
            rows = slice(at, end)
            parts.append(limits.update(values[rows], result.t2[rows], result.q[rows], skip=frozen[rows]))
            at = end
    return ProcessVerdict.joined(parts)


def _log_frozen(frame: Frame, sensor: FrozenSensor) -> None:
    """Once when a sensor freezes, and once when it is over."""
    if sensor.longest >= FROZEN_SPECTRA and not sensor.is_logged:
        sensor.is_logged = True
        log.warning(
            "frozen sensor: its spectra are bit-identical, and decide nothing until they change",
            line=frame.line,
            instrument=frame.instrument,
            spectra=sensor.longest,
        )
    if sensor.is_logged and sensor.run == 1:
        sensor.is_logged = False
        log.info("the sensor is no longer frozen", line=frame.line, instrument=frame.instrument)


def _unmapped(model: ServedModel, instrument: str) -> str:
    if instrument in UNNAMED:
        return f"names no instrument, and the model corrects by instrument: {', '.join(model.instruments.names)}"
    return f"instrument {instrument!r} is unknown to the model, which knows {', '.join(model.instruments.names)}"


def _reasons(
    model: ServedModel,
    result: Result,
    outside: np.ndarray,
    frozen: np.ndarray,
    verdict: ProcessVerdict,
    named: Verdict | None,
    unknown: np.ndarray,
    unmapped: str,
) -> list[str]:
    """In words, for each row: why it is not to be trusted, and what is odd about it."""
    reasons = [unmapped] * len(outside)
    (t2_95, t2_99), (q_95, q_99) = model.limits["t2"], model.limits["q"]
    notable = outside | frozen | unknown | verdict.odd | (result.t2 > t2_95) | (result.q > q_95)
    for i in np.flatnonzero(notable).tolist():
        t2, q = result.t2[i], result.q[i]
        parts = [unmapped] if unmapped else []
        if named is not None and unknown[i]:
            k = int(named.distance[i].argmin())
            parts.append(f"unknown: nearest to {named.classes[k]}, at {named.distance[i, k]:.3g} times its limit")
        if frozen[i]:
            parts.append("frozen sensor: bit-identical to its neighbour")
        if outside[i]:
            limits = ("T2", t2, t2_99), ("Q", q, q_99)
            over = [f"{name} {value:.3g} > {limit:.3g}" for name, value, limit in limits if value > limit]
            far = f"extrapolation: {', '.join(over)} (99 % of the calibration)"
            parts.append(far if over else "no finite prediction")
        elif t2 > t2_95 or q > q_95:
            parts.append("near the edge: between the calibration's 95 % and 99 % limits")
        if verdict.odd[i]:
            odd = []
            for k in np.flatnonzero(verdict.outside[i]).tolist():
                low, high = verdict.low[i, k], verdict.high[i, k]
                if k < 2:
                    odd.append(f"{('T2', 'Q')[k]} above its usual {high:.3g}")
                else:
                    odd.append(f"{model.targets[k - 2]} {result.values[i, k - 2]:.4g} outside {low:.4g}..{high:.4g}")
            parts.append(f"{'warm-up, ' if verdict.warm_up[i] else ''}odd for the process: {', '.join(odd)}")
        reasons[i] = "; ".join(parts)
    return reasons
