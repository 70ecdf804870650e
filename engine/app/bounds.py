"""
Bounds beside a type: `Annotated[int, Ge(0)]`, `Annotated[str, MaxLen(80)]`.

Bounds are known by the attributes that annotated-types gave them, which msgspec
and pydantic use too, so neither is imported.  Clients see the type without its
bounds, because their validators have no word for them.  Null meets every bound,
as `Annotated[float | None, Ge(0)]` means; another value that a bound cannot be
compared with does not meet it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from engine.app.validators import Check, Json, Mismatch, Tables, Validator
from engine.errors import InvalidValue
from engine.model.values import Value

Metadata: TypeAlias = Any
"""What stands after the type in `Annotated`."""


@dataclass(frozen=True)
class Bound:
    """One thing that must hold; `text` says it of the value."""

    text: str
    holds: Callable[[Value], bool] = field(compare=False)
    is_code: bool = False
    """Whether `holds` is the application's own, of which `text` says nothing."""


@dataclass(frozen=True)
class Bounded(Validator):
    """What `inner` accepts, if all bounds hold."""

    inner: Validator
    bounds: tuple[Bound, ...]

    def to_json(self) -> Json:
        return self.inner.to_json()

    def __str__(self) -> str:
        return str(self.inner)

    def parts(self) -> Iterable[Validator]:
        return (self.inner,)

    @property
    def runs_code(self) -> bool:
        return any(bound.is_code for bound in self.bounds)

    def _make_check(self) -> Check:
        inner, bounds = self.inner.mismatch, self.bounds

        def check(value: Value, tables: Tables) -> Mismatch | None:
            if found := inner(value, tables):
                return found
            for bound in bounds:
                if not bound.holds(value):
                    return Mismatch(self, value, f"Value must be {bound.text}.")
            return None

        return check


def bounded(validator: Validator, metadata: Iterable[Metadata]) -> Validator:
    """
    `validator` within the bounds among `metadata`; itself if there are none.

    Raises:
        InvalidValue: nothing can meet one of them.
    """
    bounds = tuple(_bounds_of(metadata))
    return Bounded(validator, bounds) if bounds else validator


def _bounds_of(metadata: Iterable[Metadata]) -> Iterator[Bound]:
    for one in metadata:
        if callable(predicate := getattr(one, "func", None)):
            name = getattr(predicate, "__name__", "predicate")
            yield Bound(f"one that {name}() accepts", _truth(predicate), is_code=True)
            continue
        for attribute, (text, make) in _KNOWN.items():
            limit = getattr(one, attribute, None)
            if limit is not None and not callable(limit):
                _check_limit(attribute, limit)
                yield Bound(f"{text} {limit!r}", make(limit))
        if isinstance(nested := getattr(one, "metadata", None), (list, tuple)):
            yield from _bounds_of(nested)  # pydantic's Field


def _check_limit(attribute: str, limit: Value) -> None:
    if attribute == "multiple_of" and limit == 0:
        raise InvalidValue("MultipleOf(0): nothing is divided by 0; write another number")


def _truth(predicate: Callable[[Value], object]) -> Callable[[Value], bool]:
    def holds(value: Value) -> bool:
        try:
            return bool(predicate(value))
        except Exception:  # it accepts no such value
            return False

    return holds


def _compared(
    compare: Callable[[Value, Value], bool],
) -> Callable[[Value], Callable[[Value], bool]]:
    """Of a limit, which values are within it, whatever the type that it stands beside."""

    def within(limit: Value) -> Callable[[Value], bool]:
        def holds(value: Value) -> bool:
            try:
                return value is None or bool(compare(value, limit))
            except Exception:  # of another type than the limit
                return False

        return holds

    return within


_KNOWN: Final[dict[str, tuple[str, Callable[[Value], Callable[[Value], bool]]]]] = {
    "gt": ("greater than", _compared(operator.gt)),
    "ge": ("at least", _compared(operator.ge)),
    "lt": ("less than", _compared(operator.lt)),
    "le": ("at most", _compared(operator.le)),
    "multiple_of": ("a multiple of", _compared(lambda value, step: value % step == 0)),
    "min_length": ("no shorter than", _compared(lambda value, least: len(value) >= least)),
    "max_length": ("no longer than", _compared(lambda value, most: len(value) <= most)),
}
