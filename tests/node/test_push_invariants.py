"""What must hold of a push: documents fit, and everything switches at one timestamp."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons
from engine.app.decorators import action, internal_mutation, mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import Validator, v
from engine.errors import IndexNotFound, PushRefused, SchemaViolation
from engine.functions.results import Caller, QueryResult
from engine.indexes.catalog import CRONS, SCHEMAS
from engine.kernel.runtime import VirtualRuntime
from engine.model.codec import decode
from engine.model.limits import Limits
from engine.node import Node
from tests.node.nodes import application, ask, mutate, serving

MODULE = __name__.replace(".", "/")


@mutation
async def put(ctx: MutationCtx, n: Any) -> None:
    """Make `n` of the only item."""
    doc = await ctx.db.query("items").first()
    if doc is None:
        await ctx.db.insert("items", {"n": n})
    else:
        await ctx.db.patch(doc["_id"], {"n": n})


@query
async def items(ctx: QueryCtx) -> list[Any]:
    return [doc["n"] for doc in await ctx.db.query("items").collect()]


def under(rule: Validator) -> Application:
    return application(put, items, Schema(items=Table({"n": rule})))


async def test_a_schema_is_active_once_all_documents_fit_and_refuses_nobody_before(
    autojump_clock: MockClock,
) -> None:
    runtime = VirtualRuntime()
    async with serving(under(v.any()), runtime=runtime) as node:
        await mutate(node, put, 1)
        hold = runtime.hold("push.switch")

        async def refused() -> None:
            with pytest.raises(PushRefused, match="no number"):
                await node.push(under(v.number()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            await hold.wait_reached()
            await mutate(node, put, "no number")  # the pending schema is not in the way
            hold.release()
        await mutate(node, put, "still no number")

        await mutate(node, put, 2)
        await node.push(under(v.number()))
        with pytest.raises(SchemaViolation):
            await mutate(node, put, "no number")
        assert [2] == await ask(node, items)


# Everything at once.


class Gate:
    """Where an action of the old code waits for the test."""

    def __init__(self) -> None:
        self.reached, self.opened = trio.Event(), trio.Event()


def version(number: int, gate: Gate) -> Application:
    """Code, schema, index and cron of one version; each function says which it is of."""
    index = f"by_n_{number}"

    @query(name="look")
    async def look(ctx: QueryCtx, nth: int) -> list[Any]:
        there = []
        for name in ("by_n_1", "by_n_2"):
            try:
                await ctx.db.query("items").with_index(name).first()
            except IndexNotFound:
                continue
            there.append(name)
        return [number, there, [doc["n"] for doc in await ctx.db.query("items").collect()]]

    @query(name="look_long")
    async def look_long(ctx: QueryCtx) -> list[Any]:
        seen = []
        for _ in range(30):
            docs = await ctx.db.query("items").with_index(index).collect()
            seen.append([number, *[doc["n"] for doc in docs]])
        return seen

    @mutation(name="write")
    async def write(ctx: MutationCtx, often: int) -> int:
        for _ in range(often):
            await ctx.db.query("items").first()
        await ctx.db.insert("items", {"n": number})
        return number

    @action(name="act")
    async def act(ctx: ActionCtx) -> list[Any]:
        gate.reached.set()
        await gate.opened.wait()
        return [number, await ctx.run_mutation(f"{MODULE}:write", {"often": 0})]

    @internal_mutation(name="tick")
    async def tick(ctx: MutationCtx) -> None:
        await ctx.db.insert("ticks", {"of": number})

    crons = Crons()
    crons.interval(f"cron {number}", tick, hours=1)
    rule = v.literal(1) if number == 1 else v.number()
    schema = Schema(items=Table({"n": rule}).index(index, ["n"]))
    return application(look, look_long, write, act, tick, schema, crons)


async def looked(node: Node, name: str, **args: Any) -> QueryResult:
    result = await node.functions.query(f"{MODULE}:{name}", args, caller=Caller())
    result.live.release()
    assert result.failure is None, result.failure.message
    return result


def rows_of(node: Node, table: int) -> list[Any]:
    """The rows of a table of the engine's in the newest snapshot."""
    snapshot = node.committer.pin()
    try:
        by_id = snapshot.catalog.by_number[table].indexes["by_id"]
        rows = [key for _, key in snapshot.entries(by_id, b"", None, reverse=False)]
        return [decode(snapshot.row(key) or b"") for key in rows]
    finally:
        node.committer.unpin(snapshot)


async def test_a_push_switches_code_schema_indexes_and_crons_at_one_timestamp(
    autojump_clock: MockClock,
) -> None:
    seen: list[tuple[Any, ...]] = []

    async def look_at_each_state() -> None:
        """While a batch is on its way, and when it has come: nothing else is published then."""
        crons = [row["cron"] for row in rows_of(node, CRONS)]
        bounds = ["literal" in row["tables"] for row in rows_of(node, SCHEMAS)]
        code, indexes, _ = (await looked(node, "look", nth=len(seen))).value
        seen.append((code, *indexes, *crons, *bounds))

    gate = Gate()
    answers: dict[str, Any] = {}

    async def keep(name: str, answer: Any) -> None:
        answers[name] = await answer

    limits = Limits(slice_rows_max=1)
    runtime = VirtualRuntime()
    async with serving(version(1, gate), runtime=runtime, limits=limits) as node:
        functions = node.functions
        first = partial(functions.mutation, f"{MODULE}:write", caller=Caller())
        await first({"often": 0})
        for point in ("committer.persist", "committer.published"):
            runtime.points[point] = look_at_each_state
        hold = runtime.hold("push.switch")
        async with trio.open_nursery() as nursery:
            acting = functions.action(f"{MODULE}:act", {}, caller=Caller())
            nursery.start_soon(keep, "action", acting)
            await gate.reached.wait()
            nursery.start_soon(node.push, version(2, gate))
            await hold.wait_reached()
            nursery.start_soon(keep, "query", looked(node, "look_long"))
            nursery.start_soon(keep, "mutation", first({"often": 30}))
            while not node.committer.lane.is_held:
                await trio.lowlevel.checkpoint()
            hold.release()
            while "mutation" not in answers:
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            gate.opened.set()
        runtime.points.clear()

    assert [[1, 1]] * 30 == answers["query"].value
    assert answers["mutation"].value == 1
    assert [1, 2] == answers["action"].value
    assert {(1, "by_n_1", "cron 1", True), (2, "by_n_2", "cron 2", False)} == set(seen)


async def test_two_pushes_within_one_millisecond_leave_no_result_of_the_first(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    async with serving(version(1, gate)) as node:
        before = await looked(node, "look", nth=0)
        await node.push(version(2, gate))
        after = await looked(node, "look", nth=0)

    assert [1, 2] == [before.value[0], after.value[0]]
