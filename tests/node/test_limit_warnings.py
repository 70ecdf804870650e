"""A log line warns a function that has used four fifths of a limit, whichever it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.errors import LimitExceeded
from engine.model.limits import Limits
from engine.model.values import size_of
from engine.node import Node
from tests.node.nodes import ADMIN, mutate, serving

log = logging.getLogger(__name__)
MODULE = __name__.replace(".", "/")
LIMITS = replace(
    Limits(),
    args_bytes_max=1_000,
    result_bytes_max=1_000,
    documents_written_max=10,
    user_time_s_max=0.2,
    action_time_s_max=10.0,
)


@mutation
async def insert(ctx: MutationCtx, count: int, size: int = 0, depth: int = 0) -> None:
    nested: Any = 0
    for _ in range(depth):
        nested = [nested]
    for _ in range(count):
        await ctx.db.insert("items", {"text": "x" * size, "nested": nested})


@mutation
async def take(ctx: MutationCtx, text: str) -> None:
    """Its arguments are all that it has."""


@query
async def give(ctx: QueryCtx, size: int) -> str:
    return "x" * size


@mutation
async def widen(ctx: MutationCtx, fields: int) -> None:
    await ctx.db.insert("items", {f"f{n}": n for n in range(fields)})


@query
async def compute(ctx: QueryCtx, until: float) -> None:
    while time.perf_counter() < until:
        pass


@mutation
async def insert_and_delete(ctx: MutationCtx) -> str:
    doc_id = await ctx.db.insert("items", {"numbers": list(range(20))})
    await ctx.db.delete(doc_id)
    return doc_id


@mutation
async def schedule(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, compute_numbers, list(range(20)))


@mutation
async def compute_numbers(ctx: MutationCtx, numbers: list[int]) -> None:
    """Its argument is all that it has."""


@action
async def act(ctx: ActionCtx, text: str, size: int, seconds: float) -> str:
    await trio.sleep(seconds)
    return "x" * size


APP = [insert, widen, take, give, act]


async def warnings(path: str, args: dict[str, Any]) -> Sequence[str]:
    async with serving(APP, limits=LIMITS) as node:
        functions = node.functions
        result: Any
        if path == "give":
            result = await functions.query(f"{MODULE}:give", args, caller=ADMIN)
            result.live.release()
        elif path == "act":
            result = await functions.action(f"{MODULE}:act", args, caller=ADMIN)
        else:
            result = await functions.mutation(f"{MODULE}:{path}", args, caller=ADMIN)
    assert result.failure is None, result.failure.message
    return [line.removeprefix("[WARN] ") for line in result.log_lines]


@pytest.mark.parametrize(
    ("path", "args", "warning"),
    [
        ("insert", {"count": 8}, "documents written: 8 of at most 10 (documents_written_max)"),
        ("widen", {"fields": 900}, "object fields: 902 of at most 1024 (OBJECT_FIELDS_MAX)"),
        (
            "act",
            {"text": "x" * 800, "size": 0, "seconds": 0},
            "args bytes: 840 of at most 1000 (args_bytes_max)",
        ),
        (
            "act",
            {"text": "", "size": 900, "seconds": 0},
            "result bytes: 902 of at most 1000 (result_bytes_max)",
        ),
        (
            "act",
            {"text": "", "size": 0, "seconds": 9},
            "action time: 9.00 s of at most 10 s (action_time_s_max)",
        ),
    ],
)
async def test_a_function_that_comes_near_a_limit_is_warned(
    path: str, args: dict[str, Any], warning: str, autojump_clock: trio.testing.MockClock
) -> None:
    assert [f"'{warning}'"] == await warnings(path, args)


@pytest.mark.parametrize(
    ("path", "args"),
    [
        ("insert", {"count": 7, "size": 800_000, "depth": 11}),
        ("widen", {"fields": 800}),
        ("take", {"text": "x" * 700}),
        ("give", {"size": 700}),
        ("act", {"text": "x" * 700, "size": 700, "seconds": 7}),
    ],
)
async def test_a_function_that_stays_away_from_the_limits_is_not(
    path: str, args: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    assert [] == await warnings(path, args)


@query
async def speak(ctx: QueryCtx, lines: int) -> None:
    for n in range(lines):
        log.error(n)


@action
async def speak_in_an_action(ctx: ActionCtx, lines: int) -> None:
    for n in range(lines):
        log.error(n)


@pytest.mark.parametrize("fn", [speak, speak_in_an_action])
@pytest.mark.parametrize(("lines", "warned"), [(204, 0), (205, 1), (254, 1), (255, 0)])
async def test_a_function_that_has_few_lines_left_is_warned_of_it(
    fn: Any, lines: int, warned: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving([speak, speak_in_an_action]) as node:
        functions = node.functions
        run: Any = functions.query if fn is speak else functions.action
        result = await run(f"{MODULE}:{fn.handler.__name__}", {"lines": lines}, caller=ADMIN)
        if fn is speak:
            result.live.release()

    warnings = [line for line in result.log_lines if line.startswith("[WARN]")]
    assert [f"[WARN] 'log lines: {lines} of at most 256 (log_lines_max)'"] * warned == warnings


@query
async def call_often(ctx: QueryCtx, until: float) -> None:
    while time.perf_counter() < until:
        await ctx.db.query("items").take(200)


async def test_seconds_of_its_calls_are_warned_of(autojump_clock: trio.testing.MockClock) -> None:
    limits = replace(Limits(), system_time_s_max=0.5, documents_read_max=1 << 30)
    limits = replace(limits, bytes_read_max=1 << 40, ranges_read_max=1 << 30)
    async with serving([insert, call_often], limits=limits) as node:
        await mutate(node, insert, 200)
        until = time.perf_counter() + 0.47
        result = await node.functions.query(f"{MODULE}:call_often", {"until": until}, caller=ADMIN)
        result.live.release()

    assert ["system time"] == [line[8:19] for line in result.log_lines]


async def test_seconds_of_its_own_code_are_warned_of(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([compute], limits=LIMITS) as node:
        until = time.perf_counter() + 0.18
        result = await node.functions.query(f"{MODULE}:compute", {"until": until}, caller=ADMIN)
        result.live.release()

    assert ["user time"] == [line[8:17] for line in result.log_lines]


async def test_a_deleted_document_counts_as_many_bytes_as_it_did_when_it_was_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([insert_and_delete]) as node:
        gone = await mutate(node, insert_and_delete)
        *_, (_, execution) = node.functions.executions.after(0)

    document = {"numbers": list(range(20)), "_id": gone, "_creationTime": 0.5}
    assert 2 * size_of(document) == execution.bytes_written


async def test_scheduled_arguments_count_as_limits_count_values(
    autojump_clock: trio.testing.MockClock,
) -> None:
    size = size_of({"numbers": list(range(20))})

    async with serving([schedule, compute_numbers], limits=scheduling(size)) as node:
        await mutate(node, schedule)
    async with serving([schedule, compute_numbers], limits=scheduling(size - 1)) as node:
        refusal = await refused(node, schedule)

    assert f"{size} is over the limit of {size - 1}" in refusal


def scheduling(size: int) -> Limits:
    return replace(Limits(), scheduled_args_bytes_max=size)


async def refused(node: Node, fn: Any) -> str:
    with pytest.raises(LimitExceeded) as caught:
        await mutate(node, fn)
    return str(caught.value)
