"""What documents look like, from the documents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.app.inference import NAMES_MAX, Inferred, Seen, document_fields, seen_documents, snippet
from engine.app.schema import IndexSpec, Schema, SearchIndexSpec, Table
from engine.app.validators import Validator, v
from engine.model.ids import id_of, row_key
from engine.model.values import Int64, Value
from tests.unit.model import canonical

NAMES = {10_001: "users", 10_002: "posts"}
NUMBERS = {name: number for number, name in NAMES.items()}
USER, POST, STRANGER = (id_of(row_key(number, bytes(16))) for number in (10_001, 10_002, 10_009))
DOCUMENTS = st.lists(
    st.dictionaries(canonical.FIELD_NAME.filter(lambda n: n[:1] != "_"), canonical.VALUE),
    max_size=5,
)


def inferred(*values: Value) -> Validator:
    seen = Seen()
    for value in values:
        seen.add(value)
    return seen.validator(NAMES.get)


def pasted(text: str) -> Schema:
    scope = {"Schema": Schema, "Table": Table, "v": v}
    exec(text.replace("from headrace import Schema, Table, v\n", ""), scope)
    schema: Any = scope["schema"]
    assert isinstance(schema, Schema)
    return schema


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], v.any()),
        ([1, 2.5], v.number()),
        ([Int64(1), None], v.union(v.int64(), v.null())),
        (["a", True, b""], v.union(v.boolean(), v.bytes(), v.string())),
        ([{"a": 1}, {"a": "x", "b": None}], None),
        ([USER], v.id("users")),
        ([USER, POST], v.union(v.id("users"), v.id("posts"))),
        ([USER, "a"], v.string()),
        ([STRANGER], v.string()),
        ([USER, STRANGER], v.string()),
        ([[], [1]], v.array(v.number())),
        ([[]], v.array(v.any())),
    ],
)
def test_what_was_seen_is_accepted_and_little_else(
    values: list[Value], expected: Validator | None
) -> None:
    expected = expected or v.object(
        {"a": v.union(v.number(), v.string()), "b": v.optional(v.null())}
    )

    assert expected == inferred(*values)


def test_an_object_with_too_many_names_is_a_record() -> None:
    many = {f"n{n}": n for n in range(NAMES_MAX + 1)}
    by_user = {id_of(row_key(10_001, bytes([n]) * 16)): [n] for n in range(NAMES_MAX + 1)}

    assert v.record(v.string(), v.number()) == inferred({"n0": 1}, many, {"other": 2})
    assert v.record(v.id("users"), v.array(v.number())) == inferred(by_user)
    assert inferred({"deep": many}, {"deep": {"a": "b"}}) == v.object(
        {"deep": v.record(v.string(), v.union(v.number(), v.string()))}
    )


@given(st.lists(canonical.VALUE, max_size=6))
def test_all_that_was_seen_is_accepted(values: list[Value]) -> None:
    seen = Seen(names_max=2)
    for value in values:
        seen.add(value)
    validator = seen.validator(NAMES.get)

    assert [] == [one for one in values if validator.mismatch(one, NUMBERS.get)]


@given(DOCUMENTS)
def test_a_schema_that_is_pasted_accepts_the_documents(documents: list[dict[str, Value]]) -> None:
    seen = seen_documents()
    for document in documents:
        seen.add(document_fields({**document, "_id": POST, "_creationTime": 1}))
    indexes = (
        IndexSpec(name="by_a", fields=("a", "b.c"), unique=True),
        IndexSpec(name="by_c", fields=("c",), staged=True),
    )
    searched = SearchIndexSpec(name="search", search_field="text", filter_fields=("a",))

    text = snippet(
        [Inferred(name="posts", seen=seen, indexes=indexes, search_indexes=(searched,))], NAMES.get
    )

    table = pasted(text).tables["posts"]
    assert indexes == table.indexes
    assert (searched,) == table.search_indexes
    assert [] == [one for one in documents if table.validator.mismatch(one, NUMBERS.get)]


def test_what_is_printed_reads_like_what_people_write() -> None:
    seen = seen_documents()
    seen.add({"body": "hello", "author": USER})
    seen.add({"body": "hi", "author": USER, "it's": {'a "b"': 1}})
    indexes = (IndexSpec(name="by_author", fields=("author",)),)

    text = snippet(
        [Inferred(name="posts", seen=seen, indexes=indexes), Inferred(name="users", seen=Seen())],
        NAMES.get,
    )

    assert (
        """\
from headrace import Schema, Table, v

schema = Schema(
    posts=Table(
        {
            "body": v.string(),
            "author": v.id("users"),
            "it's": v.optional(v.object({"a \\"b\\"": v.number()})),
        }
    ).index("by_author", ["author"]),
    users=Table(v.any()),
)
"""
        == text
    )


def test_a_table_may_be_called_what_python_reserves() -> None:
    text = snippet([Inferred(name="class", seen=Seen())], NAMES.get)

    assert ["class"] == list(pasted(text).tables)
