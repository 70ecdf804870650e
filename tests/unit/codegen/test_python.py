"""What an application is in Python, where no type checker is needed to see it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import Any, Literal

import pytest

from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table, define_schema
from engine.app.types import Document
from engine.app.validators import Validator, v
from engine.codegen import python
from engine.functions.loader import load, withdraw
from engine.model.ids import Id
from engine.model.limits import VALIDATOR_NESTING_MAX, VALUE_NESTING_MAX
from engine.model.values import Int64
from tests.architecture.source_tree import ROOT


def api_of(*declared: Any) -> str:
    return python.files_of(load(declared))["api.pyi"]


def model_of(schema: Schema) -> str:
    return python.files_of(load([schema]))["data_model.py"]


def defined(text: str) -> list[str]:
    """The names that a file defines, one as often as it does."""
    names: list[str] = []
    for node in ast.parse(text).body:
        match node:
            case ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
    return names


@pytest.mark.parametrize(
    ("validator", "expected"),
    [
        (v.literal("a'\n"), """Literal["a'\\n"]"""),
        (v.literal(2.5), "float"),
        (v.literal(Int64(1)), "Int64"),
        (v.union(v.literal("a"), v.null(), v.literal(1)), "Literal['a', 1] | None"),
        (v.array(v.union()), "list[Never]"),
        (v.record(v.union(v.string(), v.id("a")), v.any()), "dict[str | Id[Literal['a']], Any]"),
        (v.array(v.bytes()), "list[bytes]"),
    ],
    ids=str,
)
def test_a_validator_has_a_type(validator: Validator, expected: str) -> None:
    @query(name="asked", returns=validator)
    async def asked(ctx: Any) -> Any: ...

    assert f"Returns: TypeAlias = {expected}\n" in api_of(asked)


def test_what_nests_deeper_than_values_may_is_cut_off() -> None:
    validator: Validator = v.string()
    for _ in range(VALIDATOR_NESTING_MAX):
        validator = v.array(validator)

    @query(returns=validator)
    async def asked(ctx: Any) -> Any: ...

    assert "list[" * VALUE_NESTING_MAX + "list[Any]" in api_of(asked)


def test_a_field_that_is_called_as_a_type_is_not_taken_for_it() -> None:
    text = model_of(Schema(things=Table({"list": v.string(), "more": v.array(v.number())})))

    assert "NewThings = TypedDict('NewThings', {\n    'list': 'str',\n" in text
    assert "    'more': 'list[float]',\n" in text


@pytest.mark.parametrize("name", ["class", "not-a-name", "__private"])
def test_a_field_that_is_no_attribute_is_a_key(name: str) -> None:
    text = model_of(Schema(things=Table(v.object({"a": v.object({name: v.string()})}))))

    assert f"NewThingsA = TypedDict('NewThingsA', {{\n    {name!r}: 'str',\n}})" in text


def test_no_name_is_defined_twice() -> None:
    @query(name="a_b")
    async def one(ctx: Any, x: float) -> list[float]:
        return []

    @query(name="aB")
    async def other(ctx: Any, y: str) -> list[str]:
        return []

    tables = {
        "a_b": Table({"field": v.object({"x": v.string()})}),
        "aB": Table({"field": v.object({"y": v.string()})}),
        "AB_field": Table({"z": v.string()}),
    }
    texts = [api_of(one, other), model_of(define_schema(tables))]

    for text in texts:
        assert {1} == set(Counter(defined(text)).values())
    taken = dict(re.findall(r"^    (a_b|aB): _QueryReference\[\[(\w+)\]", texts[0], re.MULTILINE))
    assert f"class {taken['a_b']}(TypedDict):\n    x: float\n" in texts[0]
    assert f"class {taken['aB']}(TypedDict):\n    y: str\n" in texts[0]


def test_tables_are_named_by_their_class_unless_two_have_one_name() -> None:
    class Thing(Document):
        x: float

    def another() -> Any:
        class Thing(Document):
            y: float

        return Thing

    text = model_of(Schema(things=Table(Thing), others=Table(another())))

    names = [name for name in defined(text) if name.startswith("New")]
    assert ["NewThing", "NewThings"] == sorted(names)


def test_a_class_that_cannot_be_imported_is_named_by_its_table() -> None:
    class Thing(Document):
        name: str

    @mutation
    async def add(ctx: Any, thing: Id[Thing]) -> list[Thing]:
        return []

    text = api_of(add, Schema(things=Table(Thing)))

    assert "    thing: Id[Literal['things']]\n" in text
    assert "    _id: Id[Literal['things']]\n    _creationTime: float\n    name: str\n" in text


@pytest.mark.parametrize("names", [["import"], ["import", "class"]])
def test_a_function_whose_name_is_a_keyword_is_an_item(names: list[str]) -> None:
    def named(name: str) -> Any:
        @query(name=name)
        async def asked(ctx: Any) -> Literal[True]:
            return True

        return asked

    text = api_of(*map(named, names))

    ast.parse(text)
    for name in names:
        assert f"def __getitem__(self, name: _Literal[{name!r}], /) -> _QueryReference[[], " in text
    assert (len(names) if len(names) > 1 else 0) == text.count("@_overload")


def test_no_function_is_taken_for_a_type_beside_it() -> None:
    application = load(ROOT / "tests" / "typing" / "frontend" / "backend", name="shadowing_backend")
    withdraw(application)

    all_members: set[str] = set()
    for each in ast.walk(ast.parse(python.files_of(application)["api.pyi"])):
        if isinstance(each, ast.ClassDef):
            members = {
                ast.unparse(line.target) for line in each.body if isinstance(line, ast.AnnAssign)
            }
            types = {
                name.id
                for name in ast.walk(each)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)
            }
            all_members |= members
            assert types.isdisjoint(members)
    assert {"Any", "QueryReference", "list", "overload"} <= all_members


def test_without_a_schema_a_table_may_have_any_name() -> None:
    @query
    async def asked(ctx: Any) -> None: ...

    text = python.files_of(load([asked]))["data_model.py"]

    assert "TableName: TypeAlias = str\n" in text
    assert ["TableName"] == defined(text)


def test_what_is_written_is_python() -> None:
    application = load(ROOT / "tests" / "typing" / "frontend" / "backend", name="written_backend")
    withdraw(application)

    for text in python.files_of(application).values():
        compile(text, "written", "exec")
        assert {1} >= set(Counter(defined(text)).values())
