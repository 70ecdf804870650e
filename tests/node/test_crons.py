"""Crons: one tick at a time, each once, through restarts and pushes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons
from engine.app.decorators import internal_action, internal_mutation, query
from engine.app.registry import Application
from engine.functions.crons import is_tick
from engine.indexes.catalog import CRONS_BY_NAME, JOBS_BY_DUE
from engine.kernel.runtime import VirtualRuntime
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import application, ask, serving
from tests.unit.functions.years import ZONES, once_a_day

HOUR_S = 3600
runs: list[str] = []
proceed = trio.Event()


@pytest.fixture(autouse=True)
def _forget() -> None:
    global proceed
    runs.clear()
    proceed = trio.Event()


@query
async def jobs(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_scheduled_functions").collect()


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [doc["at"] async for doc in ctx.db.query("notes")]


@internal_mutation
async def note(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"at": ctx.now.isoformat()[:16]})


@internal_mutation
async def fail(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"at": "never"})
    raise ValueError("no")


@internal_action
async def slow(ctx: ActionCtx) -> None:
    runs.append(ctx.now.isoformat()[:16])
    await proceed.wait()


def app(declare: Callable[[Crons], None]) -> Application:
    crons = Crons()
    declare(crons)
    return application(jobs, notes, note, fail, slow, crons)


async def cron_rows(node: Node) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = []
    await node.functions.turns.write(
        lambda turn: read.extend(
            turn.read_slice(CRONS_BY_NAME, b"", None, reverse=False, rows_max=100).docs
        )
    )
    return read


async def tick_count(node: Node) -> int:
    read: list[dict[str, Any]] = []
    await node.functions.turns.write(
        lambda turn: read.extend(
            turn.read_slice(JOBS_BY_DUE, b"", None, reverse=False, rows_max=100).docs
        )
    )
    return sum(map(is_tick, read))


def start_at(*when: int) -> VirtualRuntime:
    return VirtualRuntime(start_ns=int(datetime(*when, tzinfo=UTC).timestamp()) * 10**9)  # type: ignore[misc, arg-type]


async def test_an_interval_runs_at_once_and_keeps_its_beat(autojump_clock: trio.abc.Clock) -> None:
    declared = app(lambda crons: crons.interval("poll", note, minutes=20))
    async with serving(declared, runtime=start_at(2026, 1, 1)) as node:
        await trio.sleep(HOUR_S + 1)

        assert [f"2026-01-01T{at}" for at in ("00:00", "00:20", "00:40", "01:00")] == await ask(
            node, notes
        )


async def test_a_daily_cron_follows_the_clock_of_its_zone_through_summer_time(
    autojump_clock: trio.abc.Clock,
) -> None:
    declared = app(lambda crons: crons.daily("prune", note, hour=4, minute=0, tz="Europe/Paris"))
    async with serving(declared, runtime=start_at(2026, 3, 27, 12)) as node:
        await trio.sleep(3 * 24 * HOUR_S)

        assert ["2026-03-28T03:00", "2026-03-29T02:00", "2026-03-30T02:00"] == await ask(
            node, notes
        )


async def test_a_tick_that_fails_is_followed_by_the_next(autojump_clock: trio.abc.Clock) -> None:
    async with serving(app(lambda crons: crons.interval("poll", fail, hours=1))) as node:
        await trio.sleep(2.5 * HOUR_S)

        (row,) = await cron_rows(node)
        assert "failed" == row["runs"][-1]["state"]["kind"]
        assert ([], 1) == (await ask(node, notes), await tick_count(node))
        assert 3 * HOUR_S * 1000 == row["nextTime"] - VirtualRuntime().now_ns() / 1e6


async def test_the_last_runs_of_a_cron_are_kept_in_its_row(
    autojump_clock: trio.abc.Clock,
) -> None:
    @internal_mutation
    async def wordy(ctx: MutationCtx) -> None:
        raise ValueError("no " * 10_000)

    crons = Crons()
    crons.interval("poll", wordy, hours=1)
    async with serving(application(notes, wordy, crons), runtime=start_at(2026, 1, 1)) as node:
        await trio.sleep(7.5 * HOUR_S)

        (row,) = await cron_rows(node)
        began_ms = datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000
        hours = [(run["scheduledTime"] - began_ms) / HOUR_S / 1000 for run in row["runs"]]
        assert [3, 4, 5, 6, 7] == [round(hour) for hour in hours]
        assert {1001} == {len(run["state"]["error"]) for run in row["runs"]}


async def test_ticks_are_no_jobs_that_functions_see() -> None:
    async with serving(app(lambda crons: crons.interval("poll", note, hours=1))) as node:
        await node.scheduler.wait_resting()

        assert [] == await ask(node, jobs)


async def test_a_cron_runs_one_at_a_time_and_counts_what_it_skips(
    autojump_clock: trio.abc.Clock,
) -> None:
    declared = app(lambda crons: crons.interval("poll", slow, seconds=60))
    async with serving(declared, runtime=start_at(2026, 1, 1)) as node:
        await trio.sleep(5 * 60 + 1)
        assert ["2026-01-01T00:00"] == runs

        proceed.set()
        await trio.sleep(60)

        (row,) = await cron_rows(node)
        assert (["2026-01-01T00:00", "2026-01-01T00:06"], 5) == (runs, row["skipped"])
        long, short = row["runs"]
        assert [301, 0] == [
            round((run["completedTime"] - run["startedTime"]) / 1000) for run in (long, short)
        ]


async def test_what_was_missed_while_the_engine_was_down_is_one_run(
    autojump_clock: trio.abc.Clock,
) -> None:
    store = MemoryStore()
    declared = app(lambda crons: crons.daily("prune", note, hour=4, minute=0))
    async with serving(declared, store=store, runtime=start_at(2026, 1, 1)):
        pass

    async with serving(declared, store=store, runtime=start_at(2026, 1, 10, 12)) as node:
        await node.scheduler.wait_resting()

        (row,) = await cron_rows(node)
        assert (["2026-01-10T12:00"], 9) == (await ask(node, notes), row["skipped"])


async def test_a_push_leaves_a_cron_that_has_not_changed_alone(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(lambda crons: crons.interval("poll", note, hours=1))) as node:
        await trio.sleep(600)
        before = await cron_rows(node)

        await node.push(app(lambda crons: crons.interval("poll", note, hours=1)))

        assert before == await cron_rows(node)


async def test_a_push_changes_adds_and_removes_crons(autojump_clock: trio.abc.Clock) -> None:
    def old(crons: Crons) -> None:
        crons.interval("changes", note, hours=1)
        crons.interval("goes", note, hours=1)

    def new(crons: Crons) -> None:
        crons.interval("changes", note, hours=2)
        crons.hourly("comes", note, minute=5)

    async with serving(app(old)) as node:
        await trio.sleep(600)

        lines = await node.push(app(new))

        assert ["changed cron changes", "added cron comes", "removed cron goes"] == lines
        rows = {row["cron"]: row for row in await cron_rows(node)}
        now_ms = node.runtime.now_ns() / 1e6
        assert {"changes", "comes"} == rows.keys()
        assert 7200 == round((rows["changes"]["nextTime"] - now_ms) / 1000)
        assert 2 == await tick_count(node)


async def test_another_function_on_the_same_schedule_keeps_the_time(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(lambda crons: crons.interval("poll", note, hours=1))) as node:
        await trio.sleep(600)
        (before,) = await cron_rows(node)

        await node.push(app(lambda crons: crons.interval("poll", fail, hours=1)))

        (after,) = await cron_rows(node)
        assert before["nextTime"] == after["nextTime"]
        assert (str(fail.path), 1) == (after["name"], await tick_count(node))


async def test_a_cron_that_goes_while_its_action_runs_does_not_come_back(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(lambda crons: crons.interval("poll", slow, seconds=60))) as node:
        await trio.sleep(1)
        await node.push(app(lambda _: None))
        proceed.set()
        await trio.sleep(300)

        assert (1, 0, []) == (len(runs), await tick_count(node), await cron_rows(node))


async def test_a_cron_that_goes_and_comes_while_its_action_runs_has_one_tick(
    autojump_clock: trio.abc.Clock,
) -> None:
    declared = app(lambda crons: crons.interval("poll", slow, hours=1))
    async with serving(declared) as node:
        await trio.sleep(1)
        await node.push(app(lambda _: None))
        await node.push(declared)
        await trio.sleep(60)
        assert (1, 1) == (len(runs), await tick_count(node))
        proceed.set()
        await trio.sleep(60)
        assert (1, 1) == (len(runs), await tick_count(node))
        await trio.sleep(HOUR_S)

        assert (2, 1) == (len(runs), await tick_count(node))


async def test_a_cron_that_changes_while_its_action_runs_goes_by_its_new_schedule(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(lambda crons: crons.interval("poll", slow, hours=1))) as node:
        await trio.sleep(1)
        await node.push(app(lambda crons: crons.interval("poll", slow, hours=5)))
        assert 1 == await tick_count(node)
        proceed.set()
        await trio.sleep(1)

        (row,) = await cron_rows(node)
        assert (5 * HOUR_S * 1000, 1) == (
            row["nextTime"] - row["runs"][-1]["scheduledTime"],
            await tick_count(node),
        )


YEAR_S = 365 * 24 * HOUR_S


async def test_a_year_of_crons_is_that_of_the_clock_on_the_wall(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for every_so_often in (
        "scheduler.actor.CLOCK_STEP_S",
        "committer.retention.EVERY_S",
        "functions.sweeping.SWEEP_EVERY_S",
    ):
        monkeypatch.setattr(f"engine.{every_so_often}", 10 * 24 * HOUR_S)

    @internal_mutation
    async def mark(ctx: MutationCtx, zone: str) -> None:
        ran[zone].append(ctx.now)

    ran: dict[str, list[datetime]] = {zone: [] for zone in ZONES}
    crons = Crons()
    for zone in ZONES:
        crons.daily(f"in {zone}", mark, hour=2, minute=30, tz=zone, args={"zone": zone})
    async with serving(application(mark, crons), runtime=start_at(2026, 1, 1)):
        await trio.sleep(YEAR_S - 1)

    for zone in ZONES:
        assert once_a_day(2026, zone, 2, 30, lambda _: True) == [
            at.replace(microsecond=0) for at in ran[zone]
        ]


async def test_a_push_plans_anew_what_a_clock_far_ahead_has_put_off(
    autojump_clock: trio.abc.Clock,
) -> None:
    def every_minute(crons: Crons) -> None:
        crons.interval("tick", note, minutes=1)

    runtime = VirtualRuntime(1)
    async with serving(app(every_minute), runtime=runtime) as node:
        await trio.sleep(90)
        runtime.jump(365 * 86_400.0)
        await trio.sleep(90)
        runtime.jump(-365 * 86_400.0)
        await trio.sleep(3_600)
        before = len(await ask(node, notes))
        [line] = await node.push(app(every_minute))
        await trio.sleep(601)

        assert "it waited for a time by a clock that was ahead" in line
        assert 10 == len(await ask(node, notes)) - before
