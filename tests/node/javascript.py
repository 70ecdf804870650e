"""
Values as JavaScript orders, compares and computes them, said again for the model of the database.

Nothing here is the engine's: the order is that of two values, as the documentation says it, not of
encoded keys. A filter is evaluated from its description, such as `["lt", ["field", "a"], 5]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cmp_to_key
from typing import Any, Final

from engine.model.values import UNDEFINED, Int64

Doc = dict[str, Any]

ABSENT: Final = "\0absent"
"""Stands for `undefined` where values travel as arguments."""


class FilterFails(Exception):
    """Evaluating the filter is an error."""


def shown(value: Any) -> Any:
    """A value as it is meant: `ABSENT` is undefined."""
    return UNDEFINED if isinstance(value, str) and value == ABSENT else value


def kind(value: Any) -> int:
    """Where its kind stands among the others."""
    kinds: Sequence[Callable[[Any], bool]] = (
        lambda v: v is UNDEFINED,
        lambda v: v is None,
        lambda v: isinstance(v, Int64),
        lambda v: isinstance(v, int | float) and not isinstance(v, bool),
        lambda v: isinstance(v, bool),
        lambda v: isinstance(v, str),
        lambda v: isinstance(v, bytes),
        lambda v: isinstance(v, list),
        lambda v: isinstance(v, dict),
    )
    return next(place for place, matches in enumerate(kinds) if matches(value))


def order(a: Any, b: Any) -> int:
    """
    -1, 0 or 1.

    undefined < null < bigint < number < boolean < string < bytes < array < object
    """
    if kind(a) != kind(b):
        return -1 if kind(a) < kind(b) else 1
    if kind(a) == 3:
        return _order(_number(a), _number(b))
    if isinstance(a, str):
        return _order([ord(c) for c in a], [ord(c) for c in b])
    if isinstance(a, list):
        return _order_all(a, b)
    if isinstance(a, dict):
        return _order_all(_entries(a), _entries(b))
    return 0 if a is UNDEFINED or a is None else _order(a, b)


def same(a: Any, b: Any) -> bool:
    return order(a, b) == 0


def at_path(doc: Any, path: str) -> Any:
    """What the dotted path leads to, or undefined."""
    for name in path.split("."):
        doc = doc.get(name, UNDEFINED) if isinstance(doc, dict) else UNDEFINED
    return doc


by_order: Final = cmp_to_key(order)


def accepts(expression: Any, doc: Doc) -> bool:
    """
    Whether a filter accepts a document.

    Raises:
        FilterFails: it is no boolean, or a number was computed from something else.
    """
    value = evaluate(expression, doc)
    if not isinstance(value, bool):
        raise FilterFails
    return value


def evaluate(expression: Any, doc: Doc) -> Any:
    verb, *operands = expression
    match verb:
        case "value":
            return shown(operands[0])
        case "field":
            return at_path(doc, operands[0])
        case "and":
            return all(accepts(each, doc) for each in operands)
        case "or":
            return any(accepts(each, doc) for each in operands)
        case "not":
            return not accepts(operands[0], doc)
    values = [evaluate(each, doc) for each in operands]
    if verb in _COMPARED:
        return _COMPARED[verb](order(*values))
    if verb == "neg":
        (value,) = values
        zero = Int64(0) if isinstance(value, Int64) else -0.0
        return computed("sub", zero, value)
    return computed(verb, *values)


_COMPARED: Final[dict[str, Callable[[int], bool]]] = {
    "eq": lambda o: o == 0,
    "neq": lambda o: o != 0,
    "lt": lambda o: o < 0,
    "lte": lambda o: o <= 0,
    "gt": lambda o: o > 0,
    "gte": lambda o: o >= 0,
}


def computed(verb: str, a: Any, b: Any) -> Any:
    """Arithmetic of two numbers or of two bigints."""
    if kind(a) != kind(b) or kind(a) not in (2, 3):
        raise FilterFails
    if kind(a) == 2:
        return _bigint(verb, int(a), int(b))
    return _float(verb, float(a), float(b))


def _bigint(verb: str, a: int, b: int) -> Int64:
    if verb in ("div", "mod"):
        if b == 0:
            raise FilterFails
        toward_zero = -(-a // b) if (a < 0) != (b < 0) else a // b
        result = toward_zero if verb == "div" else a - b * toward_zero
    else:
        result = {"add": a + b, "sub": a - b, "mul": a * b}[verb]
    if not -(2**63) <= result < 2**63:
        raise FilterFails
    return Int64(result)


def _float(verb: str, a: float, b: float) -> float:
    if verb == "div":
        if b != 0 or math.isnan(b):
            return a / b
        is_negative = math.copysign(1, a) != math.copysign(1, b)
        return math.nan if a == 0 or math.isnan(a) else -math.inf if is_negative else math.inf
    if verb == "mod":
        is_none = math.isnan(a) or math.isnan(b) or math.isinf(a) or b == 0
        return math.nan if is_none else math.fmod(a, b)
    return {"add": a + b, "sub": a - b, "mul": a * b}[verb]


def _number(value: float) -> tuple[bool, float, float]:
    """NaN after all others, -0 before 0."""
    number = float(value)
    if math.isnan(number):
        return True, 0.0, 0.0
    return False, number, math.copysign(1, number) if number == 0 else 0.0


def _entries(fields: Doc) -> list[Any]:
    return [part for name in sorted(fields) for part in (name, fields[name])]


def _order_all(a: Sequence[Any], b: Sequence[Any]) -> int:
    for left, right in zip(a, b, strict=False):
        if decided := order(left, right):
            return decided
    return _order(len(a), len(b))


def _order(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)
