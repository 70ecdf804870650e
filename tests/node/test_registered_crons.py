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
from engine.errors import ConvexError, InvalidValue, LimitExceeded, PushRefused
from engine.functions.crons import CRONS_SLICE_ROWS
from engine.functions.loader import load
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, ask, ask_at, mutate, serving

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


@internal_action
async def slow(ctx: ActionCtx, text: str) -> None:
    began.append(text)
    await proceed.wait()
    ended.append(text)


@internal_mutation
async def anew(ctx: MutationCtx, text: str) -> None:
    """Register the cron that it is run by anew, with an interval of an hour."""
    await ctx.db.insert("notes", {"text": text})
    await ctx.run_mutation(replace, "anew", "anew", hours=1)


@internal_action
async def anew_in_action(ctx: ActionCtx, text: str) -> None:
    await ctx.run_mutation(note, text)
    await ctx.run_mutation(replace, "anew", "anew_in_action", hours=1)


@mutation
async def replace(ctx: MutationCtx, /, name: str, what: str, **how: Any) -> None:
    assert await ctx.crons.remove(name)
    await ctx.crons.register(name, f"{PLACE}:{what}", {"text": what}, **how)


@mutation
async def register_many(ctx: MutationCtx, first: int, count: int, size: int = 0) -> None:
    for number in range(first, first + count):
        await ctx.crons.register(f"c{number}", note, {"text": "x" * size}, cron="0 0 1 1 *")


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


@query
async def shown(ctx: QueryCtx, name: str) -> dict[str, Any]:
    cron = await ctx.crons.get(name)
    names = [one["name"] for one in await ctx.crons.list()]
    return {"names": names, "runs": None if cron is None else len(cron["runs"])}


@query
async def all_names(ctx: QueryCtx) -> list[str]:
    return [one["name"] for one in await ctx.crons.list()]


@mutation
async def names_around(ctx: MutationCtx) -> list[list[str]]:
    """Of what was registered within: before, and after."""
    before = await ctx.run_query(all_names)
    await ctx.crons.register("within", note, {"text": "x"}, hours=1)
    return [before, await ctx.run_query(all_names), await ctx.run_snapshot_query(all_names)]


began: list[str] = []
ended: list[str] = []
proceed = trio.Event()


@pytest.fixture(autouse=True)
def _forget() -> None:
    global proceed
    began.clear()
    ended.clear()
    proceed = trio.Event()


def app(*more: Any) -> Application:
    functions = [notes, note, until, act, register, register_and_fail, remove, listed]
    return load([*functions, slow, anew, anew_in_action, replace, register_many, *more])


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


async def test_a_query_that_is_shown_follows_the_crons(autojump_clock: trio.abc.Clock) -> None:
    app_ = app(declared("one"), shown, all_names)
    async with serving(app_, runtime=VirtualRuntime(1)) as node:
        await node.scheduler.wait_resting()
        told: list[Any] = []

        async def follow() -> None:
            while True:
                result = await node.functions.query(f"{PLACE}:shown", {"name": "b"}, caller=ADMIN)
                told.append((result.value["names"], result.value["runs"]))
                changed = trio.Event()
                result.live.watch(changed.set)
                await changed.wait()
                result.live.release()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(1)
            await mutate(node, register, "b", "note", {"text": "b"}, hours=1)
            await trio.sleep(1.5 * HOUR_S)
            await mutate(node, remove, "b")
            await trio.sleep(HOUR_S)
            nursery.cancel_scope.cancel()

    both = ["b", "one"]
    assert [(["one"], None), (both, 0), (both, 1), (both, 2), (["one"], None)] == told


async def test_what_a_mutation_registers_its_queries_see_and_the_state_before_does_not() -> None:
    async with serving(app(names_around, all_names)) as node:
        assert [[], ["within"], []] == await mutate(node, names_around)
        before = node.published.value
        await mutate(node, remove, "within")

        assert ["within"] == await ask_at(node, before, all_names)
        assert [] == await ask(node, all_names)


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


async def test_one_that_is_removed_and_registered_while_it_runs_waits_for_that_run(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        await mutate(node, register, "over", "slow", {"text": "one"}, minutes=1)
        await trio.sleep(90)
        await mutate(node, remove, "over")
        assert ([], False) == (await mutate(node, listed), await mutate(node, remove, "over"))
        await mutate(node, register, "over", "slow", {"text": "two"}, minutes=1)
        await trio.sleep(60)
        assert (["one"], []) == (began, ended)

        proceed.set()
        await trio.sleep(61)

        (cron,) = await mutate(node, listed)
        assert ["one", "two"] == began == ended
        assert ({"text": "two"}, 2) == (cron["args"], len(cron["runs"]))


async def test_one_that_was_removed_while_it_ran_is_gone_once_it_has_ended(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(), runtime=VirtualRuntime(1), limits=Limits(crons_max=1)) as node:
        await mutate(node, register, "over", "slow", {"text": "one"}, minutes=1)
        await trio.sleep(1)
        await mutate(node, remove, "over")
        with pytest.raises(LimitExceeded, match=r"2 is over the limit of 1 \(crons_max\)"):
            await mutate(node, register, "other", "note", {"text": "x"}, minutes=1)
        proceed.set()
        await trio.sleep(1)
        await mutate(node, register, "other", "note", {"text": "x"}, minutes=1)

        assert ["other"] == [cron["name"] for cron in await mutate(node, listed)]


@pytest.mark.parametrize("what", ["anew", "anew_in_action"])
async def test_a_cron_that_its_own_run_registers_anew_runs_at_its_next_time(
    autojump_clock: trio.abc.Clock, what: str
) -> None:
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        await mutate(node, register, "anew", what, {"text": what}, minutes=5)
        await trio.sleep(3.5 * HOUR_S)

        (cron,) = await mutate(node, listed)
        assert [what] * 4 == await ask(node, notes)
        assert ({"type": "interval", "seconds": HOUR_S}, 0) == (cron["schedule"], cron["skipped"])


async def test_registering_counts_as_scheduling_does_and_ends_at_a_number_of_crons() -> None:
    limits = Limits(functions_scheduled_max=5, crons_max=8, scheduled_args_bytes_max=10_000)
    async with serving(app(declared("one")), limits=limits) as node:
        for count, size, limit in (
            (6, 0, "functions_scheduled_max"),
            (3, 4_000, "scheduled_args_bytes_max"),
        ):
            with pytest.raises(LimitExceeded, match=limit):
                await mutate(node, register_many, 0, count, size)
        await mutate(node, register_many, 0, 5)
        with pytest.raises(LimitExceeded, match=r"crons: 9 is over the limit of 8 \(crons_max\)"):
            await mutate(node, register_many, 5, 3)
        await mutate(node, remove, "c4")
        await mutate(node, register_many, 5, 3)

        assert 8 == len(await mutate(node, listed))


async def test_one_is_removed_however_large_it_is() -> None:
    async with serving(app(), limits=Limits(bytes_read_max=10_000)) as node:
        await mutate(node, register, "big", "note", {"text": "x" * 20_000}, cron="0 0 1 1 *")
        with pytest.raises(LimitExceeded, match="bytes_read_max"):
            await mutate(node, listed)
        with pytest.raises(InvalidValue, match="there is a cron"):
            await mutate(node, register, "big", "note", {"text": "x"}, hours=1)

        assert await mutate(node, remove, "big")
        assert [] == await mutate(node, listed)


async def test_a_push_lets_others_have_their_turn_however_many_crons_there_are() -> None:
    async with serving(app()) as node:
        for first in range(0, 500, 100):
            await mutate(node, register_many, first, 100)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async def push(number: int) -> int:
            before = turns
            await node.push(app(declared(f"one {number}")))
            return turns - before

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            many = await push(1)
            for number in range(500):
                await mutate(node, remove, f"c{number}")
            few = await push(2)
            nursery.cancel_scope.cancel()

        assert many - few > 500 / CRONS_SLICE_ROWS


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
        ("x", {"cron": "* * * * *", "tz": None}, "no time zone"),
        ("x", {"seconds": 5, "tz": "Mars/X"}, "tz goes with cron"),
        ("x", {"hours": 1e300}, r"hours=1e\+300 is longer than five years"),
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
