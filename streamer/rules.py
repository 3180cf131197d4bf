"""Rules of a line, as settings write them: refused by name where they are wrong, and never evaluated as code.

    label == "PVC" and confidence >= 0.9
    fat_low > 12 or (fat > 11 and odd == 0)
    p["PET"] > 0.5 and value["dry matter"] < 40

Python's own grammar reads them; names, numbers, texts, comparisons, and/or/not, p[...] for the probability of a class
and value[...] for what is no name in Python are all that it may find.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..models.class_scores import Validation

MOST_TEXT = 1_000  # characters of a rule
Facts = Mapping[str, Any]  # what is known of an object, by name
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Rule:
    """A condition on the facts of an object.

    Attributes:
        names: of the facts that it asks for; p["PVC"] counts as such a name.

    >>> rule = Rule('label == "PVC" and confidence >= 0.9')
    >>> rule({"label": "PVC", "confidence": 0.95}), sorted(rule.names)
    (True, ['confidence', 'label'])

    Raises:
        ValueError: what stands there is no such condition; the text says which part is not.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        if len(text) > MOST_TEXT:
            raise ValueError(f"expected a rule of at most {MOST_TEXT} characters, got {len(text)}")
        try:
            tree = ast.parse(text.strip(), mode="eval")
            self._holds = self._condition(tree.body)
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(
                f"expected a rule such as 'label == \"PVC\" and confidence >= 0.9', got {text!r}"
            ) from error

    def __call__(self, facts: Facts) -> bool:
        """A comparison with a fact that is not known (None, NaN) does not hold."""
        return bool(self._holds(facts))

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raises ValueError where it asks for what is not `known`."""
        if strange := sorted(self.names - set(known)):
            raise ValueError(f"rule {self.text!r}: nothing is known as {strange[0]}; known: {', '.join(known)}")

    def _condition(self, node: ast.expr) -> Callable[[Facts], Any]:
        match node:
            case ast.BoolOp(ast.And(), parts):
                every = [self._condition(part) for part in parts]
                return lambda facts: all(part(facts) for part in every)
            case ast.BoolOp(ast.Or(), parts):
                some = [self._condition(part) for part in parts]
                return lambda facts: any(part(facts) for part in some)
            case ast.UnaryOp(ast.Not(), part):
                holds = self._condition(part)
                return lambda facts: not holds(facts)
            case ast.Compare(left, ops, others):
                operands = [self._operand(part) for part in (left, *others)]
                compare = [_COMPARE.get(type(op)) for op in ops]
                if None in compare:
                    raise ValueError(f"{self._told(node)}: expected one of == != < <= > >=")
                return lambda facts: _all_hold(compare, [part(facts) for part in operands])
            case ast.Name() | ast.Subscript():
                return self._operand(node)
        raise ValueError(f"{self._told(node)}: expected a comparison, a name, and, or, not")

    def _operand(self, node: ast.expr) -> Callable[[Facts], Any]:
        match node:
            case ast.Constant(value) if isinstance(value, (bool, int, float, str)):
                return lambda facts: value
            case ast.UnaryOp(ast.USub(), ast.Constant(value)) if isinstance(value, (int, float)):
                return lambda facts: -value
            case ast.Name(name):
                self.names.add(name)
                return lambda facts: facts.get(name)
            case ast.Subscript(ast.Name("p" | "value" as of), ast.Constant(str(value))):
                name = f"p[{value}]" if of == "p" else value
                self.names.add(name)
                return lambda facts: facts.get(name)
        raise ValueError(f'{self._told(node)}: expected a name, a number, a text in quotes, or p["class"]')

    def _told(self, node: ast.expr) -> str:
        return f"rule {self.text!r}: {ast.unparse(node)[:80]!r}"


def _all_hold(compare: list[Any], values: list[Any]) -> bool:
    pairs = pairwise(values)
    return all(
        left is not None and right is not None and isinstance(left, str) == isinstance(right, str) and op(left, right)
        for op, (left, right) in zip(compare, pairs, strict=True)
    )


class Cut(NamedTuple):
    """The probability of a class from which on a rule takes it, and the purity and recovery that this gave."""

    at: float
    purity: float
    recovery: float


def threshold(seen: Validation, name: str, *, purity: float | None = None, recovery: float | None = None) -> Cut:
    """The probability from which on what is told is so pure, or so much of a class is recovered.

    Chosen on spectra that the model had not seen, every class weighing the same. Of purity it is the least such
    probability, of the spectra for which the class is the likeliest; of recovery the greatest, of all.

    Raises:
        ValueError: no such class, or no probability gives that purity; the text says what can be had.
    """
    names = [str(known) for known in seen.classes]
    if name not in names:
        raise ValueError(f"no class {name!r} in this model; there: {', '.join(names)}")
    k = names.index(name)
    weight = 1 / np.bincount(seen.codes, minlength=len(names))[seen.codes]
    order = np.argsort(-seen.probability[:, k], kind="stable")
    if recovery is None:
        order = order[seen.probability.argmax(axis=1)[order] == k]
    own, chance = (seen.codes == k)[order], seen.probability[order, k]
    told, right = np.cumsum(weight[order]), np.cumsum(np.where(own, weight[order], 0.0))
    recovered = np.cumsum(own) / np.sum(seen.codes == k)
    last = np.append(np.diff(chance) != 0, True)[: len(chance)]  # of several alike, all are told or none
    pure, found, chance = (right / told)[last], recovered[last], chance[last]
    if recovery is not None:
        enough = [int(np.argmax(found >= recovery - 1e-12))]
    else:
        enough = np.flatnonzero((pure >= (purity or 0.0) - 1e-12) & (found > 0)).tolist()
    if not enough:
        most = np.where(found > 0, pure, 0.0)
        best = (
            f"{most.max():.3f}, which recovers {found[most.argmax()]:.1%}" if found.any() else "none: it is never told"
        )
        raise ValueError(
            f"class {name!r}: no probability gives a purity of {purity:g} on the spectra that the model had not seen; "
            f"the best is {best}"
        )
    at = enough[-1]
    below = float(chance[at + 1]) if at + 1 < len(chance) else 0.0
    return Cut(_between(below, float(chance[at])), float(pure[at]), float(found[at]))


def _between(low: float, high: float) -> float:
    """The number with the fewest digits, four at least, above `low` and not above `high`."""
    for digits in range(4, 17):
        short = math.floor(high * 10**digits) / 10**digits
        if low < short <= high:
            return short
    return high


def conformal_limits(seen: Validation, level: float) -> np.ndarray:
    """(K,): a class belongs to a spectrum's set where its probability is at least this.

    Of each class's spectra a share `level` have it in their sets. Mondrian conformal prediction: Vovk, Gammerman &
    Shafer, Algorithmic Learning in a Random World (2005), 4.5; probabilities as scores: Sadinle, Lei & Wasserman, JASA
    114 (2019) 223-234, doi 10.1080/01621459.2017.1395341.
    """
    limits = np.zeros(len(seen.classes))
    for k in range(len(limits)):
        own = np.sort(seen.probability[seen.codes == k, k])
        left_out = int(np.floor((1 - level) * (len(own) + 1) + 1e-9))
        limits[k] = own[left_out - 1] if left_out else 0.0
    return limits
