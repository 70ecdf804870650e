"""What a pool decides by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.workpool.rules import (
    WAIT_MS_MAX,
    Outcome,
    check_parallelism,
    report_of,
    size_of,
    verdict,
    wait_ms,
)
from engine import Retry
from engine.model.values import normalize
from engine.model.values import size_of as size_as_limits_count


def test_the_golden_report() -> None:
    counted = {"succeeded": 6, "failed": 2, "retries": 2, "canceled": 0}

    report = report_of(counted, running=0, waiting=1)

    assert {
        "completed": 10,
        "failureRate": 0.4,
        "permanentFailureRate": 0.25,
        "backlog": 1,
    }.items() <= (report.items())


def test_a_report_of_nothing_has_no_rates_to_divide_by() -> None:
    counted = dict.fromkeys(("succeeded", "failed", "retries", "canceled"), 0)

    assert 0 == report_of(counted, running=0, waiting=0)["failureRate"]


@given(
    first_ms=st.floats(0, 10_000),
    base=st.floats(1, 3),
    attempts=st.integers(1, 5),
    fraction=st.floats(0, 1),
)
def test_waits_grow_by_their_base_and_are_spread_by_half(
    first_ms: float, base: float, attempts: int, fraction: float
) -> None:
    retry = {"initial_backoff": first_ms, "base": base, "max_attempts": 5}
    mean = first_ms * base ** (attempts - 1)

    found = wait_ms(retry, attempts, fraction)

    assert found == pytest.approx(mean * (0.5 + fraction))
    assert found >= 0.5 * mean


def test_the_longest_wait_is_spread_below_itself() -> None:
    retry = {"initial_backoff": WAIT_MS_MAX, "base": 2, "max_attempts": 5}

    assert (WAIT_MS_MAX / 2, WAIT_MS_MAX) == (wait_ms(retry, 1, 0.0), wait_ms(retry, 1, 1.0))
    assert WAIT_MS_MAX == Retry(initial_backoff=WAIT_MS_MAX).backoff_ms(9)


@pytest.mark.parametrize(
    ("outcome", "attempts", "canceled", "expected"),
    [
        (Outcome("success"), 1, True, "succeeded"),
        (Outcome("failed"), 1, False, "retries"),
        (Outcome("failed"), 5, False, "failed"),
        (Outcome("failed"), 1, True, "canceled"),
        (Outcome("failed", is_final=True), 1, False, "failed"),
        (Outcome("canceled"), 1, False, "canceled"),
    ],
)
def test_what_becomes_of_a_work(
    outcome: Outcome, attempts: int, canceled: bool, expected: str
) -> None:
    assert expected == verdict(outcome, attempts=attempts, max_attempts=5, is_canceled=canceled)


@pytest.mark.parametrize("number", [-1, 201, 2.5, True])
def test_a_parallelism_that_cannot_be_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match="a whole number from 0, which pauses, to 200"):
        check_parallelism(number)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-5, 5)
        | st.text(max_size=9)
        | st.binary(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["a", "bc"]), inner, max_size=2)
        ),
    )
)
def test_sizes_are_not_far_from_those_that_limits_count(value: Any) -> None:
    counted = size_as_limits_count(normalize(value))

    assert counted <= size_of(value) <= 9 * counted
