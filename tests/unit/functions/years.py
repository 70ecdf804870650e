"""When crons are due in a year, worked out by looking at every minute of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

ZONES: Final = ("America/New_York", "Europe/Paris", "Australia/Lord_Howe")
"""The last one moves its clock by half an hour."""
STEP: Final = timedelta(minutes=5)


@cache
def instants(year: int, zone: str) -> list[tuple[datetime, datetime]]:
    """Each fifth minute of a year, in UTC, and what the clock on the wall shows then."""
    place = ZoneInfo(zone)
    now = datetime(year, 1, 1, tzinfo=UTC)
    found = []
    while now.year == year:
        found.append((now, now.astimezone(place).replace(tzinfo=None)))
        now += STEP
    return found


def whenever(year: int, zone: str, is_due: Callable[[datetime], bool]) -> list[datetime]:
    """All instants at which the wall shows what is due, those of a repeated hour twice."""
    return [now for now, wall in instants(year, zone) if is_due(wall)]


def once_a_day(
    year: int, zone: str, hour: int, minute: int, is_due: Callable[[datetime], bool]
) -> list[datetime]:
    """Of each day that is due, the first instant at which its wall has come to `hour:minute`."""
    due = []
    passed = None
    for now, wall in instants(year, zone):
        if (wall.hour, wall.minute) < (hour, minute):
            continue
        if passed != wall.date() and is_due(wall) and now.timetuple()[1:5] != (1, 1, 0, 0):
            due.append(now)
        passed = wall.date()
    return due
