"""Pre-treatments as one declarative pipeline that is saved with the model.

A pipeline is written as text, left to right: ``cut 950 1500, baseline, savgol 15 2 1, centre``. Of several sensors,
each has its own: ``spectrum: snv, savgol 15 2 1; visible: snv; height: autoscale``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import takewhile
from typing import Any, Self

import numpy as np

from . import plugins
from .axis import SPECTRUM_BANDS, Axis, Sensors, resampler
from .steps import Cut, Step
from .tensors import below

STEPS: dict[str, type[Step]] = {step.name: step for step in Step.__subclasses__()}
_class = partial(plugins.find, plugins.PRETREATMENTS, own=STEPS, what="pre-treatment", base=Step, attribute="name")


class Pipeline:
    """Steps applied from left to right.

    Cuts that come first define the grid: a frame need only cover what the model looks at.

    >>> pipeline = Pipeline.parse("cut 1000 2000, snv")
    >>> pipeline.to_json()
    [{'step': 'cut', 'low': 1000.0, 'high': 2000.0}, {'step': 'snv'}]
    """

    grid: Axis  # what `transform` expects its spectra on; set by fit

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``name number ..., name ...``, or ``sensor: name ...; sensor: ...``.

        Raises ValueError, naming the known steps, or a step's parameters.
        """
        if ":" in text:
            return cls([BySensor.parse(text)])
        return cls([_parse_step(part) for part in text.split(",") if part.strip()])

    def fit(self, spectra: np.ndarray, axis: Axis) -> np.ndarray:
        """Learn from (n, bands) training spectra on `axis`; returns them transformed, (n, bands').

        Raises ValueError where several sensors have one pre-treatment, and for what a step cannot do.
        """
        spectra = np.asarray(spectra, np.float64)
        self.grid = axis
        if isinstance(axis, Sensors) and not any(isinstance(step, BySensor) for step in self.steps):
            raise ValueError(f"expected a pre-treatment for each of {axis}, as in {usual_by_sensor(axis, 'snv')!r}")
        cuts: list[Any] = list(takewhile(lambda step: isinstance(step, Cut), self.steps))
        for i, step in enumerate(self.steps):
            step.fit(spectra, axis)
            if isinstance(step, BySensor) and step.grid != axis:  # a frame need not have the others, nor what is cut
                if i > 0:
                    raise ValueError(f"{step}: expected the sensors that it was learned for, {step.grid}; got {axis}")
                spectra, axis = resampler(axis, step.grid).apply(spectra), step.grid
                self.grid = axis
            spectra, axis = step(spectra), step.axis_after(axis)
            if i < len(cuts):
                self.grid = axis
        for cut in cuts:  # on the grid that they define, they keep every band
            cut.keep = np.ones(len(self.grid), bool)
        return spectra

    def transform(self, spectra: np.ndarray, axis: Axis) -> np.ndarray:
        """(n, bands) on any axis that covers the grid -> (n, bands'); raises AxisMismatch if it does not."""
        return through(self.steps, resampler(axis, self.grid).apply(np.asarray(spectra, np.float64)))

    def unfitted(self) -> Self:
        """The same steps, to be fitted anew."""
        return type(self)([step.unfitted() for step in self.steps])

    def to_json(self) -> list[dict[str, Any]]:
        return [{"step": step.name, **asdict(step)} for step in self.steps]

    def arrays(self) -> dict[str, np.ndarray]:
        """What the steps learned, by ``pipeline.<position>.<name>``."""
        return {
            f"pipeline.{i}.{name}": array for i, step in enumerate(self.steps) for name, array in step.arrays().items()
        }

    @property
    def sizes(self) -> list[int]:
        """How many numbers each sensor gives; empty for a single sensor."""
        return next((step.sizes.tolist() for step in self.steps if isinstance(step, BySensor)), [])

    def names(self) -> list[str]:
        """Of all steps, those of single sensors too."""
        within = [one for step in self.steps if isinstance(step, BySensor) for one in step.pipelines.values()]
        return [step.name for step in self.steps] + [name for one in within for name in one.names()]

    @classmethod
    def from_json(cls, spec: Sequence[dict[str, Any]], grid: Axis, arrays: dict[str, np.ndarray]) -> Self:
        pipeline = cls([_step(dict(item)) for item in spec])
        pipeline.restore(arrays, grid)
        return pipeline

    def restore(self, arrays: Mapping[str, np.ndarray], grid: Axis) -> None:
        """What `arrays` gave; raises KeyError where something is missing, ValueError where it does not fit the grid."""
        self.grid = grid
        for i, step in enumerate(self.steps):
            step.restore(below(f"pipeline.{i}.", arrays), grid)

    def __str__(self) -> str:
        return ", ".join(map(_text, self.steps))


@dataclass
class BySensor(Step):
    """Each sensor's own pre-treatment; then its numbers over the root of their variance in all: sensors weigh the same.

    Sensors that are not named are left out.

    References:
        Block scaling: Westerhuis, Kourti & MacGregor, J. Chemometrics 12 (1998) 301-321,
        doi 10.1002/(SICI)1099-128X(199809/10)12:5<301::AID-CEM515>3.0.CO;2-S.

    Attributes:
        grid: of the named sensors, without what is cut. sizes: (sensors,), how many numbers each gives.
    """

    texts: dict[str, str]  # sensor -> its pre-treatment

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("expected a pre-treatment for at least one sensor")
        self.pipelines = {name: Pipeline.parse(text) for name, text in self.texts.items()}

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``sensor: step, step; sensor: ...``; raises ValueError."""
        texts: dict[str, str] = {}
        for part in filter(str.strip, text.split(";")):
            name, colon, steps = (word.strip() for word in part.partition(":"))
            if not colon or not name or name in texts:
                raise ValueError(f"expected each sensor once, as in 'spectrum: snv; height: autoscale'; got {text!r}")
            texts[name] = steps
        return cls(texts)

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        """Raises ValueError for a sensor that is not there, and for what a step cannot do with it."""
        if lost := [name for name in self.texts if name not in axis.parts]:
            raise ValueError(f"unknown sensor {lost[0]!r}; there: {', '.join(axis.parts)}")
        treated = []
        for name, pipeline in self.pipelines.items():
            try:
                treated.append(pipeline.fit(spectra[:, axis.spans[name]], axis.parts[name]))
            except ValueError as error:
                raise ValueError(f"sensor {name}: {error}") from error
        self.grid = Sensors({name: pipeline.grid for name, pipeline in self.pipelines.items()})
        self.sizes = np.array([part.shape[1] for part in treated])
        variance = np.array([part.var(axis=0).sum() for part in treated])
        self.weights = 1 / np.sqrt(np.where(variance > 0, variance, 1.0))

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        spans = self.grid.spans
        parts = (through(pipeline.steps, spectra[:, spans[name]]) for name, pipeline in self.pipelines.items())
        return np.hstack([weight * part for weight, part in zip(self.weights, parts, strict=True)])

    def axis_after(self, axis: Axis) -> Axis:
        return Axis(np.arange(self.sizes.sum()), "index")

    def unfitted(self) -> Self:
        return type(self)(self.texts)

    def arrays(self) -> dict[str, np.ndarray]:
        own = {"sizes": self.sizes, "weights": self.weights}
        return own | {f"{k}.{key}": a for k, one in enumerate(self._parts()) for key, a in one.arrays().items()}

    def restore(self, arrays: Mapping[str, np.ndarray], grid: Axis) -> None:
        """Raises ValueError if the grid is not that of its sensors."""
        if not isinstance(grid, Sensors) or list(grid.parts) != list(self.texts):
            raise ValueError(f"expected a grid of {', '.join(self.texts)}, got {grid}")
        self.grid, self.sizes, self.weights = grid, arrays["sizes"], arrays["weights"]
        for k, (pipeline, part) in enumerate(zip(self._parts(), grid.parts.values(), strict=True)):
            pipeline.restore(below(f"{k}.", arrays), part)

    def _parts(self) -> list[Pipeline]:
        return list(self.pipelines.values())


def usual_by_sensor(axis: Axis, usual: str) -> str:
    """`usual` for spectra of at least 30 bands, and each number over its standard deviation for other sensors."""
    texts = {name: usual if len(part) >= SPECTRUM_BANDS else "autoscale" for name, part in axis.parts.items()}
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def through(steps: Iterable[Callable[[np.ndarray], np.ndarray]], spectra: np.ndarray) -> np.ndarray:
    """(n, bands) -> (n, bands'), step by step."""
    for step in steps:
        spectra = step(spectra)
    return spectra


def _parse_step(text: str) -> Step:
    name, *numbers = text.split()
    kind = _class(name.lower())
    names = [f.name for f in fields(kind)]
    if len(numbers) > len(names):
        raise ValueError(f"{name} takes {len(names)} numbers ({', '.join(names) or 'none'}), got {len(numbers)}")
    try:
        return _step({"step": kind.name, **{key: float(n) for key, n in zip(names, numbers, strict=False)}})
    except OverflowError as error:
        raise ValueError(f"{text.strip()!r}: expected finite numbers") from error
    except TypeError as error:
        raise ValueError(f"{name} needs {', '.join(names)}; got {text.strip()!r}") from error
    except ValueError as error:
        raise ValueError(f"{text.strip()!r}: {error}") from error


def _text(step: Step) -> str:
    if isinstance(step, BySensor) and not any(step.texts.values()):
        return ""
    if isinstance(step, BySensor):
        return "; ".join(f"{name}: {pipeline}" for name, pipeline in step.pipelines.items())
    return " ".join([step.name, *(f"{value:g}" for value in asdict(step).values())])


def _step(spec: dict[str, Any]) -> Step:
    name = spec.pop("step")
    kind: Any = BySensor if name == BySensor.name else _class(name)
    whole = {f.name for f in fields(kind) if f.type in (int, "int")}
    return kind(**{key: int(value) if key in whole else value for key, value in spec.items()})
