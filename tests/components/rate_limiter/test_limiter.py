"""The rate limiter as applications use it: mounted, called from mutations and actions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from components.rate_limiter import (
    DAY,
    HOUR,
    FixedWindow,
    RateLimiter,
    TokenBucket,
    calculate_rate_limit,
    component,
    is_rate_limit_error,
)
from engine import (
    ActionCtx,
    App,
    ConvexError,
    MutationCtx,
    QueryCtx,
    action,
    mutation,
    query,
)
from engine.errors import EngineError
from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness, Harness, open_place
from tests.components.inside import Inside

app = App()
limits = app.use(component, name="limits")
others = app.use(component, name="others")
MIDNIGHT = 0
limiter = RateLimiter(
    limits,
    send=TokenBucket(rate=10, period=timedelta(minutes=1), capacity=3),
    hourly=TokenBucket(rate=1, period=timedelta(hours=1)),
    daily=FixedWindow(rate=3, period=timedelta(days=1), start=MIDNIGHT),
    wide=TokenBucket(rate=1, period=1000, capacity=40, shards=4),
)
other = RateLimiter(others, send=TokenBucket(rate=1, period=1000))


@mutation
async def take(ctx: MutationCtx, options: dict[str, Any]) -> Any:
    return await limiter.limit(ctx, options.pop("name", "send"), **options)


@query
async def check_in_a_query(ctx: QueryCtx, options: dict[str, Any]) -> Any:
    return await limiter.check(ctx, options.pop("name", "send"), **options)


@mutation
async def check(ctx: MutationCtx, options: dict[str, Any]) -> Any:
    return await limiter.check(ctx, options.pop("name", "send"), **options)


@mutation
async def reset(ctx: MutationCtx, name: str, key: str | None) -> None:
    await limiter.reset(ctx, name, key=key)


@query
async def show(ctx: QueryCtx, name: str, options: dict[str, Any]) -> Any:
    return await limiter.get_value(ctx, name, **options)


@mutation
async def take_of(ctx: MutationCtx, config: dict[str, Any], options: dict[str, Any]) -> Any:
    bucket = TokenBucket(period=1000, **config)
    return await limiter.limit(ctx, "sharded", config=bucket, **options)


@mutation
async def take_undeclared(ctx: MutationCtx) -> Any:
    return await limiter.limit(ctx, "undeclared", config=TokenBucket(rate=1, period=1000))


@mutation
async def take_elsewhere(ctx: MutationCtx) -> Any:
    return await other.limit(ctx, "send")


@mutation
async def take_and_fail(ctx: MutationCtx) -> None:
    await limiter.limit(ctx, "send")
    raise ConvexError("no")


@action
async def take_in_an_action(ctx: ActionCtx) -> Any:
    return await limiter.limit(ctx, "send")


@action
async def look_in_an_action(ctx: ActionCtx) -> Any:
    checked = await limiter.check(ctx, "send", count=3)
    shown = await limiter.get_value(ctx, "send")
    await limiter.reset(ctx, "send")
    return [checked, shown["value"], await limiter.check(ctx, "send", count=3)]


@query
async def take_in_a_query(ctx: QueryCtx) -> Any:
    return await limiter.limit(ctx, "send")  # type: ignore[arg-type]


inside = Inside(
    load(
        [
            app,
            take,
            check_in_a_query,
            check,
            reset,
            show,
            take_of,
            take_undeclared,
            take_elsewhere,
            take_and_fail,
            take_in_an_action,
            look_in_an_action,
            take_in_a_query,
        ]
    ),
    limits,
)
APPLICATION = inside.application


@pytest.fixture
def t() -> Iterator[Harness]:
    with open_place(APPLICATION) as place:
        yield Harness(place)


@pytest.fixture
def b() -> Iterator[BlockingHarness]:
    """For tests that are plain functions."""
    with open_place(APPLICATION) as place:
        yield BlockingHarness(place)


async def test_a_burst_is_let_through_and_no_more(t: Harness) -> None:
    for _ in range(3):
        assert {"ok": True} == await t.mutation(take, {})

    assert {"ok": False, "retryAfter": 6_000} == await t.mutation(take, {})


async def test_it_is_let_through_again_when_it_said(t: Harness) -> None:
    for _ in range(3):
        await t.mutation(take, {})
    await t.advance(5_999)
    assert not (await t.mutation(take, {}))["ok"]

    await t.advance(1)

    assert (await t.mutation(take, {}))["ok"]


async def test_keys_have_tokens_of_their_own(t: Harness) -> None:
    for key in ("a", "b", None):
        found = [(await t.mutation(take, {"key": key}))["ok"] for _ in range(4)]
        assert [True, True, True, False] == found


async def test_mounts_have_tables_of_their_own(t: Harness) -> None:
    assert (await t.mutation(take_elsewhere))["ok"]
    assert not (await t.mutation(take_elsewhere))["ok"]

    assert (await t.mutation(take, {}))["ok"]


async def test_throwing_tells_the_client_when_to_come_back(t: Harness) -> None:
    await t.mutation(take, {"count": 3})

    with pytest.raises(ConvexError) as raised:
        await t.mutation(take, {"throws": True})

    assert {"kind": "RateLimited", "name": "send", "retryAfter": 6_000} == raised.value.data


async def test_being_refused_writes_nothing(t: Harness) -> None:
    await t.mutation(take, {"count": 3})
    before = await t.commit(take, {})

    after = await t.commit(take, {})

    assert before == after


async def test_a_mutation_that_fails_gives_its_tokens_back(t: Harness) -> None:
    for _ in range(5):
        with pytest.raises(ConvexError):
            await t.mutation(take_and_fail)

    assert (await t.mutation(take, {"count": 3}))["ok"]


async def test_what_is_reserved_is_waited_for(t: Harness) -> None:
    await t.mutation(take, {"name": "hourly"})

    reserved = await t.mutation(take, {"name": "hourly", "count": 100, "reserve": True})
    refused = await t.mutation(take, {"name": "hourly"})

    assert {"ok": True, "retryAfter": 100 * 3_600_000} == reserved
    assert {"ok": False, "retryAfter": 101 * 3_600_000} == refused


async def test_an_action_takes_tokens_for_good(t: Harness) -> None:
    assert {"ok": True} == await t.action(take_in_an_action)

    assert not (await t.mutation(take, {"count": 3}))["ok"]


async def test_a_query_cannot_take_any(t: Harness) -> None:
    with pytest.raises(TypeError, match="the ctx of a mutation"):
        await t.query(take_in_a_query)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 4}, "count 4 exceeds 3"),
        ({"name": "sent"}, "'sent' is not defined, .* there are: daily, hourly, send"),
    ],
)
async def test_a_call_that_is_wrong_is_an_error(
    t: Harness, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        await t.mutation(take, options)


async def test_clients_cannot_call_it() -> None:
    assert APPLICATION.find("functions:limit") is None
    assert APPLICATION.find("functions:limit", "limits") is not None


async def test_its_documents_are_out_of_reach_of_the_application(t: Harness) -> None:
    await t.mutation(take, {})

    async def look(ctx: MutationCtx) -> int:
        return await ctx.db.count("rateLimits")

    assert 0 == await t.run(look)


async def test_a_wrong_argument_is_named(t: Harness) -> None:
    with pytest.raises(EngineError, match="count"):
        await t.mutation(limits.limit, {"name": "send"})


async def test_windows_are_refilled_at_their_beginning(t: Harness) -> None:
    for _ in range(3):
        assert (await t.mutation(take, {"name": "daily"}))["ok"]

    assert {"ok": False, "retryAfter": DAY} == await t.mutation(take, {"name": "daily"})
    await t.advance(DAY - 1)
    assert {"ok": False, "retryAfter": 1} == await t.mutation(take, {"name": "daily"})
    await t.advance(1)
    assert (await t.mutation(take, {"name": "daily", "count": 3}))["ok"]


@pytest.mark.parametrize("name", ["send", "daily"])
async def test_a_key_that_is_reset_is_as_new(t: Harness, name: str) -> None:
    for key in ("a", "b", None):
        await t.mutation(take, {"name": name, "key": key, "count": 3})

    await t.mutation(reset, name, "a")
    await t.mutation(reset, name, None)

    full = {key: await t.mutation(take, {"name": name, "key": key, "count": 3}) for key in "ab"}
    assert (True, False) == (full["a"]["ok"], full["b"]["ok"])
    assert (await t.mutation(take, {"name": name, "count": 3}))["ok"]


async def test_check_takes_nothing_and_may_throw(t: Harness) -> None:
    for _ in range(2):
        assert {"ok": True} == await t.mutation(check, {"count": 3})
        assert {"ok": True} == await t.query(check_in_a_query, {"count": 3})
    await t.mutation(take, {"count": 3})

    assert {"ok": False, "retryAfter": 6_000} == await t.query(check_in_a_query, {})
    with pytest.raises(ConvexError) as raised:
        await t.mutation(check, {"throws": True})
    assert is_rate_limit_error(raised.value)
    assert not is_rate_limit_error(ConvexError("RateLimited"))


async def test_a_reservation_that_has_to_wait_does_not_throw(t: Harness) -> None:
    await t.mutation(take, {"name": "hourly"})

    found = await t.mutation(take, {"name": "hourly", "reserve": True, "throws": True})

    assert {"ok": True, "retryAfter": HOUR} == found


async def test_a_limit_may_be_given_where_it_is_asked(t: Harness) -> None:
    assert (await t.mutation(take_undeclared))["ok"]

    assert not (await t.mutation(take_undeclared))["ok"]


async def test_an_action_may_look_and_reset(t: Harness) -> None:
    await t.mutation(take, {"count": 3})

    found = await t.action(look_in_an_action)

    assert [{"ok": False, "retryAfter": 18_000}, 0, {"ok": True}] == found


def test_what_is_shown_changes_only_when_it_is_used(b: BlockingHarness) -> None:
    with b.subscribe(show, "send", {}) as shown:
        unused = next(shown)
        b.mutation(take, {})
        used = next(shown)
        b.advance(6_000)
        b.mutation(take, {"key": "another"})
        b.mutation(take, {})
        again = next(shown)

    now_ms = b.now_ns // 1_000_000
    assert 3 == calculate_rate_limit(unused, now_ms=now_ms)["value"]
    assert 2 == used["value"]
    assert {"value": 2, "ts": again["ts"]} == calculate_rate_limit(again, now_ms=again["ts"])
    wanted = calculate_rate_limit(again, now_ms=again["ts"], count=4)
    assert {"value": -2, "ts": again["ts"], "retryAfter": 12_000} == wanted


def test_what_is_shown_of_shards_is_the_fullest_and_what_that_one_allows(
    b: BlockingHarness,
) -> None:
    fresh = b.query(show, "wide", {"sample_shards": 3})
    preset(b, "wide", [2, 7, 4, 1])

    shown = b.query(show, "wide", {"sample_shards": 9})

    assert (10, 4) == (fresh["value"], fresh["shards"])
    assert (7, 1) == (shown["value"], shown["shard"])
    assert (0.25, 10) == (shown["config"]["rate"], shown["config"]["capacity"])


def test_pages_are_given_what_the_server_lets_them_see() -> None:
    with open_place(load(Path(__file__).with_name("shown.py"))) as place:
        b = BlockingHarness(place)
        b.mutation("shown:take", {"key": "user ada"})

        asked = b.query("shown:get_rate_limit", {"key": "ada", "sampleShards": 1})
        fixed = b.query("shown:get_adas")
        everybodys = b.query("shown:get_everybodys")
        time_ms = b.mutation("shown:get_server_time")

        assert (2, "fixed window") == (asked["value"], asked["config"]["kind"])
        assert (2, 3) == (fixed["value"], everybodys["value"])
        assert time_ms == b.now_ns // 1_000_000
        for name in ("get_everybodys", "get_adas"):
            with pytest.raises(ConvexError, match="a key that the server chooses"):
                b.query(f"shown:{name}", {"key": "eve"})


def test_all_keys_are_reset_a_few_at_a_time(b: BlockingHarness) -> None:
    for number in range(250):
        b.mutation(take, {"key": f"{number}"})
    b.mutation(take, {"name": "daily"})
    b.advance(1_000)

    b.mutation(limits.clear_all, {"name": "send"})
    some = len(inside.rows(b, "rateLimits"))
    b.mutation(take, {"key": "249", "count": 2})
    b.mutation(take, {"key": "1"})
    b.finish_all_scheduled_functions()

    left = {row.get("key"): row["value"] for row in inside.rows(b, "rateLimits")}
    assert 151 == some
    assert {None: 2, "1": 2} == left, "one of another name, and one that came back since"


def test_what_was_first_taken_of_since_a_time_keeps_what_is_left_of_it(b: BlockingHarness) -> None:
    b.mutation(take, {"key": "old"})
    b.advance(1_000)
    since_ms = b.now_ns // 1_000_000
    b.mutation(take, {"key": "new"})
    b.advance(1_000)

    b.mutation(limits.clear_all, {"name": "send", "before": since_ms})

    assert ["new"] == [row["key"] for row in inside.rows(b, "rateLimits")]


def test_a_limit_that_is_reset_has_all_its_shards_back(b: BlockingHarness) -> None:
    preset(b, "wide", [0, 0, 0, 0])

    b.mutation(reset, "wide", None)

    assert [] == values_of(b, "wide")


def test_limits_that_are_full_again_are_forgotten(b: BlockingHarness) -> None:
    for number in range(250):
        b.mutation(take, {"key": f"{number}"})
    b.mutation(take, {"name": "daily"})

    b.advance(timedelta(minutes=121))
    some = inside.rows(b, "rateLimits")
    b.advance(timedelta(days=1, hours=2))

    assert ["daily"] == [row["name"] for row in some]
    assert [] == inside.rows(b, "rateLimits")


def preset(t: BlockingHarness, name: str, values: list[float]) -> None:
    """Have so many tokens in the shards of a limit now."""

    async def put(ctx: MutationCtx) -> None:
        for shard, value in enumerate(values):
            row = {"name": name, "shard": shard, "value": value, "ts": ctx.now_ms}
            await ctx.db.insert("rateLimits", {**row, "full_by": 0})

    inside.run(t, put)


def values_of(t: BlockingHarness, name: str) -> list[float]:
    rows = [row for row in inside.rows(t, "rateLimits") if row["name"] == name]
    return [row["value"] for row in sorted(rows, key=lambda row: row["shard"])]


@pytest.mark.parametrize("shards", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("values", "rate", "reserved", "options", "outcome", "updates"),
    [
        pytest.param([1] * 4, 1, None, {}, "granted", 1, id="all have enough"),
        pytest.param([0] * 4, 1, None, {"reserve": True}, "has to wait", 1, id="it is reserved"),
        pytest.param([0] * 4, 1, None, {}, "refused", 0, id="none has enough"),
        pytest.param([1, 1, -1, 1], 1, None, {}, "granted", 1, id="one is in debt"),
        pytest.param(
            [1] * 4, 1, 1, {"count": 3, "reserve": True}, "refused", 0, id="it is too much"
        ),
        pytest.param(
            [1, 1, -1, 1], None, 0, {"count": 2, "reserve": True}, "has to wait", 1, id="one can"
        ),
        pytest.param([0.5] * 4, 1, None, {}, "granted if shared", 2, id="two have it together"),
    ],
)
def test_the_golden_cases_of_shards(
    b: BlockingHarness,
    shards: int,
    values: list[float],
    rate: float | None,
    reserved: float | None,
    options: dict[str, Any],
    outcome: str,
    updates: int,
) -> None:
    preset(b, "sharded", values[:shards])
    bounds = {"rate": rate or shards, "max_reserved": shards if rate is None else reserved}
    config = {**bounds, "capacity": 10 * shards, "shards": shards}

    found = b.mutation(take_of, config, options)

    is_refused = outcome == "refused" or (outcome == "granted if shared" and shards < 3)
    assert found["ok"] is not is_refused
    assert ("retryAfter" in found) is (is_refused or outcome == "has to wait")
    assert found.get("retryAfter", 1_000) >= 1_000 or is_refused
    after = values_of(b, "sharded")
    changed = sum(a != b for a, b in zip(values, after, strict=False))
    assert changed == (0 if is_refused else updates)
    assert sum(values[:shards]) - sum(after) == (0 if is_refused else options.get("count", 1))


@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow])
@pytest.mark.parametrize("count", [1e17, 1e308])
def test_what_would_take_ages_is_refused_by_the_name_of_its_limit(kind: Any, count: float) -> None:
    with pytest.raises(ValueError, match=r"rate limit 'send': count 1e\+.* exceeds"):
        kind(rate=10, period=60_000).check_count("send", count, reserve=True)


async def test_a_reservation_of_a_thousand_years_is_kept_and_what_comes_on_top_is_refused(
    t: Harness,
) -> None:
    most = 1000 * 365 * 24

    first = await t.mutation(take, {"name": "hourly", "count": most, "reserve": True})
    second = await t.mutation(take, {"name": "hourly", "count": most, "reserve": True})

    assert (True, (most - 1) * HOUR) == (first["ok"], first["retryAfter"])
    assert not second["ok"]


@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow])
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"rate": 1, "period": 1, "shards": float("nan")}, "shards is a whole number"),
        ({"rate": 1, "period": 1, "shards": float("inf")}, "shards is a whole number"),
        ({"rate": 1e-300, "period": 1, "capacity": 5}, "a thousand years"),
        ({"rate": 1, "period": 1e300}, "a thousand years"),
        ({"rate": 1e308, "period": 1e-308}, "more tokens than can be counted"),
    ],
)
def test_numbers_that_no_clock_reaches_are_refused(kind: Any, given: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kind(**given)


async def test_a_count_that_is_hardly_too_large_is_told_to_the_digit(t: Harness) -> None:
    with pytest.raises(ValueError, match=r"count 3\.0000001 exceeds 3\n"):
        await t.mutation(take, {"count": 3.0000001})
