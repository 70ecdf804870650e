"""Functions within a transaction: what of them stays, what goes, and what they may use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Table, define_schema
from engine.app.types import Document
from engine.errors import (
    InvalidValue,
    LimitExceeded,
    NotAwaited,
    ReturnsValidationError,
    SchemaViolation,
)
from engine.functions.gather import gather
from engine.indexes.verify import verify
from engine.model.limits import Limits
from engine.model.values import size_of
from engine.node import Node
from tests.node.nodes import ADMIN, application, ask, mutate, serving

MODULE = __name__.replace(".", "/")


class User(Document):
    name: str


SCHEMA = define_schema(
    {"users": Table(User).index("by_name", ["name"], unique=True)}, schema_validation=False
)


# Children.


@mutation
async def add(ctx: MutationCtx, name: str, table: str = "things") -> str:
    return await ctx.db.insert(table, {"name": name})


@mutation
async def add_and_fail(ctx: MutationCtx, name: str, table: str = "things") -> None:
    await ctx.db.insert(table, {"name": name})
    raise LookupError(name)


@mutation
async def add_within(ctx: MutationCtx, name: str) -> None:
    await ctx.run_mutation(add, f"{name} inside")
    await ctx.db.insert("things", {"name": name})


@mutation
async def add_within_and_fail(ctx: MutationCtx, name: str) -> None:
    await ctx.run_mutation(add_within, name)
    raise LookupError(name)


@mutation
async def add_many(ctx: MutationCtx, count: int) -> None:
    for n in range(count):
        await ctx.db.insert("things", {"name": str(n)})


@mutation
async def add_many_and_fail(ctx: MutationCtx, count: int) -> None:
    await ctx.run_mutation(add_many, count)
    raise LookupError


@mutation
async def promise_a_number(ctx: MutationCtx) -> int:
    await ctx.db.insert("things", {"name": "promised"})
    return "no number"  # type: ignore[return-value]


@mutation
async def schedule_and_fail(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, add, "scheduled")
    raise LookupError


@query
async def names(ctx: QueryCtx, table: str = "things") -> list[str]:
    return [doc["name"] async for doc in ctx.db.query(table)]


@query
async def read_and_fail(ctx: QueryCtx, table: str) -> None:
    await ctx.db.query(table).collect()
    raise LookupError


# Parents.


@mutation
async def gather_with_a_failure(ctx: MutationCtx) -> list[str]:
    with pytest.raises(LookupError, match="b"):
        await gather(
            ctx.run_mutation(add, "a"),
            ctx.run_mutation(add_and_fail, "b"),
            ctx.run_mutation(add, "c"),
        )
    return await ctx.run_query(names)


@mutation
async def gather_backwards(ctx: MutationCtx) -> list[str]:
    """The calls are issued in one order and awaited in another."""
    first = ctx.run_mutation(add, "first")
    second = ctx.run_mutation(add, "second")
    third = ctx.run_mutation(add, "third")
    await gather(third, first, second)
    return await ctx.run_query(names)


@mutation
async def survive_deep_failure(ctx: MutationCtx) -> list[str]:
    await ctx.run_mutation(add_within, "kept")
    with pytest.raises(LookupError):
        await ctx.run_mutation(add_within_and_fail, "lost")
    return await ctx.run_query(names)


@mutation
async def survive_a_new_table(ctx: MutationCtx) -> list[str]:
    with pytest.raises(LookupError):
        await ctx.run_mutation(add_and_fail, "lost", table="others")
    before = await ctx.run_query(names, table="others")
    await ctx.db.insert("others", {"name": "mine"})
    await ctx.db.insert("more", {"name": "mine too"})
    return [*before, *await ctx.run_query(names, table="others")]


@mutation
async def survive_scheduling(ctx: MutationCtx) -> int:
    with pytest.raises(LookupError):
        await ctx.run_mutation(schedule_and_fail)
    return len(await ctx.db.system.query("_scheduled_functions").collect())


@mutation
async def survive_a_broken_promise(ctx: MutationCtx) -> list[str]:
    with pytest.raises(ReturnsValidationError):
        await ctx.run_mutation(promise_a_number)
    return await ctx.run_query(names)


@mutation
async def survive_twins(ctx: MutationCtx, *, keep_both: bool) -> None:
    """The child's user has the name of another; whether that stands is seen at the end."""
    await ctx.db.insert("users", {"name": "ada"})
    if keep_both:
        await ctx.run_mutation(add, "ada", table="users")
    else:
        with pytest.raises(LookupError):
            await ctx.run_mutation(add_and_fail, "ada", table="users")


@query
async def survive_a_read(ctx: QueryCtx) -> str:
    with pytest.raises(LookupError):
        await ctx.run_query(read_and_fail, "things")
    return "read"


@mutation
async def never_await_a_child(ctx: MutationCtx) -> None:
    ctx.run_mutation(add, "never")  # type: ignore[unused-coroutine]  # the line that is named
    await ctx.db.insert("things", {"name": "neither"})


@mutation
async def survive_one_that_awaits_no_child(ctx: MutationCtx) -> list[str]:
    with pytest.raises(NotAwaited):
        await ctx.run_mutation(never_await_a_child)
    return await ctx.run_query(names)


APP = [
    add,
    add_and_fail,
    add_within,
    add_within_and_fail,
    add_many,
    add_many_and_fail,
    promise_a_number,
    schedule_and_fail,
    names,
    read_and_fail,
    gather_with_a_failure,
    gather_backwards,
    survive_deep_failure,
    survive_a_new_table,
    survive_scheduling,
    survive_a_broken_promise,
    survive_twins,
    survive_a_read,
    never_await_a_child,
    survive_one_that_awaits_no_child,
]


@pytest.mark.parametrize(
    ("parent", "seen"),
    [
        (gather_with_a_failure, ["a", "c"]),
        (gather_backwards, ["first", "second", "third"]),
        (survive_deep_failure, ["kept inside", "kept"]),
        (survive_a_broken_promise, []),
        (survive_one_that_awaits_no_child, []),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_of_a_child_that_failed_no_write_is_seen_or_committed(
    parent: Any, seen: list[str], autojump_clock: MockClock
) -> None:
    async with serving(APP) as node:
        told = await mutate(node, parent)
        committed = await ask(node, names)
        assert_whole(node)

    assert (seen, seen) == (told, committed)


async def test_a_table_that_a_failed_child_made_can_be_made_by_its_parent(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        told = await mutate(node, survive_a_new_table)
        committed = [await ask(node, names, table=table) for table in ("others", "more")]
        assert_whole(node)

    assert (["mine"], [["mine"], ["mine too"]]) == (told, committed)


async def test_what_a_failed_child_scheduled_never_runs(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        jobs = await mutate(node, survive_scheduling)
        await trio.sleep(60)
        committed = await ask(node, names)

    assert (0, []) == (jobs, committed)


async def test_a_unique_index_is_held_to_at_the_end_by_what_is_left_then(
    autojump_clock: MockClock,
) -> None:
    async with serving(application(SCHEMA, *APP)) as node:
        await mutate(node, survive_twins, keep_both=False)
        kept = await ask(node, names, table="users")
        await node.push(application(SCHEMA, *APP))
        with pytest.raises(SchemaViolation, match="unique"):
            await mutate(node, survive_twins, keep_both=True)
        assert kept == await ask(node, names, table="users")

    assert ["ada"] == kept


async def test_what_a_failed_child_read_stays_read(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        await mutate(node, add, "there")
        result = await node.functions.query(f"{MODULE}:survive_a_read", {}, caller=ADMIN)
        await mutate(node, add, "elsewhere", table="others")
        untouched = await invalidated(node, result)
        await mutate(node, add, "here")
        touched = await invalidated(node, result)
        result.live.release()

    assert (False, True) == (untouched, touched)


async def test_a_nested_call_that_is_never_awaited_is_named_by_its_line(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        with pytest.raises(NotAwaited) as caught:
            await mutate(node, never_await_a_child)
        committed = await ask(node, names)

    line = never_await_a_child.handler.__code__.co_firstlineno + 2
    assert f"{__file__}:{line}" in str(caught.value)
    assert [] == committed


# Limits are those of the whole transaction.


@mutation
async def write_in_turn(ctx: MutationCtx, own: int, children: list[int]) -> None:
    for n in range(own):
        await ctx.db.insert("things", {"name": str(n)})
    for count in children:
        await ctx.run_mutation(add_many, count)


@mutation
async def write_after_failures(ctx: MutationCtx, failures: int, count: int) -> int:
    for _ in range(failures):
        with pytest.raises(LookupError):
            await ctx.run_mutation(add_many_and_fail, count)
    await ctx.run_mutation(add_many, count)
    return await ctx.db.count("things")


@mutation
async def read_again_and_again(ctx: MutationCtx, failures: int) -> None:
    for _ in range(failures):
        with pytest.raises(LookupError):
            await ctx.run_query(read_and_fail, "things")


@mutation
async def go_on_after_the_limit(ctx: MutationCtx, count: int) -> int:
    """The child goes over the limit, and the parent makes do with less."""
    with pytest.raises(LimitExceeded, match="documents_written_max"):
        await ctx.run_mutation(add_many, count)
    await ctx.run_mutation(add_many, 2)
    return await ctx.db.count("things")


@mutation
async def catch_the_limit(ctx: MutationCtx, count: int) -> int:
    """The child itself catches it; what it had written until then is its own to keep."""
    return await ctx.run_mutation(add_what_is_possible, count)


@mutation
async def add_what_is_possible(ctx: MutationCtx, count: int) -> int:
    for n in range(count):
        try:
            await ctx.db.insert("things", {"name": str(n)})
        except LimitExceeded:
            return n
    return count


BOUNDED = [
    add,
    add_many,
    add_many_and_fail,
    names,
    read_and_fail,
    write_in_turn,
    write_after_failures,
    read_again_and_again,
    go_on_after_the_limit,
    catch_the_limit,
    add_what_is_possible,
]


@pytest.mark.parametrize(("own", "children"), [(1, [4, 6]), (5, [3, 3]), (0, [11])])
async def test_a_parent_and_its_children_have_one_limit_together(
    own: int, children: list[int], autojump_clock: MockClock
) -> None:
    async with serving(BOUNDED, limits=limits(documents_written_max=10)) as node:
        await mutate(node, write_in_turn, own=0, children=[4, 6])
        with pytest.raises(LimitExceeded, match=r"documents written: 11 .* limit of 10 "):
            await mutate(node, write_in_turn, own=own, children=children)


async def test_a_child_that_failed_gives_back_what_it_wrote(autojump_clock: MockClock) -> None:
    async with serving(BOUNDED, limits=limits(documents_written_max=10)) as node:
        counted = await mutate(node, write_after_failures, failures=5, count=9)
        *_, (_, execution) = node.functions.executions.after(0)

    assert (9, 9) == (counted, execution.documents_written)


async def test_what_a_child_that_failed_has_read_stays_counted(autojump_clock: MockClock) -> None:
    async with serving(BOUNDED, limits=limits(documents_read_max=10)) as node:
        await mutate(node, add_many, 4)
        await mutate(node, read_again_and_again, failures=2)
        with pytest.raises(AssertionError, match="LimitExceeded"):
            await mutate(node, read_again_and_again_strictly, failures=3)


@mutation
async def read_again_and_again_strictly(ctx: MutationCtx, failures: int) -> None:
    for _ in range(failures):
        try:
            await ctx.run_query(read_and_fail, "things")
        except LookupError:
            continue
        except LimitExceeded as error:
            raise AssertionError(f"LimitExceeded: {error}") from None


BOUNDED.append(read_again_and_again_strictly)


async def test_a_child_over_the_limit_is_undone_and_its_parent_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with serving(BOUNDED, limits=limits(documents_written_max=10)) as node:
        counted = await mutate(node, go_on_after_the_limit, count=11)
        committed = await ask(node, names)

    assert (2, ["0", "1"]) == (counted, committed)


async def test_a_child_that_catches_the_limit_keeps_what_it_could_write(
    autojump_clock: MockClock,
) -> None:
    async with serving(BOUNDED, limits=limits(documents_written_max=10)) as node:
        told = await mutate(node, catch_the_limit, count=20)
        committed = await ask(node, names)
        assert_whole(node)

    assert (10, 10) == (told, len(committed))


# Limits of one call.


@mutation
async def try_within(ctx: MutationCtx, budget: dict[str, int], count: int) -> str:
    """Call with a budget; what is over it is caught, and the parent goes on without one."""
    told = "done"
    try:
        await ctx.transaction_limits(**budget).run_mutation(add_many, count)
    except LimitExceeded as error:
        told = str(error)
    await ctx.run_mutation(add_many, 5)
    return told


@mutation
async def nest_budgets(ctx: MutationCtx, outer: int, inner: int, count: int) -> list[str]:
    return await ctx.transaction_limits(documents_written=outer).run_mutation(
        nest_a_budget, inner, count
    )


@mutation
async def nest_a_budget(ctx: MutationCtx, inner: int, count: int) -> list[str]:
    told = []
    for calls in (ctx.transaction_limits(documents_written=inner), ctx):
        try:
            await calls.run_mutation(add_many, count)
        except LimitExceeded as error:
            told.append(str(error))
    return told


@query
async def read_within(ctx: QueryCtx, count: int) -> list[str]:
    return await ctx.transaction_limits(documents_read=count).run_query(names)


@mutation
async def go_over_and_on(ctx: MutationCtx) -> None:
    """What was foreseen is no failure, after which calls would take the application's time."""
    for _ in range(3):
        with pytest.raises(LimitExceeded):
            await ctx.transaction_limits(documents_read=0).run_query(names)
    await ctx.run_query(names)


@mutation
async def measure(ctx: MutationCtx) -> list[Any]:
    before = await ctx.meta.get_transaction_metrics()
    await ctx.run_mutation(add, "one")
    await ctx.scheduler.run_after(0, add, "two")
    await ctx.run_query(names)
    within = await ctx.transaction_limits(documents_written=3).run_query(measured)
    return [before, await ctx.meta.get_transaction_metrics(), within]


@query
async def measured(ctx: QueryCtx) -> Any:
    return await ctx.meta.get_transaction_metrics()


BUDGETED = [
    add,
    add_many,
    names,
    try_within,
    nest_budgets,
    nest_a_budget,
    read_within,
    go_over_and_on,
    measure,
    measured,
]


async def test_a_call_may_be_given_less_than_its_caller_has(autojump_clock: MockClock) -> None:
    async with serving(BUDGETED) as node:
        done = await mutate(node, try_within, budget={"documents_written": 4}, count=4)
        refused = await mutate(node, try_within, budget={"documents_written": 4}, count=5)
        committed = await ask(node, names)

    assert "done" == done
    assert (
        "documents written within a call: 5 is over the limit of 4 (documents_written_max). "
        "That is what its caller gave it, by transaction_limits."
    ) == refused
    assert 4 + 5 + 5 == len(committed)


async def test_a_call_cannot_be_given_more_than_its_caller_has(autojump_clock: MockClock) -> None:
    async with serving(BUDGETED, limits=limits(documents_written_max=10)) as node:
        refused = await mutate(node, try_within, budget={"documents_written": 99}, count=11)
        told = await mutate(node, nest_budgets, outer=4, inner=6, count=5)

    assert "documents written: 11 is over the limit of 10" in refused
    assert ["within a call: 5 is over the limit of 4"] * 2 == [
        line[line.index("within") : line.index(" (")] for line in told
    ]


async def test_a_call_within_a_call_with_less_is_held_to_the_less(
    autojump_clock: MockClock,
) -> None:
    async with serving(BUDGETED) as node:
        told = await mutate(node, nest_budgets, outer=6, inner=4, count=5)
        committed = await ask(node, names)

    assert ["4"] == [line[line.index("limit of ") + 9 : line.index(" (")] for line in told]
    assert 5 == len(committed)


async def test_a_query_gives_less_to_a_query(autojump_clock: MockClock) -> None:
    async with serving(BUDGETED) as node:
        await mutate(node, add_many, 3)
        read = await ask(node, read_within, count=3)
        with pytest.raises(LimitExceeded, match=r"documents read within a call: .* limit of 2"):
            await ask(node, read_within, count=2)

    assert 3 == len(read)


async def test_going_over_what_was_given_does_not_take_the_time_of_the_application(
    autojump_clock: MockClock,
) -> None:
    async with serving(BUDGETED) as node:
        await mutate(node, add_many, 3)
        overdrawn: list[bool] = []
        executor = node.functions._executor
        run = executor.run

        async def watched(request: Any, execution: Any, *rest: Any, **named: Any) -> Any:
            outcome = await run(request, execution, *rest, **named)
            overdrawn.append(execution.is_overdrawn)
            return outcome

        executor.run = watched  # type: ignore[method-assign]
        await mutate(node, go_over_and_on)

    assert [False] == overdrawn


MEASURED_IN_BYTES = {"bytes_read", "bytes_written", "documents_written"}
"""Jobs are rows too."""


async def test_a_function_can_ask_what_it_has_used(autojump_clock: MockClock) -> None:
    defaults = Limits()
    args = size_of({"name": "two"})

    async with serving(BUDGETED) as node:
        before, after, within = await mutate(node, measure)

    assert {0} == {metric["used"] for metric in before.values()}
    assert {
        "database_queries": 1,
        "documents_read": 1,
        "functions_scheduled": 1,
        "scheduled_function_args_bytes": args,
    } == {name: after[name]["used"] for name in after if name not in MEASURED_IN_BYTES}
    for name, limit in [
        ("documents_read", defaults.documents_read_max),
        ("bytes_written", defaults.bytes_written_max),
        ("scheduled_function_args_bytes", defaults.scheduled_args_bytes_max),
    ]:
        assert limit == after[name]["used"] + after[name]["remaining"]
    assert 3 == within["documents_written"]["remaining"]


@pytest.mark.parametrize(
    ("budget", "complaint"),
    [
        ({"documents": 3}, "transaction_limits has no 'documents'; there are bytes_read, "),
        ({"documents_read": -1}, "documents_read has to be a whole number, not negative, not -1"),
    ],
    ids=["unknown", "negative"],
)
async def test_a_limit_that_makes_no_sense_is_refused(
    budget: dict[str, int], complaint: str, autojump_clock: MockClock
) -> None:
    async with serving(BUDGETED) as node:
        with pytest.raises(InvalidValue, match=complaint):
            await mutate(node, try_within, budget=budget, count=1)


def limits(**bounds: Any) -> Limits:
    return replace(Limits(), **bounds)


async def invalidated(node: Node, result: Any) -> bool:
    await node.functions.processed.wait_reached(node.published.value)
    return result.live.invalidated_at is not None


def assert_whole(node: Node) -> None:
    """Indexes, counts and catalog of what is on disk are what its documents make them."""
    assert [[]] == [found.problems for found in list(verify(node.store.snapshot))[-1:]]
