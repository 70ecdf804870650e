"""A reply is given once, and read by whoever asked if it still cares."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.errors import Conflict
from engine.kernel.reply import Reply


async def test_the_asker_gets_the_value() -> None:
    reply: Reply[int] = Reply()
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await reply.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert not reply.is_settled
        reply.set(7)

    assert answers == [7]


async def test_the_asker_gets_the_error() -> None:
    reply: Reply[int] = Reply()
    reply.fail(Conflict("changed at 3"))

    with pytest.raises(Conflict, match="changed at 3"):
        await reply.wait()


async def test_an_asker_that_stops_waiting_leaves_the_answer_unread() -> None:
    reply: Reply[int] = Reply()
    with trio.move_on_after(0):
        await reply.wait()

    reply.set(7)

    assert reply.is_settled
    assert await reply.wait() == 7


async def test_answering_twice_is_a_mistake() -> None:
    reply: Reply[int] = Reply()
    reply.set(7)

    with pytest.raises(AssertionError, match="given once"):
        reply.fail(Conflict("too late"))

    assert await reply.wait() == 7
