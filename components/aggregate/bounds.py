"""
Which items are meant: those of one key, of keys that begin alike, or between two.

A `Bounds` travels: it is a plain dictionary, so an application may take one as
an argument.  `eq`, `prefix` and `between` write it.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from components.aggregate.order import Cut, after, after_prefix, before, before_prefix
from engine import Value


class Bound(TypedDict):
    """One end: a key, or the item of that key with an id, itself included or not."""

    key: Any
    inclusive: bool
    id: NotRequired[str]


class Bounds(TypedDict, total=False):
    """Either `eq`, one key; or `prefix`, arrays that begin so; or `lower`, `upper` or both."""

    lower: Bound
    upper: Bound
    prefix: list[Any]
    eq: Any


def eq(key: Value, /) -> Bounds:
    """The items whose key is `key`."""
    return {"eq": key}


def prefix(*parts: Value) -> Bounds:
    """The items whose keys are arrays that begin with `parts`."""
    return {"prefix": list(parts)}


def incl(key: Value, /, *, id: str | None = None) -> Bound:  # noqa: A002 - an id is called `id`
    """An end that is itself within the bounds."""
    return _bound(key, id, inclusive=True)


def excl(key: Value, /, *, id: str | None = None) -> Bound:  # noqa: A002
    """An end that is itself outside the bounds."""
    return _bound(key, id, inclusive=False)


def between(lower: Bound | None = None, upper: Bound | None = None) -> Bounds:
    """The items from `lower` to `upper`; an end that is not given is open."""
    bounds: Bounds = {}
    if lower is not None:
        bounds["lower"] = lower
    if upper is not None:
        bounds["upper"] = upper
    return bounds


def _bound(key: Value, id: str | None, *, inclusive: bool) -> Bound:  # noqa: A002
    bound: Bound = {"key": key, "inclusive": inclusive}
    if id is not None:
        bound["id"] = id
    return bound


def cuts(bounds: Bounds | None) -> tuple[Cut | None, Cut | None]:
    """
    Where they begin and end; None is open.

    Raises:
        ValueError: they say more than one thing.
    """
    if not bounds:
        return None, None
    if len(bounds) > 1 and not bounds.keys() <= {"lower", "upper"}:
        raise ValueError(
            f"bounds have {', '.join(sorted(bounds))}; there is either eq, or prefix, or lower "
            "and upper"
        )
    if "eq" in bounds:
        return before(bounds["eq"]), after(bounds["eq"])
    if "prefix" in bounds:
        return before_prefix(bounds["prefix"]), after_prefix(bounds["prefix"])
    return _lower(bounds.get("lower")), _upper(bounds.get("upper"))


def _lower(bound: Bound | None) -> Cut | None:
    if bound is None:
        return None
    side = before if bound["inclusive"] else after
    return side(bound["key"], bound.get("id"))


def _upper(bound: Bound | None) -> Cut | None:
    if bound is None:
        return None
    side = after if bound["inclusive"] else before
    return side(bound["key"], bound.get("id"))
