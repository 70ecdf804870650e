"""
What is looked for in a vector index: the conditions of a search, as they are written.

    lambda q: q.eq("cuisine", "French")
    lambda q: q.or_(q.eq("cuisine", "French"), q.eq("mainIngredient", "butter"))
    lambda q: q.and_(q.eq("cuisine", "French"), q.eq("isPublished", True))

Needs no numpy: a search that cannot be is refused in the same words with and without.
"""

from __future__ import annotations

import dataclasses
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from math import isfinite
from operator import and_, or_
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, TypeVar

from engine.errors import InvalidRange, InvalidValue
from engine.model.keys import encode_key
from engine.model.limits import FILTER_NESTING_MAX, VECTOR_FILTERS_MAX, VECTOR_RESULTS_MAX
from engine.model.text import brief
from engine.model.values import UNDEFINED, Int64, get_path, normalize

T = TypeVar("T")
Build: TypeAlias = Callable[[Any], object]

_DIGEST_BYTES: Final = 32


class VectorSearch(NamedTuple):
    """What a search asks for, before it is held against an index."""

    index_name: str
    vector: Sequence[float]
    limit: int
    condition: Condition | None

    @property
    def text(self) -> str:
        """As people write it: `nearest 10, cuisine = "French"`."""
        nearest = f"nearest {self.limit}"
        return nearest if self.condition is None else f"{nearest}, {text_of(self.condition)}"


def asked(
    index_name: str, vector: Sequence[float], limit: float, build: Build | None
) -> VectorSearch:
    """
    Raises:
        InvalidValue: the vector is none, or the limit cannot be.
        InvalidRange: the filter is no condition, has too many values or is nested too deep.
    """
    condition = None if build is None else condition_of(build)
    return VectorSearch(index_name, _numbers(vector), _limit(limit), condition)


def _numbers(vector: Sequence[float]) -> Sequence[float]:
    """A copy, for it may be searched for later."""
    if type(vector) is list or not isinstance(vector, str | bytes | bytearray | Mapping | Set):
        try:
            given = vector if type(vector) is list else tuple(vector)
            # Through bytes, which takes half of the time that an array takes to ask each for it.
            numbers = array("d", struct.pack(f"{len(given)}d", *given))
            total = sum(given)
        except (TypeError, ValueError, OverflowError, struct.error):
            pass
        else:
            # One that is not finite makes no finite sum; large ones may not either.
            is_finite = isfinite(total) or all(map(isfinite, numbers))
            # To ask each for its type takes as long again, and is spared those with a fraction.
            is_whole = not isinstance(total, float) or total.is_integer()
            if numbers and is_finite and not (is_whole and _has_others(given)):
                return numbers
    raise InvalidValue(
        f"the vector of a search is a list of finite numbers, int or float, in their order, and "
        f"not {brief(repr(vector))}"
    )


def _has_others(given: Iterable[object]) -> bool:
    """Whether there are booleans or Int64s; documents with such are not in the index either."""
    return not {bool, Int64}.isdisjoint(map(type, given))


def _limit(limit: float) -> int:
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if not is_number or not 1 <= limit <= VECTOR_RESULTS_MAX or limit != int(limit):
        raise InvalidValue(
            f"a vector search returns 1 to {VECTOR_RESULTS_MAX} documents (VECTOR_RESULTS_MAX), "
            f"so its limit cannot be {brief(repr(limit))}"
        )
    return int(limit)


def value_key(value: Any) -> bytes:
    """What conditions compare: equal values have the same one, and no others."""
    key = encode_key([value])
    return key if len(key) < _DIGEST_BYTES else sha256(key).digest()


def value_keys(doc: dict[str, Any], filter_fields: Sequence[str]) -> tuple[bytes, ...]:
    """Those of a document's filter fields, in order."""
    return tuple(value_key(get_path(doc, name)) for name in filter_fields)


class Condition:
    """What a document has to meet; others are made of it with `&` and `|`."""

    __slots__ = ()

    count = 1
    """Of the comparisons that it is made of."""
    nesting = 0
    """How many conditions are one within the other, besides this."""

    def __bool__(self) -> NoReturn:
        raise InvalidRange("a filter is built, not decided: write & and | instead of and, or")

    def __and__(self, other: object) -> Condition:
        return All((*(self.parts if isinstance(self, All) else (self,)), _condition(other)))

    def __or__(self, other: object) -> Condition:
        return AnyOf((*(self.parts if isinstance(self, AnyOf) else (self,)), _condition(other)))


@dataclass(frozen=True, slots=True)
class Equal(Condition):
    """A filter field has this value."""

    field: str
    key: bytes
    value: Any = dataclasses.field(compare=False)
    """Canonical, or `UNDEFINED` for a field that is missing; the key stands for it."""


class _Several(Condition):
    """Made of others."""

    __slots__ = ("count", "nesting")

    parts: tuple[Condition, ...]

    def __post_init__(self) -> None:
        count = sum(part.count for part in self.parts)
        if count > VECTOR_FILTERS_MAX:
            raise InvalidRange(
                f"a vector search has at most {VECTOR_FILTERS_MAX} filter values "
                "(VECTOR_FILTERS_MAX); look through what it finds"
            )
        nesting = 1 + max(part.nesting for part in self.parts)
        if nesting > FILTER_NESTING_MAX:
            raise InvalidRange(
                f"the filter of a vector search is nested more than {FILTER_NESTING_MAX} deep "
                "(FILTER_NESTING_MAX); give q.and_ and q.or_ all their conditions at once"
            )
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "nesting", nesting)


@dataclass(frozen=True, slots=True)
class All(_Several):
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf(_Several):
    parts: tuple[Condition, ...]


class ConditionBuilder:
    """The `q` of a vector search's filter."""

    __slots__ = ()

    def eq(self, field: str, value: Any, /) -> Condition:
        canonical = UNDEFINED if value is UNDEFINED else normalize(value)
        return Equal(field, value_key(canonical), canonical)

    def or_(self, *conditions: object) -> Condition:
        return AnyOf(_conditions("or_", conditions))

    def and_(self, *conditions: object) -> Condition:
        return All(_conditions("and_", conditions))

    def _refuse(self, *_args: object) -> NoReturn:
        raise InvalidRange(
            "the filter of a vector search is made of q.eq, q.or_ and q.and_; look at whatever "
            "else has to hold in the documents that it finds"
        )

    neq = gt = gte = lt = lte = not_ = field = _refuse


def condition_of(build: Callable[[ConditionBuilder], object]) -> Condition:
    """
    Raises:
        InvalidRange: it is no function, makes no condition, or one of too many values or nested too
            deep.
    """
    if not callable(build):
        raise InvalidRange(
            "the filter of a vector search is a function, as in "
            f"lambda q: q.eq('cuisine', 'French'), and not {brief(repr(build))}"
        )
    return _condition(build(ConditionBuilder()))


def leaves(condition: Condition | None) -> Iterator[Equal]:
    """The comparisons that it is made of."""
    match condition:
        case Equal():
            yield condition
        case All(parts=parts) | AnyOf(parts=parts):
            for part in parts:
                yield from leaves(part)


def evaluate(condition: Condition, equal: Callable[[Equal], T]) -> T:
    """
    What a condition comes to.

    Args:
        equal: says it of one comparison; what it returns is put together with `&` and `|`.
    """
    match condition:
        case Equal():
            return equal(condition)
        case All(parts=parts):
            return reduce(and_, (evaluate(part, equal) for part in parts))
        case AnyOf(parts=parts):
            return reduce(or_, (evaluate(part, equal) for part in parts))
    raise AssertionError("there are no other conditions")


def text_of(condition: Condition | None) -> str:
    """As people write it: `cuisine = "French" or isPublished = true`."""
    match condition:
        case Equal(field=field, value=value):
            return f"{field} = {brief(repr(value))}"
        case All(parts=parts):
            return " and ".join(f"({text_of(part)})" for part in parts)
        case AnyOf(parts=parts):
            return " or ".join(text_of(part) for part in parts)
    return ""


def _conditions(name: str, given: tuple[object, ...]) -> tuple[Condition, ...]:
    if not given:
        raise InvalidRange(f"q.{name}() needs at least one condition, as in q.eq(field, value)")
    return tuple(map(_condition, given))


def _condition(given: object) -> Condition:
    if isinstance(given, Condition):
        return given
    raise InvalidRange(
        "the filter of a vector search is made of q.eq, q.or_ and q.and_, "
        f"and not {brief(repr(given))}"
    )
