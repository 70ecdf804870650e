"""What documents look like is told as a schema, and a push of it succeeds."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import RequestRefused, SchemaViolation
from engine.node import Node
from engine.serving import shapes
from tests.node.nodes import application, ask, mutate, serving
from tests.unit.model import canonical

FIELD = canonical.FIELD_NAME.filter(lambda name: not name.startswith("_"))
DOCUMENTS = st.lists(st.dictionaries(FIELD, canonical.VALUE, max_size=4), max_size=4)


@mutation
async def add(ctx: MutationCtx, table: str, documents: list[Any]) -> list[Any]:
    return [await ctx.db.insert(table, document) for document in documents]


@query
async def count(ctx: QueryCtx, table: str) -> int:
    return await ctx.db.count(table)


def told(node: Node, name: str | None = None) -> str:
    """The schema that the documents have."""
    *_, last = shapes.shapes(node.store.snapshot, "", name)
    assert last.schema is not None
    assert last.done == last.total
    return last.schema


def pasted(text: str) -> Schema:
    scope: dict[str, Any] = {}
    exec(text, scope)
    schema: Schema = scope["schema"]
    return schema


@given(DOCUMENTS, DOCUMENTS)
def test_a_schema_that_was_told_is_pushed_over_its_documents(first: Any, second: Any) -> None:
    async def infer_paste_push() -> None:
        async with serving([add, count]) as node:
            ids = await mutate(node, add, table="items", documents=first)
            others = [{**document, "item": doc_id} for doc_id in ids for document in second]
            await mutate(node, add, table="others", documents=others)

            await node.push(application(add, count, pasted(told(node))))

            assert len(first) == await ask(node, count, table="items")

    trio.run(infer_paste_push)


@pytest.mark.parametrize("slice_rows", [1, 2, 250])
async def test_all_documents_are_looked_at_wherever_slices_end(
    slice_rows: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(shapes, "SLICE_ROWS", slice_rows)
    async with serving([add, count]) as node:
        people = [{"name": "ada"}, {"name": "bob", "age": 3}, {"name": None}, {"name": "cy"}]
        ids = await mutate(node, add, table="people", documents=people)
        await mutate(node, add, table="pets", documents=[{"owner": ids[0]}])

        schema = pasted(told(node))
        await node.push(application(add, count, schema))

        with pytest.raises(SchemaViolation):
            await mutate(node, add, table="people", documents=[{"name": 1}])
    assert {"name": v.union(v.null(), v.string()), "age": v.optional(v.number())} == (
        schema.tables["people"].validator.fields  # type: ignore[attr-defined]
    )
    assert Table({"owner": v.id("people")}).validator == schema.tables["pets"].validator


async def test_indexes_are_told_too_so_that_a_push_of_it_drops_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    people = (
        Table(v.any())
        .index("by_name", ["name", "born.year"], unique=True)
        .index("by_age", ["age"], staged=True)
        .search_index("search", search_field="about", filter_fields=["name"])
    )
    async with serving([add, count, Schema(people=people)]) as node:
        await mutate(node, add, table="people", documents=[{"name": "ada", "born": {"year": 1815}}])

        said = await node.push(application(add, count, pasted(told(node, "people"))))

    assert ["changed table people"] == said


async def test_rules_that_no_document_shows_are_named(
    autojump_clock: trio.testing.MockClock,
) -> None:
    people = Table({"boss": v.optional(v.id("people"))}).index("by_boss", ["boss"])
    ruled = people.reference("boss", on_delete="restrict").check("grown", lambda _: True)
    async with serving([add, count, Schema(people=ruled, pets=Table(v.any()))]) as node:
        text = told(node)

    assert '\n# left out of people: .reference("boss", ...), .check("grown", ...)\n' in text
    assert 1 == text.count("left out")


async def test_a_table_that_is_not_there_is_refused_with_those_that_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, count]) as node:
        await mutate(node, add, table="people", documents=[{}])

        with pytest.raises(RequestRefused, match="no table 'persons'; there are people"):
            told(node, "persons")
