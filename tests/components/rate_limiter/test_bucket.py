"""Token buckets: how much there is, when, and what is refused."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.rate_limiter.bucket import Decision, Level, TokenBucket, decide

MINUTE_MS = 60_000.0
TEN_A_MINUTE = TokenBucket(rate=10, period=timedelta(minutes=1))

buckets = st.builds(
    TokenBucket,
    rate=st.floats(0.1, 1000),
    period=st.floats(1, 1e8),
    capacity=st.none() | st.floats(0.1, 1000),
    max_reserved=st.none() | st.floats(0, 1000),
)
steps = st.lists(
    st.tuples(st.floats(-1000, 1e6), st.floats(0, 50), st.booleans()), min_size=1, max_size=30
)


@pytest.mark.parametrize(
    ("value", "elapsed_ms", "count", "after", "wait_ms"),
    [
        (5, 30_000, 0, 10, 0),
        (5, 30_000, 8, 2, 0),
        (5, 30_000, 15, -5, 30_000),
        (10, 0, 5, 5, 0),
        (5, 6_000, 6, 0, 0),
        (0, 0, 10, -10, MINUTE_MS),
        (5, 6_000, 16, -10, MINUTE_MS),
        (-10, 30_000, 5, -10, MINUTE_MS),
    ],
)
def test_the_golden_cases_of_ten_a_minute(
    value: float, elapsed_ms: float, count: float, after: float, wait_ms: float
) -> None:
    decision = decide(TEN_A_MINUTE, Level(value, 0), elapsed_ms, count, reserve=True)

    assert Decision(True, Level(after, elapsed_ms), wait_ms) == decision


def test_a_bucket_that_nobody_has_asked_is_full() -> None:
    assert Decision(True, Level(9, 1000), 0) == decide(TEN_A_MINUTE, None, 1000, 1, reserve=False)


def test_without_reserve_nobody_goes_into_debt() -> None:
    decision = decide(TEN_A_MINUTE, Level(0, 0), 0, 1, reserve=False)

    assert (False, 6_000) == (decision.is_ok, decision.retry_after_ms)


def test_debts_end_where_max_reserved_does() -> None:
    bucket = TokenBucket(rate=1, period=1000, max_reserved=1)

    assert decide(bucket, Level(1, 0), 0, 2, reserve=True).is_ok
    assert not decide(bucket, Level(-1, 0), 0, 1, reserve=True).is_ok


def test_a_max_of_none_reserved_is_not_unlimited() -> None:
    bucket = TokenBucket(rate=1, period=1000, max_reserved=0)

    assert not decide(bucket, Level(0, 0), 0, 1, reserve=True).is_ok


@pytest.mark.parametrize(
    ("bucket", "count", "reserve", "message"),
    [
        (TokenBucket(rate=1, period=1000), 2, False, "count 2 exceeds 1"),
        (TokenBucket(rate=1, period=1000, max_reserved=2), 4, True, "count 4 exceeds 3"),
        (TokenBucket(rate=1, period=1000), -1, False, "no number of tokens"),
        (TokenBucket(rate=1, period=1000), math.nan, True, "no number of tokens"),
    ],
)
def test_what_could_never_be_had_is_an_error(
    bucket: TokenBucket, count: float, reserve: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bucket.check_count("send", count, reserve=reserve)


def test_any_number_can_be_reserved_where_no_bound_is_said() -> None:
    TokenBucket(rate=1, period=1000).check_count("send", 100, reserve=True)


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"period": -1}, {"capacity": math.inf}])
def test_a_bucket_of_numbers_that_make_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is a number above 0"):
        TokenBucket(**{"rate": 1, "period": 1000, **wrong})


@given(buckets, steps)
def test_no_more_is_granted_than_came(
    bucket: TokenBucket, steps: list[tuple[float, float, bool]]
) -> None:
    level, now_ms, newest_ms, granted = None, 0.0, 0.0, 0.0
    for passed_ms, count, _ in steps:
        now_ms += passed_ms
        newest_ms = max(newest_ms, now_ms)
        decision = decide(bucket, level, now_ms, count, reserve=False)
        if decision.is_ok:
            level, granted = decision.after, granted + count
        came = bucket.size + (newest_ms + 1000) * bucket.rate / bucket.period_ms
        assert granted <= came * (1 + 1e-9)


@given(buckets, steps)
def test_a_level_stays_within_its_bounds(
    bucket: TokenBucket, steps: list[tuple[float, float, bool]]
) -> None:
    level, now_ms = None, 0.0
    least = -math.inf if bucket.max_reserved is None else -bucket.max_reserved
    for passed_ms, count, reserve in steps:
        now_ms += passed_ms
        decision = decide(bucket, level, now_ms, count, reserve=reserve)
        if decision.is_ok:
            level = decision.after
            assert least <= level.value <= bucket.size


@given(buckets, st.floats(0, 1), st.floats(0, 1))
def test_waiting_as_long_as_was_said_is_enough_and_less_is_not(
    bucket: TokenBucket, fill: float, ask: float
) -> None:
    level, count = Level(bucket.size * fill, 0.0), bucket.size * ask
    denied = decide(bucket, level, 0, count, reserve=False)
    if denied.is_ok:
        return

    in_time = math.ceil(denied.retry_after_ms) + 1
    too_soon = math.floor(denied.retry_after_ms) - 1

    assert decide(bucket, level, in_time, count, reserve=False).is_ok
    assert too_soon < 0 or not decide(bucket, level, too_soon, count, reserve=False).is_ok


@given(buckets, st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1e6))
def test_time_in_two_steps_is_time_in_one(
    bucket: TokenBucket, fill: float, first_ms: float, second_ms: float
) -> None:
    level = Level(bucket.size * fill, 0.0)
    between = decide(bucket, level, first_ms, 0, reserve=False).after

    in_two = decide(bucket, between, first_ms + second_ms, 0, reserve=False).after
    in_one = decide(bucket, level, first_ms + second_ms, 0, reserve=False).after

    assert in_two.value == pytest.approx(in_one.value, rel=1e-9, abs=1e-9)


@given(buckets, st.floats(0, 1), st.floats(1, 1e6))
def test_a_clock_that_is_set_back_neither_takes_nor_gives(
    bucket: TokenBucket, fill: float, back_ms: float
) -> None:
    level = Level(bucket.size * fill, 1e6)

    assert level == decide(bucket, level, 1e6 - back_ms, 0, reserve=False).after
