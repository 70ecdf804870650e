"""A hold keeps whoever passes where it is until the test says how it goes on."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.kernel.runtime import VirtualRuntime


async def walk(runtime: VirtualRuntime, steps: list[str], name: str) -> None:
    steps.append(f"{name} before")
    await runtime.pause("gate")
    steps.append(f"{name} after")


async def test_whoever_passes_stands_there_until_it_is_released() -> None:
    runtime = VirtualRuntime()
    hold = runtime.hold("gate")
    steps: list[str] = []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk, runtime, steps, "one")
        await hold.wait_reached()
        await trio.testing.wait_all_tasks_blocked()
        assert steps == ["one before"]
        hold.release()
    await walk(runtime, steps, "two")

    assert steps == ["one before", "one after", "two before", "two after"]
    assert hold.passed == 2


async def test_an_injected_error_is_raised_where_it_stood() -> None:
    runtime = VirtualRuntime()
    hold = runtime.hold("gate")
    steps: list[str] = []

    async def power_cut() -> None:
        await hold.wait_reached()
        hold.fail(OSError("disk on fire"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(power_cut)
        with pytest.raises(OSError, match="on fire"):
            await walk(runtime, steps, "one")

    assert steps == ["one before"]


async def test_the_first_few_may_pass() -> None:
    runtime = VirtualRuntime()
    hold = runtime.hold("gate", skip=2)
    steps: list[str] = []

    async with trio.open_nursery() as nursery:
        for name in ("one", "two", "three"):
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(walk, runtime, steps, name)
        await hold.wait_reached()
        await trio.testing.wait_all_tasks_blocked()
        assert steps == ["one before", "one after", "two before", "two after", "three before"]
        hold.release()

    assert hold.passed == 3


async def test_other_points_are_passed_freely() -> None:
    runtime = VirtualRuntime()
    runtime.hold("elsewhere")
    steps: list[str] = []

    await walk(runtime, steps, "one")

    assert steps == ["one before", "one after"]
