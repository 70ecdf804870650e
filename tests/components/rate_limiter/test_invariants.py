"""
What holds of limits whatever is asked of them, on a real engine whose clock the test moves.

Each example has a name of its own, as keys of an application have: nobody begins anew for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import count as numbers_from
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.rate_limiter import (
    FixedWindow,
    RateLimitConfig,
    RateLimiter,
    RateLimitValue,
    TokenBucket,
    calculate_rate_limit,
    component,
)
from engine import App, MutationCtx, QueryCtx, mutation, query
from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.inside import Inside

Options: TypeAlias = dict[str, Any]

app = App()
limits = app.use(component, name="limits")
limiter = RateLimiter(limits)
names = numbers_from()
configs: dict[str, RateLimitConfig] = {}
"""The limit of each example, by its name."""


@mutation
async def take(ctx: MutationCtx, name: str, options: Options) -> Any:
    return await limiter.limit(ctx, name, config=configs[name], **options)


@mutation
async def check(ctx: MutationCtx, name: str, options: Options) -> Any:
    """In a mutation, as the answer of a query that saw the clock may be some seconds old."""
    return await limiter.check(ctx, name, config=configs[name], **options)


@mutation
async def check_and_take(ctx: MutationCtx, name: str, options: Options) -> list[Any]:
    dice = ctx.random.getstate()
    checked = await limiter.check(ctx, name, config=configs[name], **options)
    ctx.random.setstate(dice)
    return [checked, await limiter.limit(ctx, name, config=configs[name], **options)]


@query
async def value(ctx: QueryCtx, name: str, options: Options) -> RateLimitValue:
    return await limiter.get_value(ctx, name, config=configs[name], **options)


@mutation
async def take_at_once(ctx: MutationCtx, asked: list[Options]) -> list[Any]:
    """Several requests, each with the `name` of its limit, while the clock stands still."""
    return [
        await limiter.limit(ctx, each["name"], config=configs[each["name"]], **each["options"])
        for each in asked
    ]


inside = Inside(load([app, take, take_at_once, check, check_and_take, value]), limits)


@pytest.fixture(scope="module")
def t() -> Iterator[BlockingHarness]:
    with open_place(inside.application) as place:
        yield BlockingHarness(place)


def rows_of(t: BlockingHarness, name: str) -> list[Any]:
    rows = inside.rows(t, "rateLimits")
    return sorted((row for row in rows if row["name"] == name), key=lambda row: row["shard"])


def named(t: BlockingHarness, config: RateLimitConfig) -> str:
    """
    A name that no example had before, for a limit of this one.

    A second passes, as each look at the clock takes a thousandth of a millisecond.
    """
    t.advance(1000)
    name = f"limit{next(names)}"
    configs[name] = config
    return name


def now_ms(t: BlockingHarness) -> int:
    return t.now_ns // 1_000_000


law = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

amounts = st.integers(1, 40).map(lambda number: number / 4)
"""In quarters, whose sums and halves are exact."""
parts: dict[str, st.SearchStrategy[Any]] = {
    "rate": amounts,
    "period": st.sampled_from([7, 1000, 60_000]),
    "capacity": st.none() | amounts,
    "max_reserved": st.none() | st.just(0) | amounts,
}


def limits_of(shards: st.SearchStrategy[int]) -> st.SearchStrategy[RateLimitConfig]:
    return st.one_of(
        st.builds(TokenBucket, **parts, shards=shards),
        st.builds(FixedWindow, **parts, shards=shards, start=st.none() | st.integers(0, 10**5)),
    )


unsharded = limits_of(st.just(1))
sharded = limits_of(st.integers(1, 5))
pauses = st.sampled_from([0, 0, 1, 3, 500, 999, 1000, 20_000, 60_000, 200_000])
fills = st.integers(0, 8).map(lambda number: number / 8)
histories = st.lists(st.tuples(pauses, fills, st.booleans()), min_size=1, max_size=12)


def most(config: RateLimitConfig, *, reserve: bool) -> float:
    """The largest count that is not refused as impossible."""
    if reserve and config.max_reserved is None:
        return config.size * 3
    in_advance = config.max_reserved or 0 if reserve else 0
    return (config.size + in_advance) * config.shards_read / config.shards


def asked_for(config: RateLimitConfig, fill: float, reserve: bool) -> Options:
    return {"count": most(config, reserve=reserve) * fill, "reserve": reserve}


@law
@given(config=sharded, history=histories)
def test_no_more_is_granted_in_any_time_than_was_there_and_came(
    t: BlockingHarness, config: RateLimitConfig, history: list[tuple[int, float, bool]]
) -> None:
    name, began_ms, granted = named(t, config), now_ms(t), Fraction(0)
    for pause_ms, fill, _ in history:
        t.advance(pause_ms)
        options = asked_for(config, fill, False)
        if t.mutation(take, name, options)["ok"]:
            granted += Fraction(options["count"])
        elapsed_ms = now_ms(t) + 1 - began_ms  # for looks at the clock
        periods = elapsed_ms / config.period_ms
        if isinstance(config, FixedWindow):
            periods = elapsed_ms // config.period_ms + 1
        assert granted <= config.size + config.rate * periods + 1e-9


@law
@given(config=sharded, history=histories, fill=fills)
def test_what_is_refused_changes_nothing(
    t: BlockingHarness, config: RateLimitConfig, history: list[tuple[int, float, bool]], fill: float
) -> None:
    name = named(t, config)
    for pause_ms, part, reserve in [*history, (0, fill, False), (0, 1.0, False)]:
        t.advance(pause_ms)
        before = rows_of(t, name)
        found = t.mutation(take, name, asked_for(config, part, reserve))
        if not found["ok"]:
            assert before == rows_of(t, name)


@law
@given(config=sharded, history=histories)
def test_check_says_what_limit_would_and_writes_nothing(
    t: BlockingHarness, config: RateLimitConfig, history: list[tuple[int, float, bool]]
) -> None:
    name = named(t, config)
    for pause_ms, fill, reserve in history:
        t.advance(pause_ms)
        options, before = asked_for(config, fill, reserve), rows_of(t, name)

        t.mutation(check, name, options)
        assert before == rows_of(t, name)

        checked, taken = t.mutation(check_and_take, name, options)
        assert checked == taken


@law
@given(config=unsharded, history=histories, fill=fills)
def test_whoever_waits_as_long_as_was_said_is_granted_it_and_nobody_before(
    t: BlockingHarness, config: RateLimitConfig, history: list[tuple[int, float, bool]], fill: float
) -> None:
    name, options = named(t, config), asked_for(config, fill, False)
    for pause_ms, part, reserve in history:
        t.advance(pause_ms)
        t.mutation(take, name, asked_for(config, part, reserve))
    refused = t.mutation(check, name, options)
    if refused["ok"]:
        return

    t.advance(refused["retryAfter"] - 2)
    too_soon = t.mutation(check, name, options)
    t.advance(2)

    assert refused["retryAfter"] < 2 or not too_soon["ok"]
    assert t.mutation(take, name, options)["ok"]


@law
@given(config=sharded, history=histories)
def test_a_value_stays_within_its_bounds(
    t: BlockingHarness, config: RateLimitConfig, history: list[tuple[int, float, bool]]
) -> None:
    name, has_reserved = named(t, config), False
    one = config.of_one_shard()
    for pause_ms, fill, reserve in history:
        t.advance(pause_ms)
        has_reserved |= reserve
        t.mutation(take, name, asked_for(config, fill, reserve))
        least = -math.inf if one.max_reserved is None else -one.max_reserved
        for row in rows_of(t, name):
            assert (least if has_reserved else 0) <= row["value"] <= one.size


@law
@given(config=sharded, history=histories, first_ms=pauses, second_ms=pauses)
def test_time_in_two_steps_is_time_in_one(
    t: BlockingHarness,
    config: RateLimitConfig,
    history: list[tuple[int, float, bool]],
    first_ms: int,
    second_ms: int,
) -> None:
    name = named(t, config)
    for pause_ms, fill, reserve in history:
        t.advance(pause_ms)
        t.mutation(take, name, asked_for(config, fill, reserve))
    kept = t.query(value, name, {"sample_shards": config.shards})
    then_ms = now_ms(t) + first_ms

    between = calculate_rate_limit(kept, now_ms=then_ms)
    resumed: RateLimitValue = {**kept, "value": between["value"], "ts": between["ts"]}
    in_two = calculate_rate_limit(resumed, now_ms=then_ms + second_ms)
    in_one = calculate_rate_limit(kept, now_ms=then_ms + second_ms)

    assert in_two["value"] == pytest.approx(in_one["value"], abs=1e-9)
    assert in_two["ts"] == in_one["ts"]
    if isinstance(config, FixedWindow):
        start_ms = kept["config"]["start"]
        grid = {(row["ts"] - start_ms) % config.period_ms for row in rows_of(t, name)}
        assert grid <= {0}
        assert (in_one["ts"] - start_ms) % config.period_ms == 0


@law
@given(config=unsharded, history=histories, fill=fills, less=fills, more_ms=pauses)
def test_more_time_or_a_smaller_count_is_refused_no_sooner(
    t: BlockingHarness,
    config: RateLimitConfig,
    history: list[tuple[int, float, bool]],
    fill: float,
    less: float,
    more_ms: int,
) -> None:
    name, options = named(t, config), asked_for(config, fill, False)
    for pause_ms, part, reserve in history:
        t.advance(pause_ms)
        t.mutation(take, name, asked_for(config, part, reserve))
    if not t.mutation(check, name, options)["ok"]:
        return

    assert t.mutation(check, name, {**options, "count": options["count"] * less})["ok"]
    t.advance(more_ms)
    assert t.mutation(check, name, options)["ok"]


@law
@given(
    config=unsharded.filter(lambda config: getattr(config, "start", 0) is not None),
    history=st.lists(
        st.tuples(pauses, fills, st.booleans(), st.sampled_from(["a", "b"])), max_size=12
    ),
)
def test_keys_and_names_know_nothing_of_each_other(
    t: BlockingHarness, config: RateLimitConfig, history: list[tuple[int, float, bool, str]]
) -> None:
    name = named(t, config)
    alone = {key: named(t, config) for key in "ab"}
    for pause_ms, fill, reserve, key in history:
        t.advance(pause_ms)
        options = asked_for(config, fill, reserve)

        asked = [{"name": each, "options": {**options, "key": key}} for each in (name, alone[key])]
        among_others, by_itself = t.mutation(take_at_once, asked)

        assert among_others == by_itself


@law
@given(
    config=limits_of(st.sampled_from([1, 2, 4])),
    history=st.lists(st.tuples(fills, st.booleans()), max_size=15),
)
def test_what_is_taken_of_all_shards_is_what_was_granted(
    t: BlockingHarness, config: RateLimitConfig, history: list[tuple[float, bool]]
) -> None:
    name = named(t, config)
    asked = [asked_for(config, *each) for each in history]

    found = t.mutation(take_at_once, [{"name": name, "options": each} for each in asked])

    answers = zip(asked, found, strict=True)
    granted = sum((Fraction(each["count"]) for each, answer in answers if answer["ok"]), Fraction())
    rows = rows_of(t, name)
    untouched = config.shards - len(rows)
    left = sum((Fraction(row["value"]) for row in rows), untouched * one_shard(config))
    assert granted == config.shards * one_shard(config) - left


def one_shard(config: RateLimitConfig) -> Fraction:
    return Fraction(config.of_one_shard().size)


@law
@given(config=sharded, fill=fills)
def test_what_is_possible_is_granted_by_a_limit_that_nobody_has_touched(
    t: BlockingHarness, config: RateLimitConfig, fill: float
) -> None:
    for reserve, part in ((False, fill), (False, 1.0), (True, fill), (True, 1.0)):
        assert t.mutation(take, named(t, config), asked_for(config, part, reserve))["ok"]
