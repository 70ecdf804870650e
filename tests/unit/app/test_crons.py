"""Crons are declared with Convex's arguments, and what cannot be is refused at its line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from engine.app.crons import (
    CronExpression,
    Crons,
    Daily,
    Hourly,
    Interval,
    Monthly,
    Retry,
    Schedule,
    Weekly,
    cron_jobs,
)
from engine.app.decorators import internal_mutation, query
from engine.app.references import internal
from engine.errors import DeclarationError


@internal_mutation
async def prune(ctx: Any, days: int = 30) -> None: ...


@query
async def look(ctx: Any) -> None: ...


Declare = Callable[[Crons], object]


@pytest.mark.parametrize(
    ("declare", "schedule"),
    [
        (lambda c: c.interval("x", prune, seconds=5), Interval(seconds=5)),
        (lambda c: c.interval("x", prune, minutes=5), Interval(seconds=300)),
        (lambda c: c.interval("x", prune, hours=2), Interval(seconds=7200)),
        (lambda c: c.hourly("x", prune), Hourly(minute=None)),
        (lambda c: c.hourly("x", prune, minute_utc=17), Hourly(minute=17)),
        (lambda c: c.hourly("x", prune, minute=0), Hourly(minute=0)),
        (lambda c: c.daily("x", prune, hour=4), Daily(hour=4)),
        (lambda c: c.daily("x", prune, hour_utc=4, minute_utc=5), Daily(hour=4, minute=5)),
        (
            lambda c: c.daily("x", prune, hour=0, minute=30, tz="Europe/Paris"),
            Daily(hour=0, minute=30, tz="Europe/Paris"),
        ),
        (
            lambda c: c.weekly("x", prune, day_of_week="monday", hour=4),
            Weekly(day_of_week="monday", hour=4),
        ),
        (lambda c: c.monthly("x", prune, day=31, hour_utc=23), Monthly(day=31, hour=23)),
        (
            lambda c: c.cron("x", prune, "*/5 9-17 * * mon-fri", tz="Asia/Tokyo"),
            CronExpression(expression="*/5 9-17 * * mon-fri", tz="Asia/Tokyo"),
        ),
    ],
)
def test_a_schedule_is_kept_as_declared(declare: Declare, schedule: Schedule) -> None:
    crons = Crons()

    declare(crons)

    assert [job.schedule for job in crons.jobs] == [schedule]


def test_a_job_knows_its_function_its_arguments_and_its_line() -> None:
    crons = cron_jobs()
    crons.interval("by itself", prune, hours=1, args={"days": 7.0})
    crons.interval("by reference", internal.jobs.prune, hours=1)
    crons.interval("by path", "jobs.js:prune", hours=1)

    itself, by_reference, by_path = crons.jobs
    assert (itself.name, itself.args) == ("by itself", {"days": 7})
    assert itself.where.startswith(f"{__file__}:")
    assert [job.function_path() for job in (by_reference, by_path)] == [("", "jobs:prune")] * 2
    with pytest.raises(DeclarationError, match=r"cron 'by itself': .* is not part of"):
        itself.function_path()


ANYTHING: Any = object()


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (lambda c: c.interval("x", prune), "exactly one of seconds, minutes and hours"),
        (lambda c: c.interval("x", prune, seconds=1, hours=1), "exactly one of"),
        (lambda c: c.interval("x", prune, seconds=0), "seconds=0; write an integer, 1 or more"),
        (lambda c: c.interval("x", prune, minutes=True), "minutes=True; write an integer"),
        (lambda c: c.interval("x", prune, hours=1.5), "hours=1.5; write an integer"),
        (lambda c: c.interval("x", prune, hours=10**9), "is longer than five years"),
        (lambda c: c.interval("x", prune, hours=10**5000), "more than 300 digits is longer"),
        (lambda c: c.interval("x", prune, hours=-(10**5000)), "write an integer"),
        (lambda c: c.hourly("x", prune, minute=60), "minute=60; write an integer, 0 to 59"),
        (lambda c: c.hourly("x", prune, minute=1, minute_utc=1), "are the same; say one"),
        (lambda c: c.daily("x", prune), "say hour=, 0 to 23"),
        (lambda c: c.daily("x", prune, hour=24), "hour=24; write an integer, 0 to 23"),
        (lambda c: c.daily("x", prune, hour=-1), "hour=-1"),
        (lambda c: c.daily("x", prune, hour=1, hour_utc=1), "are the same; say one"),
        (
            lambda c: c.daily("x", prune, hour_utc=1, tz="Europe/Paris"),
            "with tz='Europe/Paris' write hour=",
        ),
        (lambda c: c.daily("x", prune, hour=1, tz="Mars/Olympus"), "is no time zone"),
        (lambda c: c.daily("x", prune, hour=1, tz="../etc/passwd"), "is no time zone"),
        (lambda c: c.daily("x", prune, hour=1, tz=""), "is no time zone"),
        (
            lambda c: c.weekly("x", prune, day_of_week="Mon", hour=1),
            "day_of_week='Mon'; write one of",
        ),
        (lambda c: c.monthly("x", prune, day=0, hour=1), "day=0; write an integer, 1 to 31"),
        (lambda c: c.monthly("x", prune, day=32, hour=1), "day=32"),
        (lambda c: c.cron("x", prune, "* * * *"), "has five fields"),
        (lambda c: c.cron("x", prune, "* * * * * *"), "has five fields"),
        (lambda c: c.cron("x", prune, "61 * * * *"), "61 * * * *"),
        (lambda c: c.cron("x", prune, "* * * * mumday"), "mumday"),
        (lambda c: c.hourly("x", prune, args=[1]), "args is a mapping of arguments by name"),
        (lambda c: c.hourly("x", prune, args="x"), "args is a mapping of arguments by name"),
        (lambda c: c.hourly("x", prune, args={"a": "x" * (1 << 20)}), "CRON_ARGS_BYTES_MAX"),
        (lambda c: c.daily("x", prune, hour=1, tz=None), "is no time zone"),
        (lambda c: c.daily("x", prune, hour=1, tz=5), "is no time zone"),
        (lambda c: c.hourly(5, prune), "printable ASCII"),
        (lambda c: c.hourly("", prune), "printable ASCII"),
        (lambda c: c.hourly("naïve", prune), "printable ASCII"),
        (lambda c: c.hourly("x" * 300, prune), "at most 256"),
        (lambda c: c.hourly("x", look), "is a query, which nobody would see"),
        (lambda c: c.hourly("x", ANYTHING), "decorate it with @mutation"),
        (lambda c: c.hourly("x", prune, args={"a": ANYTHING}), "args.a"),
        (lambda c: [c.hourly("x", prune), c.hourly("x", prune)], "another cron has this name"),
    ],
)
def test_what_cannot_be_is_refused_at_its_line(declare: Declare, why: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare(Crons())

    assert str(caught.value).startswith(f"{__file__}:")
    assert why in str(caught.value)


def test_a_retry_counts_the_first_run() -> None:
    retry = Retry(initial_backoff=timedelta(seconds=1), base=3, max_attempts=4)

    assert [retry.backoff_ms(failed) for failed in (1, 2, 3)] == [1000.0, 3000.0, 9000.0]
    assert Retry(initial_backoff=100).backoff_ms(2) == 200.0


def test_a_retry_waits_as_long_and_tries_as_often_as_can_be() -> None:
    retry = Retry(initial_backoff=timedelta(days=7), base=1e308, max_attempts=10**9)

    assert [7 * 86_400_000.0] * 2 == [retry.backoff_ms(failed) for failed in (1, 10**9)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": 2.5},
        {"max_attempts": True},
        {"max_attempts": 10**400},
        {"max_attempts": "3"},
        {"base": 0.5},
        {"base": True},
        {"base": "2"},
        {"base": 10**400},
        {"base": float("nan")},
        {"base": float("inf")},
        {"initial_backoff": -1},
        {"initial_backoff": True},
        {"initial_backoff": None},
        {"initial_backoff": "5"},
        {"initial_backoff": float("nan")},
        {"initial_backoff": 10**400},
        {"initial_backoff": timedelta(days=7.1)},
    ],
    ids=list,
)
def test_a_retry_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    ((name, _),) = wrong.items()
    with pytest.raises(DeclarationError, match=f"{name}=.*(or more|milliseconds)") as refused:
        Retry(**wrong)

    assert len(str(refused.value)) < 200
