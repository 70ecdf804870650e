"""When crons are due: beats, clocks, summer time, and what was missed."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.app.crons import CronExpression, Daily, Hourly, Interval, Monthly, Schedule, Weekly
from engine.functions.cron_times import as_row, first_time, next_time, of_row
from tests.unit.functions.years import ZONES, once_a_day, whenever


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


def test_a_year_of_minutes_that_have_passed_is_counted_to_the_end() -> None:
    every_minute = CronExpression(expression="* * * * *", tz="Europe/Zurich")

    found = next_time(every_minute, "poll", ms(2026, 1, 1), ms(2027, 1, 1))

    assert (ms(2027, 1, 1), 365 * 24 * 60 - 1) == found


CHANGES: dict[str, list[tuple[int, ...]]] = {
    "Europe/Paris": [(2026, 3, 29, 1), (2026, 10, 25, 1)],
    "Australia/Lord_Howe": [(2026, 4, 4, 15), (2026, 10, 3, 15, 30)],
    "America/Havana": [(2026, 3, 8, 5), (2026, 11, 1, 5)],
    "Africa/Cairo": [(2026, 4, 23, 22), (2026, 10, 29, 21)],
}
"""When clocks are set, in UTC: in the night, or at its midnight."""


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize(
    "expression",
    [
        "*/15 * * * *",
        "0 * * * *",
        "30 0-3 * * *",
        "15,45 1,2 * * *",
        "*/30 0-23 * * *",
        "0,30 0-23 * * *",
        "0 0 L * *",
    ],
)
def test_what_was_missed_is_as_many_as_they_are_one_by_one(zone: str, expression: str) -> None:
    schedule = CronExpression(expression=expression, tz=zone)
    for change in CHANGES[zone]:
        for hours_before in (30, 1.5):
            last_ms = ms(*change) - hours_before * 3_600_000
            times = [last_ms]
            while (due_ms := first_time(schedule, "", times[-1])) is not None and len(times) < 300:
                times.append(due_ms)
            for hours in range(0, 60, 3):
                now_ms = min(last_ms + hours * 3_600_000 + 600_000, times[-1])
                place = bisect_left(times, now_ms)
                found = next_time(schedule, "", last_ms, now_ms)

                assert (times[place], place - 1) == found, (change, hours_before, hours)


@pytest.mark.parametrize(
    ("schedule", "spring", "autumn"),
    [
        (Daily(hour=2, minute=30, tz="Europe/Zurich"), ["03:00+02"], ["02:30+02"]),
        (
            CronExpression(expression="30 * * * *", tz="Europe/Zurich"),
            ["01:30+01", "03:30+02"],
            ["01:30+02", "02:30+02", "02:30+01", "03:30+01"],
        ),
    ],
    ids=["daily", "hourly"],
)
def test_what_is_daily_runs_once_when_the_clock_is_set_and_what_is_hourly_each_hour(
    schedule: Schedule, spring: list[str], autumn: list[str]
) -> None:
    """As README.md says."""

    def between(day: tuple[int, int, int]) -> list[str]:
        begin = datetime(*day, 1, tzinfo=ZoneInfo("Europe/Zurich"))
        end_ms = datetime(*day, 4, tzinfo=begin.tzinfo).timestamp() * 1000
        times = []
        due_ms = first_time(schedule, "", begin.timestamp() * 1000)
        while due_ms is not None and due_ms < end_ms:
            times.append(
                datetime.fromtimestamp(due_ms / 1000, begin.tzinfo).strftime("%H:%M%z")[:8]
            )
            due_ms = first_time(schedule, "", due_ms)
        return times

    assert (spring, autumn) == (between((2026, 3, 29)), between((2026, 10, 25)))


def test_a_clock_that_shows_an_hour_again_finds_what_is_to_come() -> None:
    """At 02:30 of winter time, when it has been 02:45 of summer time."""
    found = first_time(Daily(hour=2, minute=45, tz="Europe/Zurich"), "", ms(2026, 10, 25, 1, 30))

    assert "2026-10-26T01:45" == shown(found)


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


def is_half_hour_near_a_change(wall: datetime) -> bool:
    """The clocks change in these days."""
    return wall.minute % 30 == 0 and wall.month in (3, 4, 10, 11) and not 8 < wall.day < 25


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("schedule_in", "expected_in"),
    [
        (
            lambda tz: Daily(hour=2, minute=30, tz=tz),
            lambda tz: once_a_day(2026, tz, 2, 30, lambda _: True),
        ),
        (
            lambda tz: Daily(hour=1, minute=45, tz=tz),
            lambda tz: once_a_day(2026, tz, 1, 45, lambda _: True),
        ),
        (
            lambda tz: Weekly(day_of_week="sunday", hour=2, minute=0, tz=tz),
            lambda tz: once_a_day(2026, tz, 2, 0, lambda wall: wall.weekday() == 6),
        ),
        (
            lambda tz: Monthly(day=31, hour=23, minute=55, tz=tz),
            lambda tz: once_a_day(2026, tz, 23, 55, lambda wall: wall.day == 31),
        ),
        (
            lambda tz: CronExpression(expression="*/30 * 1-8,25-31 3,4,10,11 *", tz=tz),
            lambda tz: whenever(2026, tz, is_half_hour_near_a_change),
        ),
        (
            lambda tz: CronExpression(expression="0 */6 * * *", tz=tz),
            lambda tz: whenever(2026, tz, lambda wall: wall.minute == 0 and wall.hour % 6 == 0),
        ),
        (
            lambda tz: CronExpression(expression="*/15 1,3 * * *", tz=tz),
            lambda tz: whenever(
                2026, tz, lambda wall: wall.minute % 15 == 0 and wall.hour in (1, 3)
            ),
        ),
        (
            lambda tz: CronExpression(expression="15 9 1-7 2,8 *", tz=tz),
            lambda tz: once_a_day(
                2026, tz, 9, 15, lambda wall: wall.month in (2, 8) and wall.day <= 7
            ),
        ),
    ],
    ids=[
        "daily",
        "in what is repeated",
        "on sundays",
        "on the 31st",
        "half-hourly",
        "six-hourly",
        "quarters",
        "expression",
    ],
)
def test_a_year_is_that_of_the_clock_on_the_wall(
    zone: str, schedule_in: Any, expected_in: Any
) -> None:
    schedule = schedule_in(zone)
    due_ms = datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000 - 1
    found = []
    while True:
        following = next_time(schedule, "", due_ms, due_ms)
        assert following is not None
        due_ms = following.due_ms
        if (due := datetime.fromtimestamp(due_ms / 1000, UTC)).year > 2026:
            break
        found.append(due)

    assert expected_in(zone) == found
