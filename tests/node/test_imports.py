"""Documents that bring their ids and times, and the table that makes room for them."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import InvalidId, InvalidValue, UsageError
from engine.functions.targets import call_target
from engine.indexes.verify import verify
from engine.model.ids import decode_id, encode_id
from engine.node import Node
from engine.serving import imports
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, ask, mutate, serving

schema = Schema(
    people=Table({"name": v.string()}).index("by_name", ["name"]),
    pets=Table({"name": v.string()}),
)
ELSEWHERE = 10_077
MADE = 1_700_000_000_000.125


@mutation
async def add(ctx: MutationCtx, table: str, name: str) -> str:
    return await ctx.db.insert(table, {"name": name})


@query
async def names(ctx: QueryCtx) -> list[Any]:
    people = await ctx.db.query("people").with_index("by_name").collect()
    return [[doc["name"], doc["_id"], doc["_creationTime"]] for doc in people]


APP = [schema, add, names]


def document(number: int, name: str, table: int = ELSEWHERE) -> dict[str, Any]:
    doc_id = encode_id(table, number.to_bytes(16, "big"))
    return {"_id": doc_id, "_creationTime": MADE + number, "name": name}


async def bring_in(node: Node, *documents: dict[str, Any], table: str = "people") -> None:
    """As an import does it."""
    read = [imports.read(one) for one in documents]
    write = node.functions.turns.write
    await write(lambda turn: imports.place_table(turn, "", table, read))
    await write(lambda turn: [imports.insert(turn, "", table, one) for one in read])


async def test_documents_keep_the_ids_and_times_that_they_bring(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        await bring_in(node, document(2, "bob"), document(1, "ada"))
        new = await mutate(node, add, "people", "cy")
        found = await ask(node, names)
        *_, findings = verify(store.snapshot)

    brought = [
        [one["name"], one["_id"], one["_creationTime"]]
        for one in (document(1, "ada"), document(2, "bob"))
    ]
    assert brought == found[:2]
    assert ["cy", new] == found[2][:2]
    assert ELSEWHERE == decode_id(new)[0]
    assert [] == findings.problems


async def test_a_result_that_was_read_of_the_empty_table_does_not_hold_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        result = await node.functions.query(call_target(names, (), {}, "")[1], {}, caller=ADMIN)
        result.live.release()
        await bring_in(node, document(1, "ada"))

        assert [] == result.value
        assert ["ada"] == [name for name, *_ in await ask(node, names)]


async def test_an_empty_table_that_has_the_number_goes_out_of_its_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        pets = node.table_number("", "pets")
        assert pets is not None
        await bring_in(node, document(1, "ada", pets))
        pet = await mutate(node, add, "pets", "rex")

        assert pets == node.table_number("", "people")
        assert decode_id(pet)[0] == node.table_number("", "pets") != pets


async def test_a_table_that_is_not_there_yet_is_made_with_the_number(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await bring_in(node, document(1, "oak"), table="trees")

        assert ELSEWHERE == node.table_number("", "trees")


async def test_ids_of_other_tables_with_documents_are_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, add, "pets", "rex")
        pets = node.table_number("", "pets")
        assert pets is not None
        with pytest.raises(InvalidId, match="a table that here is 'pets', not 'people'"):
            await bring_in(node, document(1, "ada", pets))
        await mutate(node, add, "people", "ada")
        with pytest.raises(InvalidId, match="'people', which has documents already"):
            await bring_in(node, document(1, "ada"))


async def test_an_id_that_is_there_and_one_of_another_table_are_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await bring_in(node, document(1, "ada"))
        with pytest.raises(InvalidId, match=r"there is a document .* already"):
            await bring_in(node, document(1, "bob"))
        with pytest.raises(InvalidId, match="is an id of another table than 'people'"):
            await bring_in(node, document(2, "bob"), document(3, "cy", ELSEWHERE + 1))


@pytest.mark.parametrize(
    "brought",
    [
        {"_id": "x"},
        {"_id": 3},
        {"_id": encode_id(513, bytes(16))},
        {"_id": encode_id(1 << 30, bytes(16))},
        {"_creationTime": 0},
        {"_creationTime": -1.5},
        {"_creationTime": 2.0**53},
        {"_creationTime": True},
        {"_creationTime": "now"},
        {"_creationTime": {"$integer": "AQAAAAAAAAA="}},
    ],
)
def test_what_no_document_has_is_refused(brought: dict[str, Any]) -> None:
    with pytest.raises((InvalidId, InvalidValue, UsageError)):
        imports.read({"name": "ada", **brought})
