"""What a context does not have: whoever asks for it is told what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio.testing

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.functions.targets import call_target
from engine.node import Node
from tests.node.nodes import ADMIN, ask, mutate, serving

TRIED: dict[str, Callable[[Any], Any]] = {
    "run_snapshot_query": lambda ctx: ctx.run_snapshot_query("m:f"),
    "run_mutation": lambda ctx: ctx.run_mutation("m:f"),
    "run_action": lambda ctx: ctx.run_action("m:f"),
    "commit": lambda ctx: ctx.commit("m:f"),
    "scheduler": lambda ctx: ctx.scheduler.run_after(0, "m:f"),
    "crons": lambda ctx: ctx.crons.list(),
    "crons register": lambda ctx: ctx.crons.register("x", "m:f", hours=1),
    "db": lambda ctx: ctx.db.get("x"),
    "vars": lambda ctx: ctx.db.vars.commit_ts,
    "insert": lambda ctx: ctx.db.insert("t", {}),
    "delete": lambda ctx: ctx.db.delete("x"),
    "system insert": lambda ctx: ctx.db.system.insert("t", {}),
    "nope": lambda ctx: ctx.nope,
}


@query
async def in_query(ctx: QueryCtx, what: str) -> None:
    TRIED[what](ctx)


@mutation
async def in_mutation(ctx: MutationCtx, what: str) -> None:
    TRIED[what](ctx)


@action
async def in_action(ctx: ActionCtx, what: str) -> None:
    TRIED[what](ctx)


@query
async def names_of_query(ctx: QueryCtx) -> list[str]:
    return public_names(ctx)


@mutation
async def names_of_mutation(ctx: MutationCtx) -> list[str]:
    return public_names(ctx)


@action
async def names_of_action(ctx: ActionCtx) -> list[str]:
    return public_names(ctx)


@query
async def has(ctx: QueryCtx, name: str) -> bool:
    return hasattr(ctx, name)


APP = [
    in_query,
    in_mutation,
    in_action,
    names_of_query,
    names_of_mutation,
    names_of_action,
    has,
]
RUN: dict[Any, Any] = {in_query: ask, in_mutation: mutate}
ANYWHERE = {
    "auth",
    "create_function_handle",
    "meta",
    "now",
    "now_ms",
    "random",
    "run_query",
    "uuid4",
}
READS = ANYWHERE | {"crons", "db", "transaction_limits"}


def public_names(ctx: object) -> list[str]:
    return sorted(name for name in dir(ctx) if not name.startswith("_"))


async def act(node: Node, fn: Any, *args: Any) -> Any:
    _, path, raw = call_target(fn, args, {}, "")
    result = await node.functions.action(path, raw, caller=ADMIN)
    if result.failure is not None:
        raise result.failure.error
    return result.value


async def refused(fn: Any, what: str) -> AttributeError:
    async with serving(APP) as node:
        try:
            await RUN.get(fn, act)(node, fn, what)
        except AttributeError as error:
            return error
    raise AssertionError(f"{what} was not refused")


@pytest.mark.parametrize(
    ("fn", "what", "advice"),
    [
        (in_query, "run_mutation", "has no ctx.run_mutation: make it a mutation, `@mutation"),
        (in_query, "run_snapshot_query", "has no ctx.run_snapshot_query: `await ctx.run_query"),
        (in_query, "run_action", "so that it calls this query, `await ctx.run_query(...)`"),
        (in_query, "commit", "has no ctx.commit: make it a mutation"),
        (in_query, "scheduler", "schedule in a mutation, `await ctx.scheduler.run_after(...)`"),
        (in_query, "crons register", "has no ctx.crons.register: make it a mutation"),
        (in_action, "crons", "read them in a query, register in a mutation, and call these: await"),
        (in_query, "insert", "has no ctx.db.insert: make it a mutation"),
        (in_query, "delete", "has no ctx.db.delete: make it a mutation"),
        (in_query, "vars", "ask in the mutation that calls it, `ctx.db.vars.commit_ts`, and hand"),
        (in_query, "nope", "no attribute 'nope'"),
        (in_mutation, "run_action", "`await ctx.scheduler.run_after(0, ...)`, or write the action"),
        (in_mutation, "commit", "`await ctx.run_mutation(...)`"),
        (in_mutation, "system insert", "tables are read, so ctx.db.system has no insert"),
        (in_mutation, "nope", "no attribute 'nope'"),
        (in_action, "db", "call them: await ctx.run_query(...) or await ctx.run_mutation(...)"),
        (in_action, "nope", "ctx of an action has no 'nope'"),
    ],
)
async def test_what_is_not_there_says_what_to_write_instead(
    fn: Any, what: str, advice: str, autojump_clock: trio.testing.MockClock
) -> None:
    assert advice in str(await refused(fn, what))


async def test_a_context_shows_nothing_but_what_it_promises(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        in_reading = await ask(node, names_of_query)
        in_writing = await mutate(node, names_of_mutation)
        in_acting = await act(node, names_of_action)

    assert sorted(READS) == in_reading
    writing = {"scheduler", "run_mutation", "run_snapshot_query"}
    assert sorted(READS | writing) == in_writing
    outside = {"scheduler", "run_mutation", "run_action", "commit", "vector_search"}
    assert sorted(ANYWHERE | outside) == in_acting


async def test_code_may_ask_whether_something_is_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        assert not await ask(node, has, "run_mutation")
        assert await ask(node, has, "run_query")
