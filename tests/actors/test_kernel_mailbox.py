"""A mailbox holds what fits, makes askers wait their patience, and loses nothing."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.errors import Overloaded, Stopped
from engine.kernel.mailbox import Mailbox


async def test_a_batch_is_what_is_there_up_to_its_limit() -> None:
    inbox: Mailbox[int] = Mailbox("m", capacity=8)
    for message in range(5):
        await inbox.put(message, patience_s=1)

    batches = [await inbox.next_batch(3), await inbox.next_batch(3)]

    assert batches == [[0, 1, 2], [3, 4]]


async def test_an_actor_without_messages_waits_for_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inbox: Mailbox[str] = Mailbox("m", capacity=1)

    async def ask_later() -> None:
        await trio.sleep(7)
        await inbox.put("late", patience_s=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_later)
        batch = await inbox.next_batch(10)

    assert batch == ["late"]
    assert trio.current_time() == 7


async def test_a_full_mailbox_tells_the_asker_after_its_patience(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inbox: Mailbox[int] = Mailbox("orders", capacity=1)
    await inbox.put(1, patience_s=2)

    with pytest.raises(Overloaded, match="orders had no room for 2 s"):
        await inbox.put(2, patience_s=2)

    assert trio.current_time() == 2
    assert await inbox.next_batch(9) == [1]


async def test_an_asker_that_waits_gets_the_room_that_is_made(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inbox: Mailbox[int] = Mailbox("m", capacity=1)
    await inbox.put(1, patience_s=0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: inbox.put(2, patience_s=5))
        await trio.testing.wait_all_tasks_blocked()
        taken = await inbox.next_batch(1)

    assert taken == [1]
    assert await inbox.next_batch(9) == [2]
    assert trio.current_time() == 0


async def test_without_patience_there_is_room_or_there_is_not() -> None:
    inbox: Mailbox[int] = Mailbox("m", capacity=1)
    await inbox.put(1, patience_s=0)

    with pytest.raises(Overloaded):
        await inbox.put(2, patience_s=0)
    with pytest.raises(Overloaded):
        inbox.put_nowait(3)

    assert await inbox.next_batch(9) == [1]
    inbox.put_nowait(4)
    assert await inbox.next_batch(9) == [4]


async def test_a_cancelled_asker_has_not_handed_anything_over() -> None:
    inbox: Mailbox[int] = Mailbox("m", capacity=1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.put(1, patience_s=1)
    inbox.close()

    assert scope.cancelled_caught
    assert await inbox.next_batch(9) == []


async def test_closing_hands_out_what_was_accepted_and_refuses_the_rest() -> None:
    inbox: Mailbox[int] = Mailbox("orders", capacity=4)
    await inbox.put(1, patience_s=1)
    inbox.close()

    for patience_s in (1, 0):
        with pytest.raises(Stopped, match="orders has stopped; nothing was done"):
            await inbox.put(2, patience_s=patience_s)
    with pytest.raises(Stopped):
        inbox.put_nowait(2)

    assert [await inbox.next_batch(9), await inbox.next_batch(9)] == [[1], []]


async def test_closing_turns_away_those_who_wait_for_room() -> None:
    inbox: Mailbox[int] = Mailbox("m", capacity=1)
    await inbox.put(1, patience_s=0)
    refused: list[int] = []

    async def ask() -> None:
        try:
            await inbox.put(2, patience_s=60)
        except Stopped:
            refused.append(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        inbox.close()

    assert refused == [2]
    assert await inbox.next_batch(9) == [1]


async def test_leftovers_are_what_was_never_handed_out() -> None:
    inbox: Mailbox[int] = Mailbox("m", capacity=4)
    for message in range(3):
        await inbox.put(message, patience_s=1)
    await inbox.next_batch(1)

    left = inbox.leftovers()

    assert left == [1, 2]
    with pytest.raises(Stopped):
        await inbox.put(3, patience_s=1)
