"""
A function that runs too long is interrupted, and everything else goes on.

These spin for real, for a few tenths of a second each.
"""

# ruff: noqa: SIM105, ASYNC251 - handlers that swallow everything, and block, are the subject.

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import trio

from engine.errors import FunctionTimeout, LimitExceeded
from engine.functions.driver import Execution
from engine.functions.slots import active, slot_here
from engine.functions.watchdog import Watchdog
from engine.model.limits import Limits
from tests.unit.functions.running import Context, execution, run, watching

LIMIT_S = 0.2
GRACE_S = 0.3
"""Within which an interrupted function must have ended, however it resists."""
LIMITS = Limits(user_time_s_max=LIMIT_S, stuck_s_max=5)
ROOT = Path(__file__).parents[2]

Handler = Callable[[Context], Awaitable[Any]]


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    with watching(LIMITS) as started:
        yield started


# Ways to spin.


def _busy() -> int:
    return sum(n * n for n in range(200))


async def spins(_: Context) -> None:
    while True:
        pass


async def spins_in_a_call(_: Context) -> None:
    while True:
        _busy()


async def swallows(_: Context) -> None:
    while True:
        try:
            _busy()
        except BaseException:
            pass


async def swallows_with_a_bare_except(_: Context) -> None:
    while True:
        try:
            while True:
                _busy()
        except:  # noqa: E722
            pass


async def swallows_on_every_level(_: Context) -> None:
    while True:
        try:
            while True:
                try:
                    await swallows(_)
                except BaseException:
                    pass
                finally:
                    _busy()
        except BaseException:
            pass
        finally:
            while True:
                try:
                    _busy()
                except BaseException:
                    break


async def swallows_around_calls(ctx: Context) -> None:
    while True:
        try:
            await ctx.call()
        except BaseException:
            pass


async def swallows_around_long_calls(ctx: Context) -> None:
    while True:
        try:
            await ctx.long_call()
            _busy()
        except BaseException:
            pass


async def swallows_around_nested_functions(ctx: Context) -> None:
    while True:
        try:
            await Nested(ctx.execution, swallows_around_calls)
        except BaseException:
            pass


class Nested:
    """A function called by another, as `ctx.run_query` does it."""

    def __init__(self, within: Execution, handler: Handler) -> None:
        self._execution = within
        self._handler = handler

    def __await__(self) -> Any:
        self._execution.leave()
        try:
            return (
                yield from self._execution.nested(lambda: self._handler(Context(self._execution)))
            )
        finally:
            self._execution.enter()


async def swallows_in_a_generator(_: Context) -> None:
    def numbers() -> Iterator[int]:
        while True:
            try:
                yield _busy()
            except BaseException:
                yield 0

    while True:
        try:
            for _number in numbers():
                pass
        except BaseException:
            pass


async def swallows_with_suppress(_: Context) -> None:
    while True:
        with contextlib.suppress(BaseException), contextlib.suppress(BaseException):
            while True:
                _busy()


async def sorts_with_a_key_that_swallows(_: Context) -> None:
    def key(number: int) -> int:
        try:
            return -number + _busy() * 0
        except BaseException:
            return 0

    while True:
        try:
            sorted(range(100_000), key=key)
        except BaseException:
            pass


SPINS = [
    spins,
    spins_in_a_call,
    swallows,
    swallows_with_a_bare_except,
    swallows_on_every_level,
    swallows_around_calls,
    swallows_around_long_calls,
    swallows_around_nested_functions,
    swallows_in_a_generator,
    swallows_with_suppress,
    sorts_with_a_key_that_swallows,
]


@pytest.mark.parametrize("spin", SPINS, ids=lambda spin: spin.__name__)
async def test_a_spin_ends_soon_after_its_limit(spin: Any, watchdog: Watchdog) -> None:
    began = perf_counter()

    with pytest.raises(FunctionTimeout, match=r"mutation messages:send .* more than 0\.2 s"):
        await run(spin, watchdog, limits=LIMITS)

    took_s = perf_counter() - began
    assert LIMIT_S <= took_s < LIMIT_S + GRACE_S
    assert_undisturbed(watchdog)
    assert "fine" == await run(answers, watchdog, limits=LIMITS)
    with trio.fail_after(1):
        await trio.sleep(0.01)


async def answers(ctx: Context) -> str:
    await ctx.call()
    await ctx.long_call()
    return "fine"


def assert_undisturbed(watchdog: Watchdog) -> None:
    slot = watchdog.slot
    assert slot is slot_here()
    assert active() is None
    assert not slot.is_disturbed
    assert not slot.trapped
    assert sys.gettrace() is None


async def test_others_are_answered_after_a_spin(watchdog: Watchdog) -> None:
    answered: list[float] = []

    async def other() -> None:
        for _ in range(20):
            await trio.sleep(0.01)
            answered.append(perf_counter())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.sleep(0.03)
        with pytest.raises(FunctionTimeout):
            await run(swallows, watchdog, limits=LIMITS)

    assert 20 == len(answered)


async def test_the_error_says_where_it_was_interrupted(watchdog: Watchdog) -> None:
    with pytest.raises(FunctionTimeout) as caught:
        await run(spins, watchdog, limits=LIMITS)

    line = spins.__code__.co_firstlineno
    assert any(f"{__file__}:{line + n} in spins" in str(caught.value) for n in (1, 2))


async def test_finally_still_runs_after_the_first_interruption(watchdog: Watchdog) -> None:
    cleaned: list[str] = []

    async def handler(_: Context) -> None:
        try:
            while True:
                pass
        finally:
            _busy()
            cleaned.append("cleaned")

    with pytest.raises(FunctionTimeout):
        await run(handler, watchdog, limits=LIMITS)

    assert ["cleaned"] == cleaned


async def test_who_catches_the_interruption_and_returns_is_late_all_the_same(
    watchdog: Watchdog,
) -> None:
    async def handler(_: Context) -> str:
        try:
            while True:
                pass
        except BaseException:
            return "as if nothing had happened"

    with pytest.raises(FunctionTimeout):
        await run(handler, watchdog, limits=LIMITS)


async def test_all_slices_of_an_execution_count_together(watchdog: Watchdog) -> None:
    rounds = 0

    async def handler(ctx: Context) -> None:
        nonlocal rounds
        while True:
            until = perf_counter() + 0.02
            while perf_counter() < until:
                pass
            rounds += 1
            await ctx.long_call()

    with pytest.raises(FunctionTimeout):
        await run(handler, watchdog, limits=LIMITS)

    assert 2 <= rounds <= 10


async def test_engine_work_is_not_user_time(watchdog: Watchdog) -> None:
    class Slow(Context):
        async def call(self) -> str:
            self.execution.leave()
            time.sleep(LIMIT_S * 1.5)
            self.execution.enter()
            return "done"

    running = execution(limits=LIMITS)

    async def handler(_: Context) -> str:
        return await Slow(running).call()

    assert "done" == await run(handler, watchdog, limits=LIMITS, within=running)
    assert 0 < running.user_time_s < 0.05


async def test_calls_have_a_limit_of_their_own(watchdog: Watchdog) -> None:
    limits = Limits(user_time_s_max=5, system_time_s_max=LIMIT_S)

    class Slow(Context):
        async def call(self) -> str:
            self.execution.leave()
            time.sleep(0.02)
            self.execution.enter()
            return "done"

    running = execution(limits=limits)
    began = perf_counter()

    with pytest.raises(FunctionTimeout, match=r"more than 0\.2 s in its calls .*system_time_s_max"):
        await run(
            lambda _: swallows_around_calls(Slow(running)), watchdog, limits=limits, within=running
        )

    assert LIMIT_S <= perf_counter() - began < LIMIT_S + GRACE_S
    assert_undisturbed(watchdog)


async def test_who_goes_on_beyond_a_limit_does_so_in_its_own_time(watchdog: Watchdog) -> None:
    class Refused(Context):
        async def call(self) -> str:
            self.execution.leave()
            time.sleep(0.02)
            self.execution.overdraw()
            self.execution.enter()
            raise LimitExceeded("documents_read_max", 2, 1, "documents read", "")

    running = execution(limits=LIMITS)
    began = perf_counter()

    with pytest.raises(FunctionTimeout, match="user_time_s_max"):
        await run(
            lambda _: swallows_around_calls(Refused(running)),
            watchdog,
            limits=LIMITS,
            within=running,
        )

    assert LIMIT_S <= perf_counter() - began < LIMIT_S + GRACE_S


async def test_engine_work_is_never_interrupted(watchdog: Watchdog) -> None:
    """The time is up a moment before each call, so that the interruption is on its way then."""
    story: list[str] = []

    class Careful(Context):
        async def call(self) -> str:
            self.execution.leave()
            story.append("begin")
            until = perf_counter() + 0.005
            while perf_counter() < until:
                pass
            story.append("end")
            self.execution.enter()
            return "done"

    async def handler(ctx: Context) -> None:
        while True:
            try:
                time.sleep(0.003)
                await ctx.call()
            except BaseException:
                pass

    for _ in range(5):
        running = execution(limits=LIMITS)
        careful = Careful(running)
        with pytest.raises(FunctionTimeout):
            await run(lambda _: handler(careful), watchdog, limits=LIMITS, within=running)  # noqa: B023

    assert story.count("begin") == story.count("end") > 5


class Interrupter(threading.Thread):
    """The watchdog, held up at the worst moment: the slice is being left while it interrupts."""

    def __init__(self, watchdog: Watchdog, running: Execution) -> None:
        super().__init__()
        self._watchdog = watchdog
        self._running = running
        self._has_lock = threading.Event()

    def run(self) -> None:
        with self._watchdog.slot.lock:
            self._has_lock.set()
            time.sleep(0.05)  # by now they wait for the lock
            frames = sys._current_frames
            sys._current_frames = dict
            self._watchdog._interrupt(self._watchdog.slot, self._running)
            sys._current_frames = frames

    def start_interrupting(self) -> None:
        self.start()
        self._has_lock.wait()


async def test_an_interruption_as_a_call_begins_does_not_reach_the_engine(
    watchdog: Watchdog,
) -> None:
    running = execution(limits=LIMITS)
    interrupter = Interrupter(watchdog, running)

    async def handler(ctx: Context) -> str:
        interrupter.start_interrupting()
        return await ctx.call()

    assert "done" == await run(handler, watchdog, limits=LIMITS, within=running)
    interrupter.join()
    assert 1 == running.interruptions
    assert_undisturbed(watchdog)


async def test_an_interruption_as_a_handler_ends_does_not_reach_the_driver(
    watchdog: Watchdog,
) -> None:
    running = execution(limits=LIMITS)
    interrupter = Interrupter(watchdog, running)

    async def handler(_: Context) -> str:
        interrupter.start_interrupting()
        return "done"

    assert "done" == await run(handler, watchdog, limits=LIMITS, within=running)
    interrupter.join()
    assert 1 == running.interruptions
    assert_undisturbed(watchdog)


async def test_an_interruption_as_a_nested_handler_ends_does_not_reach_the_engine(
    watchdog: Watchdog,
) -> None:
    running = execution(limits=LIMITS)
    interrupter = Interrupter(watchdog, running)

    async def inner(_: Context) -> str:
        interrupter.start_interrupting()
        return "done"

    async def handler(_: Context) -> str:
        return str(await Nested(running, inner))

    assert "done" == await run(handler, watchdog, limits=LIMITS, within=running)
    interrupter.join()
    assert 1 == running.interruptions
    assert_undisturbed(watchdog)


async def test_interruptions_leave_the_interpreter_as_fast_as_it_was(watchdog: Watchdog) -> None:
    def lap() -> float:
        began = perf_counter()
        for _ in range(200_000):
            pass
        return perf_counter() - began

    before = min(lap() for _ in range(10))
    for spin in (spins, swallows, swallows_around_calls):
        with pytest.raises(FunctionTimeout):
            await run(spin, watchdog, limits=LIMITS)
    after = min(lap() for _ in range(10))

    assert after < before * 1.5


async def test_under_a_tracer_there_is_no_limit(watchdog: Watchdog) -> None:
    async def handler(_: Context) -> str:
        until = perf_counter() + LIMIT_S * 1.5
        while perf_counter() < until:
            pass
        return "took my time"

    sys.settrace(lambda *_: None)
    try:
        result = await run(handler, watchdog, limits=LIMITS)
    finally:
        sys.settrace(None)

    assert "took my time" == result


# What can only be seen from outside of a process.


def python(script: str, *, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


PREAMBLE = """
import time, trio
from time import perf_counter
from engine.errors import FunctionTimeout, LimitExceeded
from engine.model.limits import Limits
from tests.unit.functions.running import Context, run, watching
"""


def test_races_at_the_edge_of_the_limit_leave_nothing_behind() -> None:
    """Handlers end just when the watchdog acts; whatever it injected must not come later."""
    script = PREAMBLE + textwrap.dedent("""
        limits = Limits(user_time_s_max=0.01)
        outcomes = {"in time": 0, "late": 0}

        async def main():
            with watching(limits) as watchdog:
                for n in range(300):
                    async def handler(ctx):
                        until = perf_counter() + 0.0095 + n % 20 * 0.00005
                        while perf_counter() < until:
                            if n % 3 == 0:
                                await ctx.call()
                            elif n % 3 == 1:
                                time.sleep(0.0001)
                    try:
                        await run(handler, watchdog, limits=limits)
                        outcomes["in time"] += 1
                    except FunctionTimeout:
                        outcomes["late"] += 1
                    await trio.lowlevel.checkpoint()
                    sum(range(100))

        trio.run(main)
        print(outcomes["in time"] + outcomes["late"], min(outcomes.values()) > 0)
    """)

    done = python(script)

    assert ("300 True\n", "", 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("sum(range(10 ** 12))", "holds the GIL"),
        ("re.match('(a+)+$', 'a' * 60 + 'b')", "holds the GIL"),
        ("lock.acquire()", "waits for ever"),
    ],
)
def test_a_call_that_cannot_be_interrupted_ends_the_process(call: str, why: str) -> None:
    if "GIL" in why and not sys.platform.startswith("linux"):
        pytest.skip("no timer on the processor time of a thread")
    script = PREAMBLE + textwrap.dedent(f"""
        import re, threading
        lock = threading.Lock()
        lock.acquire()
        limits = Limits(user_time_s_max=0.1, stuck_s_max=0.7)

        async def stuck(ctx):
            {call}

        async def main():
            with watching(limits) as watchdog:
                await run(stuck, watchdog, limits=limits)

        trio.run(main)
    """)

    began = perf_counter()
    done = python(script)

    assert perf_counter() - began < 10
    assert -6 == done.returncode
    assert "Aborted" in done.stderr
    assert "in stuck" in done.stderr


def test_an_idle_process_is_never_taken_for_a_stuck_one() -> None:
    script = PREAMBLE + textwrap.dedent("""
        limits = Limits(user_time_s_max=0.1, stuck_s_max=0.3)

        async def quick(ctx):
            await ctx.call()

        async def main():
            with watching(limits) as watchdog:
                await run(quick, watchdog, limits=limits)
                sum(range(1_000_000))
                await trio.sleep(1)
                assert watchdog.is_asleep
                sum(range(20_000_000))
                await run(quick, watchdog, limits=limits)
            print("well")

        trio.run(main)
    """)

    done = python(script)

    assert ("well\n", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_a_closed_watchdog_leaves_no_thread() -> None:
    with watching(LIMITS):
        pass
    gc.collect()

    assert "watchdog" not in [thread.name for thread in threading.enumerate()]
