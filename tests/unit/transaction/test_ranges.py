"""Index ranges: the interval that bounds describe, and what is said of those that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRange
from engine.functions.queries import RangeBuilder
from engine.indexes.catalog import IndexInfo
from engine.indexes.entries import entry_key
from engine.model.ids import encode_id
from engine.model.values import UNDEFINED, Int64, compare
from engine.transaction.ranges import Bounds, interval_of

TABLE = 10_001
FIELDS = ["a", "b", "_creationTime", "_id"]
BY_AB = IndexInfo(
    index_id=1001, name="by_ab", table_number=TABLE, fields=(("a",), ("b",), ("_creationTime",))
)
INTERNALS = [bytes(16), b"\x01" * 16, b"\xff" * 15 + b"\xfe", b"\xff" * 16]
IDS = [encode_id(TABLE, internal) for internal in INTERNALS]
ELSEWHERE = [encode_id(TABLE - 1, INTERNALS[1]), encode_id(TABLE + 1, INTERNALS[1]), "", "zz", 5]
CONTENTS = st.sampled_from([UNDEFINED, None, Int64(1), -0.0, 0, "a", "a\0", b"\xff", [1], {"x": 1}])
OF_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "a": CONTENTS,
    "b": CONTENTS,
    "_creationTime": st.sampled_from([1, 2.5]),
    "_id": st.sampled_from(IDS),
}
ASKED = {**OF_FIELD, "_id": st.sampled_from([*IDS, *ELSEWHERE, UNDEFINED])}

Row = tuple[dict[str, Any], bytes]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    doc = {name: draw(OF_FIELD[name]) for name in FIELDS}
    return doc, INTERNALS[IDS.index(doc["_id"])]


@st.composite
def edges(draw: st.DrawFn, doc: dict[str, Any]) -> dict[str, Any]:
    """Values to compare with, of which most are those of `doc`."""
    return {name: doc[name] if draw(st.integers(0, 5)) else draw(ASKED[name]) for name in FIELDS}


@dataclass(frozen=True)
class Form:
    """So many fields equal, and bounds on the next: exclusive, inclusive or `None`."""

    used: int
    lower: bool | None
    upper: bool | None

    def bounds(self, edge: dict[str, Any]) -> Bounds:
        bounds = Bounds()
        for name in FIELDS[: self.used]:
            bounds.add_equal(name, edge[name])
        for name in FIELDS[self.used : self.used + 1]:
            if self.lower is not None:
                bounds.add_lower(name, edge[name], inclusive=self.lower)
            if self.upper is not None:
                bounds.add_upper(name, edge[name], inclusive=self.upper)
        return bounds

    def describes(self, edge: dict[str, Any], doc: dict[str, Any]) -> bool:
        """Whether a document is in the range, by comparing values."""
        if any(compare(doc[name], edge[name]) for name in FIELDS[: self.used]):
            return False
        for name in FIELDS[self.used : self.used + 1]:
            order = compare(doc[name], edge[name])
            if self.lower is not None and order < (0 if self.lower else 1):
                return False
            if self.upper is not None and order > (0 if self.upper else -1):
                return False
        return True


INCLUSIVE = (None, False, True)
FORMS = [Form(*form) for form in product(range(len(FIELDS) + 1), INCLUSIVE, INCLUSIVE)]


@given(st.lists(rows(), min_size=1, max_size=8), st.data())
def test_an_interval_holds_exactly_the_documents_that_its_bounds_describe(
    found: list[Row], data: st.DataObject
) -> None:
    edge = data.draw(edges(found[0][0]))

    for form in FORMS:
        lower, upper = interval_of(BY_AB, form.bounds(edge))
        for doc, internal in found:
            stored = {name: value for name, value in doc.items() if value is not UNDEFINED}
            key = entry_key(BY_AB, stored, internal)
            assert form.describes(edge, doc) is (lower <= key and (upper is None or key < upper))


def test_equalities_may_come_in_any_order() -> None:
    one, other = Bounds(), Bounds()
    for bounds, names in ((one, "ab"), (other, "ba")):
        for name in names:
            bounds.add_equal(name, name)

    assert interval_of(BY_AB, one) == interval_of(BY_AB, other)


def range_of(build: Callable[[RangeBuilder], Any]) -> None:
    builder = RangeBuilder()
    build(builder)
    interval_of(BY_AB, builder.bounds)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda r: r.gt("a", 0).gte("a", 1), "a lower bound is set already, on 'a'"),
        (lambda r: r.lt("a", 0).lte("a", 1), "an upper bound is set already, on 'a'"),
        (lambda r: r.eq("a", 0).eq("a", 1), "eq\\('a', ...\\) is given twice"),
        (lambda r: r.eq("a", 0).lt("a", 1), "'a' has both an eq and a bound"),
        (lambda r: r.gt("a", 0).eq("a", 1), "'a' has both an eq and a bound"),
        (lambda r: r.gt("a", 0).lt("b", 1), "bounds are on two fields, 'a' and 'b'"),
        (lambda r: r.eq("c", 0), "in this order, and not on 'c': use an index"),
        (lambda r: r.eq("a", 0).gt("c", 0), "in this order, and not on 'c': use an index"),
        (lambda r: r.eq("b", 0), "'b' can only be used after an eq .* and 'a' has none"),
        (lambda r: r.gt("b", 0), "'b' can only be used after an eq .* and 'a' has none"),
        (lambda r: r.gt("a", 0).eq("b", 1), "'b' can only be used after an eq .* and 'a' has none"),
        (lambda r: r.eq("a", 0).eq("_id", ""), "'_id' can only be used .* and 'b' has none"),
    ],
)
def test_a_range_that_does_not_fit_is_told_why(build: Any, said: str) -> None:
    with pytest.raises(InvalidRange, match=said):
        range_of(build)
