"""
Filter expressions: what `query.filter(lambda q: ...)` builds, and how it is evaluated.

Comparisons use the total order of values, a missing field is `UNDEFINED`.
Arithmetic takes two float64 or two Int64, never a mix.  A chain of `&` or of `|` is one level deep,
however long it is.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeAlias

from engine.errors import FilterError
from engine.model.limits import FILTER_NESTING_MAX
from engine.model.text import brief
from engine.model.values import (
    INT64_MAX,
    INT64_MIN,
    UNDEFINED,
    Int64,
    canonical_float,
    compare,
    get_path,
    normalize,
    strictly_equal,
)

Doc = dict[str, Any]
Evaluate = Callable[[Doc], Any]
_Conditions: TypeAlias = "tuple[Expression, ...]"
Parts: TypeAlias = tuple[str, _Conditions]
"""What its conditions are joined with, and these."""


class Expression:
    """A value computed from a document; comparisons of expressions are expressions."""

    __slots__ = ("evaluate", "nesting", "parts", "text")

    def __init__(
        self, evaluate: Evaluate, text: str, nesting: int = 1, parts: Parts | None = None
    ) -> None:
        """
        Args:
            nesting: how many expressions are one within the other, this one included.
            parts: of a chain.

        Raises:
            FilterError: it would be nested too deep.
        """
        self.evaluate = evaluate
        self.text = text
        self.nesting = nesting
        self.parts = parts
        if nesting > FILTER_NESTING_MAX:
            raise FilterError(
                f"the filter {brief(text)} is nested more than {FILTER_NESTING_MAX} deep "
                "(FILTER_NESTING_MAX); give q.and_ and q.or_ all their conditions at once, "
                "or filter with Python: .where(lambda doc: ...)"
            )

    def __bool__(self) -> NoReturn:
        raise FilterError("a filter is built, not decided: write & | ~ instead of and, or, not")

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]  # builds, as NumPy's does
        return _compared("eq", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return _compared("neq", self, other)

    def __lt__(self, other: Any) -> Expression:
        return _compared("lt", self, other)

    def __le__(self, other: Any) -> Expression:
        return _compared("lte", self, other)

    def __gt__(self, other: Any) -> Expression:
        return _compared("gt", self, other)

    def __ge__(self, other: Any) -> Expression:
        return _compared("gte", self, other)

    def __add__(self, other: Any) -> Expression:
        return _computed("add", self, other)

    def __sub__(self, other: Any) -> Expression:
        return _computed("sub", self, other)

    def __mul__(self, other: Any) -> Expression:
        return _computed("mul", self, other)

    def __truediv__(self, other: Any) -> Expression:
        return _computed("div", self, other)

    def __mod__(self, other: Any) -> Expression:
        return _computed("mod", self, other)

    def __radd__(self, other: Any) -> Expression:
        return _computed("add", other, self)

    def __rsub__(self, other: Any) -> Expression:
        return _computed("sub", other, self)

    def __rmul__(self, other: Any) -> Expression:
        return _computed("mul", other, self)

    def __rtruediv__(self, other: Any) -> Expression:
        return _computed("div", other, self)

    def __rmod__(self, other: Any) -> Expression:
        return _computed("mod", other, self)

    def __neg__(self) -> Expression:
        return Expression(_negated(self), f"neg({self.text})", _around(self))

    def __and__(self, other: Any) -> Expression:
        return _all(self, _lift(other))

    def __or__(self, other: Any) -> Expression:
        return _any(self, _lift(other))

    def __rand__(self, other: Any) -> Expression:
        return _all(_lift(other), self)

    def __ror__(self, other: Any) -> Expression:
        return _any(_lift(other), self)

    def __invert__(self) -> Expression:
        return Expression(lambda doc: not _truth(self, doc), f"not({self.text})", _around(self))

    __hash__ = None  # type: ignore[assignment]  # equality builds an expression


class FilterBuilder:
    """The `q` of a filter."""

    def field(self, path: str, /) -> Expression:
        """The value at `path`, or `UNDEFINED`."""
        if not isinstance(path, str):
            raise FilterError(f"field takes the path of a field, such as 'a.b', not {path!r}")
        return Expression(lambda doc: get_path(doc, path), f"field({path})")

    def eq(self, a: Any, b: Any, /) -> Expression:
        return _compared("eq", a, b)

    def neq(self, a: Any, b: Any, /) -> Expression:
        return _compared("neq", a, b)

    def lt(self, a: Any, b: Any, /) -> Expression:
        return _compared("lt", a, b)

    def lte(self, a: Any, b: Any, /) -> Expression:
        return _compared("lte", a, b)

    def gt(self, a: Any, b: Any, /) -> Expression:
        return _compared("gt", a, b)

    def gte(self, a: Any, b: Any, /) -> Expression:
        return _compared("gte", a, b)

    def add(self, a: Any, b: Any, /) -> Expression:
        return _computed("add", a, b)

    def sub(self, a: Any, b: Any, /) -> Expression:
        return _computed("sub", a, b)

    def mul(self, a: Any, b: Any, /) -> Expression:
        return _computed("mul", a, b)

    def div(self, a: Any, b: Any, /) -> Expression:
        return _computed("div", a, b)

    def mod(self, a: Any, b: Any, /) -> Expression:
        return _computed("mod", a, b)

    def neg(self, a: Any, /) -> Expression:
        return -_lift(a)

    def and_(self, *conditions: Any) -> Expression:
        return _all(*map(_lift, conditions))

    def or_(self, *conditions: Any) -> Expression:
        return _any(*map(_lift, conditions))

    def not_(self, condition: Any, /) -> Expression:
        return ~_lift(condition)

    def __getitem__(self, name: str) -> NoReturn:
        raise FilterError(
            f"q[{name!r}] is no expression: write q.field({name!r}), "
            f"or filter with Python: .where(lambda doc: doc[{name!r}] ...)"
        )


def predicate_of(condition: Any) -> Callable[[Doc], bool]:
    """A test of documents; it raises `FilterError` where the expression is not a boolean."""
    expression = _lift(condition)
    return lambda doc: _truth(expression, doc)


def _lift(value: Any) -> Expression:
    if isinstance(value, Expression):
        return value
    literal = UNDEFINED if value is UNDEFINED else normalize(value)
    return Expression(lambda _: literal, repr(literal))


_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": strictly_equal,
    "neq": lambda a, b: not strictly_equal(a, b),
    "lt": lambda a, b: compare(a, b) < 0,
    "lte": lambda a, b: compare(a, b) <= 0,
    "gt": lambda a, b: compare(a, b) > 0,
    "gte": lambda a, b: compare(a, b) >= 0,
}


def _compared(name: str, a: Any, b: Any) -> Expression:
    left, right = _lift(a), _lift(b)
    decide = _COMPARE[name]
    return Expression(
        lambda doc: decide(left.evaluate(doc), right.evaluate(doc)),
        f"{name}({left.text}, {right.text})",
        _around(left, right),
    )


def _computed(name: str, a: Any, b: Any) -> Expression:
    left, right = _lift(a), _lift(b)
    return Expression(
        lambda doc: _arithmetic(name, left.evaluate(doc), right.evaluate(doc)),
        f"{name}({left.text}, {right.text})",
        _around(left, right),
    )


def _arithmetic(name: str, a: Any, b: Any) -> Any:
    if isinstance(a, Int64) and isinstance(b, Int64):
        return _int64(name, a, b)
    if _is_float64(a) and _is_float64(b):
        return _number(_float64(name, float(a), float(b)))
    raise FilterError(f"{name} takes two numbers or two Int64, not {a!r} and {b!r}")


def _number(result: float) -> Any:
    """A computed float64: of NaN there is one, as in JavaScript, whatever the processor makes."""
    return canonical_float(result) if result == result else math.nan


def _is_float64(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool | Int64)


def _int64(name: str, a: int, b: int) -> Int64:
    if name in ("div", "mod") and b == 0:
        raise FilterError(f"{name} of {a} by zero")
    if name in ("div", "mod"):
        quotient = abs(int(a)) // abs(int(b)) * (1 if (a < 0) == (b < 0) else -1)
        result = quotient if name == "div" else int(a) - quotient * int(b)
    else:
        result = getattr(operator, name)(int(a), int(b))
    if not INT64_MIN <= result <= INT64_MAX:
        raise FilterError(f"{name} of {a} and {b} does not fit in 64 bits")
    return Int64(result)


def _float64(name: str, a: float, b: float) -> float:
    if name == "div":
        return _divided(a, b)
    if name == "mod":
        return math.nan if b == 0 or math.isinf(a) or a != a else math.fmod(a, b)
    result: float = getattr(operator, name)(a, b)
    return result


def _divided(a: float, b: float) -> float:
    if b != 0:
        return a / b
    if a == 0 or a != a:
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _negated(operand: Expression) -> Evaluate:
    def evaluate(doc: Doc) -> Any:
        value = operand.evaluate(doc)
        if isinstance(value, Int64):
            return _int64("sub", 0, value)
        if _is_float64(value):
            return _number(-float(value))
        raise FilterError(f"neg takes a number, not {value!r}")

    return evaluate


def _all(*conditions: Expression) -> Expression:
    parts, text, nesting = _joined("and", conditions)
    return Expression(
        lambda doc: all(_truth(c, doc) for c in parts), text, nesting, parts=("and", parts)
    )


def _any(*conditions: Expression) -> Expression:
    parts, text, nesting = _joined("or", conditions)
    return Expression(
        lambda doc: any(_truth(c, doc) for c in parts), text, nesting, parts=("or", parts)
    )


def _joined(name: str, conditions: tuple[Expression, ...]) -> tuple[_Conditions, str, int]:
    """All conditions, also those of a chain that goes on; how it is written, and its nesting."""
    text = f"{name}({', '.join(c.text for c in conditions)})"
    first = conditions[0] if conditions else None
    if first is None or first.parts is None or first.parts[0] != name:
        return conditions, text, _around(*conditions)
    more = conditions[1:]
    return (*first.parts[1], *more), text, max(first.nesting, _around(*more))


def _around(*within: Expression) -> int:
    """The nesting of what is computed from these."""
    return 1 + max([one.nesting for one in within], default=0)


def _truth(condition: Expression, doc: Doc) -> bool:
    value = condition.evaluate(doc)
    if not isinstance(value, bool):
        raise FilterError(f"{condition.text} is {value!r}; a filter needs true or false")
    return value
