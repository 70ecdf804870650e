"""A watermark only rises, and whoever waits for it sees that it did."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.kernel.watermark import Watermark


async def test_a_slow_follower_catches_up_in_one_step() -> None:
    mark = Watermark()
    tail = mark.follow()
    for ts in (1, 2, 3):
        mark.advance(ts)

    assert await tail.past(0) == 3


async def test_a_closed_follower_comes_to_the_mark_and_no_further() -> None:
    mark = Watermark()
    tail = mark.follow()
    mark.advance(3)
    tail.close()

    assert await tail.past(2) == 3
    assert await tail.past(3) is None


async def test_closing_wakes_a_follower_that_waits_and_leaves_the_others_waiting() -> None:
    mark = Watermark(5)
    first, second = mark.follow(), mark.follow()
    came: list[tuple[str, int | None]] = []

    async def follow(name: str) -> None:
        came.append((name, await {"first": first, "second": second}[name].past(5)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, "first")
        nursery.start_soon(follow, "second")
        await trio.testing.wait_all_tasks_blocked()
        first.close()
        await trio.testing.wait_all_tasks_blocked()
        assert came == [("first", None)]
        mark.advance(6)

    assert came == [("first", None), ("second", 6)]


async def test_waiting_for_a_mark_ends_when_it_is_reached_and_not_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mark = Watermark()
    reached: dict[int, float] = {}

    async def wait(at: int) -> None:
        await mark.wait_reached(at)
        reached[at] = trio.current_time()

    async with trio.open_nursery() as nursery:
        for at in (0, 2, 3, 7):
            nursery.start_soon(wait, at)
        for ts in (1, 3, 6, 9):
            await trio.sleep(1)
            mark.advance(ts)

    assert reached == {0: 0, 2: 2, 3: 2, 7: 4}


async def test_a_mark_does_not_fall() -> None:
    mark = Watermark(5)
    mark.advance(5)

    with pytest.raises(AssertionError, match="only rises"):
        mark.advance(4)
    assert mark.value == 5


async def test_one_who_stops_waiting_is_not_waited_for() -> None:
    mark = Watermark()
    with trio.move_on_after(0):
        await mark.wait_reached(1)
    mark.advance(1)

    assert mark._waiting.statistics().tasks_waiting == 0
