"""The lane of the committer: one at a time, in groups, with patience."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio

from engine.committer.lane import Lane
from engine.errors import Overloaded


@dataclass
class Traffic:
    """Tasks that pass the lane, and what was seen of them."""

    lane: Lane
    inside: int = 0
    passed: list[int] = field(default_factory=list)

    async def cross(self, name: int, yields: int = 0, patience_s: float = 60.0) -> None:
        await self.lane.enter(patience_s)
        try:
            self.inside += 1
            assert 1 == self.inside, "two are in the lane"
            for _ in range(yields):
                await trio.lowlevel.checkpoint()
            self.passed.append(name)
        finally:
            self.inside -= 1
            self.lane.leave()


async def test_a_free_lane_is_taken_without_a_task_switch() -> None:
    lane = Lane(lambda: True)
    with trio.CancelScope() as scope:
        scope.cancel()  # any checkpoint would raise
        await lane.enter(1)

    assert lane.is_held
    assert not scope.cancelled_caught


@pytest.mark.parametrize("yields", [0, 3])
async def test_everybody_passes_alone_and_once(yields: int) -> None:
    traffic = Traffic(Lane(lambda: True))
    async with trio.open_nursery() as nursery:
        for name in range(300):
            nursery.start_soon(traffic.cross, name, yields if name % 7 == 0 else 0)

    assert list(range(300)) == sorted(traffic.passed)
    assert not traffic.lane.is_held
    assert 0 == traffic.lane.waiting_count


async def test_a_group_passes_in_one_turn_of_the_scheduler() -> None:
    traffic = Traffic(Lane(lambda: True))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while len(traffic.passed) < 51:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.cross, 0, 5)
        while not traffic.lane.is_held:
            await trio.lowlevel.checkpoint()
        for name in range(1, 51):
            nursery.start_soon(traffic.cross, name)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(count_turns)

    assert turns < 12, "fifty tasks take a few turns, not fifty"


async def test_who_waits_longest_is_in_the_next_group(
    autojump_clock: trio.testing.MockClock,
) -> None:
    traffic = Traffic(Lane(lambda: True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.cross, 0, 2)
        await trio.testing.wait_all_tasks_blocked(0.0)
        for name in range(1, 200):
            nursery.start_soon(traffic.cross, name)
            await trio.lowlevel.checkpoint()

    assert set(traffic.passed[:65]) >= set(range(1, 50)), "the first to come are in the first group"


async def test_patience_ends_with_overloaded_and_nothing_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lane = Lane(lambda: True)
    await lane.enter(1)
    with pytest.raises(Overloaded, match="nothing was done"):
        await lane.enter(3)
    lane.leave()

    assert 3 == trio.current_time()
    assert 0 == lane.waiting_count
    await lane.enter(1)


async def test_without_room_nobody_enters_until_there_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = False
    lane = Lane(lambda: room)
    traffic = Traffic(lane)
    async with trio.open_nursery() as nursery:
        for name in range(5):
            nursery.start_soon(traffic.cross, name)
        await trio.testing.wait_all_tasks_blocked()
        assert [] == traffic.passed
        room = True
        lane.admit()

    assert 5 == len(traffic.passed)


async def test_one_who_gives_up_while_waiting_leaves_no_trace() -> None:
    traffic = Traffic(Lane(lambda: True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.cross, 0, 20)
        while not traffic.lane.is_held:
            await trio.lowlevel.checkpoint()
        with trio.CancelScope() as scope:
            nursery.start_soon(traffic.cross, 1)
            scope.cancel()
            await traffic.lane.enter(60)
        assert scope.cancelled_caught

    assert [0, 1] == traffic.passed
    assert not traffic.lane.is_held
