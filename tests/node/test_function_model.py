"""Functions: who may call which, what goes in and comes out, and what is one transaction."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import trio.testing

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import (
    action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from engine.app.validators import v
from engine.errors import (
    ArgumentValidationError,
    ConvexError,
    FunctionNotFound,
    ReturnsValidationError,
    WrongFunctionKind,
)
from engine.functions.results import Caller
from engine.model.limits import Limits
from engine.model.values import UNDEFINED
from engine.node import Node
from tests.node.nodes import ADMIN, application, ask, mutate, serving

MODULE = __name__.replace(".", "/")
YIELDS_AT_EVERY_ROW = replace(Limits(), slice_rows_max=1)


async def act(node: Node, name: str, **args: Any) -> Any:
    """Run an action of this module; raise what it raised."""
    result = await node.functions.action(f"{MODULE}:{name}", args, caller=ADMIN)
    if result.failure is not None:
        raise result.failure.error
    return result.value


@mutation
async def note(ctx: MutationCtx, text: Any) -> None:
    await ctx.db.insert("notes", {"text": text})


@query
async def notes(ctx: QueryCtx) -> list[Any]:
    return await texts(ctx)


async def texts(ctx: QueryCtx) -> list[Any]:
    """A helper: takes the context of a query, and so that of a mutation too."""
    return [doc["text"] for doc in await ctx.db.query("notes").collect()]


# Who may call what.


@internal_query
async def hidden_query(ctx: QueryCtx) -> str:
    return "q"


@internal_mutation
async def hidden_mutation(ctx: MutationCtx) -> str:
    await ctx.db.insert("notes", {"text": "hidden"})
    return "m"


@internal_action
async def hidden_action(ctx: ActionCtx) -> str:
    return "a"


@action
async def call_hidden(ctx: ActionCtx) -> list[str]:
    return [
        await ctx.run_query(hidden_query),
        await ctx.run_mutation(hidden_mutation),
        await ctx.run_action(hidden_action),
    ]


@mutation
async def schedule_hidden(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, hidden_mutation)


HIDDEN = [hidden_query, hidden_mutation, hidden_action, call_hidden, schedule_hidden]


async def test_internal_functions_are_for_functions_jobs_and_administrators(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([*HIDDEN, notes]) as node:
        assert ["q", "m", "a"] == await act(node, "call_hidden")
        await mutate(node, schedule_hidden)
        await trio.sleep(1)
        assert ["hidden", "hidden"] == await ask(node, notes)
        assert "q" == await ask(node, hidden_query)


async def test_to_clients_what_is_internal_is_as_if_it_were_not_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(HIDDEN) as node:
        functions, client = node.functions, Caller()
        calls: dict[str, Any] = {
            "query": functions.query,
            "mutation": functions.mutation,
            "action": functions.action,
        }
        for kind, call in calls.items():
            told = []
            for name in (f"hidden_{kind}", "nothing"):
                result = await call(f"{MODULE}:{name}", {}, caller=client)
                if kind == "query":
                    result.live.release()
                assert isinstance(result.failure.error, FunctionNotFound)
                told.append(str(result.failure.error).replace(name, "it"))

            assert told[0] == told[1]


async def test_a_function_is_called_as_the_kind_that_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([note, notes]) as node:
        result = await node.functions.mutation(f"{MODULE}:notes", {}, caller=ADMIN)

        assert result.failure is not None
        assert isinstance(result.failure.error, WrongFunctionKind)


# What goes in and comes out.


@query
async def echo(ctx: QueryCtx, /, **given: Any) -> dict[str, Any]:
    return given


@query
async def nothing(ctx: QueryCtx) -> Any:
    return None


@query
async def undefined(ctx: QueryCtx, deep: bool) -> Any:
    return {"a": [{"b": UNDEFINED, "c": 1}]} if deep else UNDEFINED


@query(args={})
async def takes_nothing(ctx: QueryCtx) -> str:
    return "nothing"


@mutation(returns=v.object({"n": v.number()}))
async def promises(ctx: MutationCtx, result: Any) -> Any:
    await ctx.db.insert("notes", {"text": "promised"})
    return result


async def test_what_is_undefined_is_left_out_and_nothing_is_null(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([echo, nothing, undefined]) as node:
        assert {"a": {}} == await ask(node, echo, a={"x": UNDEFINED}, b=UNDEFINED)
        assert None is await ask(node, nothing)
        assert None is await ask(node, undefined, deep=False)
        assert {"a": [{"c": 1}]} == await ask(node, undefined, deep=True)
        with pytest.raises(ArgumentValidationError, match="UNDEFINED"):
            await ask(node, echo, a=[UNDEFINED])


async def test_arguments_are_those_that_are_declared_and_no_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def two(ctx: QueryCtx, a: float, b: str = "b") -> list[Any]:
        return [a, b]

    async with serving([two, takes_nothing, echo]) as node:
        assert [1, "b"] == await ask(node, two, a=1)
        assert "nothing" == await ask(node, takes_nothing)
        refused: list[tuple[Any, dict[str, Any]]] = [
            (two, {}),
            (two, {"a": "1"}),
            (two, {"a": 1, "b": None}),
            (two, {"a": 1, "c": 1}),
            (takes_nothing, {"a": 1}),
        ]
        for fn, args in refused:
            result = await node.functions.query(fn.path, args, caller=ADMIN)
            result.live.release()
            assert result.failure is not None
            assert isinstance(result.failure.error, ArgumentValidationError)


async def test_a_result_that_was_not_promised_fails_the_mutation_and_nothing_is_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([promises, notes]) as node:
        assert {"n": 1} == await mutate(node, promises, {"n": 1})
        for result in ({"n": "1"}, {}, {"n": 1, "m": 1}, None):
            with pytest.raises(ReturnsValidationError):
                await mutate(node, promises, result)

        assert ["promised"] == await ask(node, notes)


# What is one transaction.


async def test_a_helper_takes_the_context_of_either_and_shares_its_transaction(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @mutation
    async def note_and_look(ctx: MutationCtx) -> list[Any]:
        await ctx.db.insert("notes", {"text": "mine"})
        return await texts(ctx)

    async with serving([note_and_look, notes]) as node:
        assert ["mine"] == await mutate(node, note_and_look)
        assert ["mine"] == await ask(node, notes)


@mutation
async def survive_a_child(ctx: MutationCtx, result: Any) -> list[Any]:
    with pytest.raises(ReturnsValidationError):
        await ctx.run_mutation(promises, result)
    return await texts(ctx)


async def test_a_child_whose_result_was_not_promised_has_written_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([promises, survive_a_child, notes]) as node:
        assert [] == await mutate(node, survive_a_child, "no")
        assert [] == await ask(node, notes)


@action
async def write_twice(ctx: ActionCtx) -> list[Any]:
    seen = [await ctx.run_query(notes)]
    for text in ("first", "second"):
        await trio.sleep(1)
        await ctx.run_mutation(note, text)
        seen.append(await ctx.run_query(notes))
    raise ConvexError({"seen": seen})


async def test_each_call_of_an_action_is_a_transaction_of_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([note, notes, write_twice]) as node:
        with pytest.raises(ConvexError) as raised:
            await act(node, "write_twice")

        assert {"seen": [[], ["first"], ["first", "second"]]} == raised.value.data
        assert ["first", "second"] == await ask(node, notes)


@mutation
async def refuse(ctx: MutationCtx) -> None:
    raise ConvexError({"why": ["as planned"]})


@mutation
async def hand_on(ctx: MutationCtx) -> None:
    await ctx.run_mutation(refuse)


@action
async def hand_on_too(ctx: ActionCtx) -> None:
    await ctx.run_mutation(hand_on)


@action
async def hand_on_last(ctx: ActionCtx) -> None:
    await ctx.run_action(hand_on_too)


async def test_data_of_an_error_goes_up_through_every_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([refuse, hand_on, hand_on_too, hand_on_last]) as node:
        with pytest.raises(ConvexError) as raised:
            await act(node, "hand_on_last")

    assert {"why": ["as planned"]} == raised.value.data


async def test_a_query_sees_one_state_while_others_commit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def look_often(ctx: QueryCtx) -> list[int]:
        return [len(await texts(ctx)) for _ in range(20)]

    answers: list[list[int]] = []

    async def keep_looking() -> None:
        answers.append(await ask(node, look_often))

    async with serving([note, look_often], limits=YIELDS_AT_EVERY_ROW) as node:
        await mutate(node, note, "first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_looking)
            for _ in range(5):
                await mutate(node, note, "more")
            assert [] == answers, "it is still looking"

        assert [[1] * 20] == answers


async def test_a_result_that_used_dice_is_kept_as_any_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def throw(ctx: QueryCtx) -> float:
        await texts(ctx)
        return ctx.random.random()

    async with serving([note, throw]) as node:
        first, again = await ask(node, throw), await ask(node, throw)
        await mutate(node, note, "something that it reads")

        assert first == again != await ask(node, throw)


async def test_a_job_runs_the_code_of_its_time_with_the_arguments_of_then(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def version(number: int) -> list[Any]:
        @internal_mutation(name="job")
        async def job(ctx: MutationCtx, given: list[int]) -> None:
            await ctx.db.insert("notes", {"text": [number, given]})

        @mutation(name="start")
        async def start(ctx: MutationCtx) -> None:
            given = [1]
            await ctx.scheduler.run_after(timedelta(seconds=5), job, given)
            given.append(2)

        return [job, start, notes]

    first, second = version(1), version(2)
    async with serving(first) as node:
        await mutate(node, first[1])
        await node.push(application(*second))
        await trio.sleep(10)

        assert [[2, [1]]] == await ask(node, notes)


class Large:
    """What a function has in hand."""


IN_HAND: list[weakref.ref[Large]] = []


@query
async def query_fails(_ctx: QueryCtx) -> None:
    fail_with_hands_full()


@mutation
async def mutation_fails(_ctx: MutationCtx) -> None:
    fail_with_hands_full()


@action
async def action_fails(_ctx: ActionCtx) -> None:
    fail_with_hands_full()


def fail_with_hands_full() -> None:
    large = Large()
    IN_HAND.append(weakref.ref(large))
    raise ConvexError("dropped")


@pytest.mark.parametrize("kind", ["query", "mutation", "action"])
async def test_what_a_call_that_failed_had_in_hand_goes_with_its_result(kind: str) -> None:
    """At once: nothing leads back to itself, for the garbage collector to find much later."""
    IN_HAND.clear()
    async with serving([query_fails, mutation_fails, action_fails]) as node:
        gc.disable()
        try:
            call = getattr(node.functions, kind)
            result = await call(f"{MODULE}:{kind}_fails", {}, caller=ADMIN)
            had = [ref() is not None for ref in IN_HAND]
            if kind == "query":
                result.live.release()
            del result
            await trio.testing.wait_all_tasks_blocked()
            has = [ref() is not None for ref in IN_HAND]
        finally:
            gc.enable()

    assert (had, has) == ([True], [False])
