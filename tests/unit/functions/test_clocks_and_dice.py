"""Time and chance as application modules see them: frozen and seeded in a query or mutation."""

from __future__ import annotations

import copy
import datetime
import pickle
import random
import time
import uuid
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from engine.functions.driver import Execution
from engine.functions.watchdog import Watchdog
from tests.unit.functions.running import NOW_NS, execution, run_plain

Execute = Callable[[str], ModuleType]

MODULE = """
import datetime as dt
import os, random, secrets, time, uuid
from datetime import date, datetime, timedelta, timezone
from random import Random, SystemRandom, random as chance, shuffle
from time import time as now
from uuid import uuid4


class Stamp(datetime):
    pass


class Coin(random.Random):
    def toss(self):
        return self.random() < 0.5


def evaluate(expression):
    return eval(expression, globals())
"""

NOW_S = NOW_NS / 1e9
UTC_NOW = datetime.datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=datetime.UTC)


@pytest.fixture
def evaluate(execute: Execute) -> Callable[[str], Any]:
    """Evaluates an expression in a module of an application."""
    found: Callable[[str], Any] = execute(MODULE).evaluate
    return found


async def within(
    evaluate: Callable[[str], Any], expression: str, watchdog: Watchdog, *, seed: int = 7
) -> tuple[Any, Execution]:
    running = execution(seed=seed)
    return await run_plain(lambda: evaluate(expression), watchdog, within=running), running


CLOCKS = {
    "time.time()": NOW_S,
    "now()": NOW_S,
    "time.time_ns()": NOW_NS,
    "time.monotonic()": NOW_S,
    "time.perf_counter_ns()": NOW_NS,
    "time.clock_gettime(time.CLOCK_REALTIME)": NOW_S,
    "time.gmtime()": time.gmtime(NOW_S),
    "time.gmtime(None)": time.gmtime(NOW_S),
    "time.localtime()": time.localtime(NOW_S),
    "time.ctime()": time.ctime(NOW_S),
    "time.asctime()": time.ctime(NOW_S),
    "time.strftime('%H:%M:%S')": time.strftime("%H:%M:%S", time.localtime(NOW_S)),
    "datetime.now(timezone.utc)": UTC_NOW,
    "dt.datetime.now(tz=dt.UTC)": UTC_NOW,
    "datetime.now().astimezone(dt.UTC)": UTC_NOW,
    "datetime.utcnow()": UTC_NOW.replace(tzinfo=None),
    "datetime.today().astimezone(dt.UTC)": UTC_NOW,
    "date.today()": datetime.date.fromtimestamp(NOW_S),
    "dt.date.today()": datetime.date.fromtimestamp(NOW_S),
    "Stamp.now(dt.UTC)": UTC_NOW,
}


@pytest.mark.parametrize("expression", CLOCKS)
async def test_every_clock_stands(
    expression: str, evaluate: Callable[[str], Any], watchdog: Watchdog
) -> None:
    value, running = await within(evaluate, expression, watchdog)

    assert CLOCKS[expression] == value
    assert running.observed_time


@pytest.mark.parametrize(
    "expression",
    [
        "time.gmtime(0)",
        "time.strftime('%Y', time.gmtime(0))",
        "datetime(2026, 1, 1)",
        "datetime.fromtimestamp(0, dt.UTC)",
        "datetime.fromisoformat('2026-01-01')",
        "date(2026, 1, 1)",
        "random.Random(3).random()",
        "uuid.UUID(int=3)",
    ],
)
async def test_what_depends_on_neither_is_not_said_to(
    expression: str, evaluate: Callable[[str], Any], watchdog: Watchdog
) -> None:
    _, running = await within(evaluate, expression, watchdog)

    assert not running.observed_time
    assert not running.observed_random


@pytest.mark.parametrize(
    ("expression", "now"),
    [
        ("time.time()", time.time),
        ("time.time_ns() / 1e9", time.time),
        ("datetime.now().timestamp()", time.time),
        ("datetime.now(dt.UTC).timestamp()", time.time),
        ("time.monotonic()", time.monotonic),
        ("time.mktime(time.localtime())", time.time),
    ],
)
def test_elsewhere_clocks_go(
    expression: str, now: Callable[[], float], evaluate: Callable[[str], Any]
) -> None:
    assert now() == pytest.approx(evaluate(expression), abs=1.5)


# `datetime` stays what it is.


@pytest.mark.parametrize(
    "expression",
    [
        "datetime.now()",
        "datetime.now(dt.UTC)",
        "datetime(2026, 1, 1, 12)",
        "datetime.strptime('2026', '%Y')",
        "datetime.combine(date.today(), dt.time())",
        "datetime.fromisoformat('2026-01-01T12:00')",
        "datetime.now() + timedelta(1)",
        "datetime.now().replace(year=2020)",
    ],
)
async def test_dates_are_of_the_ordinary_class(
    expression: str, evaluate: Callable[[str], Any], watchdog: Watchdog
) -> None:
    value, _ = await within(evaluate, expression, watchdog)

    assert type(value) is datetime.datetime
    assert value == pickle.loads(pickle.dumps(value)) == copy.deepcopy(value)


@pytest.mark.parametrize(
    "expression",
    [
        "isinstance(datetime.now(), datetime)",
        "isinstance(datetime.now(), date)",
        "not isinstance(date.today(), datetime)",
        "isinstance(Stamp.now(), Stamp)",
        "not isinstance(datetime.now(), Stamp)",
        "issubclass(datetime, date)",
        "issubclass(Stamp, datetime)",
        "type(date.today()).__name__ == 'date'",
        "datetime == type(datetime.now())",
        "type(datetime.now()) in {datetime: 1}",
        "datetime is dt.datetime",
        "datetime.min < datetime.now() < datetime.max",
        "datetime.__name__ == 'datetime' and datetime.__module__ == 'datetime'",
        "isinstance(random.Random(1), Random)",
        "isinstance(Coin(1).toss(), bool)",
        "issubclass(Coin, random.Random)",
    ],
)
async def test_classes_compare_as_ever(
    expression: str, evaluate: Callable[[str], Any], watchdog: Watchdog
) -> None:
    assert evaluate(expression)
    assert (await within(evaluate, expression, watchdog))[0]


def test_others_see_the_dates_of_an_application_as_dates(evaluate: Callable[[str], Any]) -> None:
    shim = evaluate("datetime")

    assert isinstance(evaluate("datetime.now()"), datetime.datetime)
    assert issubclass(shim, datetime.datetime)
    assert datetime.datetime == shim
    assert {datetime.datetime: "found"}[shim] == "found"


# Dice.

CHANCES = [
    "random.random()",
    "chance()",
    "random.randint(0, 10**9)",
    "random.choice(range(10**9))",
    "random.sample(range(10**6), 5)",
    "random.gauss(0, 1)",
    "random.getrandbits(64)",
    "random.randbytes(8)",
    "random.Random().random()",
    "Random(None).random()",
    "Coin().random()",
    "SystemRandom().random()",
    "secrets.token_bytes()",
    "secrets.token_hex(4)",
    "secrets.token_urlsafe()",
    "secrets.randbelow(10**9)",
    "secrets.randbits(64)",
    "secrets.choice(range(10**9))",
    "secrets.SystemRandom().random()",
    "os.urandom(8)",
    "os.getrandom(8)",
    "uuid.uuid4()",
    "uuid4()",
    "uuid.uuid1()",
    "uuid.getnode()",
    "[x := list(range(100)), shuffle(x)][0]",
]


@pytest.mark.parametrize("expression", CHANCES)
async def test_the_same_seed_gives_the_same_chance(
    expression: str, evaluate: Callable[[str], Any], watchdog: Watchdog
) -> None:
    one, running = await within(evaluate, expression, watchdog, seed=1)
    again, _ = await within(evaluate, expression, watchdog, seed=1)
    other, _ = await within(evaluate, expression, watchdog, seed=2)

    assert one == again != other
    assert running.observed_random


@pytest.mark.parametrize("expression", CHANCES)
def test_elsewhere_chance_is_chance(expression: str, evaluate: Callable[[str], Any]) -> None:
    assert expression == "uuid.getnode()" or evaluate(expression) != evaluate(expression)


async def test_the_process_keeps_its_own_dice(
    evaluate: Callable[[str], Any], watchdog: Watchdog
) -> None:
    random.seed(3)
    expected = random.Random(3).random()

    await within(evaluate, "[random.seed(9), random.random()]", watchdog)

    assert expected == random.random()


async def test_uuids_are_of_their_version(
    evaluate: Callable[[str], Any], watchdog: Watchdog
) -> None:
    first, _ = await within(evaluate, "[uuid.uuid1() for _ in range(50)]", watchdog)
    fourth, _ = await within(evaluate, "uuid.uuid4()", watchdog)

    assert {1} == {one.version for one in first}
    assert 50 == len(set(first))
    assert {uuid.RFC_4122} == {one.variant for one in (*first, fourth)}
    assert 4 == fourth.version
    assert NOW_NS // 100 == first[0].time - 0x01B21DD213814000


async def test_a_lower_bound_that_is_none_is_refused_as_ever(
    evaluate: Callable[[str], Any], watchdog: Watchdog
) -> None:
    with pytest.raises(ValueError, match="Upper bound must be positive"):
        await within(evaluate, "secrets.randbelow(0)", watchdog)


def test_models_of_pydantic_take_dates(execute: Execute) -> None:
    module = execute(
        """
        from datetime import date, datetime
        from pydantic import BaseModel

        class Stay(BaseModel):
            since: datetime
            until: date

        stay = Stay.model_validate_json('{"since": "2026-01-01T12:00:00", "until": "2026-01-02"}')
        """
    )

    assert datetime.datetime(2026, 1, 1, 12) == module.stay.since
    assert datetime.date(2026, 1, 2) == module.stay.until


async def test_events_of_structlog_are_lines_while_a_function_runs(
    execute: Execute, watchdog: Watchdog, capsys: pytest.CaptureFixture[str]
) -> None:
    module = execute(
        """
        import structlog

        log = structlog.get_logger().bind(room="general")

        def act():
            log.info("posted", by=3)
            log.bind(n=1).warning("late")
            log.unbind("room").error("%s of %s", 1, 2)
            try:
                raise KeyError("x")
            except KeyError:
                log.exception("failed")
        """
    )
    running = execution()

    await run_plain(module.act, watchdog, within=running)

    assert [
        "[INFO] 'posted' { room: 'general', by: 3 }",
        "[WARN] 'late' { room: 'general', n: 1 }",
        "[ERROR] '1 of 2'",
    ] == running.log_lines[:3]
    assert "exception: 'Traceback" in running.log_lines[3]
    assert "" == capsys.readouterr().out
    module.act()
    assert "posted" in capsys.readouterr().out


async def test_print_in_a_module_of_an_application_is_a_line(
    execute: Execute, watchdog: Watchdog, capsys: pytest.CaptureFixture[str]
) -> None:
    module = execute(
        """
        def act():
            print("posting", {"n": 1})
        """
    )
    running = execution()

    await run_plain(module.act, watchdog, within=running)
    module.act()

    assert ["[LOG] 'posting' { n: 1 }"] == running.log_lines
    assert "posting {'n': 1}\n" == capsys.readouterr().out
