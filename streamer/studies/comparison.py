"""`tamis compare`: models side by side on the same rows of a recorded file, how good each is and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ..fitting.objects import EACH_ROW, objects_of
from ..fitting.pretrain import read_unlabeled
from ..fitting.table_look import look_at
from ..fitting.training_data import Tell, is_class, read_training, refuse_doubtful_classes, taken
from .contenders import CORRECTED, Context, contender
from .forecast import forecast
from .prequential import StreamTask
from .tasks import ClassTask, CompareOptions, ValueTask

USUAL_MODELS = {"values": ("plsr", "local-pls", "committee"), "classes": ("pls-da", "committee")}


@dataclass(frozen=True)
class Comparison:
    """The cells of all models, and each target's task."""

    options: CompareOptions
    tasks: dict[str, Any]
    cells: list[Any]

    def of(self, target: str, model: str, labels: int) -> list[Any]:
        return [cell for cell in self.cells if (cell.target, cell.model, cell.labels) == (target, model, labels)]

    def groups(self) -> list[tuple[str, int]]:
        """Each target with each number of labels, as they were run."""
        return list(dict.fromkeys((cell.target, cell.labels) for cell in self.cells))

    def error(self, target: str, model: str, labels: int) -> float:
        """The mean over the draws of labels."""
        return float(np.mean([cell.error for cell in self.of(target, model, labels)]))

    def ranked(self, target: str, labels: int) -> list[str]:
        """The models, the best first."""
        return sorted(self.options.models, key=lambda model: self.error(target, model, labels))

    def against(self, target: str, labels: int, model: str, other: str) -> tuple[float, float, float]:
        """The difference between `model` and `other`, and its 95 % interval; each the mean over the draws."""
        pairs = zip(self.of(target, model, labels), self.of(target, other, labels), strict=True)
        by, low, high = np.mean([self.tasks[target].paired(one, two) for one, two in pairs], axis=0)
        return float(by), float(low), float(high)


def compare(
    options: CompareOptions,
    progress: Callable[[str, int, int], None] = lambda text, done, of: None,
    tell: Tell = lambda text: None,
) -> Comparison:
    """Fits every model on the same training rows, parameters chosen inside them, and predicts the same test rows.

    `tell` gets sentences about what was read, found and left out, and how long it will take. `progress` is called
    before each fit, with a text, the fits that are done, and the number of all.

    Raises BadFile: a column is missing, or too few rows have a value. ValueError: an unknown model, one that lacks the
    pairs it needs or cannot use them; or options that do not go together.
    """
    named = [options.group, options.split, options.pairs, options.stream, *options.test]
    table, joined_by = read_training(options.files, options.reading, options.laboratory, options.targets, tell, named)
    tell(taken(table, options.targets))
    texts = [name for name in options.targets if is_class(table, name)]
    for name in texts:
        refuse_doubtful_classes(table, name, options.laboratory.classes)
    objects = objects_of(table, options.group, options.targets, joined_by)
    tell(str(objects))
    found = look_at(table, options.targets, objects, options.keep)
    for finding in found.findings:
        tell(str(finding))
    table = replace(
        table,
        axis=table.axis[found.bands],
        spectra=table.spectra[:, found.bands],
        columns=table.columns | found.values,
    )[found.rows]
    kind = StreamTask if options.stream is not None else ClassTask if texts else ValueTask
    if (options.test or options.hide) and kind is not ClassTask:
        targets = ", ".join(options.targets)
        raise ValueError(f"--test and --hide are for a target of classes: {targets} is none; see --split")
    usual = USUAL_MODELS["classes" if kind is ClassTask else "values"]
    options = replace(options, models=list(dict.fromkeys(options.models or usual)))
    for name in options.models:
        contender(kind.of, name)  # raises if there is none, before minutes of work
    context, encoded = Context(), [name for name in options.models if name.startswith("tamis")]
    if options.pairs is not None and encoded:
        known, names = ", ".join((*CORRECTED, "weighed", "cnn-pairs")), ", ".join(encoded)
        raise ValueError(
            f"{names}: an encoder learns no map from one condition to the other; with --pairs compare {known}"
        )
    if options.unlabeled and encoded:
        reading = replace(options.reading, where=None)
        context = Context(read_unlabeled(options.unlabeled, options.group, table.axis, reading, tell))
    options = replace(options, group=objects.column or EACH_ROW)
    done = Comparison(options, {name: kind.make(table, name, options, context) for name in options.targets}, [])
    tell(forecast(done.tasks, options.models, options.seeds))
    cells = [
        (task, labels, seed, name)
        for task in done.tasks.values()
        for labels, seed, name in product(task.counts, range(options.seeds), options.models)
    ]
    for task, labels, seed, name in cells:
        progress(f"{task.target}, {labels or 'all'} labels, draw {seed + 1}: {name}", len(done.cells), len(cells))
        done.cells.append(task.run(name, labels, seed))
    return done
