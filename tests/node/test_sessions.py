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
from engine.errors import OutOfRetention, RequestRefused
from engine.functions.results import Caller, MutationResult
from engine.functions.session_sweep import SessionSweep
from engine.functions.sweeping import SWEPT_BYTES_MAX
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import VirtualRuntime
from engine.model.commits import SessionRequest
from engine.model.limits import Limits
from engine.node import Node, running_node
from engine.store.memory_store import MemoryStore
from engine.transaction.transaction import Transaction

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
async def opened(
    store: MemoryStore, limits: Limits | None = None, runtime: VirtualRuntime | None = None
) -> AsyncIterator[Node]:
    limits = limits or Limits()
    watchdog = Watchdog(limits)
    watchdog.start()
    with loading("t"):
        add.module = "t"
    application = Application(functions=functions_of("t", {"add": add}), digest="1")
    try:
        async with running_node(
            store, runtime=runtime or VirtualRuntime(), limits=limits, watchdog=watchdog
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


@pytest.mark.parametrize("seed", range(20))
async def test_a_request_repeated_beside_itself_runs_once(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Outside the lane both begin, and the commit of one makes the other look again."""
    async with opened(MemoryStore(), runtime=VirtualRuntime(seed, interleaves=True)) as node:
        answers: list[MutationResult] = []

        async def sender() -> None:
            answers.append(await send(node, 0))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sender)
        following = await send(node, 1)

    assert {(answers[0].ts, 1)} == {(answer.ts, answer.value) for answer in answers}
    assert 2 == following.value


async def test_who_hung_up_while_its_request_ran_finds_it_done_or_not_begun(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with opened(store) as node:
        hold = store.hold()
        with trio.move_on_after(1):
            await send(node, 0)
        hold.release()
        again = await send(node, 0)

        assert (1, 2) == (again.value, (await send(node, 1)).value)


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
        for number in range(8):
            await send(node, number)

        assert 0 == await sweep(node), "all are young"
        await trio.sleep(limits.session_record_age_s_min + 1)
        assert 5 == await sweep(node)
        refused = await send(node, 4)
        kept = await send(node, 5)
        new = await send(node, 8)

    assert refused.failure is not None
    assert isinstance(refused.failure.error, OutOfRetention)
    assert "request 4 is older than what is remembered" in refused.failure.message
    assert (6, 9) == (kept.value, new.value)


async def test_a_session_keeps_what_is_young_however_much_that_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = replace(Limits(), session_records_max=3)
    async with opened(MemoryStore(), limits) as node:
        for number in range(5):
            await send(node, number)
        await trio.sleep(limits.session_record_age_s_min + 1)
        for number in range(5, 15):
            await send(node, number)
        dropped = await sweep(node)

        assert [refused(await send(node, number)) for number in (4, 5, 14)] == [True, False, False]
        await trio.sleep(limits.session_record_age_s_min + 1)
        assert (5, 7) == (dropped, await sweep(node))


async def test_records_are_swept_in_slices_and_others_run_in_between(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.functions.session_sweep.SLICE_ROWS", 4)
    limits = replace(Limits(), session_records_max=3)
    async with opened(MemoryStore(), limits) as node:
        for session in (b"a", b"b"):
            for number in range(13):
                await send(node, number, session=session * 16)
        await trio.sleep(limits.session_record_age_s_min + 1)
        before = node.functions.published.value
        records = []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sweep, node)
            while node.functions.published.value == before:
                await trio.lowlevel.checkpoint()
            first = await send(node, 0, session=b"a" * 16)
            records.append(refused(first))
        records += [refused(await send(node, n, session=b"b" * 16)) for n in (0, 9, 10)]

    assert [True, True, True, False] == records


async def test_no_transaction_of_a_sweep_has_more_than_a_few_large_records(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(Limits(), session_records_max=3)
    async with opened(MemoryStore(), limits) as node:
        for number in range(13):
            await send(node, number, size=SWEPT_BYTES_MAX // 3)
        await trio.sleep(limits.session_record_age_s_min + 1)
        slices = dropped_of_each_write(node, monkeypatch)
        dropped = await sweep(node)

    assert (10, [3, 3, 3, 1, 0]) == (dropped, slices[:5])


def dropped_of_each_write(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with how many rows each transaction of a sweep has dropped."""
    found: list[int] = []
    stage = node.functions.turns.stage

    def staged(transaction: Transaction, *args: Any) -> None:
        found.append(sum(write.after is None for write in transaction.finish()))
        stage(transaction, *args)

    monkeypatch.setattr(node.functions.turns, "stage", staged)
    return found


def refused(result: MutationResult) -> bool:
    return result.failure is not None


async def sweep(node: Node) -> int:
    return await SessionSweep(
        node.functions.turns, runtime=node.runtime, limits=node.limits
    ).sweep()


async def test_silent_sessions_are_swept_and_others_stay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = Limits()
    async with opened(MemoryStore(), limits) as node:
        for number in range(5):
            await send(node, number)
        await trio.sleep(limits.session_silence_s_max + 1)
        await send(node, 0, session=b"t" * 16)

        assert 5 == await sweep(node)
        assert 0 == await sweep(node)
        assert 6 == (await send(node, 0, session=b"t" * 16)).value


async def test_a_key_of_one_call_is_forgotten_like_a_silent_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(MemoryStore()) as node:

        async def call(digest: bytes) -> MutationResult:
            request = SessionRequest(session_id=SESSION, request_id=0, call=digest)
            return await node.functions.mutation("t:add", {}, caller=Caller(), request=request)

        assert [1, 1] == [(await call(b"one")).value for _ in range(2)]
        with pytest.raises(RequestRefused, match="another call"):
            await call(b"another")
        await trio.sleep(Limits().session_silence_s_max + 1)
        sweep = SessionSweep(node.functions.turns, runtime=node.runtime, limits=Limits())

        assert 1 == await sweep.sweep()
        assert 2 == (await call(b"another")).value


async def test_what_is_forgotten_of_a_session_is_none_of_a_key(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A client that guesses the digest of a key sends so much that its old requests are refused."""
    limits = replace(Limits(), session_records_max=1)
    async with opened(MemoryStore(), limits) as node:
        for number in range(3):
            await send(node, number)
        await trio.sleep(limits.session_record_age_s_min + 1)
        await send(node, 3)
        dropped = await sweep(node)
        request = SessionRequest(session_id=SESSION, request_id=0, call=b"one")
        keyed = await node.functions.mutation("t:add", {}, caller=Caller(), request=request)

        assert (3, True, 5) == (dropped, refused(await send(node, 0)), keyed.value)


async def test_a_clock_that_leaps_makes_no_session_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = Limits()
    async with opened(MemoryStore(), limits) as node:
        await send(node, 0)
        assert isinstance(node.runtime, VirtualRuntime)
        node.runtime.jump(2 * limits.session_silence_s_max)

        assert 0 == await sweep(node)
        assert 1 == (await send(node, 0)).value
