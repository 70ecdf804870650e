"""Whether one rule implies another: never wrongly yes, and yes where it matters."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest
from annotated_types import Ge, Le, MaxLen, Predicate
from hypothesis import given
from hypothesis import strategies as st

from engine.app.bounds import Bounded, bounded
from engine.app.rules import UNSAYABLE, implies, rule_of
from engine.app.schema import Table
from engine.app.validators import (
    AnyValue,
    Array,
    BigInt,
    Boolean,
    Bytes,
    IdOf,
    Integral,
    Literal,
    Null,
    Number,
    Object,
    Optional,
    Record,
    String,
    Union,
    Validator,
    v,
)
from engine.model.ids import id_of, row_key
from engine.model.values import Int64, Value
from tests.unit.model import canonical

NUMBERS = {"users": 10_001, "posts": 10_002}
LITERALS = st.sampled_from([True, False, 0, 1, -0.0, 1.5, 2.0**60, "", "a", Int64(0), Int64(1)])
NAMES = st.sampled_from("abc")
BOUNDS = st.lists(st.sampled_from([Ge(0), Ge(1), Le(1), Le(5)]), min_size=1, max_size=2)

SIMPLE: st.SearchStrategy[Validator] = st.one_of(
    st.sampled_from(
        [
            *(v.any(), v.null(), v.boolean(), v.number(), v.int64(), v.string(), v.bytes()),
            *(v.id("users"), v.id("posts"), Integral()),
        ]
    ),
    LITERALS.map(v.literal),
    st.builds(bounded, st.sampled_from([v.number(), Integral(), v.int64()]), BOUNDS),
)


def _containing(inner: st.SearchStrategy[Validator]) -> st.SearchStrategy[Validator]:
    field = inner | inner.map(v.optional)
    return st.one_of(
        inner.map(v.array),
        inner.map(lambda one: v.record(v.string(), one)),
        st.dictionaries(NAMES, field, max_size=3).map(v.object),
        st.lists(inner, min_size=1, max_size=3).map(lambda members: v.union(*members)),
    )


VALIDATORS = st.recursive(SIMPLE, _containing, max_leaves=6)


def accepts(validator: Validator, value: Value) -> bool:
    return validator.mismatch(value, NUMBERS.get) is None


def values_of(validator: Validator) -> st.SearchStrategy[Any]:
    """What a validator accepts."""
    match validator:
        case Literal(value=value):
            return st.just(value)
        case IdOf(table_name=name):
            return st.just(an_id(name))
        case Array(element=element):
            return st.lists(values_of(element), max_size=2)
        case Record(values=values):
            return st.dictionaries(NAMES, values_of(values), max_size=2)
        case Object(fields=fields):
            needed = {n: values_of(one) for n, one in fields.items() if not one.is_optional}
            others = {n: values_of(one) for n, one in fields.items() if one.is_optional}
            return st.fixed_dictionaries(needed, optional=others)
        case Optional(inner=inner):
            return values_of(inner)
        case Union(members=members):
            return st.one_of(*map(values_of, members))
        case Bounded():
            return st.sampled_from([n for n in SMALL if accepts(validator, n)])
    return PLAIN[type(validator)]


SMALL = [*range(6), *map(Int64, range(6)), 0.5]
PLAIN: dict[type, st.SearchStrategy[Any]] = {
    AnyValue: canonical.VALUE,
    Null: st.none(),
    Boolean: st.booleans(),
    Integral: canonical.EXACT_INT | st.just(-0.0),
    Number: canonical.EXACT_INT | canonical.FLOAT,
    BigInt: canonical.INT64,
    String: canonical.TEXT | st.sampled_from(["a", "users"]),
    Bytes: canonical.BYTES,
}


def an_id(table: str) -> str:
    return id_of(row_key(NUMBERS[table], bytes(16)))


@st.composite
def wider(draw: st.DrawFn, validator: Validator) -> Validator:
    """A validator that mostly accepts more, sometimes only another."""
    other = draw(VALIDATORS)
    match validator:
        case Object(fields=fields):
            changed = {
                n: draw(wider(one)) if not one.is_optional else one for n, one in fields.items()
            }
            added = draw(st.dictionaries(NAMES, other_fields(other), max_size=1))
            demanded = {n: next(iter(one.parts())) for n, one in fields.items() if one.is_optional}
            choice = [changed | added, v.object(fields).partial().fields, {**fields, **demanded}]
            return v.object(draw(st.sampled_from(choice)))
        case Array(element=element):
            return v.array(draw(wider(element)))
        case Union(members=members):
            return v.union(*draw(st.permutations([*members, other])))
    return draw(st.sampled_from([validator, v.union(other, validator), v.any(), other]))


def other_fields(validator: Validator) -> st.SearchStrategy[Validator]:
    return st.sampled_from([validator, v.optional(validator)])


@given(st.data())
def test_whatever_an_old_rule_accepts_a_rule_that_it_implies_accepts(data: st.DataObject) -> None:
    old = data.draw(VALIDATORS)
    new = data.draw(wider(old) | VALIDATORS)
    value = data.draw(values_of(old))

    assert accepts(old, value)
    assert accepts(new, value) or not implies(rule_of(old), rule_of(new))


@given(VALIDATORS)
def test_a_rule_implies_itself(validator: Validator) -> None:
    assert implies(rule_of(validator), rule_of(validator))


AB = v.object({"a": v.number(), "b": v.optional(v.string())})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (AB, v.any()),
        (AB, AB.extend({"c": v.optional(v.any())})),
        (AB, v.object({"b": v.optional(v.nullable(v.string())), "a": v.optional(v.number())})),
        (AB, v.union(v.object({}), AB)),
        (AB, v.record(v.string(), v.union(v.number(), v.string()))),
        (v.id("users"), v.string()),
        (v.boolean(), v.union(v.literal(False), v.literal(True))),
        (v.literal("a"), v.string()),
        (v.union(v.literal(1), v.literal(2)), v.number()),
        (v.literal(2), Integral()),
        (Integral(), v.number()),
        (bounded(v.number(), [Ge(0), Le(5)]), bounded(v.number(), [Le(5)])),
        (bounded(v.number(), [Ge(0)]), v.number()),
        (v.array(v.literal("a")), v.array(v.string())),
        (v.union(), v.null()),
    ],
    ids=str,
)
def test_a_wider_rule_is_implied_and_does_not_imply_the_narrower(
    old: Validator, new: Validator
) -> None:
    assert implies(rule_of(old), rule_of(new))
    assert not implies(rule_of(new), rule_of(old)) or old.kind == "boolean"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (AB, AB.omit("b")),
        (AB, AB.extend({"c": v.any()})),
        (AB, AB.extend({"b": v.string()})),
        (v.literal("a"), v.number()),
        (v.literal(1), v.int64()),
        (v.literal(1.5), Integral()),
        (v.number(), Integral()),
        (v.number(), bounded(v.number(), [Ge(0)])),
        (bounded(v.number(), [Ge(0)]), bounded(v.number(), [Ge(1)])),
        (v.literal(True), v.literal(1)),
        (v.literal(0), v.literal(-0.0)),
        (v.literal(1), v.literal(Int64(1))),
        (v.id("users"), v.id("posts")),
        (v.record(v.string(), v.any()), v.object({})),
        (v.boolean(), v.union(v.literal(True))),
    ],
    ids=str,
)
def test_what_a_client_cannot_tell_apart_may_be_another_rule(
    old: Validator, new: Validator
) -> None:
    assert not implies(rule_of(old), rule_of(new))


def test_limits_of_two_types_are_two_bounds() -> None:
    text, number = (
        rule_of(bounded(v.union(v.string(), v.number()), [Ge(limit)])) for limit in ("0", 0)
    )

    assert not implies(text, number)


def test_what_runs_code_of_the_application_implies_nothing() -> None:
    odd = rule_of(bounded(v.number(), [Predicate(lambda n: n % 2 == 1)]))

    assert UNSAYABLE == odd
    assert not implies(odd, odd)
    assert implies(odd, rule_of(v.any()))
    assert not implies({"type": "array", "value": odd}, {"type": "array", "value": odd})


def test_the_bounds_of_a_class_are_in_its_rule() -> None:
    fields = {"n": Annotated[int, Ge(0)], "name": Annotated[str, MaxLen(3)]}
    rule = rule_of(Table(TypedDict("Doc", fields)).validator)  # type: ignore[operator]

    assert ["at least 0"] == rule["value"]["n"]["fieldType"]["bounds"]
    assert ["no longer than 3"] == rule["value"]["name"]["fieldType"]["bounds"]
