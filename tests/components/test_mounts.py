"""Mounted components: what they own, what passes between them and the application."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.errors import (
    DocumentNotFound,
    FunctionNotFound,
    InvalidCursor,
    SchemaViolation,
    VariableMissing,
)
from engine.functions.loader import load
from engine.functions.results import Caller
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.packages import importable, write

FILES = {
    "shelf_application/__init__.py": "",
    "shelf_application/app.py": """
        from engine import App
        from shelf_component import component
        app = App()
        left = app.use(component, name="left")
        right = app.use(component, name="right")
    """,
    "shelf_application/main.py": """
        from engine import ActionCtx, MutationCtx, PaginationOptions, QueryCtx, action, internal
        from engine import mutation, query, trigger
        from .app import left, right

        @trigger("marks")
        async def refuse(ctx: object, change: object) -> None:
            raise LookupError("the marks of the component are not those of the application")

        @mutation
        async def put(ctx: MutationCtx, text: str) -> str:
            return await ctx.run_mutation(left.put, {"text": text})

        @mutation
        async def put_and_fail(ctx: MutationCtx) -> None:
            await ctx.run_mutation(left.put, {"text": "never"})
            raise LookupError

        @mutation
        async def survive(ctx: MutationCtx) -> None:
            try:
                await ctx.run_mutation(left.fail, {})
            except LookupError:
                await ctx.run_mutation(left.put, {"text": "after"})

        @query
        async def found(ctx: QueryCtx, side: str) -> list[str]:
            return await ctx.run_query({"left": left, "right": right}[side].found)

        @query
        async def page(ctx: QueryCtx, side: str, opts: PaginationOptions) -> dict[str, object]:
            shelf = {"left": left, "right": right}[side]
            return await ctx.run_query(shelf.page, {"paginationOpts": opts})

        @query
        async def deep(ctx: QueryCtx) -> int:
            return await ctx.run_query(left.deep)

        @query
        async def seen(ctx: QueryCtx) -> list[str]:
            return await ctx.run_query(left.seen)

        @mutation
        async def call(ctx: MutationCtx, name: str) -> object:
            return await ctx.run_mutation(left[name])

        @action
        async def call_in_an_action(ctx: ActionCtx, name: str) -> object:
            return await ctx.run_mutation(left[name])

        @mutation
        async def postpone(ctx: MutationCtx) -> str:
            return await ctx.run_mutation(left.postpone)

        @action
        async def give_up(ctx: ActionCtx, owner: str, job: str) -> None:
            if owner == "application":
                await ctx.scheduler.cancel(job)
            else:
                shelf = {"left": left, "right": right}[owner]
                await ctx.run_action(shelf.give_up, {"job": job})

        @query
        async def jobs(ctx: QueryCtx) -> int:
            return len(await ctx.db.system.query("_scheduled_functions").collect())
    """,
    "shelf_component/__init__.py": """
        from engine import Component
        from shelf_inner import component as inner
        component = Component("shelf")
        within = component.use(inner, name="within")
    """,
    "shelf_component/schema.py": """
        from engine import Document, Id, Schema, Table
        class Item(Document):
            text: str
        class Mark(Document):
            item: Id[Item]
        schema = Schema(
            items=Table(Item).index("by_text", ["text"], unique=True),
            marks=Table(Mark)
            .index("by_item", ["item"])
            .reference("item", on_delete="cascade")
        )
    """,
    "shelf_component/crons.py": """
        from engine import Crons, internal
        crons = Crons()
        crons.interval("beat", internal.functions.beat, hours=1)
    """,
    "shelf_component/functions.py": """
        from engine import ActionCtx, Change, MutationCtx, PaginationOptions, QueryCtx, TriggerCtx
        from engine import action, env, internal_mutation, mutation, query, trigger
        from . import within
        from .schema import Item, Mark

        @trigger(Mark)
        async def note(ctx: TriggerCtx, change: Change[Mark]) -> None:
            await ctx.db.insert("seen", {"operation": change.operation})

        @query
        async def seen(ctx: QueryCtx) -> list[str]:
            return [doc["operation"] async for doc in ctx.db.query("seen")]

        @mutation
        async def marks_left(ctx: MutationCtx) -> int:
            item = await ctx.db.insert(Item, {"text": "marked"})
            await ctx.db.insert(Mark, {"item": item})
            await ctx.db.delete(item)
            return await ctx.db.count(Mark)

        @mutation
        async def mark_nothing(ctx: MutationCtx) -> None:
            item = await ctx.db.insert(Item, {"text": "marked"})
            await ctx.db.delete(item)
            await ctx.db.insert(Mark, {"item": item})

        @query
        async def page(ctx: QueryCtx, opts: PaginationOptions) -> dict[str, object]:
            found = await ctx.db.query(Item).with_index("by_text").paginate(opts)
            return {**found, "page": [item["text"] for item in found["page"]]}

        @mutation
        async def put(ctx: MutationCtx, text: str) -> str:
            await ctx.run_mutation("functions:count", {})
            await ctx.run_mutation(within.add)
            return await ctx.db.insert(Item, {"text": text})

        @mutation
        async def put_wrong(ctx: MutationCtx) -> None:
            await ctx.db.insert("items", {"text": 5})

        @internal_mutation
        async def count(ctx: MutationCtx) -> None:
            await ctx.db.insert("counts", {})

        @internal_mutation
        async def beat(ctx: MutationCtx) -> None:
            await ctx.db.insert(Item, {"text": ctx.now.isoformat()[:16]})

        @mutation
        async def fail(ctx: MutationCtx) -> None:
            await ctx.db.insert(Item, {"text": "never"})
            raise LookupError

        @query
        async def found(ctx: QueryCtx) -> list[str]:
            return [doc["text"] async for doc in ctx.db.query(Item).with_index("by_text")]

        @query
        async def deep(ctx: QueryCtx) -> int:
            return await ctx.run_query(within.total)

        @mutation
        async def who(ctx: MutationCtx) -> object:
            return await ctx.auth.get_user_identity()

        @mutation
        async def variable(ctx: MutationCtx) -> str:
            return env["PATH"]

        @mutation
        async def later(ctx: MutationCtx) -> int:
            await ctx.scheduler.run_after(1000, put, "later")
            return len(await ctx.db.system.query("_scheduled_functions").collect())

        @mutation
        async def postpone(ctx: MutationCtx) -> str:
            return await ctx.scheduler.run_after(1000, put, "later")

        @action
        async def give_up(ctx: ActionCtx, job: str) -> None:
            await ctx.scheduler.cancel(job)

        @query
        async def jobs(ctx: QueryCtx) -> dict[str, object]:
            jobs = ctx.db.system.query("_scheduled_functions")
            later = jobs.with_index("by_creation_time", lambda r: r.gt("_creationTime", 0))
            found = [await jobs.collect(), await jobs.order("desc").take(9), await later.collect()]
            metrics = await ctx.meta.get_transaction_metrics()
            return {"found": list(map(len, found)), "read": metrics["documents_read"]["used"]}
    """,
    "shelf_inner/__init__.py": """
        from engine import Component
        component = Component("inner")
    """,
    "shelf_inner/functions.py": """
        from engine import MutationCtx, QueryCtx, mutation, query

        @mutation
        async def add(ctx: MutationCtx) -> None:
            await ctx.db.insert("items", {"n": 1})

        @query
        async def total(ctx: QueryCtx) -> int:
            return await ctx.db.count("items")
    """,
}


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("shelves")
    write(folder, FILES)
    with importable(folder, "shelf_"):
        yield load(folder / "shelf_application")


@pytest.fixture
def shelves(application: Any) -> Iterator[BlockingHarness]:
    with open_place(application) as place:
        yield BlockingHarness(place)


def test_each_mount_has_tables_of_its_own(shelves: BlockingHarness) -> None:
    shelves.mutation("main:put", {"text": "a"})

    assert ["a"] == shelves.query("main:found", {"side": "left"})
    assert [] == shelves.query("main:found", {"side": "right"})


def test_a_mount_within_a_mount_has_tables_of_its_own(shelves: BlockingHarness) -> None:
    shelves.mutation("main:put", {"text": "a"})
    shelves.mutation("main:put", {"text": "b"})

    assert 2 == shelves.query("main:deep")


def test_a_component_pages_over_its_own_tables_while_rows_come_and_go(
    shelves: BlockingHarness,
) -> None:
    for text in "bdfh":
        shelves.mutation("main:put", {"text": text})
    first = page_of(shelves, cursor=None)
    middle = first["continueCursor"]
    for text in "acg":
        shelves.mutation("main:put", {"text": text})

    again = page_of(shelves, cursor=None, endCursor=middle)
    rest = page_of(shelves, 9, cursor=middle)

    assert ["b", "d"] == first["page"]
    assert (list("abcd"), list("fgh")) == (again["page"], rest["page"])
    with pytest.raises(InvalidCursor):
        page_of(shelves, side="right", cursor=middle)


def page_of(shelves: BlockingHarness, items: int = 2, side: str = "left", **cursors: Any) -> Any:
    opts = {"numItems": items, **cursors}
    return shelves.query("main:page", {"side": side, "paginationOpts": opts})


def test_a_mutation_that_fails_takes_the_writes_of_components_with_it(
    shelves: BlockingHarness,
) -> None:
    with pytest.raises(LookupError):
        shelves.mutation("main:put_and_fail")

    assert [] == shelves.query("main:found", {"side": "left"})


def test_a_component_that_fails_can_be_survived(shelves: BlockingHarness) -> None:
    shelves.mutation("main:survive")

    assert ["after"] == shelves.query("main:found", {"side": "left"})


def test_the_schema_of_a_component_is_kept(shelves: BlockingHarness) -> None:
    with pytest.raises(SchemaViolation):
        shelves.mutation("main:call", {"name": "put_wrong"})
    shelves.mutation("main:put", {"text": "once"})
    with pytest.raises(SchemaViolation, match="unique"):
        shelves.mutation("main:put", {"text": "once"})


def test_documents_of_a_component_refer_to_each_other(shelves: BlockingHarness) -> None:
    assert 0 == shelves.mutation("main:call", {"name": "marks_left"})
    with pytest.raises(SchemaViolation, match="of 'items', which is not there"):
        shelves.mutation("main:call", {"name": "mark_nothing"})


def test_a_mount_has_triggers_of_its_own(shelves: BlockingHarness) -> None:
    shelves.mutation("main:call", {"name": "marks_left"})

    assert ["insert", "delete"] == shelves.query("main:seen")


@pytest.mark.parametrize("caller", ["call", "call_in_an_action"])
def test_what_is_internal_in_a_component_cannot_be_called_from_outside(
    shelves: BlockingHarness, caller: str
) -> None:
    run = shelves.mutation if caller == "call" else shelves.action

    with pytest.raises(FunctionNotFound, match="Internal ones are the component's own"):
        run(f"main:{caller}", {"name": "count"})


@pytest.mark.parametrize("caller", ["call", "call_in_an_action"])
def test_a_component_does_not_know_the_user(shelves: BlockingHarness, caller: str) -> None:
    ada = shelves.with_identity(name="Ada")
    run = ada.mutation if caller == "call" else ada.action

    assert run(f"main:{caller}", {"name": "who"}) is None


@pytest.mark.parametrize("caller", ["call", "call_in_an_action"])
def test_a_component_has_no_environment(shelves: BlockingHarness, caller: str) -> None:
    run = shelves.mutation if caller == "call" else shelves.action

    with pytest.raises(VariableMissing):
        run(f"main:{caller}", {"name": "variable"})


def test_a_component_schedules_its_own_functions_and_sees_its_own_jobs(
    shelves: BlockingHarness,
) -> None:
    assert 1 == shelves.mutation("main:call", {"name": "later"})
    assert 0 == shelves.query("main:jobs")

    shelves.finish_all_scheduled_functions()

    assert "later" in shelves.query("main:found", {"side": "left"})


def test_jobs_of_others_cost_a_component_nothing_and_do_not_concern_it(
    application: Any,
) -> None:
    with open_place(application) as place:
        functions = place.stage.node.functions

        def postponed(side: str) -> None:
            place.wait(partial(call, functions.mutation, "postpone", side))

        for side in ["left", "right", "right", "left"]:
            postponed(side)
        seen = place.wait(partial(call, functions.query, "jobs", "left"))
        assert [2, 2, 2] == seen.value["found"]
        assert 3 * 3 == seen.value["read"], "its two jobs and the tick of its cron, three times"

        postponed("right")
        assert seen.live.invalidated_at is None
        postponed("left")
        assert seen.live.invalidated_at is not None
        seen.live.release()


async def call(run: Any, name: str, side: str) -> Any:
    """Run a function of a mount as an administrator."""
    return await run(f"functions:{name}", {}, caller=Caller(admin=True), component=side)


def test_an_action_cancels_jobs_of_its_own_component_and_no_others(
    shelves: BlockingHarness,
) -> None:
    job = shelves.mutation("main:postpone")
    for other in ("right", "application"):
        with pytest.raises(DocumentNotFound):
            shelves.action("main:give_up", {"owner": other, "job": job})

    shelves.action("main:give_up", {"owner": "left", "job": job})

    shelves.finish_all_scheduled_functions()
    assert "later" not in shelves.query("main:found", {"side": "left"})


def test_crons_of_a_component_run_in_each_mount(shelves: BlockingHarness) -> None:
    shelves.advance(timedelta(minutes=61))

    beats = ["2026-01-01T00:00", "2026-01-01T01:00"]
    assert beats == shelves.query("main:found", {"side": "left"})
    assert beats == shelves.query("main:found", {"side": "right"})
