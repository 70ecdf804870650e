"""Filter expressions: float64 as JavaScript has it, Int64 checked, and nothing in between."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import FilterError
from engine.model.limits import FILTER_NESTING_MAX
from engine.model.values import UNDEFINED, Int64, compare
from engine.transaction.filters import Expression, FilterBuilder, predicate_of
from tests.unit.model.canonical import MAYBE_VALUE, same

q = FilterBuilder()
NAN, INF = math.nan, math.inf
NEGATIVE_NAN = struct.unpack(">d", b"\xff\xf8" + bytes(6))[0]
INT64_MAX, INT64_MIN = Int64(2**63 - 1), Int64(-(2**63))
DOC = {"n": 7, "f": 0.5, "i": Int64(7), "o": {"x": {"y": 1}}, "l": [{"x": 1}], "nan": NEGATIVE_NAN}


def shown(part: Any) -> str:
    return part.text if isinstance(part, Expression) else str(part)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (q.mod(-5, 3), -2),
        (q.mod(5, -3), 2),
        (q.mod(-4, 2), -0.0),
        (q.mod(5, INF), 5),
        (q.mod(INF, 5), NAN),
        (q.mod(5, 0), NAN),
        (q.mod(5, NAN), NAN),
        (q.div(1, 0), INF),
        (q.div(-1, 0), -INF),
        (q.div(1, -0.0), -INF),
        (q.div(0, 0), NAN),
        (q.div(7, 2), 3.5),
        (q.mul(0, -1), -0.0),
        (q.mul(1e308, 10), INF),
        (q.mul(INF, 0), NAN),
        (q.sub(INF, INF), NAN),
        (q.add(0.1, 0.2), 0.30000000000000004),
        (q.add(2**53, 1), 2**53),
        (q.add(-0.0, -0.0), -0.0),
        (q.neg(0), -0.0),
        (q.neg(NAN), NAN),
        (q.add(NEGATIVE_NAN, 1), NAN),
        (q.mul(q.field("nan"), 1), NAN),
        (q.add(INT64_MAX, Int64(-1)), Int64(2**63 - 2)),
        (q.div(Int64(-7), Int64(2)), Int64(-3)),
        (q.mod(Int64(-7), Int64(2)), Int64(-1)),
        (q.mod(Int64(7), Int64(-2)), Int64(1)),
        (q.mod(INT64_MIN, Int64(-1)), Int64(0)),
        (q.neg(Int64(5)), Int64(-5)),
        (10 - q.field("n"), 3),
        (1 + q.field("n") * 2, 15),
        (1 / q.field("f"), 2),
        (15 % q.field("n"), 1),
        (q.field("o.x.y"), 1),
        (q.field("l.x"), UNDEFINED),
        (q.field("o.z.y"), UNDEFINED),
        (q.field(""), UNDEFINED),
    ],
    ids=shown,
)
def test_what_an_expression_comes_to(expression: Any, value: Any) -> None:
    assert same(value, expression.evaluate(DOC))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (q.add(INT64_MAX, Int64(1)), "does not fit in 64 bits"),
        (q.mul(INT64_MAX, Int64(2)), "does not fit in 64 bits"),
        (q.div(INT64_MIN, Int64(-1)), "does not fit in 64 bits"),
        (q.neg(INT64_MIN), "does not fit in 64 bits"),
        (q.div(Int64(1), Int64(0)), "by zero"),
        (q.mod(Int64(1), Int64(0)), "by zero"),
        (q.add(Int64(1), 1), "takes two numbers or two Int64"),
        (q.add(1.5, Int64(1)), "takes two numbers or two Int64"),
        (q.add("a", "b"), "takes two numbers or two Int64"),
        (q.add(True, 1), "takes two numbers or two Int64"),
        (q.add(q.field("gone"), 1), "takes two numbers or two Int64, not UNDEFINED"),
        (q.neg("a"), "takes a number"),
        (q.and_(True, 5), "needs true or false"),
        (q.or_(False, None), "needs true or false"),
        (q.not_(q.field("gone")), "is UNDEFINED; a filter needs true or false"),
        (q.field("n"), "is 7; a filter needs true or false"),
    ],
    ids=shown,
)
def test_what_cannot_be_evaluated_is_an_error(expression: Any, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        predicate_of(expression)(DOC)


@pytest.mark.parametrize(
    ("condition", "is_true"),
    [
        (q.and_(), True),
        (q.or_(), False),
        (q.and_(False, 5), False),
        (q.or_(True, 5), True),
        (True & q.eq(q.field("n"), 7), True),
        (False | q.eq(q.field("n"), 8), False),
        (~q.eq(1, Int64(1)), True),
        (True, True),
    ],
    ids=shown,
)
def test_and_and_or_look_no_further_than_they_must(condition: Any, is_true: bool) -> None:
    assert is_true is predicate_of(condition)(DOC)


COMPARISONS: dict[str, Callable[[int], bool]] = {
    "eq": lambda order: order == 0,
    "neq": lambda order: order != 0,
    "lt": lambda order: order < 0,
    "lte": lambda order: order <= 0,
    "gt": lambda order: order > 0,
    "gte": lambda order: order >= 0,
}


@given(st.sampled_from(sorted(COMPARISONS)), MAYBE_VALUE, MAYBE_VALUE)
def test_comparisons_are_those_of_the_total_order(name: str, a: Any, b: Any) -> None:
    expected = COMPARISONS[name](compare(a, b))

    assert expected is predicate_of(getattr(q, name)(a, b))({})


def test_a_field_is_named_by_its_path() -> None:
    with pytest.raises(FilterError, match="field takes the path"):
        q.field(5)  # type: ignore[arg-type]  # as users do


def test_a_filter_is_not_decided_while_it_is_built() -> None:
    with pytest.raises(FilterError, match=r"write & \| ~"):
        bool(q.eq(1, 1))


def test_an_expression_nests_64_deep_and_no_deeper() -> None:
    deepest = reduce(lambda one, _n: one + 1, range(FILTER_NESTING_MAX - 2), q.field("n"))
    condition = deepest > 0

    assert predicate_of(condition)(DOC)
    deepers: list[Callable[[], Expression]] = [
        lambda: ~condition,
        lambda: condition & True,
        lambda: q.or_(False, condition),
        lambda: condition == True,  # noqa: E712
        lambda: q.neg(deepest + 1) < 0,
    ]
    for deeper in deepers:
        with pytest.raises(FilterError, match=r"more than 64 deep \(FILTER_NESTING_MAX\)"):
            deeper()


@pytest.mark.parametrize(("join", "holds"), [(operator.or_, True), (operator.and_, False)])
def test_a_chain_is_as_long_as_it_is(
    join: Callable[[Any, Any], Expression], *, holds: bool
) -> None:
    chain = reduce(join, [q.field("n") == n for n in range(2_000)])

    assert holds == predicate_of(chain)(DOC)
    assert chain.nesting == 3
    assert (q.field("n") == 7).parts is None


def test_what_is_joined_by_and_within_or_stays_together() -> None:
    yes, no = q.eq(1, 1), q.eq(1, 2)
    joined = [(yes | yes) & no, (no & no) | yes, no | (yes & no)]

    assert [False, True, False] == [predicate_of(one)(DOC) for one in joined]
