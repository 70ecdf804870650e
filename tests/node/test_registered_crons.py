"""Crons that functions register while they run."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons
from engine.app.decorators import internal_action, internal_mutation, mutation, query
from engine.app.registry import Application
from engine.app.types import Cron
from engine.errors import ConvexError, InvalidValue, PushRefused
from engine.functions.loader import load
from engine.kernel.runtime import VirtualRuntime
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ask, mutate, serving

HOUR_S = 3600
PLACE = "tests/node/test_registered_crons"


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["text"] async for note in ctx.db.query("notes")]


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@internal_mutation
async def until(ctx: MutationCtx, text: str, times: int) -> None:
    """Remove the cron that it is run by, some time."""
    await ctx.db.insert("notes", {"text": text})
    if len(await ctx.db.query("notes").collect()) == times:
        assert await ctx.crons.remove("until")


@internal_action
async def act(ctx: ActionCtx, text: str) -> None:
    await ctx.run_mutation(note, text)
    await ctx.run_mutation(remove, "acting")


@mutation
async def register(
    ctx: MutationCtx, /, name: str, what: str, args: dict[str, Any], **how: Any
) -> None:
    await ctx.crons.register(name, f"{PLACE}:{what}", args, **how)


@mutation
async def register_and_fail(ctx: MutationCtx) -> None:
    await ctx.crons.register("never", note, {"text": "never"}, seconds=1)
    raise ConvexError("no")


@mutation
async def remove(ctx: MutationCtx, name: str) -> bool:
    return await ctx.crons.remove(name)


@mutation
async def listed(ctx: MutationCtx) -> list[Cron]:
    return await ctx.crons.list()


def app(*more: Any) -> Application:
    return load([notes, note, until, act, register, register_and_fail, remove, listed, *more])


def declared(name: str) -> Crons:
    crons = Crons()
    crons.interval(name, note, hours=5, args={"text": "declared"})
    return crons


async def test_what_is_registered_runs_until_it_is_removed_whatever_is_pushed(
    autojump_clock: trio.abc.Clock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime(1)
    async with serving(app(declared("one")), store=store, runtime=runtime) as node:
        await mutate(node, register, "ada", "note", {"text": "ada"}, hours=1)
        await trio.sleep(2.5 * HOUR_S)
        await node.push(app())

    async with serving(app(), store=store, runtime=runtime) as node:
        await trio.sleep(HOUR_S)
        assert await mutate(node, remove, "ada")
        assert not await mutate(node, remove, "ada")
        await trio.sleep(5 * HOUR_S)

        assert ["ada", "ada", "ada", "ada", "declared"] == sorted(await ask(node, notes))
        assert [] == await mutate(node, listed)


async def test_a_cron_tells_what_it_runs_and_how_it_went(autojump_clock: trio.abc.Clock) -> None:
    async with serving(app(declared("one")), runtime=VirtualRuntime(1)) as node:
        await mutate(node, register, "b", "note", {"text": "b"}, cron="0 9 * * *", tz="Asia/Tokyo")
        await node.scheduler.wait_resting()

        one, other = await mutate(node, listed)

        (run,) = other["runs"]
        assert ("b", True, [], None) == (one["name"], one["registered"], one["runs"], None)
        assert {"type": "cron", "expression": "0 9 * * *", "tz": "Asia/Tokyo"} == one["schedule"]
        assert ("one", False, {"kind": "success"}) == (
            other["name"],
            other["registered"],
            run["state"],
        )


async def test_a_mutation_may_remove_the_cron_that_runs_it(autojump_clock: trio.abc.Clock) -> None:
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        await mutate(node, register, "until", "until", {"text": "x", "times": 3}, seconds=60)
        await trio.sleep(HOUR_S)

        assert ["x", "x", "x"] == await ask(node, notes)


async def test_an_action_may_have_its_cron_removed_and_comes_to_its_end(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        await mutate(node, register, "acting", "act", {"text": "x"}, seconds=60)
        await trio.sleep(HOUR_S)

        assert (["x"], []) == (await ask(node, notes), await mutate(node, listed))


async def test_a_mutation_that_fails_registers_nothing() -> None:
    async with serving(app()) as node:
        with pytest.raises(ConvexError):
            await mutate(node, register_and_fail)

        assert [] == await mutate(node, listed)


@pytest.mark.parametrize(
    ("name", "how", "why"),
    [
        ("one", {"seconds": 1}, "there is a cron 'one' already"),
        ("", {"seconds": 1}, "printable ASCII"),
        ("x", {}, "exactly one of seconds, minutes and hours"),
        ("x", {"seconds": 1, "hours": 1}, "exactly one of"),
        ("x", {"seconds": 1.5}, "an integer, 1 or more"),
        ("x", {"seconds": 0}, "an integer, 1 or more"),
        ("x", {"seconds": 1, "cron": "* * * * *"}, "either cron or one of"),
        ("x", {"cron": "every day"}, "has five fields"),
        ("x", {"cron": "0 0 30 2 *"}, "Bad day-of-month"),
        ("x", {"cron": "* * * * *", "tz": "Nowhere"}, "no time zone"),
    ],
)
async def test_what_cannot_be_is_refused(name: str, how: dict[str, Any], why: str) -> None:
    async with serving(app(declared("one"))) as node:
        with pytest.raises(InvalidValue, match=why):
            await mutate(node, register, name, "note", {"text": "x"}, **how)

        (only,) = await mutate(node, listed)
        assert "one" == only["name"]


async def test_names_of_declared_and_registered_crons_do_not_meet() -> None:
    async with serving(app(declared("one"))) as node:
        with pytest.raises(InvalidValue, match="declared in the code"):
            await mutate(node, remove, "one")
        await mutate(node, register, "two", "note", {"text": "two"}, hours=1)
        with pytest.raises(PushRefused, match=r"registered a cron 'two'.*Nothing was changed"):
            await node.push(app(declared("two")))

        assert ["one", "two"] == [cron["name"] for cron in await mutate(node, listed)]
