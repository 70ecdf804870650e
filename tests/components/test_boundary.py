"""What passes between an application and a component: values that are checked and copied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from engine.errors import (
    ArgumentValidationError,
    DeclarationError,
    InvalidId,
    ReturnsValidationError,
    VariableMissing,
)
from engine.functions.loader import load
from engine.model.limits import Limits
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.packages import importable, write
from tests.node import nodes

FILES = {
    "fence_application/__init__.py": "",
    "fence_application/app.py": """
        from engine import App
        from fence_component import Settings, component
        app = App()
        near = app.use(component, name="near", config=Settings("near"), env={"TOKEN": "of near"})
        far = app.use(component, name="far", config={"label": "far", "most": 3})
        MOUNTS = {"near": near, "far": far}
    """,
    "fence_application/main.py": """
        import time
        from typing import Any
        from engine import ActionCtx, Change, MutationCtx, QueryCtx, TriggerCtx
        from engine import action, gather, mutation, query, trigger
        from .app import MOUNTS, near

        @query
        async def ask(ctx: QueryCtx, mount: str, name: str, args: dict[str, object]) -> object:
            return await ctx.run_query(MOUNTS[mount][name], args)

        @mutation
        async def change(
            ctx: MutationCtx, mount: str, name: str, args: dict[str, object]
        ) -> object:
            return await ctx.run_mutation(MOUNTS[mount][name], args)

        @action
        async def act(ctx: ActionCtx, mount: str, name: str, args: dict[str, object]) -> object:
            return await ctx.run_action(MOUNTS[mount][name], args)

        @mutation
        async def share(ctx: MutationCtx) -> object:
            given = {"value": {"list": [1]}}
            call = ctx.run_mutation(near.spoil, given)
            given["value"]["list"].append(2)
            first = await call
            first["list"].append("mine")
            second = await ctx.run_mutation(near.spoil, {"value": {"list": [1]}})
            return [given, first, second, await ctx.run_query(near.spoiled)]

        @mutation
        async def together(ctx: MutationCtx) -> list[int]:
            return list(await gather(*[ctx.run_mutation(near.count_on) for _ in range(5)]))

        @action
        async def apart(ctx: ActionCtx) -> list[int]:
            return [await ctx.run_mutation(near.count_on) for _ in range(5)]

        @mutation
        async def survive(ctx: MutationCtx) -> list[int]:
            try:
                await ctx.run_mutation(near.schedule_and_fail)
            except LookupError:
                pass
            return await ctx.run_query(near.jobs)

        @trigger("notes")
        async def keep_in_step(ctx: TriggerCtx, change: Change[Any]) -> None:
            await ctx.run_mutation(near.count_on)
            if change.new["text"] == "bad":
                raise LookupError

        @mutation
        async def note(ctx: MutationCtx, text: str) -> int:
            await ctx.db.insert("notes", {"text": text})
            return await ctx.run_mutation(near.count_on) - await ctx.db.count("notes")

        @mutation
        async def clocks(ctx: MutationCtx) -> bool:
            inside = await ctx.run_mutation(near.clock)
            return inside == [ctx.now_ms, str(time.time_ns()), ctx.db.vars.commit_ts]
    """,
    "fence_component/__init__.py": """
        from dataclasses import dataclass
        from engine import Component

        @dataclass
        class Settings:
            label: str
            most: int = 10

        component = Component("fence", config=Settings)
    """,
    "fence_component/schema.py": """
        from engine import Schema, Table, v
        schema = Schema(items=Table({"value": v.any()}), counts=Table({"n": v.number()}))
    """,
    "fence_component/functions.py": """
        import time
        from typing import Any, Literal
        from engine import ActionCtx, Id, MutationCtx, QueryCtx, action, env, mutation, query
        from . import Settings, component

        settings: Settings = component.config
        kept: list[Any] = []

        @query
        async def told(ctx: QueryCtx) -> list[object]:
            assert settings is component.config
            return [settings.label, settings.most, sorted(env.items())]

        @action
        def told_in_thread(ctx: object) -> str:
            return f"{component.config.label} {env['TOKEN']}"

        @mutation
        async def token(ctx: MutationCtx) -> str:
            return env["TOKEN"]

        @query
        async def strict(ctx: QueryCtx, n: int) -> int:
            return n

        @query
        async def broken(ctx: QueryCtx, n: int) -> int:
            return "no number"

        @mutation
        async def spoil(ctx: MutationCtx, value: Any) -> Any:
            kept.append(value)
            await ctx.db.insert("items", {"value": value})
            value["list"].append("its own")
            return value

        @query
        async def spoiled(ctx: QueryCtx) -> list[Any]:
            return [doc["value"] async for doc in ctx.db.query("items")] + kept

        @mutation
        async def count_on(ctx: MutationCtx) -> int:
            await ctx.db.insert("counts", {"n": 1})
            return await ctx.db.count("counts")

        @mutation
        async def schedule_and_fail(ctx: MutationCtx) -> None:
            await ctx.db.insert("items", {"value": 1})
            await ctx.scheduler.run_after(0, count_on)
            raise LookupError

        @query
        async def jobs(ctx: QueryCtx) -> list[int]:
            jobs = await ctx.db.system.query("_scheduled_functions").collect()
            return [len(jobs), await ctx.db.count("items")]

        @mutation
        async def clock(ctx: MutationCtx) -> list[object]:
            return [ctx.now_ms, str(time.time_ns()), ctx.db.vars.commit_ts]

        @mutation
        async def new_item(ctx: MutationCtx) -> Id[Literal["items"]]:
            return await ctx.db.insert("items", {"value": 1})

        @query
        async def item(ctx: QueryCtx, id: Id[Literal["items"]]) -> Any:
            found = await ctx.db.get(id)
            return found and found["value"]

        @query
        async def any_item(ctx: QueryCtx, id: str) -> Any:
            return await ctx.db.get(id)
    """,
}


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("fences")
    write(folder, FILES)
    with importable(folder, "fence_"):
        yield load(folder / "fence_application")


@pytest.fixture
def fence(application: Any) -> Iterator[BlockingHarness]:
    with open_place(application) as place:
        yield BlockingHarness(place)


def ask(fence: BlockingHarness, mount: str, name: str, **args: Any) -> Any:
    return fence.query("main:ask", {"mount": mount, "name": name, "args": args})


def change(fence: BlockingHarness, mount: str, name: str, **args: Any) -> Any:
    return fence.mutation("main:change", {"mount": mount, "name": name, "args": args})


def test_each_mount_is_told_its_own_config_and_variables(
    fence: BlockingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ["near", 10, [["TOKEN", "of near"]]] == ask(fence, "near", "told")
    assert ["far", 3, []] == ask(fence, "far", "told")
    thread = {"mount": "near", "name": "told_in_thread", "args": {}}
    assert "near of near" == fence.action("main:act", thread)

    monkeypatch.setenv("TOKEN", "of the process")
    assert "of near" == change(fence, "near", "token")
    with pytest.raises(VariableMissing, match="a component sees what it is given"):
        change(fence, "far", "token")


DEEP = {
    "deep_application.py": """
        from engine import App, QueryCtx, query
        from deep_outer import Settings, component
        app = App()
        outer = app.use(component, name="outer", config=Settings("x"), env=["TOKEN"])

        @query
        async def told(ctx: QueryCtx) -> list[object]:
            return await ctx.run_query(outer.told)
    """,
    "deep_outer/__init__.py": """
        from dataclasses import dataclass
        from engine import Component
        from deep_inner import component as inner_component

        @dataclass
        class Settings:
            label: str

        component = Component("outer", config=Settings)
        inner = component.use(
            inner_component, config=lambda own: {"label": f"within {own.label}"}, env=["TOKEN"]
        )
    """,
    "deep_outer/functions.py": """
        from engine import QueryCtx, query
        from . import inner

        @query
        async def told(ctx: QueryCtx) -> list[object]:
            return await ctx.run_query(inner.told)
    """,
    "deep_inner/__init__.py": """
        from dataclasses import dataclass
        from engine import Component

        @dataclass
        class Settings:
            label: str

        component = Component("inner", config=Settings)
    """,
    "deep_inner/functions.py": """
        from engine import QueryCtx, env, query
        from . import component

        @query
        async def told(ctx: QueryCtx) -> list[object]:
            return [component.config.label, dict(env)]
    """,
}


def test_a_component_hands_on_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, DEEP)
    with importable(tmp_path, "deep_"):
        with pytest.raises(DeclarationError, match="env of the mount 'outer': TOKEN is not set"):
            load(tmp_path / "deep_application.py")
        monkeypatch.setenv("TOKEN", "t")
        application = load(tmp_path / "deep_application.py")

    with open_place(application) as place:
        told = BlockingHarness(place).query("deep_application:told")

    assert ["within x", {"TOKEN": "t"}] == told


def test_arguments_and_results_are_checked(fence: BlockingHarness) -> None:
    assert 1 == ask(fence, "near", "strict", n=1)
    for wrong in ({}, {"n": "1"}, {"n": 1, "m": 1}):
        with pytest.raises(ArgumentValidationError):
            ask(fence, "near", "strict", **wrong)
    with pytest.raises(ReturnsValidationError):
        ask(fence, "near", "broken", n=1)


def test_what_one_side_does_to_a_value_the_other_does_not_see(fence: BlockingHarness) -> None:
    given, first, second, kept = fence.mutation("main:share")

    assert {"value": {"list": [1, 2]}} == given, "and the call has what it was made with"
    assert {"list": [1, "its own", "mine"]} == first
    assert {"list": [1, "its own"]} == second
    assert [{"list": [1]}] * 2 + [{"list": [1, "its own"]}] * 2 == kept


def test_calls_of_a_component_come_in_order(fence: BlockingHarness) -> None:
    assert [1, 2, 3, 4, 5] == fence.mutation("main:together")
    assert [6, 7, 8, 9, 10] == fence.action("main:apart")


def test_what_a_component_scheduled_goes_with_its_call(fence: BlockingHarness) -> None:
    assert [0, 0] == fence.mutation("main:survive")


def test_a_trigger_of_the_application_keeps_a_component_in_step(fence: BlockingHarness) -> None:
    assert [1, 2] == [fence.mutation("main:note", {"text": text}) for text in "ab"]

    with pytest.raises(LookupError):
        fence.mutation("main:note", {"text": "bad"})
    assert 3 == fence.mutation("main:note", {"text": "c"})


def test_clock_and_commit_of_a_component_are_those_of_its_caller(fence: BlockingHarness) -> None:
    assert fence.mutation("main:clocks")


def test_ids_cross_as_text_and_are_good_where_they_come_from(fence: BlockingHarness) -> None:
    near = change(fence, "near", "new_item")

    assert 1 == ask(fence, "near", "item", id=near)
    with pytest.raises(ArgumentValidationError):
        ask(fence, "far", "item", id=near)
    with pytest.raises(InvalidId, match="no id of a table that is known here"):
        ask(fence, "far", "any_item", id=near)
    with pytest.raises(InvalidId, match="no id of a table that is known here"):
        fence.run(lambda ctx: ctx.db.get(near))


@pytest.mark.parametrize("past_bytes_max", [1, 1 << 20], ids=["in an annex", "in memory"])
async def test_each_mount_has_a_past_of_its_own(
    application: Any, autojump_clock: MockClock, past_bytes_max: int
) -> None:
    def call(mount: str, name: str, **args: Any) -> tuple[str, dict[str, Any]]:
        return "main:ask", {"mount": mount, "name": name, "args": args}

    async with nodes.serving(application, limits=Limits(past_bytes_max=past_bytes_max)) as node:
        make = {"name": "new_item", "args": {}}
        item = await nodes.mutate(node, "main:change", {"mount": "near", **make})
        ts = node.published.value
        other = await nodes.mutate(node, "main:change", {"mount": "far", **make})
        await nodes.mutate(node, "main:change", {"mount": "near", **make})

        assert [0, 1] == await nodes.ask_at(node, ts, *call("near", "jobs"))
        assert 1 == await nodes.ask_at(node, ts, *call("near", "item", id=item))
        assert [0, 0] == await nodes.ask_at(node, ts, *call("far", "jobs"))
        assert await nodes.ask_at(node, ts, *call("far", "item", id=other)) is None
        assert 1 == await nodes.ask(node, *call("far", "item", id=other))
