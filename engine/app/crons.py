"""
Functions that run again and again.

    crons = Crons()
    crons.interval("poll the feeds", poll, minutes=5)
    crons.daily("prune", prune, hour=4, tz="Europe/Paris", args={"days": 30})
    crons.cron("report", report, "0 9 * * mon-fri")

A cron is known by its name: under the same name a later version of the
application may change what runs and when.  Where no minute is said, each cron
is given one of its own, so that not all of them run at once.  The function is
a mutation, run exactly once for each time, or an action, run at most once.

Where the clock of `tz` is set, what is due at a time that it leaves out runs
when it goes on, and what is due at a time that it shows twice runs the first
time: once a day is once a day.  An expression whose minute or hour begins with
`*` runs whenever the clock matches, in an hour that comes twice as well.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log
from types import FrameType
from typing import Any, Final, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from engine.app.places import place_of_caller
from engine.app.references import (
    ActionReference,
    MutationReference,
    Reference,
    reference_of,
)
from engine.app.registered import Kind, RegisteredFunction
from engine.errors import DeclarationError, InvalidValue, UsageError
from engine.model.limits import (
    ATTEMPTS_MAX,
    BACKOFF_S_MAX,
    CRON_ARGS_BYTES_MAX,
    CRON_NAME_LENGTH_MAX,
    SCHEDULE_S_MAX,
)
from engine.model.text import brief, number_text
from engine.model.values import Value, normalize, size_of

DayOfWeek: TypeAlias = Literal[
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"
]
Target: TypeAlias = (
    RegisteredFunction | MutationReference[..., Any] | ActionReference[..., Any] | Reference | str
)
"""A mutation or action: itself, `internal.module.name` or "module:name"."""

MINUTES: Final = 60
HOURS: Final = 3600
DAY_OF_MONTH_MAX: Final = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Every so many seconds, the first time at once; overruns are skipped, the beat is kept."""

    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hourly:
    """Once an hour; `minute` None is one that the engine picks and keeps."""

    minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """Once a day, by the clock of a time zone."""

    hour: int
    minute: int | None = None
    tz: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekly:
    """Once a week, by the clock of a time zone."""

    day_of_week: DayOfWeek
    hour: int
    minute: int | None = None
    tz: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Monthly:
    """Once a month, by the clock of a time zone; months without that day are left out."""

    day: int
    hour: int
    minute: int | None = None
    tz: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class CronExpression:
    """Whenever the five fields of a cron expression match the clock of a time zone."""

    expression: str
    tz: str = "UTC"


Schedule: TypeAlias = Interval | Hourly | Daily | Weekly | Monthly | CronExpression


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSpec:
    """One cron as declared."""

    name: str
    function: Target
    schedule: Schedule
    args: Mapping[str, Value]
    """By wire name, plain."""
    where: str
    """File and line."""

    def function_path(self) -> tuple[str, str]:
        """
        Component and path of the function, once its module is loaded.

        Raises:
            DeclarationError: it is not part of the application.
        """
        try:
            return reference_of(self.function)
        except UsageError as error:
            raise DeclarationError(f"{self.where}: cron {self.name!r}: {error}") from None


class Crons:
    """The crons of an application or component; `jobs` are those declared so far."""

    def __init__(self) -> None:
        self.jobs: list[CronSpec] = []
        self.where = place_of_caller()
        """File and line of the declaration."""

    def interval(
        self,
        name: str,
        fn: Target,
        /,
        *,
        seconds: int | None = None,
        minutes: int | None = None,
        hours: int | None = None,
        args: Mapping[str, Value] | None = None,
    ) -> None:
        """
        Run `fn` at once, and then every so many seconds, minutes or hours: exactly one of them.

        Raises:
            DeclarationError: here and below: something that cannot be; names file and line.
        """
        job = _Job(name, fn, args, _place(sys._getframe(1)))
        self._add(job, job.interval(seconds, minutes, hours))

    def hourly(
        self,
        name: str,
        fn: Target,
        /,
        *,
        minute: int | None = None,
        minute_utc: int | None = None,
        args: Mapping[str, Value] | None = None,
    ) -> None:
        """Run `fn` every hour, at `minute` if it is said (also by the name `minute_utc`)."""
        job = _Job(name, fn, args, _place(sys._getframe(1)))
        minute = job.one_of("minute", minute, "minute_utc", minute_utc)
        job.check_int("minute", minute, 0, 59)
        self._add(job, Hourly(minute=minute))

    def daily(
        self,
        name: str,
        fn: Target,
        /,
        *,
        hour: int | None = None,
        minute: int | None = None,
        tz: str = "UTC",
        hour_utc: int | None = None,
        minute_utc: int | None = None,
        args: Mapping[str, Value] | None = None,
    ) -> None:
        """Run `fn` every day at `hour` in `tz`; `hour_utc` and `minute_utc` are hours in UTC."""
        job = _Job(name, fn, args, _place(sys._getframe(1)))
        hour, minute = job.clock(hour, minute, tz, hour_utc, minute_utc)
        self._add(job, Daily(hour=hour, minute=minute, tz=tz))

    def weekly(
        self,
        name: str,
        fn: Target,
        /,
        *,
        day_of_week: DayOfWeek,
        hour: int | None = None,
        minute: int | None = None,
        tz: str = "UTC",
        hour_utc: int | None = None,
        minute_utc: int | None = None,
        args: Mapping[str, Value] | None = None,
    ) -> None:
        """Run `fn` every week, on a day such as "monday"."""
        job = _Job(name, fn, args, _place(sys._getframe(1)))
        if day_of_week not in get_args(DayOfWeek):
            raise job.error(f"day_of_week={day_of_week!r}; write one of {get_args(DayOfWeek)}")
        hour, minute = job.clock(hour, minute, tz, hour_utc, minute_utc)
        self._add(job, Weekly(day_of_week=day_of_week, hour=hour, minute=minute, tz=tz))

    def monthly(
        self,
        name: str,
        fn: Target,
        /,
        *,
        day: int,
        hour: int | None = None,
        minute: int | None = None,
        tz: str = "UTC",
        hour_utc: int | None = None,
        minute_utc: int | None = None,
        args: Mapping[str, Value] | None = None,
    ) -> None:
        """Run `fn` every month on `day`, 1 to 31; months without that day are left out."""
        job = _Job(name, fn, args, _place(sys._getframe(1)))
        job.check_int("day", day, 1, DAY_OF_MONTH_MAX)
        hour, minute = job.clock(hour, minute, tz, hour_utc, minute_utc)
        self._add(job, Monthly(day=day, hour=hour, minute=minute, tz=tz))

    def cron(
        self,
        name: str,
        fn: Target,
        expression: str,
        /,
        *,
        tz: str = "UTC",
        args: Mapping[str, Value] | None = None,
    ) -> None:
        """Run `fn` by a cron expression: minute, hour, day of month, month, day of week."""
        job = _Job(name, fn, args, _place(sys._getframe(1)))
        self._add(job, job.expression(expression, tz))

    def _add(self, job: _Job, schedule: Schedule) -> None:
        if any(one.name == job.name for one in self.jobs):
            raise job.error("another cron has this name")
        self.jobs.append(job.spec(schedule))


def cron_jobs() -> Crons:
    """`Crons`, by the name that Convex has for it."""
    return Crons()


def registered_cron(
    name: str,
    fn: Target,
    args: Mapping[str, Value] | None,
    *,
    seconds: float | None,
    minutes: float | None,
    hours: float | None,
    cron: str | None,
    tz: str,
) -> CronSpec:
    """
    The cron that a function registers while it runs.

    Raises:
        InvalidValue: something that cannot be.
    """
    try:
        job = _Job(name, fn, args, "ctx.crons.register")
        if cron is None:
            if tz != "UTC":
                raise job.error("tz goes with cron; an interval follows no clock")
            return job.spec(job.interval(_whole(seconds), _whole(minutes), _whole(hours)))
        if (seconds, minutes, hours) != (None, None, None):
            raise job.error("say either cron or one of seconds, minutes and hours")
        return job.spec(job.expression(cron, tz))
    except DeclarationError as refused:
        raise InvalidValue(str(refused)) from None


def _whole(number: float | None) -> Any:
    """Numbers of clients and documents are floats."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _place(caller: FrameType) -> str:
    return f"{caller.f_code.co_filename}:{caller.f_lineno}"


class _Job:
    """A cron being declared: checks what it was given, and says where if that is wrong."""

    def __init__(
        self, name: str, function: Target, args: Mapping[str, Value] | None, where: str
    ) -> None:
        self.name = name
        self.function = function
        self.where = where
        if not isinstance(name, str) or not (name and name.isascii() and name.isprintable()):
            raise self.error("a cron's name is printable ASCII")
        if len(name) > CRON_NAME_LENGTH_MAX:
            raise self.error(f"a cron's name has at most {CRON_NAME_LENGTH_MAX} characters")
        if isinstance(function, RegisteredFunction) and function.kind is Kind.QUERY:
            raise self.error(f"{function!r} is a query, which nobody would see; use a mutation")
        if not isinstance(function, (RegisteredFunction, Reference, str)):
            raise self.error(f"{function!r} is no registered function; decorate it with @mutation")
        self.args = self._plain({} if args is None else args)

    def _plain(self, args: object) -> Mapping[str, Value]:
        if not isinstance(args, Mapping):
            raise self.error(f"args is a mapping of arguments by name, not {brief(repr(args))}")
        try:
            plain: Mapping[str, Value] = normalize(dict(args), path="args")
        except UsageError as refused:
            raise self.error(str(refused)) from None
        if (size := size_of(plain)) > CRON_ARGS_BYTES_MAX:
            raise self.error(
                f"its args are {size:,} bytes, and {CRON_ARGS_BYTES_MAX:,} at most "
                "(CRON_ARGS_BYTES_MAX): each run writes them. Insert a document and give its id"
            )
        return plain

    def error(self, why: str) -> DeclarationError:
        return DeclarationError(f"{self.where}: cron {brief(repr(self.name))}: {why}")

    def spec(self, schedule: Schedule) -> CronSpec:
        return CronSpec(
            name=self.name,
            function=self.function,
            schedule=schedule,
            args=self.args,
            where=self.where,
        )

    def interval(self, seconds: int | None, minutes: int | None, hours: int | None) -> Interval:
        """An interval by whichever unit was said."""
        given = {"seconds": (seconds, 1), "minutes": (minutes, MINUTES), "hours": (hours, HOURS)}
        chosen = [(unit, n, s) for unit, (n, s) in given.items() if n is not None]
        if len(chosen) != 1:
            raise self.error("say exactly one of seconds, minutes and hours")
        unit, count, unit_s = chosen[0]
        self.check_int(unit, count, 1, None)
        if (seconds := count * unit_s) > SCHEDULE_S_MAX:
            told = number_text(count)
            raise self.error(f"{unit}={told} is longer than five years (SCHEDULE_S_MAX)")
        return Interval(seconds=seconds)

    def expression(self, expression: str, tz: str) -> CronExpression:
        """A cron expression by the clock of a time zone."""
        self.check_zone(tz)
        self.check_expression(expression)
        return CronExpression(expression=expression, tz=tz)

    def check_int(self, what: str, value: int | None, least: int, most: int | None) -> None:
        if value is None:
            return
        in_bounds = type(value) is int and value >= least and (most is None or value <= most)
        if not in_bounds:
            upto = "or more" if most is None else f"to {most}"
            told = number_text(value) if type(value) in (int, float) else brief(repr(value))
            raise self.error(f"{what}={told}; write an integer, {least} {upto}")

    def one_of(self, name: str, value: int | None, other: str, alias: int | None) -> int | None:
        if value is not None and alias is not None:
            raise self.error(f"{name} and {other} are the same; say one")
        return alias if value is None else value

    def clock(
        self,
        hour: int | None,
        minute: int | None,
        tz: str,
        hour_utc: int | None,
        minute_utc: int | None,
    ) -> tuple[int, int | None]:
        """The hour and the minute, by either of their names."""
        self.check_zone(tz)
        if tz != "UTC" and (hour_utc is not None or minute_utc is not None):
            raise self.error(f"hour_utc and minute_utc are in UTC; with tz={tz!r} write hour=")
        found = self.one_of("hour", hour, "hour_utc", hour_utc)
        if found is None:
            raise self.error("say hour=, 0 to 23")
        minute = self.one_of("minute", minute, "minute_utc", minute_utc)
        self.check_int("hour", found, 0, 23)
        self.check_int("minute", minute, 0, 59)
        return found, minute

    def check_zone(self, tz: str) -> None:
        try:
            ZoneInfo(tz)
        except (TypeError, ValueError, OSError, LookupError):
            raise self.error(f'tz={tz!r} is no time zone; write a name as "Europe/Paris"') from None

    def check_expression(self, expression: str) -> None:
        if not isinstance(expression, str) or len(expression.split()) != 5:
            raise self.error(
                f"{expression!r}: a cron expression has five fields: minute, hour, day of month, "
                "month, day of week"
            )
        try:
            CronSim(expression, datetime(2026, 1, 1))
        except CronSimError as error:
            raise self.error(f"{expression!r}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """
    How often to try what may fail, and how long to wait in between.

    Each wait is half to one and a half times what these say, and seven days at most.

    Args:
        initial_backoff: before the second run: milliseconds, or a `timedelta`; seven days at most.
        base: each further wait is so many times the one before.
        max_attempts: runs altogether, the first one counted.

    Raises:
        DeclarationError: one of them cannot be.
    """

    initial_backoff: float | timedelta = 250.0
    base: float = 2.0
    max_attempts: int = 5

    def __post_init__(self) -> None:
        first, base, attempts = self.initial_backoff, self.base, self.max_attempts
        if not isinstance(first, timedelta) and not _is_number(first):
            self._refuse("initial_backoff", first, "it is milliseconds, or a timedelta")
        first_ms = first / timedelta(milliseconds=1) if isinstance(first, timedelta) else first
        if not 0 <= first_ms <= BACKOFF_S_MAX * 1000:
            why = f"it is 0 or more, and at most {BACKOFF_S_MAX:,} s, seven days (BACKOFF_S_MAX)"
            self._refuse("initial_backoff", first, why)
        if not (_is_number(base) and 1 <= base <= sys.float_info.max):
            self._refuse("base", base, "it is a finite number, 1 or more")
        is_whole = isinstance(attempts, int) and _is_number(attempts)
        if not (is_whole and 1 <= attempts <= ATTEMPTS_MAX):
            why = f"it is a whole number, 1 or more, and at most {ATTEMPTS_MAX:,} (ATTEMPTS_MAX)"
            self._refuse("max_attempts", attempts, why)

    def _refuse(self, name: str, value: Any, why: str) -> None:
        told = number_text(value) if _is_number(value) else brief(repr(value))
        raise DeclarationError(f"Retry({name}={told}): {why}")

    def backoff_ms(self, attempts: int) -> float:
        """How long to wait after `attempts` runs have failed, in milliseconds, without jitter."""
        return later_ms(self.first_ms, float(self.base), attempts)

    @property
    def first_ms(self) -> float:
        """The wait before the second run, in milliseconds."""
        first = self.initial_backoff
        return float(first / timedelta(milliseconds=1) if isinstance(first, timedelta) else first)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def later_ms(first_ms: float, base: float, attempts: float) -> float:
    """How long to wait after so many attempts, `BACKOFF_S_MAX` at most."""
    if first_ms == 0:
        return 0.0
    longest_ms = BACKOFF_S_MAX * 1000
    # Powers are compared as logarithms: a float holds no more than 1.8e308.
    if base > 1 and log(first_ms) + (attempts - 1) * log(base) > log(longest_ms):
        return longest_ms
    return min(first_ms * float(base ** (attempts - 1)), longest_ms)
