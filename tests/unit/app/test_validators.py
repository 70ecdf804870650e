"""A validator accepts what it says, and tells what is wrong with the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from annotated_types import MinLen
from hypothesis import given
from hypothesis import strategies as st

from engine.app.bounds import bounded
from engine.app.validators import Validator, v
from engine.errors import DeclarationError, InvalidValue
from engine.model.ids import encode_id
from engine.model.json_values import from_wire
from engine.model.limits import VALIDATOR_NESTING_MAX
from engine.model.values import Int64, normalize

TABLES = {"users": 10_001, "posts": 10_002}.get
USER = encode_id(10_001, bytes(16))
POST = encode_id(10_002, bytes(16))

NO_VALIDATOR: Any = str
ONE_OF_EACH: dict[str, Any] = {
    "null": None,
    "true": True,
    "integral": 1,
    "fraction": 1.5,
    "nan": math.nan,
    "int64": Int64(1),
    "text": "x",
    "id": USER,
    "other id": POST,
    "bytes": b"x",
    "list": ["x"],
    "object": {"a": "x"},
}


def accepted_by(validator: Validator) -> set[str]:
    return {
        name for name, value in ONE_OF_EACH.items() if validator.mismatch(value, TABLES) is None
    }


def refusal(validator: Validator, value: object) -> str:
    with pytest.raises(InvalidValue) as caught:
        validator.check(value, TABLES)
    return str(caught.value)


@pytest.mark.parametrize(
    ("validator", "accepted"),
    [
        (v.any(), set(ONE_OF_EACH)),
        (v.null(), {"null"}),
        (v.boolean(), {"true"}),
        (v.number(), {"integral", "fraction", "nan"}),
        (v.float64(), {"integral", "fraction", "nan"}),
        (v.int64(), {"int64"}),
        (v.bigint(), {"int64"}),
        (v.string(), {"text", "id", "other id"}),
        (v.bytes(), {"bytes"}),
        (v.id("users"), {"id"}),
        (v.id("nowhere"), set()),
        (v.literal("x"), {"text"}),
        (v.literal(1), {"integral"}),
        (v.literal(True), {"true"}),
        (v.literal(Int64(1)), {"int64"}),
        (v.array(v.string()), {"list"}),
        (v.array(v.number()), set()),
        (v.record(v.string(), v.string()), {"object"}),
        (v.record(v.string(), v.number()), set()),
        (v.record(v.id("users"), v.any()), set()),
        (v.object({"a": v.string()}), {"object"}),
        (v.object({"a": v.optional(v.string()), "b": v.optional(v.null())}), {"object"}),
        (v.object({}), set()),
        (v.object({"a": v.any(), "b": v.any()}), set()),
        (v.union(), set()),
        (v.union(v.null(), v.string()), {"null", "text", "id", "other id"}),
        (v.union(v.literal("x"), v.literal(1)), {"text", "integral"}),
        (v.nullable(v.bytes()), {"null", "bytes"}),
    ],
    ids=lambda one: str(one) if isinstance(one, Validator) else "+".join(sorted(one)),
)
def test_a_validator_accepts_exactly_what_it_says(validator: Validator, accepted: set[str]) -> None:
    found = accepted_by(validator)

    assert accepted == found


def test_a_union_of_literals_is_not_fooled_by_equal_values_of_other_types() -> None:
    validator = v.union(v.literal(1), v.literal("a"), v.literal(False))

    answers = [validator.mismatch(value, TABLES) is None for value in (1, True, Int64(1), 0, [1])]

    assert answers == [True, False, False, False, False]


def test_an_error_says_where_in_the_value_and_what_was_expected() -> None:
    validator = v.object({"a": v.array(v.object({"b c": v.number()}))})

    message = refusal(validator, {"a": [{"b c": 1}, {"b c": "two"}]})

    assert message.splitlines() == [
        "Value does not match validator.",
        "Path: .a[1]['b c']",
        "Value: 'two'",
        "Validator: v.number()",
    ]


def test_a_path_may_begin_outside_of_the_value() -> None:
    with pytest.raises(InvalidValue) as caught:
        v.array(v.null()).check([None, 3], TABLES, ".args.list")

    assert "Path: .args.list[1]" in str(caught.value).splitlines()


def test_a_missing_field_is_named_with_the_one_that_was_perhaps_meant_for_it() -> None:
    validator = v.object({"channel": v.string(), "body": v.string()})

    message = refusal(validator, {"chanel": "general", "body": "hi"})

    assert message.splitlines()[0] == (
        "Object is missing the required field `channel`. "
        "It has `chanel`, which the validator does not know."
    )


def test_an_extra_field_is_named_with_the_nearest_one() -> None:
    validator = v.object({"body": v.string(), "likes": v.optional(v.number())})

    message = refusal(validator, {"body": "hi", "like": 1})

    assert message.splitlines()[0] == (
        "Object contains extra field `like` that is not in the validator. Did you mean `likes`?"
    )


def test_an_id_of_another_table_is_told_from_one_that_is_none() -> None:
    validator = v.id("users")

    other, none = refusal(validator, POST), refusal(validator, "general")

    assert "is not in table `users`" in other.splitlines()[0]
    assert "'general' is no document id" in none.splitlines()[0]


def test_what_may_also_be_null_is_explained_as_if_it_could_not() -> None:
    validator = v.nullable(v.object({"n": v.number()}))

    message = refusal(validator, {"n": "x"})

    assert "Path: .n" in message.splitlines()


def test_a_long_value_is_cut_in_an_error() -> None:
    message = refusal(v.number(), "x" * 10_000)

    assert len(message) < 600


def test_an_error_is_made_quickly_whatever_a_caller_sends() -> None:
    validator = v.object({"name" * 16: v.number(), "other": v.number()})
    sent = {f"{'name' * 200}{n}": ["x" * 1000] * 1000 for n in range(1000)}

    began = time.perf_counter()
    message = refusal(validator, sent)
    took = time.perf_counter() - began

    assert len(message) < 2000
    assert took < 0.5


def test_a_validator_prints_as_the_code_that_makes_it() -> None:
    validator = v.object(
        {
            "a": v.optional(v.array(v.id("users"))),
            "b": v.union(v.literal("x"), v.literal(1), v.null()),
            "c": v.record(v.string(), v.int64()),
        }
    )

    again = eval(str(validator), {"v": v})

    assert validator == again


def test_the_json_of_a_validator_is_the_one_that_clients_know() -> None:
    validator = v.object(
        {
            "id": v.id("users"),
            "tags": v.optional(v.array(v.union(v.string(), v.literal(Int64(5))))),
            "counts": v.record(v.string(), v.int64()),
        }
    )

    json = validator.to_json()

    five = {"type": "literal", "value": {"$integer": "BQAAAAAAAAA="}}
    tags = {"type": "array", "value": {"type": "union", "value": [{"type": "string"}, five]}}
    counts = {
        "type": "record",
        "keys": {"type": "string"},
        "values": {"fieldType": {"type": "bigint"}, "optional": False},
    }
    assert json == {
        "type": "object",
        "value": {
            "id": {"fieldType": {"type": "id", "tableName": "users"}, "optional": False},
            "tags": {"fieldType": tags, "optional": True},
            "counts": {"fieldType": counts, "optional": False},
        },
    }


def test_equal_validators_are_interchangeable() -> None:
    one = v.object({"a": v.id("users"), "b": v.literal(1)})
    same = v.object({"b": v.literal(1), "a": v.id("users")})
    other = v.object({"a": v.id("users"), "b": v.literal(True)})

    assert one == same
    assert {one, same} == {one}
    assert one != other


def test_objects_are_made_of_other_objects() -> None:
    user = v.object({"name": v.string(), "age": v.number()})

    assert user.pick("name") == v.object({"name": v.string()})
    assert user.omit("age") == v.object({"name": v.string()})
    assert user.extend({"age": v.int64()}).fields["age"] == v.int64()
    assert user.partial() == v.object(
        {"name": v.optional(v.string()), "age": v.optional(v.number())}
    )
    with pytest.raises(DeclarationError, match=r"no field `nmae`\. Did you mean `name`\?"):
        user.omit("nmae")


@pytest.mark.parametrize(
    ("declare", "advice"),
    [
        (lambda: v.array(v.optional(v.string())), "only a field of an object can be optional"),
        (lambda: v.union(v.optional(v.string())), "only a field of an object can be optional"),
        (lambda: v.record(v.string(), v.optional(v.any())), "only a field of an object"),
        (lambda: v.record(v.literal("a"), v.any()), "for known names write v.object"),
        (lambda: v.record(v.number(), v.any()), "keys are v.string()"),
        (lambda: v.literal([1]), "literals are strings, numbers, booleans"),
        (lambda: v.object({"a": NO_VALIDATOR}), "field `a` is <class 'str'>; write a validator"),
        (lambda: v.array(NO_VALIDATOR), "not a validator"),
        (lambda: v.id("no table"), "cannot be the name of a table"),
    ],
)
def test_a_validator_that_cannot_be_is_refused_where_it_is_written(
    declare: Callable[[], Any], advice: str
) -> None:
    with pytest.raises(DeclarationError, match=advice.replace("(", r"\(").replace(")", r"\)")):
        declare()


VALUES = st.recursive(
    st.sampled_from([one for one in ONE_OF_EACH.values() if one is not math.nan]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner),
)
VALIDATORS: st.SearchStrategy[Validator] = st.recursive(
    st.sampled_from(
        [
            *(v.any(), v.null(), v.boolean(), v.number(), v.int64(), v.string(), v.bytes()),
            *(v.id("users"), v.literal("x"), v.literal(1)),
        ]
    ),
    lambda inner: (
        st.builds(v.array, inner)
        | st.builds(v.record, st.just(v.string()), inner)
        | st.builds(v.union, inner, inner)
        | st.builds(
            v.object, st.dictionaries(st.sampled_from("abc"), inner | st.builds(v.optional, inner))
        )
    ),
)


def accepts(json: Any, value: Any) -> bool:
    """The rules once more, written for the eye."""
    match json["type"], value:
        case "any", _:
            return True
        case "literal", _:
            literal = from_wire(json["value"])
            return type(value) is type(literal) and value == literal
        case "id", _:
            return isinstance(value, str) and value == USER
        case "array", list():
            return all(accepts(json["value"], item) for item in value)
        case "record", dict():
            return all(accepts(json["values"]["fieldType"], item) for item in value.values())
        case "union", _:
            return any(accepts(member, value) for member in json["value"])
        case "object", dict():
            return set(value) <= set(json["value"]) and all(
                accepts(one["fieldType"], value[name]) if name in value else one["optional"]
                for name, one in json["value"].items()
            )
    return type(value) in SCALARS.get(json["type"], ())


SCALARS: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "number": (int, float),
    "bigint": (Int64,),
    "string": (str,),
    "bytes": (bytes,),
}


@given(VALIDATORS, VALUES)
def test_a_compiled_check_knows_the_rules(validator: Validator, value: Any) -> None:
    value = normalize(value)
    try:
        validator.compile(TABLES)(value)
        accepted = True
    except InvalidValue:
        accepted = False

    assert accepts(validator.to_json(), value) == accepted


@given(VALIDATORS)
def test_printing_a_validator_loses_nothing(validator: Validator) -> None:
    again = eval(str(validator), {"v": v})

    assert validator == again
    assert validator.to_json() == again.to_json()


def nested(count: int) -> Validator:
    """A validator within so many others of all kinds."""
    validator: Validator = v.string()
    for number in range(count):
        validator = NESTS[number % len(NESTS)](validator)
    return validator


NESTS: list[Callable[[Validator], Validator]] = [
    v.array,
    v.nullable,
    lambda one: v.object({"a": one}),
    lambda one: v.record(v.string(), one),
    lambda one: bounded(one, [MinLen(0)]),
]


def test_validators_nest_128_deep_and_no_deeper() -> None:
    deepest = nested(VALIDATOR_NESTING_MAX)

    assert (deepest.nesting, len({deepest, nested(VALIDATOR_NESTING_MAX)})) == (128, 1)
    assert str(deepest).count("v.array(") == str(deepest.to_json()).count("'array'") == 26
    assert "does not match" in refusal(deepest, 3)
    for count in (VALIDATOR_NESTING_MAX + 1, 5_000):
        with pytest.raises(DeclarationError, match=r"128 deep \(VALIDATOR_NESTING_MAX\)"):
            nested(count)


@pytest.mark.parametrize(
    "make",
    [v.array, v.nullable, v.optional, lambda one: v.record(v.string(), one)],
    ids=["array", "nullable", "optional", "record"],
)
def test_none_of_them_goes_deeper(make: Callable[[Validator], Validator]) -> None:
    deepest = nested(VALIDATOR_NESTING_MAX)

    with pytest.raises(DeclarationError, match="VALIDATOR_NESTING_MAX"):
        make(deepest)
    with pytest.raises(DeclarationError, match="VALIDATOR_NESTING_MAX"):
        v.object({"a": deepest})
