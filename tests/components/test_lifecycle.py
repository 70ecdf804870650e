"""A component is mounted, is not, is again, and is deleted: what becomes of what it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.errors import UnmountedComponent, UsageError
from engine.functions.loader import load
from engine.indexes.verify import verify
from engine.node import Node
from engine.store.interface import Batch, Tree
from engine.store.memory_store import MemoryStore
from tests.components.packages import importable, write
from tests.node.nodes import ADMIN, ask, mutate, serving

MAIN = """
    from engine import MutationCtx, QueryCtx, internal_mutation, mutation, query
    from .app import left

    @mutation
    async def call(ctx: MutationCtx, name: str) -> object:
        return await ctx.run_mutation(left[name])

    @mutation
    async def postpone(ctx: MutationCtx) -> str:
        return await ctx.scheduler.run_after(1000, left.put)

    @mutation
    async def handle(ctx: MutationCtx) -> str:
        return await ctx.create_function_handle(left.put)

    @mutation
    async def call_it(ctx: MutationCtx, handle: str) -> object:
        return await ctx.run_mutation(handle)

    @query
    async def found(ctx: QueryCtx) -> list[str]:
        return await ctx.run_query(left.found)
"""
FILES = {
    "keep_with/__init__.py": "",
    "keep_with/app.py": """
        from engine import App
        from keep_component import component
        app = App()
        left = app.use(component, name="left")
        right = app.use(component, name="right")
    """,
    "keep_with/main.py": MAIN,
    "keep_without/__init__.py": "",
    "keep_without/app.py": """
        from engine import App
        from keep_component import component
        app = App()
        right = app.use(component, name="right")
    """,
    "keep_without/main.py": """
        from engine import MutationCtx, QueryCtx, mutation, query

        @mutation
        async def call_it(ctx: MutationCtx, handle: str) -> object:
            return await ctx.run_mutation(handle)

        @query
        async def state_of(ctx: QueryCtx, job: str) -> object:
            found = await ctx.db.system.get(job)
            return None if found is None else found["state"]
    """,
    "keep_moved/__init__.py": "",
    "keep_moved/app.py": """
        from engine import App
        from keep_component import component
        app = App()
        left = app.use(component, name="moved")
    """,
    "keep_moved/main.py": MAIN,
    "keep_component/__init__.py": """
        from engine import Component
        from keep_inner import component as inner
        component = Component("keep")
        within = component.use(inner, name="within")
    """,
    "keep_component/schema.py": """
        from engine import Schema, Table, v
        schema = Schema(items=Table({"text": v.string()}).index("by_text", ["text"]))
    """,
    "keep_component/crons.py": """
        from engine import Crons, internal
        crons = Crons()
        crons.daily("nightly", internal.functions.night, hour=3)
    """,
    "keep_component/functions.py": """
        from engine import MutationCtx, QueryCtx, internal_mutation, mutation, query
        from . import within

        @mutation
        async def put(ctx: MutationCtx, text: str = "put") -> None:
            await ctx.db.insert("items", {"text": text})
            await ctx.db.insert("loose", {"text": text})
            await ctx.run_mutation(within.add)

        @mutation
        async def later(ctx: MutationCtx) -> None:
            await ctx.scheduler.run_after(1000, put, "later")

        @mutation
        async def again(ctx: MutationCtx) -> None:
            await ctx.crons.register("again", put, {"text": "again"}, hours=1)

        @internal_mutation
        async def night(ctx: MutationCtx) -> None:
            await ctx.db.insert("items", {"text": "night"})

        @query
        async def found(ctx: QueryCtx) -> list[str]:
            return [doc["text"] async for doc in ctx.db.query("items").with_index("by_text")]
    """,
    "keep_inner/__init__.py": """
        from engine import Component
        component = Component("inner")
    """,
    "keep_inner/functions.py": """
        from engine import MutationCtx, mutation

        @mutation
        async def add(ctx: MutationCtx) -> None:
            await ctx.db.insert("items", {})
            await ctx.scheduler.run_after(3_600_000, add)
    """,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder: Path = tmp_path_factory.mktemp("keep")
    write(folder, FILES)
    with importable(folder, "keep_"):
        yield folder


@pytest.fixture(scope="module")
def applications(folder: Path) -> tuple[Any, Any]:
    """One that mounts the component as `left` and as `right`, and one without `left`."""
    return load(folder / "keep_with"), load(folder / "keep_without")


def labels(node: Node) -> set[str]:
    return {table.label for table in node.committer.head.catalog.user_tables}


async def test_what_is_mounted_no_longer_keeps_its_data_and_goes_on_when_it_is_again(
    applications: tuple[Any, Any], autojump_clock: MockClock
) -> None:
    with_left, without = applications
    store = MemoryStore()
    async with serving(None, store=store) as node:
        first = await node.push(with_left)
        await mutate(node, "main:call", {"name": "put"})
        before = labels(node)

        gone = await node.push(without)
        kept = labels(node)
        again = await node.push(with_left)

        assert {"mounted left", "mounted right", "mounted left/within"} <= set(first)
        unmounted = [f"unmounted {path}; its data stays" for path in ("left", "left/within")]
        assert [*unmounted, "removed cron left/nightly"] == gone
        assert {"left/items", "left/loose", "left/within/items", "right/items"} == before == kept
        assert "mounted left again, with its data" in again
        assert ["put"] == await ask(node, "main:found")
        *_, findings = verify(node.store.snapshot)
        assert [] == findings.problems


async def test_damage_to_what_a_component_has_is_found_by_its_path(
    applications: tuple[Any, Any], autojump_clock: MockClock
) -> None:
    store = MemoryStore()
    async with serving(applications[0], store=store) as node:
        await mutate(node, "main:call", {"name": "put"})
        table = node.committer.head.catalog.by_name["left", "items"]
    batch = Batch()
    with store.snapshot() as snapshot:
        prefix = table.indexes["by_text"].prefix
        (entry,) = [k for k, _ in snapshot.range(Tree.ENTRIES, b"", None) if k.startswith(prefix)]
    batch.delete(Tree.ENTRIES, entry)
    await store.apply(batch.encode())

    *_, findings = verify(store.snapshot)

    (problem,) = findings.problems
    assert problem.startswith("the index left/items.by_text has 0 entries for 1 documents")


async def test_a_handle_of_what_is_not_mounted_is_good_again_when_it_is(
    applications: tuple[Any, Any], autojump_clock: MockClock
) -> None:
    with_left, without = applications
    async with serving(with_left) as node:
        handle = await mutate(node, "main:handle")
        await mutate(node, "main:call_it", {"handle": handle})
        await node.push(without)
        with pytest.raises(UnmountedComponent):
            await mutate(node, "main:call_it", {"handle": handle})
        await node.push(with_left)
        await mutate(node, "main:call_it", {"handle": handle})

        assert ["put"] * 2 == await ask(node, "main:found")


async def test_what_is_mounted_under_another_name_is_another(
    applications: tuple[Any, Any], folder: Path, autojump_clock: MockClock
) -> None:
    async with serving(applications[0]) as node:
        handle = await mutate(node, "main:handle")
        for name in ("put", "later"):
            await mutate(node, "main:call", {"name": name})
        await node.push(load(folder / "keep_moved"))

        with pytest.raises(UnmountedComponent):
            await mutate(node, "main:call_it", {"handle": handle})
        await trio.sleep(2)
        assert [] == await ask(node, "main:found")
        assert handle != await mutate(node, "main:handle")


async def test_nobody_calls_or_writes_to_what_is_not_mounted(
    applications: tuple[Any, Any], autojump_clock: MockClock
) -> None:
    with_left, without = applications
    async with serving(with_left) as node:
        await mutate(node, "main:call", {"name": "put"})
        job = await mutate(node, "main:postpone")
        await node.push(without)

        for component in ("left", "left/within", "nowhere"):
            result = await node.functions.mutation(
                "functions:put", {}, caller=ADMIN, component=component
            )
            assert result.failure is not None
            assert isinstance(result.failure.error, UnmountedComponent)
            with pytest.raises(UnmountedComponent, match=f"mounted as '{component}'"):
                node.functions.deployment.schemas.check(component, "items", {"text": "x"})
        await trio.sleep(2)
        state = await ask(node, "main:state_of", {"job": job})

    assert "failed" == state["kind"]
    assert "no component is mounted as 'left'" in state["error"]


async def test_jobs_and_crons_of_what_is_not_mounted_wait(
    applications: tuple[Any, Any], autojump_clock: MockClock
) -> None:
    with_left, without = applications
    async with serving(with_left) as node:
        await mutate(node, "main:call", {"name": "later"})
        await node.push(without)
        await trio.sleep(5)
        await node.push(with_left)
        await trio.sleep(1)
        assert ["later"] == await ask(node, "main:found")

        await mutate(node, "main:call", {"name": "again"})
        await trio.sleep(1)
        await node.push(without)
        await trio.sleep(4 * 3600)
        await node.push(with_left)
        await trio.sleep(3600)

        assert ["again"] * 3 + ["later"] == await ask(node, "main:found")


async def test_deleting_is_an_act_of_its_own_and_takes_everything(
    applications: tuple[Any, Any], autojump_clock: MockClock
) -> None:
    with_left, without = applications
    async with serving(with_left) as node:
        for name in ("put", "later", "again"):
            await mutate(node, "main:call", {"name": name})
        await trio.sleep(0.5)  # in which the cron ran once
        for path in ("left", "left/within"):
            with pytest.raises(UsageError, match=f"component '{path}|is mounted"):
                await node.delete_component(path)
        await node.push(without)

        deleted = await node.delete_component("left")
        left = labels(node)
        crons = [(row["component"], row["cron"]) for row in await node.scheduler.jobs.crons()]
        jobs = await node.scheduler.jobs.rows("pending", 100, lambda _: True)
        for path in ("left", "left/within", "nowhere", "", "lef"):
            with pytest.raises(UsageError, match="nothing is kept"):
                await node.delete_component(path)
        await node.push(with_left)
        await trio.sleep(7200)

        assert 6 == deleted
        assert {"right/items"} == left
        assert ([("right", "nightly")], []) == (crons, jobs)
        assert [] == await ask(node, "main:found")
