"""The arithmetic of limits: how much there is, when, and what is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.rate_limiter.config import (
    DAY,
    FixedWindow,
    Level,
    RateLimitConfig,
    TokenBucket,
    config_of,
    for_key,
)
from components.rate_limiter.decision import Decision, decide, full_ms, level_at, share

MINUTE_MS = 60_000.0
NOW_MS = 1_767_225_600_000
TEN_A_MINUTE = TokenBucket(rate=10, period=timedelta(minutes=1))
TEN_IN_A_MINUTE = FixedWindow(rate=10, period=timedelta(minutes=1), start=0)

numbers = st.integers(1, 1000) | st.floats(0.1, 1000)
parts: dict[str, st.SearchStrategy[Any]] = {
    "rate": numbers,
    "period": st.integers(1, 10**8),
    "capacity": st.none() | numbers,
    "max_reserved": st.none() | st.just(0) | numbers,
}
buckets = st.builds(TokenBucket, **parts)
windows = st.builds(FixedWindow, **parts, start=st.integers(-(10**8), 10**8))
limits = st.one_of(buckets, windows)
steps = st.lists(
    st.tuples(st.integers(-1000, 10**6), st.floats(0, 50), st.booleans()), min_size=1, max_size=30
)


@pytest.mark.parametrize(
    ("limit", "value", "elapsed_ms", "count", "after", "wait_ms"),
    [
        (TEN_A_MINUTE, 5, 30_000, 0, 10, 0),
        (TEN_A_MINUTE, 5, 30_000, 8, 2, 0),
        (TEN_A_MINUTE, 5, 30_000, 15, -5, 30_000),
        (TEN_A_MINUTE, 10, 0, 5, 5, 0),
        (TEN_A_MINUTE, 5, 6_000, 6, 0, 0),
        (TEN_A_MINUTE, 0, 0, 10, -10, MINUTE_MS),
        (TEN_A_MINUTE, 5, 6_000, 16, -10, MINUTE_MS),
        (TEN_A_MINUTE, -10, 30_000, 5, -10, MINUTE_MS),
        (TEN_IN_A_MINUTE, 10, 0, 5, 5, 0),
        (TEN_IN_A_MINUTE, 5, 60_000, 6, 4, 0),
        (TEN_IN_A_MINUTE, 4, 0, 10, -6, MINUTE_MS),
        (TEN_IN_A_MINUTE, 5, 60_000, 16, -6, MINUTE_MS),
        (TEN_IN_A_MINUTE, -6, 30_000, 5, -11, 90_000),
        (TEN_IN_A_MINUTE, 5, 45_000, 0, 5, 0),
        (TEN_IN_A_MINUTE, 5, 45_000, 3, 2, 0),
        (TEN_IN_A_MINUTE, 5, 45_000, 8, -3, 15_000),
        (TEN_IN_A_MINUTE, 5, 90_000, 0, 10, 0),
    ],
)
def test_the_golden_cases_of_ten_a_minute(
    limit: RateLimitConfig,
    value: float,
    elapsed_ms: float,
    count: float,
    after: float,
    wait_ms: float,
) -> None:
    decision = decide(limit, Level(value, 0), elapsed_ms, count, reserve=True)

    ts_ms = elapsed_ms if isinstance(limit, TokenBucket) else elapsed_ms // 60_000 * 60_000
    assert Decision(True, Level(after, ts_ms), wait_ms) == decision


@pytest.mark.parametrize("limit", [TEN_A_MINUTE, TEN_IN_A_MINUTE])
def test_a_limit_that_nobody_has_asked_is_full(limit: RateLimitConfig) -> None:
    decision = decide(limit, None, NOW_MS, 1, reserve=False)

    assert Decision(True, Level(9, NOW_MS), 0) == decision


def test_without_reserve_nobody_goes_into_debt() -> None:
    decision = decide(TEN_A_MINUTE, Level(0, 0), 0, 1, reserve=False)

    assert (False, 6_000) == (decision.is_ok, decision.wait_ms)


def test_debts_end_where_max_reserved_does() -> None:
    bucket = TokenBucket(rate=1, period=1000, max_reserved=1)

    assert decide(bucket, Level(1, 0), 0, 2, reserve=True).is_ok
    assert not decide(bucket, Level(-1, 0), 0, 1, reserve=True).is_ok


def test_a_max_of_none_reserved_is_not_unlimited() -> None:
    bucket = TokenBucket(rate=1, period=1000, max_reserved=0)

    assert not decide(bucket, Level(0, 0), 0, 1, reserve=True).is_ok


@pytest.mark.parametrize(
    ("limit", "count", "reserve", "message"),
    [
        (TokenBucket(rate=1, period=1000), 2, False, "count 2 exceeds 1"),
        (TokenBucket(rate=1, period=1000, max_reserved=2), 4, True, "count 4 exceeds 3"),
        (TokenBucket(rate=1, period=1000, max_reserved=0), 2, True, "count 2 exceeds 1"),
        (
            TokenBucket(rate=10, period=1000, shards=2),
            6,
            False,
            "exceeds 5, the part of 1 of its 2",
        ),
        (
            TokenBucket(rate=10, period=1000, shards=5),
            5,
            False,
            "exceeds 4, the part of 2 of its 5",
        ),
        (TokenBucket(rate=1, period=1000), -1, False, "no number of tokens"),
        (TokenBucket(rate=1, period=1000), math.nan, True, "no number of tokens"),
    ],
)
def test_what_could_never_be_had_is_an_error(
    limit: RateLimitConfig, count: float, reserve: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        limit.check_count("send", count, reserve=reserve)


def test_any_number_can_be_reserved_where_no_bound_is_said() -> None:
    TokenBucket(rate=1, period=1000).check_count("send", 100, reserve=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 0}, "is a number above 0"),
        ({"period": -1}, "is a number above 0"),
        ({"capacity": math.inf}, "is a number above 0"),
        ({"max_reserved": -1}, "max_reserved is 0 or more"),
        ({"shards": 0}, "shards is a whole number above 0"),
        ({"shards": 1.5}, "shards is a whole number above 0"),
    ],
)
def test_a_limit_of_numbers_that_make_no_sense_is_refused(
    wrong: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TokenBucket(**{"rate": 1, "period": 1000, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "message"),
    [(datetime(2020, 1, 1), "no time zone"), (math.nan, "is a time")],
)
def test_windows_that_begin_at_no_time_are_refused(start: datetime | float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedWindow(rate=1, period=1000, start=start)


@pytest.mark.parametrize("start_ms", [0, NOW_MS + 100 * DAY, NOW_MS - 7])
def test_windows_that_begin_in_the_future_begin_now_too(start_ms: float) -> None:
    window = FixedWindow(rate=10, period=timedelta(days=1), start=start_ms)

    value, ts_ms = window.full(NOW_MS)

    assert 10 == value
    assert (start_ms - ts_ms) % DAY == 0
    assert ts_ms <= NOW_MS < ts_ms + DAY


def test_windows_may_be_said_to_begin_at_a_time_of_day() -> None:
    noon = datetime(2020, 1, 1, 12, tzinfo=UTC)
    window = FixedWindow(rate=1, period=timedelta(days=1), start=noon)

    refused = decide(window, Level(0, NOW_MS - DAY // 2), NOW_MS, 1, reserve=False)

    assert DAY / 2 == refused.wait_ms, "it is midnight"
    assert DAY / 2 == window.full(NOW_MS).ts_ms % DAY


def test_keys_have_windows_at_different_times_and_each_always_the_same() -> None:
    window = FixedWindow(rate=1, period=timedelta(hours=1))

    starts = [for_key(window, "send", str(number)).full(0).ts_ms for number in range(200)]

    assert starts == [for_key(window, "send", str(number)).full(0).ts_ms for number in range(200)]
    assert len(set(starts)) == 200
    assert all(sum(start // 360_000 == tenth for start in starts) > 5 for tenth in range(-10, 0))


@given(limits)
def test_a_limit_travels(limit: RateLimitConfig) -> None:
    there = config_of(limit.to_wire())

    assert there.to_wire() == limit.to_wire()
    assert decide(there, None, NOW_MS, 1, reserve=True) == decide(
        limit, None, NOW_MS, 1, reserve=True
    )


@given(limits, steps)
def test_no_more_is_granted_than_came(
    limit: RateLimitConfig, steps: list[tuple[int, float, bool]]
) -> None:
    level, now_ms, newest_ms, granted = None, 0, 0, Fraction(0)
    for passed_ms, count, _ in steps:
        now_ms += passed_ms
        newest_ms = max(newest_ms, now_ms)
        decision = decide(limit, level, now_ms, count, reserve=False)
        if decision.is_ok:
            level, granted = decision.after, granted + Fraction(count)
        came = limit.size + (newest_ms + 30_000 + full_period(limit)) * limit.rate / limit.period_ms
        assert granted <= came * (1 + 1e-9)


def full_period(limit: RateLimitConfig) -> float:
    """What comes at once at the beginning of a window is there early."""
    return limit.tick_ms if isinstance(limit, FixedWindow) else 0


@given(limits, steps)
def test_a_level_stays_within_its_bounds(
    limit: RateLimitConfig, steps: list[tuple[int, float, bool]]
) -> None:
    level, now_ms = None, 0
    least = -math.inf if limit.max_reserved is None else -limit.max_reserved
    for passed_ms, count, reserve in steps:
        now_ms += passed_ms
        decision = decide(limit, level, now_ms, count, reserve=reserve)
        if decision.is_ok:
            level = decision.after
            assert (least if reserve else min(0, least)) <= level.value <= limit.size


@given(limits, st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**9))
def test_waiting_as_long_as_was_said_is_enough_and_less_is_not(
    limit: RateLimitConfig, fill: float, ask: float, now_ms: int
) -> None:
    level = Level(limit.size * fill, 0.0)
    count = limit.size * (fill + (1 - fill) * ask)
    denied = decide(limit, level, now_ms, count, reserve=False)
    if denied.is_ok:
        return

    in_time = now_ms + denied.wait_ms
    too_soon = in_time - 2

    assert decide(limit, level, in_time, count, reserve=False).is_ok
    assert too_soon < now_ms or not decide(limit, level, too_soon, count, reserve=False).is_ok


@given(limits, st.floats(-3, 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_time_in_two_steps_is_time_in_one(
    limit: RateLimitConfig, fill: float, first_ms: int, second_ms: int
) -> None:
    level = Level(limit.size * fill, 0.0)

    in_two = limit.at(limit.at(level, first_ms), first_ms + second_ms)
    in_one = limit.at(level, first_ms + second_ms)

    assert in_two.value == pytest.approx(in_one.value, rel=1e-9, abs=1e-9)
    assert in_two.ts_ms == in_one.ts_ms


@given(windows, steps)
def test_windows_stay_on_their_grid(
    window: FixedWindow, steps: list[tuple[int, float, bool]]
) -> None:
    level, now_ms = None, 0
    for passed_ms, count, _ in steps:
        now_ms += passed_ms
        level = decide(window, level, now_ms, count, reserve=True).after
        assert (level.ts_ms - window.start_ms) % window.period_ms == 0


@given(limits, st.floats(0, 1), st.integers(0, 10**7), st.floats(0, 1), st.floats(0, 1))
def test_more_time_or_a_smaller_count_is_refused_no_sooner(
    limit: RateLimitConfig, fill: float, more_ms: int, ask: float, less: float
) -> None:
    level, count = Level(limit.size * fill, 0.0), limit.size * fill * ask
    assert decide(limit, level, 0, count, reserve=False).is_ok

    assert decide(limit, level, more_ms, count, reserve=False).is_ok
    assert decide(limit, level, 0, count * less, reserve=False).is_ok


@given(limits, st.floats(0, 1), st.integers(1, 10**6))
def test_a_clock_that_is_set_back_neither_takes_nor_gives(
    limit: RateLimitConfig, fill: float, back_ms: int
) -> None:
    level = Level(limit.size * fill, 1e6)

    assert level == decide(limit, level, 1e6 - back_ms, 0, reserve=False).after


@given(limits, st.floats(0, 1), st.integers(0, 10**8))
def test_a_limit_is_full_when_it_said_and_not_long_before(
    limit: RateLimitConfig, fill: float, now_ms: int
) -> None:
    level = limit.at(Level(limit.size * fill, 0.0), now_ms)

    then_ms = full_ms(limit, level, now_ms)

    assert limit.at(level, then_ms).value == pytest.approx(limit.size)
    early_ms = then_ms - limit.tick_ms - 1
    assert early_ms < now_ms or limit.at(level, early_ms).value < limit.size


halves = st.integers(-200, 200).map(lambda number: number / 8)


@given(limits, halves, halves, st.integers(0, 400).map(lambda number: number / 8))
def test_two_shards_give_together_exactly_what_was_asked_for(
    limit: RateLimitConfig, first: float, second: float, count: float
) -> None:
    levels = tuple(Level(min(value, limit.size), 0) for value in (first, second))
    before = [level_at(limit, level, 0) for level in levels]

    decisions = share(limit, (levels[0], levels[1]), 0, count, reserve=True)

    after = [decision.after for decision in decisions]
    taken = [Fraction(b.value) - Fraction(a.value) for b, a in zip(before, after, strict=True)]
    assert float(sum(taken)) == pytest.approx(count, abs=1e-9)
    assert after[0].value == after[1].value
    if all(float(level.value * 16).is_integer() for level in before):
        assert count == sum(taken)
