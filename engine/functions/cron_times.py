"""
When a cron runs next: from what was declared, and the time it was last due.

Intervals keep their beat; everything else follows the clock of a time zone,
summer time included.  Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from engine.app.crons import CronExpression, Daily, Hourly, Interval, Monthly, Schedule, Weekly

SKIPPED_COUNT_MAX: Final = 1_000
"""Ticks that were missed are counted one by one, up to here."""

_KINDS: Final[dict[str, type[Schedule]]] = {
    "interval": Interval,
    "hourly": Hourly,
    "daily": Daily,
    "weekly": Weekly,
    "monthly": Monthly,
    "cron": CronExpression,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


class NextTime(NamedTuple):
    """When a cron is due, and how many times it was due before that and is not run for."""

    due_ms: float
    skipped: int


def as_row(schedule: Schedule) -> dict[str, Any]:
    """A schedule as a plain value; `of_row` reads it."""
    fields = {name: value for name, value in asdict(schedule).items() if value is not None}
    return {"type": _NAMES[type(schedule)], **fields}


def of_row(row: Mapping[str, Any]) -> Schedule:
    """The schedule that `as_row` wrote."""
    fields = {name: value for name, value in row.items() if name != "type"}
    return _KINDS[row["type"]](**fields)


def first_time(schedule: Schedule, seed: str, now_ms: float) -> float | None:
    """
    When a new cron is due first: an interval at once; `None` is never.

    Args:
        seed: decides the minute where none was said; equal for the same cron.
    """
    if isinstance(schedule, Interval):
        return now_ms
    return _after(schedule, seed, now_ms)


def next_time(schedule: Schedule, seed: str, last_ms: float, now_ms: float) -> NextTime | None:
    """
    When a cron that was due at `last_ms` is due again, not before `now_ms`; `None` is never.
    """
    if isinstance(schedule, Interval):
        period_ms = schedule.seconds * 1000
        beats = max(1, -int(-(now_ms - last_ms) // period_ms))
        return NextTime(last_ms + beats * period_ms, beats - 1)
    due, skipped = _after(schedule, seed, last_ms), 0
    while due is not None and due < now_ms:
        skipped += 1
        due = _after(schedule, seed, due if skipped < SKIPPED_COUNT_MAX else now_ms - 1)
    return None if due is None else NextTime(due, skipped)


def _after(schedule: Schedule, seed: str, after_ms: float) -> float | None:
    expression, zone = _expression(schedule, seed)
    after = datetime.fromtimestamp(after_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    found = next(CronSim(expression, after), None)
    return None if found is None else float(found.timestamp() * 1000)


def _expression(schedule: Schedule, seed: str) -> tuple[str, str]:
    """A schedule as a cron expression, and its time zone."""
    match schedule:
        case CronExpression():
            return schedule.expression, schedule.tz
        case Hourly(minute=minute):
            return f"{_minute(minute, seed)} * * * *", "UTC"
        case Daily(hour=hour, minute=minute, tz=tz):
            return f"{_minute(minute, seed)} {hour} * * *", tz
        case Weekly(day_of_week=day, hour=hour, minute=minute, tz=tz):
            return f"{_minute(minute, seed)} {hour} * * {day[:3]}", tz
        case Monthly(day=day_of_month, hour=hour, minute=minute, tz=tz):
            return f"{_minute(minute, seed)} {hour} {day_of_month} * *", tz
        case Interval():
            raise AssertionError("an interval follows no clock")


def _minute(minute: int | None, seed: str) -> int:
    if minute is not None:
        return minute
    return int.from_bytes(blake2b(seed.encode(), digest_size=8).digest(), "big") % 60
