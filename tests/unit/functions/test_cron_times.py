"""When crons are due: beats, clocks, summer time, and what was missed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from engine.app.crons import CronExpression, Daily, Hourly, Interval, Monthly, Schedule, Weekly
from engine.functions.cron_times import as_row, first_time, next_time, of_row


def ms(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp() * 1000  # type: ignore[misc, arg-type]


def shown(time_ms: float | None) -> str:
    assert time_ms is not None
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()[:16]


@pytest.mark.parametrize(
    ("schedule", "after", "due"),
    [
        (Hourly(minute=5), (2026, 1, 1, 0, 5), "2026-01-01T01:05"),
        (Daily(hour=4, minute=0), (2026, 1, 1, 4), "2026-01-02T04:00"),
        (Weekly(day_of_week="monday", hour=1, minute=0), (2026, 2, 1), "2026-02-02T01:00"),
        (Monthly(day=31, hour=1, minute=0), (2026, 2, 1), "2026-03-31T01:00"),
        (CronExpression(expression="0 9 * * mon-fri"), (2026, 1, 2, 9), "2026-01-05T09:00"),
        # 02:30 is not there when summer time begins, and is there twice when it ends.
        (Daily(hour=2, minute=30, tz="Europe/Paris"), (2026, 3, 29), "2026-03-29T01:00"),
        (Daily(hour=2, minute=30, tz="Europe/Paris"), (2026, 10, 24, 12), "2026-10-25T00:30"),
        (Daily(hour=2, minute=30, tz="Europe/Paris"), (2026, 10, 25, 0, 30), "2026-10-26T01:30"),
    ],
)
def test_a_schedule_follows_the_clock(schedule: Schedule, after: tuple[int, ...], due: str) -> None:
    assert due == shown(first_time(schedule, "a cron", ms(*after)))


def test_a_minute_that_nobody_said_is_the_same_every_time() -> None:
    first = first_time(Daily(hour=4), "prune", ms(2026, 1, 1))
    assert first is not None

    second = next_time(Daily(hour=4), "prune", first, first)

    assert second is not None
    assert 24 * 3_600_000 == second.due_ms - first


def test_an_interval_is_due_at_once_and_then_keeps_its_beat() -> None:
    every = Interval(seconds=60)

    assert 1000 == first_time(every, "poll", 1000)
    assert (61_000, 0) == next_time(every, "poll", 1000, 1500)
    assert (61_000, 0) == next_time(every, "poll", 1000, 61_000)
    assert (121_000, 1) == next_time(every, "poll", 1000, 61_001)


def test_times_that_have_passed_are_skipped_and_counted() -> None:
    daily = Daily(hour=4, minute=0)

    found = next_time(daily, "prune", ms(2026, 1, 1, 4), ms(2026, 1, 10, 12))

    assert (ms(2026, 1, 11, 4), 9) == found


def test_many_that_have_passed_are_not_counted_to_the_end() -> None:
    found = next_time(
        CronExpression(expression="* * * * *"), "poll", ms(2026, 1, 1), ms(2027, 1, 1)
    )

    assert (ms(2027, 1, 1), 1000) == found


@pytest.mark.parametrize(
    "schedule",
    [
        Interval(seconds=5),
        Hourly(),
        Daily(hour=4, tz="Europe/Paris"),
        Weekly(day_of_week="sunday", hour=0, minute=7),
        Monthly(day=1, hour=2),
        CronExpression(expression="0 9 * * 1"),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_schedule_is_read_back_from_its_row(schedule: Schedule) -> None:
    assert schedule == of_row(as_row(schedule))
