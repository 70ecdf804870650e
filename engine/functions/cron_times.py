"""
When a cron runs next: from what was declared, and the time it was last due.

Intervals keep their beat; everything else follows the clock of a time zone,
summer time included.  Times are milliseconds since 1970.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, time, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from engine.app.crons import CronExpression, Daily, Hourly, Interval, Monthly, Schedule, Weekly

MINUTE_S: Final = 60
HOUR_MINUTES: Final = 60
DAY: Final = timedelta(days=1)

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
    due_ms = _after(schedule, seed, max(last_ms, now_ms - 1))
    return None if due_ms is None else NextTime(due_ms, _count(schedule, seed, last_ms, now_ms))


def _after(schedule: Schedule, seed: str, after_ms: float) -> float | None:
    expression, zone = _expression(schedule, seed)
    after = datetime.fromtimestamp(after_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    for found in _Times(expression, after):
        # In an hour that comes again one that was meant for the first time may be found.
        if (found_ms := found.timestamp() * 1000) > after_ms:
            return float(found_ms)
    return None


def _count(schedule: Schedule, seed: str, last_ms: float, now_ms: float) -> int:
    """
    How many times come after `last_ms` and before `now_ms`.

    It takes 4 us for each day, and up to 9 ms for one on which the clock is set.
    """
    if now_ms <= last_ms:
        return 0
    expression, name = _expression(schedule, seed)
    zone = ZoneInfo(name)
    days = _Days(expression, zone)
    day = datetime.combine(datetime.fromtimestamp(last_ms / 1000, zone), time(), zone)
    count = 0
    while day.timestamp() * 1000 < now_ms:
        count += days.count(day, last_ms / 1000, now_ms / 1000)
        day += DAY
    return count


class _Times(CronSim):
    """
    The times of an expression, also where a clock is set by half an hour.

    The library goes on by whole hours, and to the one minute that is asked for in one step, which
    there leads past full hours and minutes that the clock does show.
    """

    def advance_hour(self) -> bool:
        if self.dt.hour in self.hours:
            return False
        day = self.dt.date()
        while self.dt.hour not in self.hours and self.dt.date() == day:
            self._go_on(3600 - 60 * self.dt.minute - self.dt.second)
        return True

    def advance_minute(self) -> bool:
        if self.dt.minute in self.minutes:
            return False
        hour = self.dt.hour
        while self.dt.minute not in self.minutes and self.dt.hour == hour:
            ahead = min((minute - self.dt.minute) % 60 for minute in self.minutes)
            self._go_on(60 * ahead - self.dt.second)
        return True

    def _go_on(self, seconds: int) -> None:
        """Go on by so much, or to the next minute if the clock is set meanwhile."""
        before = self.dt
        self.tick(seconds=seconds)
        if self.dt.utcoffset() != before.utcoffset():
            self.dt = before
            self.tick(seconds=60 - before.second)


class _Days:
    """Days of an expression: it fits the same times of each or none, but where the clock is set."""

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        self._expression, self._zone = expression, zone
        self._sim = CronSim(expression, datetime.now(zone))
        self._hours, self._minutes = sorted(self._sim.hours), sorted(self._sim.minutes)

    def count(self, day: datetime, after_s: float, until_s: float) -> int:
        """How many times of the day that begins then come after one time and before another."""
        begin_s, end_s = day.timestamp(), (day + DAY).timestamp()
        if day.utcoffset() != (day + DAY).utcoffset():
            return self._count_each(begin_s, after_s, min(end_s, until_s))
        if day.month not in self._sim.months or not self._sim.match_day(day):
            return 0
        until_minute = -((begin_s - until_s) // MINUTE_S)
        after_minute = (after_s - begin_s) // MINUTE_S
        return self._before(until_minute) - self._before(after_minute + 1)

    def _before(self, minute_of_day: float) -> int:
        """How many times there are before a minute, which may be one before or after the day."""
        hour, minute = divmod(minute_of_day, HOUR_MINUTES)
        of_hours = len(self._minutes) * bisect_left(self._hours, hour)
        return of_hours + (bisect_left(self._minutes, minute) if hour in self._hours else 0)

    def _count_each(self, begin_s: float, after_s: float, until_s: float) -> int:
        """One by one: what the clock leaves out comes at the next time that it shows."""
        count = 0
        for found in _Times(self._expression, datetime.fromtimestamp(begin_s - 1, self._zone)):
            if (found_s := found.timestamp()) >= until_s:
                break
            count += found_s > after_s
        return count


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
