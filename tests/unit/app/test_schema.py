"""A schema knows its tables, refuses what cannot be, and checks documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import pytest

from engine.app.documents import table_name_of
from engine.app.schema import (
    IndexSpec,
    Schema,
    SearchIndexSpec,
    Table,
    VectorIndexSpec,
    define_schema,
    define_table,
)
from engine.app.types import Document, Id
from engine.app.validators import Validator, v
from engine.errors import DeclarationError, InvalidValue
from engine.model.ids import encode_id

TABLES = {"channels": 10_001, "messages": 10_002}.get
CHANNEL = encode_id(10_001, bytes(16))


class Channel(Document):
    name: str


class Message(Document):
    channel: Id[Channel]
    reply_to: NotRequired[Id[Message] | None]
    body: str
    likes: int
    author: NotRequired[dict[str, str]]
    embedding: NotRequired[list[float]]


def a_schema() -> Schema:
    return Schema(
        channels=Table(Channel).index("by_name", ["name"], unique=True),
        messages=Table(Message)
        .index("by_channel", ["channel", "likes"])
        .index("by_author", ["author.name"], staged=True)
        .search_index("search_body", search_field="body", filter_fields=["channel"])
        .vector_index("similar", vector_field="embedding", dimensions=3),
    )


def test_a_class_is_the_validator_of_its_table_without_the_fields_of_the_engine() -> None:
    schema = a_schema()

    assert schema.tables["channels"].validator == v.object({"name": v.string()})
    assert schema.tables["channels"].document is Channel
    assert schema.table_name_of(Message) == "messages"
    assert table_name_of(Message) == "messages"
    assert str(schema.tables["messages"].validator).startswith(
        'v.object({"channel": v.id("channels"), "reply_to": v.optional('
        'v.union(v.id("messages"), v.null()))'
    )


def test_indexes_are_kept_as_declared() -> None:
    table = a_schema().tables["messages"]

    assert table.indexes == (
        IndexSpec(name="by_channel", fields=("channel", "likes")),
        IndexSpec(name="by_author", fields=("author.name",), staged=True),
    )
    assert table.search_indexes == (
        SearchIndexSpec(name="search_body", search_field="body", filter_fields=("channel",)),
    )
    assert table.vector_indexes == (
        VectorIndexSpec(name="similar", vector_field="embedding", dimensions=3),
    )


def test_a_document_is_checked_with_and_without_the_fields_of_the_engine() -> None:
    check = a_schema().tables["messages"].compile(TABLES)
    doc = {"channel": CHANNEL, "body": "hi", "likes": 0}

    check(doc)
    check({**doc, "_id": "any", "_creationTime": 1.5})

    with pytest.raises(InvalidValue, match="extra field `_other`"):
        check({**doc, "_other": 1})
    with pytest.raises(InvalidValue, match=r"Path: \.likes"):
        check({**doc, "likes": 0.5})


def test_a_table_may_be_declared_with_validators() -> None:
    schema = define_schema(
        {
            "users": define_table({"name": v.string(), "age": v.optional(v.number())}),
            "events": define_table(
                v.union(v.object({"kind": v.literal("a")}), v.object({"n": v.number()}))
            ).index("by_kind", ["kind"]),
            "anything": define_table(v.any()).index("by_x", ["x.y"]),
        }
    )

    assert schema.tables["users"].document is None
    check = schema.tables["events"].compile(TABLES)
    check({"kind": "a", "_id": "x"})
    check({"n": 1})
    with pytest.raises(InvalidValue):
        check({"kind": "a", "n": 1})
    schema.tables["anything"].compile(TABLES)({"a": [1], "_id": "x"})


def test_a_table_may_hold_several_classes() -> None:
    class Circle(Document):
        radius: float

    class Square(Document):
        side: float

    schema = Schema(shapes=Table(Circle | Square))

    assert schema.table_name_of(Circle) == schema.table_name_of(Square) == "shapes"
    schema.tables["shapes"].compile(TABLES)({"side": 1})


def test_equal_schemas_have_equal_json() -> None:
    turned = Schema(messages=a_schema().tables["messages"], channels=a_schema().tables["channels"])

    assert turned.to_json() == a_schema().to_json()
    assert Schema(channels=Table(Channel)).to_json() == {
        "tables": [
            {
                "tableName": "channels",
                "indexes": [],
                "searchIndexes": [],
                "vectorIndexes": [],
                "documentType": {
                    "type": "object",
                    "value": {"name": {"fieldType": {"type": "string"}, "optional": False}},
                },
            }
        ],
        "schemaValidation": True,
    }


def test_validation_can_be_left_to_the_application() -> None:
    schema = define_schema({"users": define_table({"a": v.null()})}, schema_validation=False)

    assert not schema.validates
    assert schema.to_json()["schemaValidation"] is False


def table() -> Table:
    return Table({"a": v.string(), "b": v.object({"c": v.number()}), "vector": v.bytes()})


class Unbound(Document):
    x: int


class Pointing(Document):
    to: Id[Unbound]


@dataclass
class NoDict:
    x: int


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (lambda: table().index("by_a", []), "has 0 fields, not 1 to 15"),
        (lambda: table().index("by_a", [f"f{n}" for n in range(16)]), "has 16 fields"),
        (lambda: table().index("by_a", "a"), "fields are a list; write ['a']"),
        (lambda: table().index("by_a", ["a", "a"]), "names a field twice"),
        (lambda: table().index("by_a", ["_id"]), "`_id` is the engine's"),
        (lambda: table().index("by_a", ["_creationTime"]), "ends with _creationTime by itself"),
        (lambda: table().index("by_a", ["b..c"]), "cannot be the name of an indexed field"),
        (lambda: table().index("by_id", ["a"]), "that name is the engine's"),
        (lambda: table().index("by_creation_time", ["a"]), "that name is the engine's"),
        (lambda: table().index("_by_a", ["a"]), "that name is the engine's"),
        (lambda: table().index("by a", ["a"]), "cannot be the name of an index"),
        (lambda: table().index("x", ["a"]).index("x", ["b"]), "two indexes are called 'x'"),
        (lambda: table().index("x", ["a"]).index("y", ["a"]), "'y' is over the same fields as 'x'"),
        (
            lambda: table().search_index("x", search_field="a").search_index("y", search_field="a"),
            "'y': `a` is searched by 'x' already",
        ),
        (
            lambda: (
                Table(v.any())
                .vector_index("x", vector_field="a", dimensions=2)
                .vector_index("y", vector_field="a", dimensions=3)
            ),
            "a field has one vector index, of one number of dimensions",
        ),
        (lambda: table().search_index("x", search_field="_id"), "have fields of documents only"),
        (
            lambda: table().vector_index(
                "x", vector_field="vector", dimensions=2, filter_fields=["_creationTime"]
            ),
            "`_creationTime` is the engine's; search and vector indexes have",
        ),
        (lambda: Schema(t=table().search_index("x", search_field="b")), "`b` is never a text"),
        (lambda: Schema(t=table().search_index("x", search_field="b.c")), "never a text; write"),
        (
            lambda: Schema(t=Table({"a": v.array(v.string())}).search_index("x", search_field="a")),
            "`a` is never a text",
        ),
        (
            lambda: table().search_index("x", search_field="a").index("x", ["b"]),
            "two indexes are called 'x'",
        ),
        (
            lambda: table().search_index(
                "x", search_field="a", filter_fields=[f"f{n}" for n in range(17)]
            ),
            "has 17 fields, not 0 to 16",
        ),
        (lambda: table().vector_index("x", vector_field="a", dimensions=1), "of 1 dimensions"),
        (
            lambda: table().vector_index("x", vector_field="a", dimensions=HALVES),
            "dimensions are a whole number, as in 384, not 2.5",
        ),
        (lambda: table().vector_index("x", vector_field="a", dimensions=True), "not True"),
        (lambda: Schema(t=table().index("x", ["aa"])), "no document has a field `aa`. Did you"),
        (lambda: Schema(t=table().index("x", ["b.d"])), "no document has a field `b.d`"),
        (lambda: Schema(t=table().index("x", ["a.b"])), "no document has a field `a.b`"),
        (
            lambda: Schema(t=table().vector_index("x", vector_field="vector", dimensions=3)),
            "`vector` is no list of numbers",
        ),
        (lambda: Schema(t=Table({"_x": v.any()})), "a leading underscore is the engine's"),
        (lambda: Schema(t=Table({"é": v.any()})), "é"),
        (lambda: Schema(t=Table(v.string())), "documents cannot be v.string()"),
        (lambda: Schema(t=Table(v.union(v.object({}), v.null()))), "documents cannot be v.null()"),
        (lambda: Schema(_t=table()), "a leading underscore is the engine's"),
        (lambda: define_schema({"no table": table()}), "cannot be the name of a table"),
        (lambda: Schema(t=NOT_A_TABLE), "write t=Table(...)"),
        (lambda: Table(NoDict), "write class NoDict(Document)"),
        (lambda: Schema(a=Table(Channel), b=Table(Channel)), "is the class of two tables"),
        (lambda: Schema(p=Table(Pointing)), "Unbound is the class of no table"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(declare: Callable[[], object], why: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare()

    assert why in str(caught.value)


NOT_A_TABLE: Any = {"a": v.any()}
HALVES: Any = 2.5


@pytest.mark.parametrize(
    "validator",
    [
        v.any(),
        v.string(),
        v.optional(v.string()),
        v.union(v.number(), v.null(), v.string()),
        v.union(v.literal("on"), v.literal("off")),
        v.id("t"),
    ],
    ids=str,
)
def test_words_are_looked_for_in_whatever_may_be_a_text(validator: Validator) -> None:
    schema = Schema(t=Table({"a": validator}).search_index("x", search_field="a"))

    assert "a" == schema.tables["t"].search_indexes[0].search_field


def test_an_error_names_the_line_of_the_table() -> None:
    declared = table()

    with pytest.raises(DeclarationError, match=rf"^{__file__}:\d+: index 'by_id'"):
        declared.index("by_id", ["a"])


def test_a_table_has_so_many_indexes_and_no_more() -> None:
    full = Table(v.any())
    for n in range(64):
        full.index(f"by_{n}", [f"f{n}"])

    with pytest.raises(DeclarationError, match="one too many: 64 are allowed"):
        full.search_index("x", search_field="a")


def test_a_field_that_no_value_can_be_is_refused_with_its_class() -> None:
    class Strange(TypedDict):
        n: complex

    with pytest.raises(DeclarationError, match=r"'strange'.*Strange\.n: `complex` is no type"):
        Schema(strange=Table(Strange))


def test_a_class_without_a_table_says_which_line_to_write() -> None:
    with pytest.raises(DeclarationError, match=r"Schema\(unbounds=Table\(Unbound\)\)"):
        table_name_of(Unbound)
