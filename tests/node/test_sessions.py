"""Mutations that a client sends twice, and what is remembered of them for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.app.registered import loading
from engine.app.registry import Application, functions_of
from engine.errors import OutOfRetention
from engine.functions.results import Caller, MutationResult
from engine.functions.session_sweep import SessionSweep
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import VirtualRuntime
from engine.model.commits import SessionRequest
from engine.model.limits import Limits
from engine.node import Node, running_node
from engine.store.memory_store import MemoryStore

SESSION = b"s" * 16


@mutation
async def add(ctx: MutationCtx, fails: bool = False, size: int = 0) -> Any:
    """Insert one and return how many there are, or something large and deep."""
    await ctx.db.insert("things", {})
    print("added")  # noqa: T201 - a function that says something
    if fails:
        raise ValueError("no")
    if size:
        answer: Any = "x" * size
        for _ in range(40):
            answer = [answer]
        return answer
    return await ctx.db.count("things")


@asynccontextmanager
async def opened(store: MemoryStore, limits: Limits | None = None) -> AsyncIterator[Node]:
    limits = limits or Limits()
    watchdog = Watchdog(limits)
    watchdog.start()
    with loading("t"):
        add.module = "t"
    application = Application(functions=functions_of("t", {"add": add}), digest="1")
    try:
        async with running_node(
            store, runtime=VirtualRuntime(), limits=limits, watchdog=watchdog
        ) as node:
            await node.push(application)
            yield node
    finally:
        watchdog.close()


async def send(node: Node, number: int, session: bytes = SESSION, **args: Any) -> MutationResult:
    return await node.functions.mutation(
        "t:add",
        args,
        caller=Caller(),
        request=SessionRequest(session_id=session, request_id=number),
    )


async def test_a_repeated_request_is_answered_and_not_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(MemoryStore()) as node:
        first = await send(node, 0)
        await send(node, 1)
        again = await send(node, 0)

        assert (first.value, first.ts, first.log_lines) == (again.value, again.ts, again.log_lines)
        assert 3 == (await send(node, 2)).value


async def test_a_request_repeated_while_it_runs_runs_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with opened(store) as node:
        hold = store.hold()
        answers: list[MutationResult] = []

        async def sender() -> None:
            answers.append(await send(node, 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender)
            nursery.start_soon(sender)
            await hold.wait_reached()
            await trio.testing.wait_all_tasks_blocked()
            assert [] == answers
            hold.release()

        assert answers[0].ts == answers[1].ts
        assert [1, 1] == [answer.value for answer in answers]


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_a_large_or_deep_answer_is_remembered_as_well(
    size: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(MemoryStore()) as node:
        first = await send(node, 0, size=size)
        again = await send(node, 0, size=size)

        assert first.failure is None, first.failure
        assert (first.ts, first.value) == (again.ts, again.value)


async def test_a_failed_request_runs_again(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(MemoryStore()) as node:
        assert (await send(node, 0, fails=True)).failure is not None
        assert 1 == (await send(node, 0)).value


async def test_a_request_is_remembered_over_a_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with opened(store) as node:
        first = await send(node, 0)
    async with opened(store.durable_copy()) as node:
        again = await send(node, 0)

    assert (first.ts, first.value) == (again.ts, again.value)


async def test_old_records_go_and_a_replay_below_them_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = replace(Limits(), session_records_max=3)
    async with opened(MemoryStore(), limits) as node:
        await send(node, 0)
        await trio.sleep(limits.session_record_age_s_min + 1)
        for number in range(1, 4):
            await send(node, number)

        with pytest.raises(OutOfRetention, match="request 0"):
            outcome = await send(node, 0)
            assert outcome.failure is not None
            raise outcome.failure.error
        assert 4 == (await send(node, 3)).value


async def test_silent_sessions_are_swept_and_others_stay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = Limits()
    async with opened(MemoryStore(), limits) as node:
        for number in range(5):
            await send(node, number)
        await trio.sleep(limits.session_silence_s_max + 1)
        await send(node, 0, session=b"t" * 16)
        sweep = SessionSweep(node.functions.turns, runtime=node.runtime, limits=limits)

        assert 5 == await sweep.sweep()
        assert 0 == await sweep.sweep()
        assert 6 == (await send(node, 0, session=b"t" * 16)).value


async def test_a_clock_that_leaps_makes_no_session_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = Limits()
    async with opened(MemoryStore(), limits) as node:
        await send(node, 0)
        assert isinstance(node.runtime, VirtualRuntime)
        node.runtime.jump(2 * limits.session_silence_s_max)
        sweep = SessionSweep(node.functions.turns, runtime=node.runtime, limits=limits)

        assert 0 == await sweep.sweep()
        assert 1 == (await send(node, 0)).value
