"""A loop of calls that never wait for anything lets others run all the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.host import Engine

CALLS = 50


@mutation
async def change_nothing(ctx: MutationCtx) -> None:
    pass


@query
async def same_again(ctx: QueryCtx) -> str:
    return "same"


async def change(engine: Engine) -> None:
    await engine.mutation(change_nothing)


async def ask(engine: Engine) -> None:
    await engine.query(same_again)


@pytest.mark.parametrize("call", [change, ask], ids=["mutation", "query"])
async def test_who_calls_in_a_loop_lets_others_run(
    autojump_clock: MockClock, call: Callable[[Engine], Awaitable[None]]
) -> None:
    turns = 0
    async with (
        Engine.open(":memory:", app=[change_nothing, same_again]) as engine,
        trio.open_nursery() as nursery,
    ):

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(other)
        for _ in range(2):  # who asks once is answered at once
            await call(engine)
        before = turns
        for _ in range(CALLS):
            await call(engine)
        nursery.cancel_scope.cancel()

    assert turns - before >= CALLS - 1
