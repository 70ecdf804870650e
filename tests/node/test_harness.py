"""The test harness: time that stands still, a network of stubs, users that are made up."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import trio

from engine import (
    ActionCtx,
    Crons,
    MutationCtx,
    QueryCtx,
    Retry,
    UserIdentity,
    action,
    env,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from engine.app.blocking import BlockingActionCtx
from engine.errors import NotAllowed, UsageError
from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness, Harness, Place, open_place

URL = "https://api.example.test/items"
crons = Crons()


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [doc["text"] async for doc in ctx.db.query("notes")]


@mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@internal_mutation
async def tick(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": ctx.now.isoformat()[:16]})


crons.hourly("tick", tick, minute=0)


@mutation
async def later(ctx: MutationCtx, seconds: float, text: str) -> None:
    await ctx.scheduler.run_after(timedelta(seconds=seconds), note, text)


@mutation
async def chain(ctx: MutationCtx, left: int) -> None:
    await ctx.db.insert("notes", {"text": str(left)})
    if left:
        await ctx.scheduler.run_after(timedelta(hours=1), chain, left - 1)


@mutation
async def for_ever(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(1, for_ever)


@mutation
async def at_once(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, at_once)


@action
async def at_once_in_action(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(0, at_once_in_action)


@action
async def when_slept(ctx: ActionCtx) -> None:
    await trio.sleep(1)
    await ctx.scheduler.run_after(0, when_slept)


@mutation
async def by_crons(ctx: MutationCtx, number: int) -> None:
    """Register a cron of another name, which runs at once."""
    await ctx.crons.remove(f"c{number}")
    await ctx.crons.register(f"c{number + 1}", by_crons, {"number": number + 1}, hours=1)


@action
async def fails(ctx: ActionCtx) -> None:
    raise ValueError("no")


async def try_fails(ctx: MutationCtx) -> None:
    scheduler = ctx.scheduler.with_retry(Retry(initial_backoff=0, max_attempts=10**9))
    await scheduler.run_after(0, fails)


@mutation
async def fan_out(ctx: MutationCtx) -> None:
    for _ in range(100):
        await ctx.scheduler.run_after(0, note, "one of many")


@query
async def who(ctx: QueryCtx) -> UserIdentity | None:
    return await ctx.auth.get_user_identity()


@query
async def variable(ctx: QueryCtx) -> str | None:
    return env.get("HARNESS_TEST")


@mutation
async def throw(ctx: MutationCtx) -> str:
    return str(ctx.uuid4())


@action
async def fetch(ctx: ActionCtx) -> Any:
    async with httpx.AsyncClient() as http:
        return (await http.get(URL)).json()


@action(loop="asyncio")
async def fetch_on_asyncio(ctx: ActionCtx) -> Any:
    async with httpx.AsyncClient() as http:
        return (await http.get(URL)).json()


@action
def fetch_in_a_thread(ctx: BlockingActionCtx) -> Any:
    time.sleep(0.05)  # real work, during which no virtual time passes
    return httpx.get(URL).json()


@action
def look_in_a_thread(ctx: BlockingActionCtx) -> list[float]:
    ctx.scheduler.run_after(0, note, text="from a thread")
    return [ctx.now_ms, ctx.now.timestamp() * 1000]


@action
async def nap(ctx: ActionCtx) -> float:
    before = ctx.now_ms
    await trio.sleep(3600)
    return ctx.now_ms - before


@internal_action
async def nap_and_note(ctx: ActionCtx) -> None:
    await trio.sleep(3600)
    await ctx.run_mutation(note, "awake")


@mutation
async def schedule_nap(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, nap_and_note)


@mutation
async def fetch_in_a_mutation(ctx: MutationCtx) -> Any:
    return httpx.Client().get(URL).json()


async def start_sleeping(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, when_slept)


APPLICATION = load(
    [
        crons, notes, note, tick, later, chain, for_ever, who, variable, throw, fetch,
        fetch_on_asyncio, fetch_in_a_thread, look_in_a_thread, nap, nap_and_note,
        schedule_nap, fetch_in_a_mutation, at_once, at_once_in_action, when_slept, by_crons,
        fails, fan_out,
    ]
)  # fmt: skip


@pytest.fixture
def place() -> Iterator[Place]:
    with open_place(APPLICATION) as opened:
        yield opened


@pytest.fixture
def t(place: Place) -> Harness:
    return Harness(place)


@pytest.fixture
def blocking(place: Place) -> BlockingHarness:
    return BlockingHarness(place)


async def test_a_trio_test_calls_functions(t: Harness) -> None:
    await t.mutation(note, "hello")

    assert ["hello"] == await t.query(notes)


def test_a_plain_test_calls_functions(blocking: BlockingHarness) -> None:
    blocking.mutation(note, "hello")

    assert ["hello"] == blocking.query(notes)


def test_an_asyncio_test_calls_functions(t: Harness) -> None:
    async def test() -> list[str]:
        await t.mutation(note, "hello")
        async with t.subscribe(notes) as results:
            assert ["hello"] == await anext(results)
        return await t.query(notes)

    assert ["hello"] == asyncio.run(test())


async def test_each_test_has_an_engine_of_its_own(t: Harness) -> None:
    assert [] == await t.query(notes)


async def test_results_are_followed(t: Harness) -> None:
    async with t.subscribe(notes) as results:
        assert [] == await anext(results)
        await t.mutation(note, "hello")
        assert ["hello"] == await anext(results)


def test_results_are_followed_in_a_plain_test(blocking: BlockingHarness) -> None:
    with blocking.subscribe(notes) as results:
        assert [] == next(results)
        blocking.mutation(note, "hello")
        assert ["hello"] == next(results)


async def test_what_runs_is_given_a_transaction_and_its_result_is_returned(t: Harness) -> None:
    async def seed(ctx: MutationCtx) -> object:
        await ctx.db.insert("notes", {"text": "seeded"})
        return seed

    assert seed is await t.run(seed)
    assert ["seeded"] == await t.query(notes)


async def test_what_raises_has_written_nothing(t: Harness) -> None:
    async def seed(ctx: MutationCtx) -> None:
        await ctx.db.insert("notes", {"text": "seeded"})
        raise LookupError("no")

    with pytest.raises(LookupError):
        await t.run(seed)
    assert [] == await t.query(notes)


async def test_nothing_scheduled_runs_before_its_time_comes(t: Harness) -> None:
    await t.mutation(later, 0, "now")
    await t.mutation(later, 60, "then")
    assert [] == await t.query(notes)

    await t.finish_in_progress_scheduled_functions()
    assert ["now"] == await t.query(notes)

    await t.advance(timedelta(seconds=59))
    assert ["now"] == await t.query(notes)

    await t.advance(1000)
    assert ["now", "then"] == await t.query(notes)


async def test_the_clock_moves_by_exactly_as_much_as_was_said(t: Harness) -> None:
    before_ns = t.now_ns
    await t.mutation(note, "hello")
    assert before_ns == t.now_ns

    await t.advance(1500)

    assert 1_500_000_000 == t.now_ns - before_ns


async def test_finishing_all_follows_a_chain_to_its_end(t: Harness) -> None:
    before_ns = t.now_ns
    await t.mutation(chain, 3)

    await t.finish_all_scheduled_functions()

    hours = timedelta(hours=3).total_seconds()
    assert hours == round((t.now_ns - before_ns) / 1e9)
    assert {"3", "2", "1", "0"} < set(await t.query(notes))


async def test_a_function_that_goes_on_for_ever_is_named_as_that(t: Harness) -> None:
    await t.mutation(for_ever)

    with pytest.raises(UsageError, match="one that schedules itself has no end"):
        await t.finish_all_scheduled_functions()


@pytest.mark.parametrize("how", ["advance", "in progress", "all"])
@pytest.mark.parametrize(
    ("fn", "args", "last"),
    [
        (at_once, {}, "at_once"),
        (at_once_in_action, {}, "at_once_in_action"),
        (by_crons, {"number": 0}, "by_crons"),
    ],
)
async def test_what_goes_on_for_ever_at_one_time_is_named(
    t: Harness, monkeypatch: pytest.MonkeyPatch, fn: Any, args: dict[str, Any], last: str, how: str
) -> None:
    monkeypatch.setattr("engine.rehearsal.stage.GENERATIONS_MAX", 50)
    await (t.action if fn is at_once_in_action else t.mutation)(fn, **args)

    with pytest.raises(
        UsageError, match=rf"test_harness:{last}' goes on; .* without a delay has no end"
    ):
        match how:
            case "advance":
                await t.advance(1000)
            case "in progress":
                await t.finish_in_progress_scheduled_functions()
            case _:
                await t.finish_all_scheduled_functions()


async def test_attempts_that_go_on_for_ever_at_one_time_are_named(
    t: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.rehearsal.stage.GENERATIONS_MAX", 50)
    await t.run(try_fails)

    with pytest.raises(UsageError, match="test_harness:fails' goes on"):
        await t.finish_in_progress_scheduled_functions()


async def test_many_that_are_due_at_one_time_have_an_end(
    t: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.rehearsal.stage.GENERATIONS_MAX", 3)
    for _ in range(3):
        await t.mutation(fan_out)

    await t.finish_all_scheduled_functions()

    assert 300 == (await t.query(notes)).count("one of many")


async def test_what_takes_its_time_may_go_on_for_as_long_as_a_test_advances(
    t: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.rehearsal.stage.GENERATIONS_MAX", 20)
    before_ns = t.now_ns
    await t.run(start_sleeping)

    await t.advance(timedelta(seconds=60))

    assert 60 == round((t.now_ns - before_ns) / 1e9)
    with pytest.raises(UsageError, match="without a delay has no end"):
        await t.finish_in_progress_scheduled_functions()


async def test_crons_run_as_time_passes(t: Harness) -> None:
    await t.advance(timedelta(hours=2))

    assert ["2026-01-01T01:00", "2026-01-01T02:00"] == await t.query(notes)


def test_a_plain_test_moves_the_clock(blocking: BlockingHarness) -> None:
    blocking.mutation(later, 60, "then")
    blocking.advance(60_000)
    assert ["then"] == blocking.query(notes)

    blocking.mutation(later, 0, "now")
    blocking.finish_all_scheduled_functions()
    assert ["then", "now"] == blocking.query(notes)


async def test_an_action_that_sleeps_takes_no_real_time(t: Harness) -> None:
    before = time.monotonic()

    assert 3_600_000 == await t.action(nap)
    assert time.monotonic() - before < 5


async def test_time_stops_where_it_was_told_to_though_an_action_sleeps(t: Harness) -> None:
    await t.mutation(schedule_nap)

    await t.advance(timedelta(minutes=59))
    assert [] == await t.query(notes)

    await t.advance(timedelta(minutes=2))
    assert "awake" in await t.query(notes)


@pytest.mark.parametrize("asks", [fetch, fetch_on_asyncio, fetch_in_a_thread])
async def test_an_action_is_answered_by_stubs(t: Harness, asks: Any) -> None:
    t.http("GET", "https://api.example.test/*", json={"n": 1})

    assert {"n": 1} == await t.action(asks)


async def test_an_action_in_a_thread_sees_the_time_of_the_test(t: Harness) -> None:
    for_ms, at_ms = await t.action(look_in_a_thread)
    await t.advance(timedelta(hours=1))
    later_ms, _ = await t.action(look_in_a_thread)

    assert abs(for_ms - at_ms) < 1
    assert 3_600_000 == round(later_ms - for_ms, -2)
    assert "from a thread" in await t.query(notes)


async def test_the_last_stub_that_matches_answers(t: Harness) -> None:
    t.http("GET", "*", json=1)
    t.http("GET", URL, json=2)
    t.http("POST", URL, json=3)

    assert 2 == await t.action(fetch)


async def test_a_request_without_a_stub_says_what_to_write(t: Harness) -> None:
    t.http("POST", "https://api.example.test/*", json={})

    with pytest.raises(UsageError, match=r'GET .* has no stub.*t\.http\("GET", .*POST'):
        await t.action(fetch)


async def test_mutations_do_not_reach_stubs(t: Harness) -> None:
    t.http("GET", "*", json=1)

    with pytest.raises(NotAllowed):
        await t.mutation(fetch_in_a_mutation)


def test_the_requests_of_a_test_itself_are_its_own(blocking: BlockingHarness) -> None:
    blocking.http("GET", "*", json=1)

    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:9")


async def test_a_user_is_made_up_and_is_the_same_for_the_same_claims(t: Harness) -> None:
    ada = await t.with_identity(name="Ada").query(who)
    again = await t.with_identity(name="Ada").query(who)
    bob = await t.with_identity(name="Bob").query(who)

    assert ada is not None
    assert bob is not None
    assert ada == again
    assert "Ada" == ada["name"]
    assert ada["tokenIdentifier"] == f"{ada['issuer']}|{ada['subject']}"
    assert ada["subject"] != bob["subject"]
    assert await t.query(who) is None


async def test_claims_that_are_given_are_not_made_up(t: Harness) -> None:
    found = await t.with_identity(subject="7", issuer="https://a.test", role="x").query(who)

    assert {
        "subject": "7",
        "issuer": "https://a.test",
        "tokenIdentifier": "https://a.test|7",
        "role": "x",
    } == found


async def test_a_variable_is_set_for_functions_that_run(t: Harness) -> None:
    assert await t.query(variable) is None

    await t.set_env("HARNESS_TEST", "yes")

    assert "yes" == await t.query(variable)


async def test_the_same_seed_throws_the_same_dice(t: Harness) -> None:
    thrown = []
    for _ in range(2):
        await t.seed(7)
        thrown.append(await t.mutation(throw))
    other = await t.mutation(throw)

    assert thrown[0] == thrown[1]
    assert other != thrown[0]
    assert uuid.UUID(other)
