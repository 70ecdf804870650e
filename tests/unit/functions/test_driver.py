"""A handler is run step by step, and can await nothing but what its context gives."""

# ruff: noqa: SIM105, ASYNC105 - handlers that swallow everything, and forget to await.

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, NoReturn, cast

import pytest
import trio
import trio.lowlevel

from engine.errors import FunctionAborted, FunctionTimeout, NotAllowed
from engine.functions.slots import Running, active
from engine.functions.watchdog import Watchdog
from engine.model.limits import Limits
from tests.unit.functions.running import NOW_NS, Checkpoint, Context, execution, run, run_plain


async def test_a_run_is_what_its_handler_returns(watchdog: Watchdog) -> None:
    async def handler(ctx: Context) -> list[str]:
        return [await ctx.call(), await ctx.long_call()]

    assert ["done", "done"] == await run(handler, watchdog)


async def test_an_error_of_the_handler_is_handed_on(watchdog: Watchdog) -> None:
    async def handler(ctx: Context) -> NoReturn:
        await ctx.call()
        raise KeyError("name")

    with pytest.raises(KeyError, match="name"):
        await run(handler, watchdog)


async def test_an_execution_is_active_in_its_own_code_only(watchdog: Watchdog) -> None:
    seen: list[Running | None] = []
    running = execution()

    class Spying(Context):
        async def call(self) -> str:
            self.execution.leave()
            seen.append(active())
            self.execution.enter()
            return "done"

    async def handler(_: Context) -> None:
        seen.append(active())
        await Spying(running).call()
        seen.append(active())

    await run(handler, watchdog, within=running)
    seen.append(active())

    assert [running, None, running, None] == seen


async def test_others_have_their_turn_at_a_checkpoint(watchdog: Watchdog) -> None:
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    async def handler(ctx: Context) -> None:
        turns.append("before")
        await ctx.long_call()  # trio shuffles who is next
        await ctx.long_call()
        turns.append("after")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await run(handler, watchdog)

    assert ["before", "other", "after"] == turns


async def test_a_cancelled_caller_closes_the_handler_first(watchdog: Watchdog) -> None:
    story: list[str] = []

    async def handler(ctx: Context) -> None:
        try:
            while True:
                await ctx.long_call()
        finally:
            story.append("unwound")
            with pytest.raises(NotAllowed, match="has ended"):
                await ctx.call()
            story.append("no ctx any more")

    with trio.CancelScope() as scope:
        scope.cancel()
        await run(handler, watchdog)

    assert scope.cancelled_caught
    assert ["unwound", "no ctx any more"] == story


async def test_a_handler_that_is_closed_has_time_to_clean_up(watchdog: Watchdog) -> None:
    cleaned: list[str] = []

    def work(seconds: float) -> None:
        until = perf_counter() + seconds
        while perf_counter() < until:
            pass

    async def handler(ctx: Context) -> None:
        work(0.29)
        try:
            await ctx.long_call()
        finally:
            work(0.04)
            cleaned.append("cleaned")

    with trio.CancelScope() as scope:
        scope.cancel()
        await run(handler, watchdog)

    assert ["cleaned"] == cleaned


async def test_a_handler_that_will_not_be_closed_is_stopped_at_its_next_line(
    watchdog: Watchdog,
) -> None:
    async def handler(ctx: Context) -> None:
        while True:
            try:
                await ctx.long_call()
            except BaseException:
                pass
            try:
                await trio.lowlevel.checkpoint()
            except BaseException:
                pass

    with trio.fail_after(2), trio.CancelScope() as scope:
        scope.cancel()
        await run(handler, watchdog)

    assert scope.cancelled_caught
    await trio.lowlevel.checkpoint()


# What is awaited.


@types.coroutine
def _bare_yield() -> Generator[str, None, None]:
    yield "something of my own"


async def _future() -> None:
    await asyncio.Future(loop=cast(asyncio.AbstractEventLoop, _loop))


_loop = types.SimpleNamespace(get_debug=lambda: False)

FOREIGN: dict[str, tuple[Callable[[], Any], str]] = {
    "a sleep": (lambda: trio.sleep(1), "trio.sleep"),
    "a checkpoint": (trio.lowlevel.checkpoint, "trio.checkpoint"),
    "an event": (lambda: trio.Event().wait(), "trio.Event.wait"),
    "a channel": (lambda: trio.open_memory_channel[int](0)[1].receive(), "receive"),
    "a future of asyncio": (_future, "Future"),
    "a yield": (_bare_yield, "_bare_yield"),
}


@pytest.mark.parametrize("what", FOREIGN)
async def test_other_awaits_are_refused_by_name(what: str, watchdog: Watchdog) -> None:
    make, name = FOREIGN[what]

    async def handler(_: Context) -> None:
        await make()

    with pytest.raises(NotAllowed, match=f"await .*{name}.* in the mutation messages:send"):
        await run(handler, watchdog)

    with trio.fail_after(1):
        await trio.sleep(0.01)


async def test_what_was_refused_no_longer_concerns_trio(watchdog: Watchdog) -> None:
    event = trio.Event()

    async def handler(_: Context) -> None:
        await event.wait()

    with pytest.raises(NotAllowed):
        await run(handler, watchdog)
    event.set()

    assert 0 == event.statistics().tasks_waiting
    await trio.lowlevel.checkpoint()


async def test_a_caught_refusal_is_only_an_error(watchdog: Watchdog) -> None:
    async def handler(ctx: Context) -> str:
        try:
            await trio.sleep(1)
        except NotAllowed:
            return await ctx.call()
        return "slept"

    assert "done" == await run(handler, watchdog)


async def test_a_handler_that_awaits_again_is_refused_until_its_time_is_up(
    watchdog: Watchdog,
) -> None:
    refused = 0

    async def handler(_: Context) -> None:
        nonlocal refused
        while True:
            try:
                await trio.lowlevel.checkpoint()
            except BaseException:
                refused += 1

    with trio.fail_after(2), pytest.raises(FunctionTimeout):
        await run(handler, watchdog)

    assert refused > 10
    await trio.lowlevel.checkpoint()


async def test_a_nursery_is_refused_and_its_children_are_cancelled(watchdog: Watchdog) -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("child")

    async def handler(_: Context) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    with trio.fail_after(2), pytest.raises(BaseExceptionGroup) as caught:
        await run(handler, watchdog)

    assert caught.group_contains(NotAllowed, match="Nursery")
    assert ["child"] == ended


async def _unabortable() -> None:
    task = trio.lowlevel.current_task()
    trio.lowlevel.current_trio_token().run_sync_soon(trio.lowlevel.reschedule, task)
    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


async def test_what_cannot_be_taken_back_is_waited_out_and_refused_all_the_same(
    watchdog: Watchdog,
) -> None:
    story: list[str] = []

    async def handler(ctx: Context) -> None:
        await _unabortable()
        story.append("waited")
        await ctx.call()

    with pytest.raises(NotAllowed, match=r"await trio\.wait_task_rescheduled"):
        await run(handler, watchdog)

    assert ["waited"] == story
    await trio.lowlevel.checkpoint()


async def test_a_caller_cancelled_meanwhile_is_cancelled(watchdog: Watchdog) -> None:
    async def waits_for_cancellation() -> None:
        def abort(_: Any) -> trio.lowlevel.Abort:
            attempts.append("abort")
            failed = len(attempts) == 1
            return trio.lowlevel.Abort.FAILED if failed else trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def handler(_: Context) -> None:
        while True:
            try:
                await waits_for_cancellation()
            except BaseException:
                swallowed.append("once")

    attempts: list[str] = []
    swallowed: list[str] = []
    with trio.move_on_after(0.05) as scope:
        await run(handler, watchdog)

    assert scope.cancelled_caught
    assert swallowed


# What is raised.


class _Own(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseExceptionGroup("several", [_Own(), ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_would_end_the_process_ends_the_function(
    error: BaseException, watchdog: Watchdog
) -> None:
    async def handler(ctx: Context) -> NoReturn:
        await ctx.call()
        raise error

    with pytest.raises(FunctionAborted, match="messages:send raised") as caught:
        await run(handler, watchdog)

    assert error is caught.value.__cause__


async def test_sys_exit_ends_the_function(watchdog: Watchdog) -> None:
    with pytest.raises(FunctionAborted):
        await run_plain(lambda: sys.exit(1), watchdog)


# The context afterwards, and elsewhere.


async def test_a_context_that_was_kept_is_of_no_use(watchdog: Watchdog) -> None:
    kept: list[Context] = []

    async def handler(ctx: Context) -> None:
        kept.append(ctx)

    await run(handler, watchdog)

    with pytest.raises(NotAllowed, match="the mutation messages:send has ended"):
        await kept[0].call()


async def test_a_context_is_of_no_use_in_another_function(watchdog: Watchdog) -> None:
    others = Context(execution())

    async def handler(_: Context) -> None:
        await others.call()

    with pytest.raises(NotAllowed, match="each function has its own ctx"):
        await run(handler, watchdog)


# Calls within.


async def test_a_nested_handler_runs_in_the_same_execution(watchdog: Watchdog) -> None:
    running = execution()
    seen: list[Running | None] = []

    class Nesting(Context):
        def __await__(self) -> Any:
            self.execution.leave()
            result = yield from self.execution.nested(inner)
            seen.append(active())
            self.execution.enter()
            return result

    async def inner_steps(ctx: Context) -> str:
        seen.append(active())
        return await ctx.long_call()

    def inner() -> Any:
        return inner_steps(Context(running))

    async def handler(_: Context) -> str:
        return str(await Nesting(running))

    assert "done" == await run(handler, watchdog, within=running)
    assert [running, None] == seen


async def test_a_nested_handler_that_fails_leaves_its_slice(watchdog: Watchdog) -> None:
    running = execution()
    seen: list[Running | None] = []

    class Nesting(Context):
        def __await__(self) -> Any:
            self.execution.leave()
            try:
                yield from self.execution.nested(lambda: 1 / 0)
            except ZeroDivisionError:
                seen.append(active())
            self.execution.enter()

    async def handler(_: Context) -> None:
        await Nesting(running)

    await run(handler, watchdog, within=running)

    assert [None] == seen


# Clock and dice.


def test_the_clock_stands_and_is_remembered_to_have_been_read() -> None:
    running = execution()

    assert not running.observed_time
    assert NOW_NS == running.read_clock()
    assert running.observed_time


def test_the_same_seed_gives_the_same_numbers() -> None:
    one, other, third = execution(seed=1), execution(seed=1), execution(seed=2)

    assert not one.observed_random
    assert one.random.random() == other.random.random() != third.random.random()
    assert one.observed_random


async def test_what_others_take_in_their_turns_is_no_time_of_a_call(watchdog: Watchdog) -> None:
    limits = Limits(system_time_s_max=0.05)

    async def handler(ctx: Context) -> str:
        return await ctx.long_call()

    async def another() -> None:
        end = perf_counter() + 0.2
        while perf_counter() < end:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(another)
        assert await run(handler, watchdog, limits=limits) == "done"


async def test_what_a_call_takes_between_turns_of_others_is_its_own(watchdog: Watchdog) -> None:
    limits = Limits(system_time_s_max=0.05)

    async def handler(ctx: Context) -> str:
        ctx.execution.leave()
        for _ in range(4):
            end = perf_counter() + 0.02
            while perf_counter() < end:
                pass
            await Checkpoint()
        ctx.execution.enter()
        return "done"

    with pytest.raises(FunctionTimeout, match="system_time_s_max"):
        await run(handler, watchdog, limits=limits)
