"""Annotations say what arguments are accepted, and what the handler is handed over."""

from __future__ import annotations

import enum
import functools
import inspect
import math
import re
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict, TypeVar, Unpack

import pytest
from annotated_types import Ge, Gt, Interval, Len, Lt, MaxLen, MultipleOf, Predicate
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from engine.app.annotations import Signature
from engine.app.decorators import query
from engine.app.documents import bind_document
from engine.app.schema import Table
from engine.app.shapes import pagination_opts_validator
from engine.app.types import Document, Id, Page, PaginationOptions, Secret, UserIdentity
from engine.app.validators import Validator, v
from engine.errors import ArgumentValidationError, DeclarationError, ReturnsValidationError
from engine.model.ids import encode_id
from engine.model.limits import VALIDATOR_NESTING_MAX
from engine.model.values import UNDEFINED, Int64, Undefined

TABLES = {"users": 10_001, "posts": 10_002}.get
USER = encode_id(10_001, bytes(16))
POST = encode_id(10_002, bytes(16))


T = TypeVar("T")


class User(Document):
    name: str
    age: NotRequired[float]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


Email = NewType("Email", str)
Several = TypeAliasType("Several", list[T] | None, type_params=(T,))

bind_document(User, "users")


class Login(TypedDict):
    user: str
    password: Secret[str]


class LoginWithin(TypedDict):
    logins: list[Login]


@dataclass
class LoginClass:
    password: Secret[str]

    def __post_init__(self) -> None:
        if self.password == "hunter2":
            raise ValueError("hunter2 is no good password")


Hushed = TypeAliasType("Hushed", list[Secret[T]], type_params=(T,))


def taking(annotation: Any, **more: Any) -> Signature:
    """The signature of a function with one argument `x`."""

    async def handler(ctx: Any, x: Any) -> None: ...

    handler.__annotations__["x"] = annotation
    return Signature.of(handler, **more)


def returning(annotation: Any) -> Signature:
    async def handler(ctx: Any) -> Any: ...

    handler.__annotations__["return"] = annotation
    return Signature.of(handler)


def loaded(annotation: Any, value: Any) -> Any:
    return taking(annotation).load({"x": value}, TABLES)["x"]


def is_refused(annotation: Any, value: Any) -> bool:
    try:
        loaded(annotation, value)
    except ArgumentValidationError:
        return True
    return False


def refusal(signature: Signature, raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ArgumentValidationError) as caught:
        signature.load(raw, TABLES)
    return str(caught.value).splitlines()


# The table of annotations, row by row.


@pytest.mark.parametrize(
    ("annotation", "validator"),
    [
        (Any, v.any()),
        (object, v.any()),
        (float, v.number()),
        (bool, v.boolean()),
        (Int64, v.int64()),
        (str, v.string()),
        (bytes, v.bytes()),
        (None, v.null()),
        (Id[User], v.id("users")),
        (Id[Literal["posts"]], v.id("posts")),
        (Id.__class_getitem__("posts"), v.id("posts")),
        ("Id['posts']", v.id("posts")),
        ("Id['User']", v.id("users")),
        (Id[Any], v.string()),
        (Id, v.string()),
        (list[str], v.array(v.string())),
        (Sequence[str], v.array(v.string())),
        (tuple[str, ...], v.array(v.string())),
        (list, v.array(v.any())),
        (dict[str, bool], v.record(v.string(), v.boolean())),
        (Mapping[str, bool], v.record(v.string(), v.boolean())),
        (dict[Id[User], bool], v.record(v.id("users"), v.boolean())),
        (dict, v.record(v.string(), v.any())),
        (Literal["a", 1], v.union(v.literal("a"), v.literal(1))),
        (Literal["a", None], v.union(v.literal("a"), v.null())),
        (Literal["a"], v.literal("a")),
        (Color, v.union(v.literal("red"), v.literal("blue"))),
        (Level, v.union(v.literal(1), v.literal(2))),
        (Literal[Color.RED], v.literal("red")),
        (Email, v.string()),
        (TypeAliasType("Text", str), v.string()),
        (Several[Email], v.union(v.array(v.string()), v.null())),
        (Annotated[str, "a note"], v.string()),
        (str | None, v.union(v.string(), v.null())),
        (int | float, v.number()),
        (str | int | float, v.union(v.string(), v.number())),
        ("str | None", v.union(v.string(), v.null())),
        (v.array(v.int64()), v.array(v.int64())),
        (UserIdentity, v.record(v.string(), v.any())),
    ],
    ids=str,
)
def test_an_annotation_is_a_validator(annotation: Any, validator: Validator) -> None:
    signature = taking(annotation)

    assert v.object({"x": validator}) == signature.validator


def test_an_argument_without_annotation_takes_anything() -> None:
    async def handler(ctx, x): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    signature = Signature.of(handler)

    assert v.object({"x": v.any()}) == signature.validator
    assert {"x": [1, None]} == signature.load({"x": [1, None]}, TABLES)


def test_int_is_a_number_to_clients_and_integral_to_the_handler() -> None:
    signature = taking(int)

    assert {"type": "number"} == signature.args_json()["value"]["x"]["fieldType"]
    accepted = [loaded(int, value) for value in (0, 5, -(2**53), -0.0)]
    assert accepted == [0, 5, -(2**53), 0]
    assert [type(number) for number in accepted] == [int] * 4
    for value in (2.5, 2.0**60, math.nan, True, Int64(5), "5", None):
        assert is_refused(int, value), value


def test_a_fraction_for_an_int_is_told_apart_from_another_type() -> None:
    assert refusal(taking(int), {"x": 2.5}) == [
        "Value is not an integer within 2**53.",
        "Path: .x",
        "Value: 2.5",
        "Validator: v.number()",
    ]


def test_float_is_handed_over_as_float() -> None:
    values = [loaded(float, value) for value in (1, 1.5, -0.0, 2**53)]

    assert values == [1.0, 1.5, 0.0, 2.0**53]
    assert [type(value) for value in values] == [float] * 4
    assert is_refused(float, True)
    assert is_refused(float, Int64(1))


def test_floats_inside_are_handed_over_as_float_too() -> None:
    class Point(TypedDict):
        x: float
        tags: dict[str, list[float]]
        z: NotRequired[float | None]

    @query
    async def handler(
        ctx: Any, point: Point, other: float | None, third: tuple[float, ...]
    ) -> None:
        """Takes floats."""

    raw = {"point": {"x": 1, "tags": {"a": [2]}, "z": 3}, "other": 4, "third": [5]}
    args = handler.signature.load(raw, TABLES)

    assert repr(args) == repr(
        {
            "point": {"x": 1.0, "tags": {"a": [2.0]}, "z": 3.0},
            "other": 4.0,
            "third": (5.0,),
        }
    )
    assert repr(raw["point"]) == repr({"x": 1, "tags": {"a": [2]}, "z": 3})


def test_a_number_that_may_be_either_is_handed_over_as_it_is() -> None:
    assert [type(loaded(int | float, value)) for value in (1, 1.5)] == [int, float]


def test_an_enum_arrives_as_its_member_and_leaves_as_its_value() -> None:
    assert loaded(Color, "red") is Color.RED
    assert loaded(Level, 2) is Level.HIGH
    assert loaded(Color | None, "blue") is Color.BLUE
    assert loaded(list[Color], ["red"]) == [Color.RED]
    assert loaded(Literal[Color.RED, "x"], "red") is Color.RED
    assert is_refused(Color, "green")
    assert is_refused(Level, True)
    assert returning(Color).dump(Color.RED, TABLES) == "red"


@pytest.mark.parametrize(
    ("annotation", "inside", "outside"),
    [
        (Annotated[int, Ge(0)], 0, -1),
        (Annotated[float, Gt(0)], 0.5, 0),
        (Annotated[float, Gt(0)], 0.5, math.nan),
        (Annotated[int, Interval(ge=1, lt=4)], 3, 4),
        (Annotated[int, MultipleOf(5)], 10, 11),
        (Annotated[str, MaxLen(3)], "abc", "abcd"),
        (Annotated[str, Len(1)], "a", ""),
        (Annotated[list[str], Len(0, 1)], ["a"], ["a", "b"]),
        (Annotated[str, Predicate(str.islower)], "a", "A"),
        (list[Annotated[int, Ge(0)]], [0], [0, -1]),
        (Annotated[int, Ge(0)] | None, None, -1),
    ],
)
def test_bounds_are_checked(annotation: Any, inside: Any, outside: Any) -> None:
    assert inside == loaded(annotation, inside)
    assert is_refused(annotation, outside)


@pytest.mark.parametrize(
    ("annotation", "met", "not_met"),
    [
        (Annotated[float | None, Ge(0)], [None, 0, 2.5], [-1]),
        (Annotated[str | None, MaxLen(3)], [None, "abc"], ["abcd"]),
        (Annotated[float | str, Ge(0)], [0], [-1, "abc"]),
        (Annotated[float, MaxLen(3)], [], [2.5]),
        (Annotated[Any, MultipleOf(2)], [None, 4], [3, "%z", {}, [1]]),
        (Annotated[float, Lt(10**400)], [1.5, -(2.0**80)], []),
        (Annotated[float, MultipleOf(10**400)], [], [2.5]),
    ],
)
def test_null_meets_a_bound_and_what_cannot_be_compared_with_it_does_not(
    annotation: Any, met: list[Any], not_met: list[Any]
) -> None:
    assert met == [loaded(annotation, value) for value in met]
    assert all(is_refused(annotation, value) for value in not_met)


class Shared(TypedDict):
    among: Annotated[float, MultipleOf(0)]


@pytest.mark.parametrize("count", [VALIDATOR_NESTING_MAX + 1, 5_000])
def test_annotations_nest_128_deep_and_no_deeper(count: int) -> None:
    def nested(count: int, cls: Any = str) -> Any:
        for number in range(count):
            cls = dict[str, cls] if number % 2 else list[cls]
        return cls

    deepest = nested(VALIDATOR_NESTING_MAX)
    said = rf"{re.escape(__file__)}:\d+: .*128 deep \(VALIDATOR_NESTING_MAX\)"

    returns = returning(deepest).returns
    assert returns is not None
    assert returns.validator.nesting == VALIDATOR_NESTING_MAX
    for make in (
        lambda: returning(nested(count)),
        lambda: taking(nested(count)),
        lambda: taking(deepest),  # within the object of the arguments
        lambda: Table(one_field(nested(count))).validator,
        lambda: Table({"x": returns.validator}).validator,
    ):
        with pytest.raises(DeclarationError, match=said):
            make()


def one_field(annotation: Any) -> type:
    made: Any = TypedDict
    return made("OneField", {"x": annotation})  # type: ignore[no-any-return]


def test_classes_nest_no_deeper_either() -> None:
    cls: Any = str
    for _ in range(1_000):
        cls = make_dataclass("OneField", [("x", cls)])

    with pytest.raises(DeclarationError, match="VALIDATOR_NESTING_MAX"):
        returning(cls)


def test_a_multiple_of_nothing_is_refused_where_it_is_declared() -> None:
    here = rf"{re.escape(__file__)}:\d+: .*MultipleOf\(0\): nothing is divided by 0"

    with pytest.raises(DeclarationError, match=here):
        _ = taking(Annotated[float, MultipleOf(0)])
    with pytest.raises(DeclarationError, match=here):
        _ = Table(Shared).validator


@pytest.mark.parametrize(
    ("annotation", "value", "why"),
    [
        (int | None, 2.5, "Value is not an integer within 2**53."),
        (Annotated[int, Ge(0)] | None, -1, "Value must be at least 0."),
    ],
)
def test_what_may_be_null_too_says_why_another_value_does_not_fit(
    annotation: Any, value: Any, why: str
) -> None:
    assert why == refusal(taking(annotation), {"x": value})[0]


def test_a_bound_is_named_when_it_does_not_hold() -> None:
    lines = refusal(taking(Annotated[int, Ge(0)]), {"x": -1})

    assert lines[0] == "Value must be at least 0."


def test_pagination_options_have_one_name_on_the_wire() -> None:
    @query
    async def pages(ctx: Any, opts: PaginationOptions, first: int = 0) -> None: ...

    signature = pages.signature

    assert set(signature.args_json()["value"]) == {"paginationOpts", "first"}
    wire = signature.bind(({"numItems": 3, "cursor": None},), {})
    assert wire == {"paginationOpts": {"numItems": 3, "cursor": None}}
    assert signature.load(wire, TABLES) == {"opts": {"numItems": 3, "cursor": None}}


def test_pagination_options_may_be_said_with_a_validator() -> None:
    @query(args={"opts": pagination_opts_validator})
    async def pages(ctx: Any, opts: Any) -> None: ...

    assert pages.signature.bind(({"numItems": 3, "cursor": None},), {}) == {
        "paginationOpts": {"numItems": 3, "cursor": None}
    }
    added = {"endCursor": "c", "maximumRowsRead": 5, "maximumBytesRead": 6, "id": 7}
    opts = {"numItems": 3, "cursor": None, **added}
    assert pages.signature.load({"paginationOpts": opts}, TABLES) == {"opts": opts}
    with pytest.raises(ArgumentValidationError, match="nonsense"):
        pages.signature.load({"paginationOpts": {**opts, "nonsense": 1}}, TABLES)


# Names, defaults, absence.


def test_a_trailing_underscore_goes_only_where_python_made_it_necessary() -> None:
    @query
    async def named(ctx: Any, class_: int, from_: int, type_: int, id_: int) -> None: ...

    signature = named.signature

    assert set(signature.args_json()["value"]) == {"class", "from", "type_", "id_"}
    raw = signature.bind((1, 2), {"type_": 3, "id_": 4})
    assert raw == {"class": 1, "from": 2, "type_": 3, "id_": 4}
    assert signature.load(raw, TABLES) == {"class_": 1, "from_": 2, "type_": 3, "id_": 4}


def test_an_annotation_with_none_is_still_required() -> None:
    signature = taking(str | None)

    assert signature.load({"x": None}, TABLES) == {"x": None}
    assert refusal(signature, {})[0] == "Object is missing the required field `x`."


def test_a_default_is_for_an_argument_that_is_missing_and_not_for_null() -> None:
    @query
    async def handler(ctx: Any, n: int = 5) -> None: ...

    signature = handler.signature

    assert signature.args_json()["value"]["n"]["optional"] is True
    assert signature.load({}, TABLES) == {}
    assert "Path: .n" in refusal(signature, {"n": None})


def test_null_and_nothing_can_be_told_apart() -> None:
    @query
    async def handler(ctx: Any, n: int | Undefined | None = UNDEFINED) -> None: ...

    signature = handler.signature

    assert signature.load({"n": None}, TABLES) == {"n": None}
    assert signature.load({}, TABLES) == {}
    assert signature.args_json()["value"]["n"] == {
        "fieldType": v.union(v.number(), v.null()).to_json(),
        "optional": True,
    }
    assert signature.bind((UNDEFINED,), {}) == {}


def test_a_mutable_default_is_new_for_every_call() -> None:
    @query
    async def handler(ctx: Any, tags: list[str] = []) -> None:  # noqa: B006 - that is the point
        ...

    first = handler.signature.load({}, TABLES)["tags"]
    first.append("x")

    assert handler.signature.load({}, TABLES) == {"tags": []}


@dataclass
class Choice:
    tags: list[str] = field(default_factory=list)


@pytest.mark.parametrize("default", [Choice(), ([],), {"tags": []}])
def test_a_default_that_holds_what_can_be_changed_is_new_for_every_call(default: Any) -> None:
    @query
    async def handler(ctx: Any, choice: Any = default) -> None: ...

    loaded = handler.signature.load({}, TABLES)

    assert default == loaded["choice"]
    assert default is not loaded["choice"]


def test_keyword_arguments_from_a_typed_dict_may_have_any_name() -> None:
    class Args(TypedDict):
        n: int
        m: NotRequired[float]

    Odd = TypedDict("Odd", {"x-y": str, "class": int})

    @query
    async def handler(ctx: Any, **args: Unpack[Args]) -> None: ...
    @query
    async def odd(ctx: Any, first: int, **args: Unpack[Odd]) -> None: ...

    assert handler.signature.validator == v.object(
        {"n": taking(int).parameters[0].shape.validator, "m": v.optional(v.number())}
    )
    assert handler.signature.load({"n": 1, "m": 2}, TABLES) == {"n": 1, "m": 2.0}
    raw = odd.signature.bind((0,), {"x-y": "a", "class": 1})
    assert odd.signature.load(raw, TABLES) == {"first": 0, "x-y": "a", "class": 1}
    assert "Path: ['x-y']" in refusal(odd.signature, {**raw, "x-y": 1})


def test_keyword_arguments_of_any_type_are_no_validators() -> None:
    @query
    async def anything(ctx: Any, /, **args: Any) -> None: ...
    @query
    async def numbers(ctx: Any, /, **args: float) -> None: ...
    @query
    async def mixed(ctx: Any, /, n: int, **args: Any) -> None: ...

    assert anything.signature.validator == v.any()
    assert anything.signature.load({"a b": [1]}, TABLES) == {"a b": [1]}
    assert numbers.signature.validator == v.record(v.string(), v.number())
    assert repr(numbers.signature.load({"a": 1}, TABLES)) == "{'a': 1.0}"
    assert "Path: .b" in refusal(numbers.signature, {"b": "x"})
    assert mixed.signature.load({"n": 1, "z": None}, TABLES) == {"n": 1, "z": None}
    assert "Path: .n" in refusal(mixed.signature, {"n": "x", "z": None})
    assert refusal(mixed.signature, {"z": 1})[0] == "Object is missing the required field `n`."


def test_more_arguments_cannot_take_the_place_of_those_that_have_names() -> None:
    async def handler(ctx: Any, class_: int = 0, **args: Any) -> None: ...

    signature = Signature.of(handler)

    assert refusal(signature, {"ctx": 1}) == ["`ctx` cannot be the name of an argument."]
    assert refusal(signature, {"class_": 1}) == ["`class_` cannot be the name of an argument."]


# What is wrong with a call.


@query
async def send(ctx: Any, channel: Id[User], body: str, likes: int = 0) -> None:
    """A function to be called wrongly."""


def test_a_wrong_argument_names_the_nearest_parameter() -> None:
    lines = refusal(send.signature, {"channel": USER, "body": "x", "like": 1})

    assert lines[0].endswith(
        "extra field `like` that is not in the validator. Did you mean `likes`?"
    )


def test_a_misspelt_argument_is_named_beside_the_one_that_is_missing() -> None:
    lines = refusal(send.signature, {"chanel": USER, "body": "x"})

    assert lines[0] == (
        "Object is missing the required field `channel`. "
        "It has `chanel`, which the validator does not know."
    )


def test_a_wrong_value_comes_with_path_and_validator() -> None:
    lines = refusal(send.signature, {"channel": POST, "body": "x"})

    assert lines[1:] == ["Path: .channel", f"Value: {POST!r}", 'Validator: v.id("users")']


def test_a_call_in_python_becomes_arguments_on_the_wire() -> None:
    signature = send.signature

    assert signature.bind((USER, "hi"), {"likes": 2.0}) == {
        "channel": USER,
        "body": "hi",
        "likes": 2,
    }
    assert signature.bind((), {"chanel": 1}) == {"chanel": 1}
    with pytest.raises(ArgumentValidationError, match="takes 3 in that way: channel, body, likes"):
        signature.bind((1, 2, 3, 4), {})
    with pytest.raises(ArgumentValidationError, match="`body` is given twice"):
        signature.bind((USER, "hi"), {"body": "ho"})
    with pytest.raises(ArgumentValidationError, match=r"\.body: a complex is not a value"):
        signature.bind((USER, 1j), {})


def test_arguments_that_have_names_only_cannot_be_given_by_place() -> None:
    @query
    async def handler(ctx: Any, a: int, *, b: int = 0) -> None: ...

    with pytest.raises(ArgumentValidationError, match="takes 1 in that way: a"):
        handler.signature.bind((1, 2), {})


def test_a_secret_is_in_no_error() -> None:
    @query
    async def login(ctx: Any, name: str, password: Secret[str], pin: Secret[int] | None) -> None:
        """Takes secrets."""

    signature = login.signature
    good = {"name": "ada", "password": "hunter2", "pin": 1234}

    assert signature.secrets == {"password", "pin"}
    assert signature.load(good, TABLES) == good
    for wrong in ({"nam": 1}, {"pin": "1234x"}, {"password": 0x1234}):
        text = "\n".join(refusal(signature, {**good, **wrong}))
        assert "hunter2" not in text
        assert "1234" not in text
        assert "4660" not in text


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Secret[str], 0x1234),
        (Secret[int] | float, "hunter2"),
        (Annotated[Secret[str], MaxLen(3)], "hunter2"),
        (list[Secret[str]], ["hunter2", 1]),
        (tuple[Secret[str], ...], ["hunter2", 1]),
        (dict[str, Secret[str]], {"hunter2": 1}),
        (dict[Secret[str], int], {"hunter2": "x"}),
        (Login, {"user": "ada", "passwrod": "hunter2"}),
        (LoginWithin, {"logins": [{"user": "ada", "passwrod": "hunter2"}]}),
        (LoginClass, {"password": "hunter2"}),
        (list[LoginClass | None], [{"password": "hunter2"}]),
        (Hushed[str], ["hunter2", 1]),
    ],
)
def test_an_argument_with_a_secret_anywhere_in_it_is_secret(annotation: Any, value: Any) -> None:
    signature = taking(annotation)

    with pytest.raises(ArgumentValidationError) as caught:
        signature.load({"x": value}, TABLES)

    assert signature.secrets == {"x"}
    assert {} == signature.recorded({"x": value})
    text = "".join(traceback.format_exception(caught.value))
    assert "Path: .x\nValue: <secret>" in text
    assert "hunter2" not in text
    assert "4660" not in text


def test_args_that_are_declared_are_as_secret_as_their_annotations() -> None:
    @query(args={"x": v.string(), "more": v.string()})
    async def handler(ctx: Any, /, x: Secret[str], **others: Secret[str]) -> None: ...

    assert handler.signature.secrets == {"x", "more"}


def test_secrets_that_have_no_names_of_their_own_are_secret_likewise() -> None:
    @query
    async def named(ctx: Any, /, name: str, **more: Unpack[Login]) -> None: ...

    @query
    async def unnamed(ctx: Any, /, name: str, **more: Secret[str]) -> None: ...

    given = {"name": "ada", "user": "a", "password": "hunter2"}

    assert {"name": "ada", "user": "a"} == named.signature.recorded(given)
    assert {"name": "ada"} == unnamed.signature.recorded(given)
    for wrong in ({**given, "name": 1}, {**given, "pin": 0x1234}):
        text = "\n".join(refusal(unnamed.signature, wrong))
        assert "hunter2" not in text
        assert "4660" not in text


def test_beside_a_secret_what_came_under_an_unknown_name_is_in_no_error() -> None:
    @query
    async def login(ctx: Any, name: str, password: Secret[str] = "") -> None: ...

    @query
    async def open_login(ctx: Any, /, password: Secret[str] = "", **more: int) -> None: ...

    text = "\n".join(refusal(login.signature, {"name": "ada", "passwrod": "hunter2"}))
    assert "'passwrod': <secret>" in text
    assert "'name': 'ada'" in text
    text = "\n".join(refusal(open_login.signature, {"passwrod": "hunter2"}))
    assert "Path: .passwrod\nValue: <secret>" in text
    with pytest.raises(ArgumentValidationError, match=r"\.password: <secret> is no value"):
        login.signature.bind((), {"name": "ada", "password": 2**60})
    assert {"more": 1} == open_login.signature.recorded({"password": "hunter2", "more": 1})


# `args=` and `returns=`.


def test_args_override_the_annotations() -> None:
    @query(args={"n": v.int64(), "color": v.string(), "from": v.optional(v.number())})
    async def handler(
        ctx: Any, from_: float = 0.0, color: Color = Color.RED, n: int = 0
    ) -> None: ...

    signature = handler.signature

    assert signature.validator == v.object(
        {
            "from": v.optional(v.number()),
            "color": v.optional(v.string()),
            "n": v.optional(v.int64()),
        }
    )
    args = signature.load({"n": Int64(1), "color": "red", "from": 2}, TABLES)
    assert args == {"n": Int64(1), "color": Color.RED, "from_": 2.0}
    assert type(args["n"]) is Int64
    assert signature.load({"color": "beige"}, TABLES) == {"color": "beige"}


def test_where_args_say_int64_an_int_becomes_one() -> None:
    inner = {"a": v.array(v.int64()), "b": v.record(v.string(), v.int64()), "c": v.number()}

    @query(args={"n": v.int64(), "more": v.optional(v.object(inner)), "f": v.nullable(v.int64())})
    async def handler(ctx: Any, n: int, f: int | None, more: Any = None) -> None: ...

    raw = handler.signature.bind((1, None), {"more": {"a": [2], "b": {"x": 3}, "c": 4}})

    assert raw == {
        "n": Int64(1),
        "f": None,
        "more": {"a": [Int64(2)], "b": {"x": Int64(3)}, "c": 4},
    }
    assert [type(one) for one in (raw["n"], raw["more"]["a"][0], raw["more"]["c"])] == [
        Int64,
        Int64,
        int,
    ]
    assert handler.signature.load(raw, TABLES) == raw


def test_an_int_stays_a_number_where_both_are_allowed() -> None:
    @query
    async def handler(ctx: Any, n: Int64 | float) -> None: ...

    assert type(handler.signature.bind((1,), {})["n"]) is int
    assert type(handler.signature.bind((Int64(1),), {})["n"]) is Int64


def test_args_keep_the_order_in_which_python_calls() -> None:
    @query(args={"b": v.string(), "a": v.number()})
    async def handler(ctx: Any, a: Any, b: Any) -> None: ...

    assert handler.signature.bind((1, "x"), {}) == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        ({"a": v.any()}, "parameter `b` is not in args= and has no default"),
        ({"a": v.any(), "b": v.any(), "bb": v.any()}, "args= has `bb`, which is no parameter"),
        ({"a": v.any(), "b": v.optional(v.any())}, "may be absent: give the parameter a default"),
        ({"a": v.any(), "b": complex}, r"args\['b'\]: `complex` is no type of value"),
        ([v.any()], "write a dict of names and validators"),
    ],
)
def test_args_that_do_not_fit_the_handler_are_refused(args: Any, advice: str) -> None:
    async def handler(ctx: Any, a: Any, b: Any) -> None: ...

    with pytest.raises(DeclarationError, match=advice):
        Signature.of(handler, args=args)


def test_returns_overrides_the_arrow() -> None:
    async def handler(ctx: Any) -> str:
        return ""

    signature = Signature.of(handler, returns=v.int64())

    assert signature.dump(5, TABLES) == Int64(5)
    assert Signature.of(handler, returns=None).dump(None, TABLES) is None


# Results.


@pytest.mark.parametrize(
    ("annotation", "result", "value"),
    [
        (None, None, None),
        (int, 3.0, 3),
        (float, 3, 3),
        (Int64, 3, Int64(3)),
        (list[str], ("a", "b"), ["a", "b"]),
        (Mapping[str, Color], {"a": Color.RED}, {"a": "red"}),
        (Coroutine[Any, Any, str], "x", "x"),
        (Awaitable[str | None], None, None),
        (Any, [1, {"a": (2,)}], [1, {"a": [2]}]),
    ],
)
def test_a_result_becomes_a_value(annotation: Any, result: Any, value: Any) -> None:
    dumped = returning(annotation).dump(result, TABLES)

    assert value == dumped
    assert type(value) is type(dumped)


@pytest.mark.parametrize(
    ("annotation", "result", "message"),
    [
        (None, 1, "Value: 1\nValidator: v.null()"),
        (str, None, "Value does not match validator.\nValue: None"),
        (list[str], ["a", 1], "Path: [1]"),
        (int, 1.5, "Value is not an integer"),
        (Any, {1}, "result: a set is not a value"),
        (Id[User], POST, "is not in table `users`"),
        (Int64, 2**70, "fits no number type"),
    ],
)
def test_a_result_that_was_not_promised_is_refused(
    annotation: Any, result: Any, message: str
) -> None:
    with pytest.raises(ReturnsValidationError) as caught:
        returning(annotation).dump(result, TABLES)

    assert message in str(caught.value)


def test_a_page_of_documents_is_checked_to_the_last_field() -> None:
    signature = returning(Page[User])
    user = {"_id": USER, "_creationTime": 1.5, "name": "ada"}
    page = {"page": [user], "isDone": True, "continueCursor": ""}

    assert signature.dump(page, TABLES) == page
    with pytest.raises(ReturnsValidationError, match=r"Path: \.page\[0\]\._id"):
        signature.dump({**page, "page": [{**user, "_id": POST}]}, TABLES)
    with pytest.raises(ReturnsValidationError, match="extra field `nmae`"):
        signature.dump({**page, "page": [{**user, "nmae": "x"}]}, TABLES)


def test_a_result_is_copied() -> None:
    result = {"a": [1]}

    value = returning(Any).dump(result, TABLES)
    result["a"].append(2)

    assert value == {"a": [1]}


# What is refused when the module loads.


class WithContext(TypedDict):
    ctx: int


class Recursive(TypedDict):
    children: list[Recursive]


def refused(handler: Callable[..., Any], **more: Any) -> str:
    with pytest.raises(DeclarationError) as caught:
        Signature.of(handler, **more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "instead"),
    [
        ("datetime.datetime", "float, milliseconds since 1970"),
        ("datetime.date", "str, as `day.isoformat()` gives it"),
        ("datetime.timedelta", "float, in milliseconds"),
        ("decimal.Decimal", "str, or Int64 of the smallest unit"),
        ("uuid.UUID", "write str"),
        ("pathlib.Path", "write str"),
        ("set[str]", "write list[...]"),
        ("frozenset[str]", "write list[...]"),
        ("tuple[int, str]", "write list[...], or a TypedDict"),
        ("tuple", "write list[...], or a TypedDict"),
        ("collections.namedtuple('N', 'a')", "write list[...], or a TypedDict"),
        ("T", "a TypeVar (~T) says nothing of values"),
        ("list[T]", "a TypeVar"),
        ("dict[int, str]", "keys are v.string()"),
        ("dict[Color, str]", "for known names write v.object"),
        ("type[int]", "write str"),
        ("collections.abc.Callable[[], None]", "the path of a function"),
        ("collections.abc.AsyncIterator[str]", "paginate()"),
        ("type('S', (str,), {})", "write str, or a NewType of it"),
        ("type('C', (), {})", "write a TypedDict or make it a dataclass"),
        ("Undefined", "`T | Undefined` with `= UNDEFINED`"),
        ("int | Undefined", "give it `= UNDEFINED`"),
        ("typing.Literal[b'x']", "literals are strings, numbers, booleans"),
        ("enum.Enum('E', {'A': (1, 2)})", "literals are strings, numbers, booleans"),
        ("Recursive", "contains itself, which no validator can say; write Any there"),
        ("Nmae", "`Nmae` cannot be evaluated (NameError"),
        ("5", "`5` is no annotation"),
        ("Id[5]", "write the class of a table's documents"),
        ("print", "is no annotation"),
    ],
)
def test_an_annotation_that_no_value_can_honour_is_refused(annotation: str, instead: str) -> None:
    namespace: dict[str, Any] = {"Id": Id, "Recursive": Recursive, "Color": Color}
    source = (
        "from __future__ import annotations\n"
        "import collections.abc, datetime, decimal, enum, pathlib, typing, uuid\n"
        "from engine.model.values import Undefined\n"
        "T = typing.TypeVar('T')\n"
        f"async def handler(ctx, when: {annotation}): ...\n"
    )
    exec(compile(source, "backend/late.py", "exec"), namespace)

    message = refused(namespace["handler"])

    assert message.startswith("backend/late.py:5: handler: argument `when`")
    assert instead in message


def test_a_refusal_of_the_result_names_its_place_once() -> None:
    async def handler(ctx: Any) -> complex:
        return 1j

    message = refused(handler)

    assert ": the result: `complex` is no type of value" in message
    assert 1 == message.count(__file__)


def test_a_refusal_inside_of_a_class_names_the_field() -> None:
    class Event(TypedDict):
        when: complex

    async def handler(ctx: Any, event: Event) -> None: ...

    message = refused(handler, local={"Event": Event})

    assert "Event.when: `complex` is no type of value; write list[float]" in message


def test_a_local_class_may_name_itself() -> None:
    class Node(Document):
        parent: NotRequired[Id[Node]]  # type: ignore[misc]
        children: list[Id["Node"]]  # type: ignore[misc] # noqa: UP037 - quotes inside of what is postponed anyway

    bind_document(Node, "nodes")

    validator = taking(Node).validator

    assert 'v.optional(v.id("nodes"))' in str(validator)
    assert 'v.array(v.id("nodes"))' in str(validator)


def test_parameters_that_arguments_cannot_have_are_refused() -> None:
    async def positional(ctx: Any, x: int, /) -> None: ...
    async def variadic(ctx: Any, *xs: int) -> None: ...
    async def contextless() -> None: ...
    async def named_context(*, ctx: Any) -> None: ...
    async def twins(ctx: Any, a: PaginationOptions, b: PaginationOptions) -> None: ...
    async def unpacked(ctx: Any, **args: Unpack[int]) -> None: ...  # type: ignore[misc]
    async def contexts(ctx: Any, **args: Unpack[WithContext]) -> None: ...  # type: ignore[misc]

    assert "`x` is positional-only, but arguments are named; drop `/`" in refused(positional)
    assert "arguments have names; write `xs: list[...]`" in refused(variadic)
    assert "the first parameter is the context" in refused(contextless)
    assert "the first parameter is the context" in refused(named_context)
    assert "`a` and `b` are both `paginationOpts` outside" in refused(twins)
    assert "Unpack takes a TypedDict" in refused(unpacked)
    assert "`ctx` is the context and an argument; write `ctx, /`" in refused(contexts)


def test_a_context_may_be_positional_only() -> None:
    async def handler(ctx: Any, /, x: int) -> None: ...

    assert Signature.of(handler).bind((1,), {}) == {"x": 1}


def test_generators_are_refused_with_a_hint_at_pages() -> None:
    async def asynchronous(ctx: Any) -> Any:
        yield 1

    def plain(ctx: Any) -> Any:
        yield 1

    assert "paginate(opts)" in refused(asynchronous)
    assert "paginate(opts)" in refused(plain)


def test_a_wrapped_handler_is_read_through_its_wrapper() -> None:
    def signed_in(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def wrapper(ctx: Any, **args: Any) -> Any:
            return await fn(ctx, **args)

        return wrapper

    @signed_in
    async def handler(ctx: Any, n: float) -> Color:
        return Color.RED

    signature = Signature.of(handler)

    assert repr(signature.load({"n": 1}, TABLES)) == "{'n': 1.0}"
    assert signature.dump(Color.RED, TABLES) == "red"


def test_annotations_behind_a_wrapper_are_looked_up_where_they_were_written() -> None:
    library: dict[str, Any] = {"wraps": functools.wraps, "Hue": str}
    exec("def plain(fn):\n    return wraps(fn)(lambda ctx, **args: fn(ctx, **args))", library)
    namespace: dict[str, Any] = {"Hue": Color, "plain": library["plain"]}
    exec("@plain\nasync def handler(ctx, hue: 'Hue'): ...", namespace)

    signature = Signature.of(namespace["handler"])

    assert signature.load({"hue": "red"}, TABLES) == {"hue": Color.RED}


def test_a_wrapper_may_say_that_it_takes_something_else() -> None:
    async def handler(ctx: Any, user: str, n: int) -> None: ...

    async def wrapper(ctx: Any, n: int) -> None:
        await handler(ctx, "ada", n)

    functools.update_wrapper(wrapper, handler)
    wrapper.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            inspect.Parameter("n", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=float),
        ]
    )

    assert Signature.of(wrapper).validator == v.object({"n": v.number()})


# Laws.


class Everything(TypedDict):
    number: float
    count: int
    big: Int64
    color: Color | None
    levels: list[Level]
    names: dict[str, str]
    either: NotRequired[bool | str]


everything = st.fixed_dictionaries(
    {
        "number": st.floats(allow_nan=False),
        "count": st.integers(-(2**53), 2**53),
        "big": st.integers(-(2**63), 2**63 - 1).map(Int64),
        "color": st.sampled_from([*Color, None]),
        "levels": st.lists(st.sampled_from(Level)),
        "names": st.dictionaries(st.sampled_from("abc"), st.text()),
    },
    optional={"either": st.booleans() | st.text()},
)


@given(everything)
def test_what_a_call_gives_is_what_the_handler_gets(given: Any) -> None:
    signature = taking(Everything)

    args = signature.load(signature.bind((given,), {}), TABLES)

    assert given == args["x"]
    assert [type(one) for one in given.values()] == [type(args["x"][name]) for name in given]


@given(
    st.dictionaries(
        st.sampled_from(["channel", "body", "likes", "z"]), st.sampled_from([USER, 1, 2.5, None])
    )
)
def test_load_takes_exactly_what_the_validator_takes(raw: dict[str, Any]) -> None:
    signature = send.signature
    try:
        signature.load(raw, TABLES)
        taken = True
    except ArgumentValidationError:
        taken = False

    assert (signature.validator.mismatch(raw, TABLES) is None) == taken
