"""Classes of five libraries are arguments and results alike, and none of them is needed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Annotated, Any, Generic, NotRequired, Required, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions
from annotated_types import Ge

from engine.app.annotations import Signature
from engine.app.structures import wire_name
from engine.app.validators import v
from engine.errors import ArgumentValidationError, DeclarationError
from engine.model.values import UNDEFINED, Int64, Undefined

T = TypeVar("T")
NO_TABLES: dict[str, int] = {}
TABLES = NO_TABLES.get


class Color(Enum):
    RED = "red"


@dataclass
class DataPoint:
    x: float
    from_: str = "here"
    color: Color = Color.RED
    tags: list[str] = field(default_factory=list)
    maybe: int | Undefined = UNDEFINED


@attrs.define
class AttrsPoint:
    x: float
    from_: str = "here"
    color: Color = Color.RED
    tags: list[str] = attrs.field(factory=list)
    maybe: int | Undefined = UNDEFINED


class SpecPoint(msgspec.Struct):
    x: float
    from_: str = "here"
    color: Color = Color.RED
    tags: list[str] = msgspec.field(default_factory=list)
    maybe: int | msgspec.UnsetType = msgspec.UNSET


class PydanticPoint(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    x: float
    from_: str = pydantic.Field("here", alias="from")
    color: Color = Color.RED
    tags: list[str] = pydantic.Field(default_factory=list)
    maybe: int | Undefined = UNDEFINED


POINTS = [DataPoint, AttrsPoint, SpecPoint, PydanticPoint]


def signature_of(annotation: Any) -> Signature:
    async def handler(ctx: Any, x: Any) -> Any: ...

    handler.__annotations__.update(x=annotation, **{"return": annotation})
    return Signature.of(handler)


@pytest.mark.parametrize("point", POINTS)
def test_a_class_is_a_closed_object_by_its_wire_names(point: Any) -> None:
    signature = signature_of(point)

    assert signature.validator == v.object(
        {
            "x": v.object(
                {
                    "x": v.number(),
                    "from": v.optional(v.string()),
                    "color": v.optional(v.literal("red")),
                    "tags": v.optional(v.array(v.string())),
                    "maybe": v.optional(signature_of(int).parameters[0].shape.validator),
                }
            )
        }
    )


@pytest.mark.parametrize("point", POINTS)
def test_the_handler_gets_an_instance(point: Any) -> None:
    raw = {"x": {"x": 1, "from": "there", "color": "red", "tags": ["a"]}}

    instance = signature_of(point).load(raw, TABLES)["x"]

    assert type(instance) is point
    assert repr(instance.x) == "1.0"
    assert (instance.from_, instance.color, instance.tags) == ("there", Color.RED, ["a"])
    assert instance.maybe in (UNDEFINED, msgspec.UNSET)


@pytest.mark.parametrize("point", POINTS)
def test_defaults_of_the_class_apply_to_fields_that_were_not_sent(point: Any) -> None:
    instance = signature_of(point).load({"x": {"x": 1}}, TABLES)["x"]

    assert (instance.from_, instance.color, instance.tags) == ("here", Color.RED, [])


@pytest.mark.parametrize("point", POINTS)
def test_an_instance_is_dumped_when_it_is_returned_or_passed(point: Any) -> None:
    signature = signature_of(point)
    instance = signature.load({"x": {"x": 1.5, "maybe": 3}}, TABLES)["x"]
    plain = {"x": 1.5, "from": "here", "color": "red", "tags": [], "maybe": 3}

    assert signature.dump(instance, TABLES) == plain
    assert signature.bind((instance,), {}) == {"x": plain}


@pytest.mark.parametrize("point", POINTS)
def test_what_is_absent_in_an_instance_is_absent_on_the_wire(point: Any) -> None:
    signature = signature_of(point)
    instance = signature.load({"x": {"x": 1}}, TABLES)["x"]

    assert "maybe" not in signature.dump(instance, TABLES)


@pytest.mark.parametrize("point", POINTS)
def test_a_dict_of_the_same_fields_is_as_good_as_an_instance(point: Any) -> None:
    signature = signature_of(point)

    assert signature.dump({"x": 1}, TABLES) == {"x": 1}


@pytest.mark.parametrize("point", POINTS)
def test_instances_are_found_inside_of_other_things(point: Any) -> None:
    signature = signature_of(dict[str, list[point | None]])
    raw = {"x": {"a": [{"x": 1}, None]}}

    args = signature.load(raw, TABLES)

    assert [type(one) for one in args["x"]["a"]] == [point, type(None)]
    dumped = signature.dump(args["x"], TABLES)
    assert dumped["a"][0]["from"] == "here"
    assert dumped["a"][1] is None


@pytest.mark.parametrize("point", POINTS)
def test_a_wrong_field_is_refused_with_its_path(point: Any) -> None:
    with pytest.raises(ArgumentValidationError) as caught:
        signature_of(point).load({"x": {"x": "one"}}, TABLES)

    assert "Path: .x.x" in str(caught.value)


def test_a_choice_of_classes_is_made_by_their_fields() -> None:
    @dataclass
    class Circle:
        radius: float

    @dataclass
    class Square:
        side: float

    signature = signature_of(Circle | Square)

    assert signature.load({"x": {"side": 1}}, TABLES) == {"x": Square(1.0)}
    assert signature.load({"x": {"radius": 2}}, TABLES) == {"x": Circle(2.0)}
    assert signature.dump(Square(3), TABLES) == {"side": 3}


def test_what_a_class_refuses_is_refused_as_an_argument() -> None:
    @dataclass
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n < 0:
                raise ValueError("n is negative")

    class Short(pydantic.BaseModel):
        text: Annotated[str, pydantic.Field(max_length=3)]
        other: str = pydantic.Field("", max_length=2)

    with pytest.raises(ArgumentValidationError) as caught:
        signature_of(Positive).load({"x": {"n": -1}}, TABLES)

    assert str(caught.value).splitlines() == [
        "Value does not match validator.",
        "Path: .x",
        "n is negative",
        "Value: {'n': -1}",
    ]
    for wrong in ({"text": "long"}, {"text": "", "other": "too"}):
        with pytest.raises(ArgumentValidationError, match="no longer than"):
            signature_of(Short).load({"x": wrong}, TABLES)


def test_the_bounds_of_another_library_hold_everywhere() -> None:
    for bound in (pydantic.Field(max_length=3), msgspec.Meta(max_length=3)):
        signature = signature_of(Annotated[str, bound])

        assert signature.load({"x": "abc"}, TABLES) == {"x": "abc"}
        with pytest.raises(ArgumentValidationError, match="no longer than 3"):
            signature.load({"x": "abcd"}, TABLES)


def test_names_that_a_library_gave_are_the_names_on_the_wire() -> None:
    class Renamed(msgspec.Struct, rename="camel"):
        user_name: str

    @attrs.define
    class Private:
        _secret: int

    renamed = signature_of(Renamed).load({"x": {"userName": "ada"}}, TABLES)["x"]
    private = signature_of(Private).load({"x": {"secret": 1}}, TABLES)["x"]

    assert renamed.user_name == "ada"
    assert signature_of(Renamed).dump(renamed, TABLES) == {"userName": "ada"}
    assert private == Private(1)
    assert signature_of(Private).dump(private, TABLES) == {"secret": 1}


def test_fields_of_a_base_class_come_along() -> None:
    @dataclass
    class Named:
        name: str

    @dataclass
    class Aged(Named):
        age: int = 0

    assert signature_of(Aged).load({"x": {"name": "ada"}}, TABLES) == {"x": Aged("ada", 0)}


def test_inherited_fields_are_read_in_the_module_that_wrote_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    base, heir = ModuleType("base_module"), ModuleType("heir_module")
    monkeypatch.setitem(sys.modules, "base_module", base)
    monkeypatch.setitem(sys.modules, "heir_module", heir)
    exec(f"{source}Number = float\n@dataclass\nclass Base:\n    n: Number", vars(base))
    exec(
        f"{source}from base_module import Base\nNumber = str\n"
        "@dataclass\nclass Heir(Base):\n    s: Number",
        vars(heir),
    )

    loaded = signature_of(heir.Heir).load({"x": {"n": 1, "s": "a"}}, TABLES)["x"]

    assert repr(loaded) == "Heir(n=1.0, s='a')"


def test_fields_that_a_constructor_does_not_take_stay_inside() -> None:
    @dataclass
    class Area:
        side: float
        area: float = field(init=False, default=0)

    assert signature_of(Area).dump(Area(2), TABLES) == {"side": 2}


# TypedDict.


class Old(TypedDict, total=False):
    a: Required[int]
    b: str


class New(typing_extensions.TypedDict):
    a: typing_extensions.Required[int]
    b: typing_extensions.NotRequired[str]
    c: typing_extensions.NotRequired[typing_extensions.ReadOnly[float]]


class Heir(Old):
    d: Annotated[int, Ge(0)]


def test_absence_in_a_typed_dict_is_read_from_its_annotations() -> None:
    old, new, heir = (signature_of(cls).args_json()["value"]["x"] for cls in (Old, New, Heir))

    def optional(json: Any) -> dict[str, bool]:
        return {name: one["optional"] for name, one in json["fieldType"]["value"].items()}

    assert optional(old) == {"a": False, "b": True}
    assert optional(new) == {"a": False, "b": True, "c": True}
    assert optional(heir) == {"a": False, "b": True, "d": False}


def test_a_typed_dict_of_typing_extensions_is_loaded_like_any_other() -> None:
    args = signature_of(New).load({"x": {"a": 1, "c": 2}}, TABLES)

    assert repr(args) == "{'x': {'a': 1, 'c': 2.0}}"


class Box(TypedDict, Generic[T]):
    content: T
    more: NotRequired[list[T]]


class FloatBox(Box[float]):
    label: str


@dataclass
class Pair(Generic[T]):
    first: T
    second: T


def test_a_generic_class_is_read_with_what_it_was_given() -> None:
    box = signature_of(Box[float]).load({"x": {"content": 1, "more": [2]}}, TABLES)["x"]
    heir = signature_of(FloatBox).load({"x": {"content": 1, "label": "a"}}, TABLES)["x"]
    pair = signature_of(Pair[Box[float]]).load(
        {"x": {"first": {"content": 1}, "second": {"content": 2}}}, TABLES
    )["x"]

    assert repr(box) == "{'content': 1.0, 'more': [2.0]}"
    assert repr(heir) == "{'content': 1.0, 'label': 'a'}"
    assert repr(pair) == "Pair(first={'content': 1.0}, second={'content': 2.0})"


def test_a_generic_class_without_its_parameter_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Box\.content: a TypeVar"):
        signature_of(Box)


def test_an_int64_in_a_class_may_be_given_as_an_int() -> None:
    @dataclass
    class Counter:
        n: Int64

    dumped = signature_of(Counter).dump({"n": Int64(1)}, TABLES)

    assert signature_of(Counter).dump(Counter(1), TABLES) == dumped  # type: ignore[arg-type]
    assert type(signature_of(Counter).bind((Counter(Int64(1)),), {})["x"]["n"]) is Int64


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("from_", "from"),
        ("class_", "class"),
        ("None_", "None"),
        ("type_", "type_"),
        ("from__", "from__"),
        ("name", "name"),
        ("_", "_"),
    ],
)
def test_only_python_keywords_lose_an_underscore(name: str, wire: str) -> None:
    assert wire == wire_name(name)


def test_none_of_these_libraries_is_imported() -> None:
    program = (
        "import sys, engine.app.decorators, engine.app.schema; "
        "print(sorted({'attr', 'pydantic', 'annotated_types'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert printed.stdout.strip() == "[]"
