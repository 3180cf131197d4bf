"""From what a laboratory wrote to numbers in the units of a model: names, numbers and units are checked one by one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ... import TamisError
from ...models.class_scores import UNKNOWN
from ...models.model import class_names
from ...models.near_names import did_you_mean
from ...models.store import Store
from ..files.kinds import is_no_value, numbers_alone
from ..messages.checks import shown
from ..messages.label_rejects import BadLabel
from ..messages.labels import Label
from ..settings.tables import Settings
from .units import convert


@dataclass(frozen=True)
class Expected:
    """What the laboratory values of one model are called, and their units.

    Attributes:
        targets: of the model. units: target -> unit, '' if it is not known.
        class_of: for a model of classes, the column that named them: its values are the compositions of lots.
        elsewhere: targets of the other models that serve a line: their values are not ours, and not wrong.
    """

    targets: Sequence[str]
    units: dict[str, str] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    class_of: str = ""

    @classmethod
    def of(cls, settings: Settings, store: Store) -> Self:
        """Raises NoModel, StoreUnusable, BadBundle if the trainer's model cannot be read."""
        ours = settings.trainer.model
        manifest = store.manifest(ours)
        targets, units = list(manifest["targets"]), dict(manifest["units"])
        others: set[str] = set()
        for name in {line.model for line in settings.lines.values()} - {ours}:
            try:
                others.update(store.manifest(name)["targets"])
            except TamisError:
                continue  # no such model yet: it has no values of its own
        return cls(targets, units, frozenset(others) - set(targets), manifest.get("class_of", ""))

    @property
    def names(self) -> Sequence[str]:
        """As a laboratory writes them: targets, or classes."""
        return class_names(self.class_of, self.targets) or self.targets

    def read(self, labels: Sequence[Label]) -> tuple[list[Label], list[BadLabel]]:
        """Labels with numbers in the model's units; a value that cannot be used drops itself, not its label.

        Texts are read as in files (`files.kinds`): '<0.5' is no number, '10,3' is one. The decimal mark is found over
        the texts of one target.
        """
        bad: list[BadLabel] = []
        numbers = self._numbers(labels)
        good = []
        for i, label in enumerate(labels):
            if self.class_of:
                given = {name: numbers.get((i, name), value) for name, value in (label.values | label.texts).items()}
                try:
                    good.append(replace(label, values=self._composition(label, given), units={}, texts={}))
                except ValueError as error:
                    bad.append(BadLabel(label.row, label.spectrum_id, "", "value", str(error), label.original))
                continue
            values = {}
            for target, value in (label.values | label.texts).items():
                if self._is_of_others(label, target):
                    continue
                reason, fault, number = self._checked(label, target, value, numbers.get((i, target), math.nan))
                if fault:
                    bad.append(_bad(label, target, value, reason, fault))
                else:
                    values[target] = number
            if values:
                good.append(replace(label, values=values, units={}, texts={}))
        return good, bad

    def _composition(self, label: Label, given: Mapping[str, Any]) -> dict[str, float]:
        """target -> share of a lot, for every class; they sum to 1 less the share of unknown materials.

        Percentages, counts and weights are alike: only their ratios count. Raises ValueError.
        """
        classes = dict(zip(self.names, self.targets, strict=True))
        if not label.is_lot:
            raise ValueError(f"the model sorts by {self.class_of}: it learns from the composition of lots; expected "
                             "lot_id, line, from and to in the place of spectrum_id")  # fmt: skip
        amounts = {name.removeprefix(f"{self.class_of}="): amount for name, amount in given.items()}
        for name, amount in amounts.items():
            if name not in classes and name != UNKNOWN:
                near = did_you_mean(name, self.names)
                raise ValueError(f"unknown class {name[:80]!r}{near}; known: {', '.join(self.names)}, {UNKNOWN}")
            if not (isinstance(amount, float | int) and 0 <= amount < math.inf):
                raise ValueError(f"{name}: expected a share of 0 or more, got {shown(amount)}")
        total = math.fsum(amounts.values())
        if total <= 0:
            raise ValueError("expected a share above 0 of one class at least")
        return {target: amounts.get(name, 0.0) / total for name, target in classes.items()}

    def _is_of_others(self, label: Label, target: str) -> bool:
        """Of another model's trainer; or a column beside a spectrum that is no laboratory value."""
        if target in self.targets:
            return False
        if target in self.elsewhere and not label.line:
            return True
        is_beside = label.spectrum is not None and not did_you_mean(target, self.targets)
        return is_beside and any(name in self.targets for name in label.values | label.texts)

    def _numbers(self, labels: Sequence[Label]) -> dict[tuple[int, str], float]:
        """(label, target) -> number, NaN for none, of the values that came as texts."""
        columns: dict[str, dict[int, str]] = defaultdict(dict)
        for i, label in enumerate(labels):
            for target, text in label.texts.items():
                columns[target][i] = text
        return {
            (i, target): float(value)
            for target, texts in columns.items()
            for i, value in zip(texts, numbers_alone(list(texts.values())).values, strict=True)
        }

    def _checked(self, label: Label, target: str, value: float | str, number: float) -> tuple[str, str, float]:
        """A word for the fault, the fault, both '' for none, and the number in the model's unit."""
        if target not in self.targets:
            near = did_you_mean(target, self.targets)
            return "target", f"unknown target {target[:80]!r}{near}; known: {', '.join(self.targets)}", math.nan
        unit, ours = label.units.get(target, ""), self.units.get(target, "")
        if isinstance(value, str):
            if math.isnan(number):
                return "value", f"{target}: {_no_number(value)}", math.nan
            value = number
        if unit:
            if not ours:
                text = (
                    f"{target}: the model states no unit, so {unit[:40]!r} cannot be compared with it: leave it out if"
                )
                return "unit", f"{text} it is the calibration's, or fit with --unit {target}=UNIT", math.nan
            try:
                value = convert(value, unit, ours)
            except ValueError as error:
                return "unit", f"{target}: {error}", math.nan
        if not math.isfinite(value):
            return "value", f"{target}: expected a finite number, got {value}", math.nan
        return "", "", value


def _no_number(text: str) -> str:
    if is_no_value(text):
        return f"{shown(text)} is no number: it counts as not measured, as in files"
    return f'expected a number, got {shown(text)}; a unit goes beside it: {{"value": 10.3, "unit": "%"}}'


def _bad(label: Label, target: str, value: float | str, reason: str, fault: str) -> BadLabel:
    given: Any = label.original.get("values", {}).get(target, value)
    about = dict(label.original) or {
        name: text for name in ("spectrum_id", "line", "instrument", "object_id") if (text := getattr(label, name))
    }
    return BadLabel(label.row, label.spectrum_id, target, reason, fault, about | {"values": {target: given}})
