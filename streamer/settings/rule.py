"""The rule language of the settings: a rule is parsed, checked and refused by name, and never evaluated as code.

    label == "PVC" and confidence >= 0.9
    fat_low > 12 or (fat > 11 and odd == 0)
    p["PET"] > 0.5 and value["dry matter"] < 40

The grammar is Python's, limited to names, numbers, texts, comparisons, and/or/not, p[...] for the probability of a
class, and value[...] for a target whose name is not a Python name.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any

MAX_TEXT = 1_000  # characters of a rule
Facts = Mapping[str, Any]  # about one object, by name
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
        names: of the facts that the rule uses; p["PVC"] is one of them.

    >>> rule = Rule('label == "PVC" and confidence >= 0.9')
    >>> rule({"label": "PVC", "confidence": 0.95}), sorted(rule.names)
    (True, ['confidence', 'label'])

    Raises:
        ValueError: not a rule; the text names the wrong part.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        if len(text) > MAX_TEXT:
            raise ValueError(f"expected a rule of at most {MAX_TEXT} characters, got {len(text)}")
        try:
            tree = ast.parse(text.strip(), mode="eval")
            self._holds = self._condition(tree.body)
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(
                f"expected a rule such as 'label == \"PVC\" and confidence >= 0.9', got {text!r}"
            ) from error

    def __call__(self, facts: Facts) -> bool:
        """A comparison with an unknown fact (None, NaN) is false."""
        return bool(self._holds(facts))

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raises ValueError if the rule uses a name that is not in `known`."""
        if strange := sorted(self.names - set(known)):
            raise ValueError(f"rule {self.text!r}: unknown name {strange[0]}; known: {', '.join(known)}")

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
                    raise ValueError(f"{self._place(node)}: expected one of == != < <= > >=")
                return lambda facts: _all_hold(compare, [part(facts) for part in operands])
            case ast.Name() | ast.Subscript():
                return self._operand(node)
        raise ValueError(f"{self._place(node)}: expected a comparison, a name, and, or, not")

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
        raise ValueError(f'{self._place(node)}: expected a name, a number, a text in quotes, or p["class"]')

    def _place(self, node: ast.expr) -> str:
        return f"rule {self.text!r}: {ast.unparse(node)[:80]!r}"


def _all_hold(compare: list[Any], values: list[Any]) -> bool:
    pairs = pairwise(values)
    return all(
        left is not None and right is not None and isinstance(left, str) == isinstance(right, str) and op(left, right)
        for op, (left, right) in zip(compare, pairs, strict=True)
    )
