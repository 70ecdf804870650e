"""What the engine could not do ends the whole execution, whoever catches it on the way."""

from __future__ import annotations

from contextlib import suppress

import pytest

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.errors import FunctionTimeout, SnapshotTooOld, StoreDamaged
from engine.indexes.snapshot import SharedSnapshot
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ask, mutate, serving

error: list[Exception] = []
runs: list[int] = []


@query
async def texts(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


@query
async def careless(ctx: QueryCtx) -> str:
    runs.append(1)
    with suppress(Exception):
        await ctx.db.query("notes").collect()
    return f"run {len(runs)}"


@mutation
async def child(ctx: MutationCtx) -> None:
    await ctx.db.query("notes").collect()
    await ctx.db.insert("notes", {"text": "child"})


@mutation
async def parent(ctx: MutationCtx, nested: bool) -> None:
    await ctx.db.insert("notes", {"text": "parent"})
    with suppress(Exception):
        if nested:
            await ctx.run_mutation(child)
        else:
            await ctx.db.query("notes").collect()


@pytest.fixture(autouse=True)
def _failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a snapshot's age fails once for each error that is planned."""
    runs.clear()
    error.clear()
    whole = SharedSnapshot.check_age

    def check_age(self: SharedSnapshot) -> None:
        whole(self)
        if error:
            raise error.pop()

    monkeypatch.setattr(SharedSnapshot, "check_age", check_age)


@pytest.mark.parametrize("nested", [False, True])
async def test_a_mutation_whose_snapshot_was_too_old_runs_again_though_it_caught_that(
    nested: bool,
) -> None:
    async with serving([texts, child, parent]) as node:
        error.append(SnapshotTooOld("too old"))
        await mutate(node, parent, nested)

        expected = ["parent", "child"] if nested else ["parent"]
        assert expected == await ask(node, texts)


async def test_a_query_whose_snapshot_was_too_old_runs_again_though_it_caught_that() -> None:
    async with serving([careless, child]) as node:
        await mutate(node, child)
        error.append(SnapshotTooOld("too old"))

        assert "run 2" == await ask(node, careless)


async def test_a_query_that_outlives_every_snapshot_is_refused_though_it_caught_that() -> None:
    async with serving([careless, child]) as node:
        await mutate(node, child)
        error.extend(SnapshotTooOld("too old") for _ in range(10))

        with pytest.raises(FunctionTimeout):
            await ask(node, careless)


@pytest.mark.parametrize("nested", [False, True])
async def test_what_is_damaged_fails_the_mutation_though_it_caught_that(nested: bool) -> None:
    store = MemoryStore()
    async with serving([texts, child, parent], store=store) as node:
        error.append(StoreDamaged("damaged"))
        with pytest.raises(StoreDamaged):
            await mutate(node, parent, nested)

        assert [] == await ask(node, texts)
