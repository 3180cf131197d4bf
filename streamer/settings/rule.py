"""The rule language of the settings: a rule is parsed and checked by name, and never evaluated as code.

    label == "PVC" and confidence >= 0.9
    fat_low > 12 or (fat > 11 and odd == 0)
    p["PET"] > 0.5 and value["dry matter"] < 40

The grammar is Python's, limited to names, numbers, texts, comparisons, and/or/not, p[...] for the probability of a
class, and value[...] for a target whose name is not a Python name.
"""

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

MAX_TEXT = 1_000  # characters of a rule
_EXAMPLE = 'label == "PVC" and confidence >= 0.9'
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
            self._holds = self._condition(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(f"expected a rule such as {_EXAMPLE!r}, got {text!r}") from error

    def __call__(self, facts: Facts) -> bool:
        """A comparison with an unknown fact (None, NaN) is false."""
        return bool(self._holds(facts))

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raises ValueError if the rule uses a name that is not in `known`."""
        if strange := sorted(self.names - set(known)):
            raise ValueError(f"rule {self.text!r}: unknown name {strange[0]}; known: {', '.join(known)}")

    def _condition(self, node: ast.expr) -> Callable[[Facts], Any]:
        match node:
            case ast.BoolOp(op, parts):
                conditions = [self._condition(part) for part in parts]
                join = all if isinstance(op, ast.And) else any
                return lambda facts: join(holds(facts) for holds in conditions)
            case ast.UnaryOp(ast.Not(), part):
                holds = self._condition(part)
                return lambda facts: not holds(facts)
            case ast.Compare(left, ops, others):
                operands = [self._operand(part) for part in (left, *others)]
                compare = [_COMPARE.get(type(op)) for op in ops]
                if None in compare:
                    raise ValueError(f"{self._place(node)}: expected one of == != < <= > >=")
                steps = list(zip(compare, operands[:-1], operands[1:], strict=True))
                return lambda facts: all(_holds(op, left(facts), right(facts)) for op, left, right in steps)
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
                return self._fact(name)
            case ast.Subscript(ast.Name("p" | "value" as of), ast.Constant(str(value))):
                return self._fact(f"p[{value}]" if of == "p" else value)
        raise ValueError(f'{self._place(node)}: expected a name, a number, a text in quotes, or p["class"]')

    def _fact(self, name: str) -> Callable[[Facts], Any]:
        self.names.add(name)
        return lambda facts: facts.get(name)

    def _place(self, node: ast.expr) -> str:
        return f"rule {self.text!r}: {ast.unparse(node)[:80]!r}"


def _holds(compare: Any, left: Any, right: Any) -> bool:
    """False for an unknown fact, and between a text and a number."""
    return None not in (left, right) and isinstance(left, str) == isinstance(right, str) and compare(left, right)
