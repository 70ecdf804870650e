"""What `engine` exports: one interface for every host, every error, and words for each of them."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
import trio

import engine
from engine import (
    ActionCtx,
    Engine,
    InvalidValue,
    LimitExceeded,
    MutationCtx,
    NotAwaited,
    QueryCtx,
    action,
    aio,
    async_map,
    blocking,
    errors,
    gather,
    mutation,
    query,
)
from engine.interface import AsyncInterface

CALLS = {"now_ts", "query", "at", "mutation", "commit", "action", "subscribe"}


def described(owner: object) -> dict[str, str | None]:
    """The docstrings of what is public in a class, its own and inherited."""
    return {
        name: inspect.getdoc(one)
        for name, one in inspect.getmembers(owner)
        if not name.startswith("_") and (callable(one) or isinstance(one, property))
    }


# One interface.


@pytest.mark.parametrize(
    "host",
    [Engine, aio.Engine, aio.RemoteEngine, blocking.Engine, blocking.RemoteEngine],
    ids=lambda host: f"{host.__module__}.{host.__name__}",
)
def test_every_host_has_every_call_and_says_what_it_does(host: type) -> None:
    found = described(host)

    assert set(found) >= CALLS
    assert [name for name, text in found.items() if not text] == []


@pytest.mark.parametrize("name", sorted(CALLS - {"now_ts"}))
def test_a_call_takes_the_same_in_threads_as_in_tasks(name: str) -> None:
    there = inspect.signature(getattr(AsyncInterface, name)).parameters
    here = inspect.signature(getattr(blocking.Engine, name)).parameters

    assert [(one.name, one.kind) for one in here.values()] == [
        (one.name, one.kind) for one in there.values()
    ]


@pytest.mark.parametrize("door", [aio, blocking], ids=["aio", "blocking"])
def test_engines_are_opened_and_reached_alike(door: Any) -> None:
    assert set(described(door)) >= {"open", "connect"}
    assert list(inspect.signature(door.connect).parameters) == list(
        inspect.signature(Engine.connect).parameters
    )
    options = inspect.signature(Engine.open).parameters
    assert set(inspect.signature(door.open).parameters) <= set(options)


# Every name.


def test_every_error_is_exported() -> None:
    classes = {
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, Exception)
    }

    assert classes - set(engine.__all__) == set()


def test_every_class_and_function_that_is_exported_says_what_it_is() -> None:
    exported = {name: getattr(engine, name) for name in engine.__all__}
    things = {
        name: one
        for name, one in exported.items()
        if inspect.isclass(one) or inspect.isfunction(one)
    }

    assert [name for name, one in things.items() if not one.__doc__] == []


def test_a_name_that_is_not_exported_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = engine.nope  # type: ignore[attr-defined]


# gather and async_map.


@mutation
async def send(ctx: MutationCtx, body: str) -> str:
    return await ctx.db.insert("messages", {"body": body})


@query
async def bodies(ctx: QueryCtx) -> list[str]:
    return [message["body"] async for message in ctx.db.query("messages")]


@mutation
async def send_several(ctx: MutationCtx, count: float) -> list[str]:
    ids = await async_map(lambda n: ctx.db.insert("messages", {"body": str(n)}), range(int(count)))
    first, last = await gather(ctx.db.get(ids[0]), ctx.db.get(ids[-1]))
    assert first is not None
    assert last is not None
    return [first["body"], last["body"]]


@mutation
async def fail_amid(ctx: MutationCtx) -> str:
    with pytest.raises(ValueError, match="b"):
        await gather(
            ctx.db.insert("messages", {"body": "a"}),
            _explode("b"),
            ctx.db.insert("messages", {"body": "c"}),
            _explode("d"),
        )
    return "went on"


async def _explode(word: str) -> None:
    raise ValueError(word)


@mutation
async def forget_one(ctx: MutationCtx) -> None:
    ctx.db.insert("messages", {"body": "a"})  # type: ignore[unused-coroutine]
    await gather(ctx.db.insert("messages", {"body": "b"}))


@action
async def three_times_on_trio(ctx: ActionCtx) -> list[str]:
    together = Together(trio.sleep)
    await gather(*[together.arrive() for _ in range(3)])
    return sorted(await ctx.run_query(bodies))


@action(loop="asyncio")
async def three_times_on_asyncio(ctx: ActionCtx) -> list[str]:
    together = Together(asyncio.sleep)
    await gather(*[together.arrive() for _ in range(3)])
    await gather(ctx.run_mutation(send, "x"), ctx.run_mutation(send, body="y"))
    return sorted(await ctx.run_query(bodies))


class Together:
    """Lets nobody go before three are here."""

    def __init__(self, sleep: Any) -> None:
        self._sleep = sleep
        self._here = 0

    async def arrive(self) -> None:
        self._here += 1
        while self._here < 3:
            await self._sleep(0.001)


@action
async def fail_on_trio(ctx: ActionCtx) -> None:
    await gather(trio.sleep(60), _explode("first"))  # noqa: ASYNC105 - gather awaits it


@action(loop="asyncio")
async def fail_on_asyncio(ctx: ActionCtx) -> None:
    await gather(asyncio.sleep(60), _explode("first"))


APP = [
    send,
    bodies,
    send_several,
    fail_amid,
    forget_one,
    three_times_on_trio,
    three_times_on_asyncio,
    fail_on_trio,
    fail_on_asyncio,
]


async def test_in_a_mutation_calls_run_in_the_order_in_which_they_are_written() -> None:
    async with Engine.open(":memory:", app=APP) as here:
        assert await here.mutation(send_several, 5) == ["0", "4"]
        assert await here.query(bodies) == ["0", "1", "2", "3", "4"]


async def test_in_a_mutation_all_calls_are_made_and_the_first_error_is_raised() -> None:
    async with Engine.open(":memory:", app=APP) as here:
        assert await here.mutation(fail_amid) == "went on"
        assert await here.query(bodies) == ["a", "c"]


async def test_a_call_that_was_not_gathered_is_still_missed() -> None:
    async with Engine.open(":memory:", app=APP) as here:
        with pytest.raises(NotAwaited):
            await here.mutation(forget_one)


async def test_in_an_action_they_run_at_the_same_time() -> None:
    async with Engine.open(":memory:", app=APP) as here:
        with trio.fail_after(5):
            assert await here.action(three_times_on_trio) == []
            assert await here.action(three_times_on_asyncio) == ["x", "y"]


@pytest.mark.parametrize("failing", [fail_on_trio, fail_on_asyncio], ids=["trio", "asyncio"])
async def test_in_an_action_the_first_error_cancels_the_others(failing: Any) -> None:
    async with Engine.open(":memory:", app=APP) as here:
        with trio.fail_after(5), pytest.raises(ValueError, match="first"):
            await here.action(failing)


async def test_gather_keeps_the_order_of_results() -> None:
    async def after(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    assert await gather(after(0.02), after(0.01), after(0)) == (0.02, 0.01, 0)
    assert await async_map(after, [0.01, 0]) == [0.01, 0]
    assert await gather() == ()


# Functions inside functions.


@query
async def descend(ctx: QueryCtx, levels: int) -> int:
    return 1 + (await ctx.run_query(descend, levels - 1) if levels > 1 else 0)


async def test_functions_go_as_deep_as_the_limit_says_and_no_deeper() -> None:
    async with Engine.open(":memory:", app=[descend]) as engine:
        assert 8 == await engine.query(descend, 8)
        with pytest.raises(LimitExceeded, match=r"functions inside functions: 9 is over .* of 8"):
            await engine.query(descend, 9)


@query
async def add_up(ctx: QueryCtx, values: list[float], note: Any = None) -> float:
    return sum(values)


@query
async def add_a_tuple(ctx: QueryCtx, path: str) -> list[float]:
    by_path: float = await ctx.run_query(path, {"values": (1, 2)})
    return [by_path, await ctx.run_query(add_up, values=[1, 2])]


@query
async def add_an_object(ctx: QueryCtx, path: str) -> float:
    total: float = await ctx.run_query(path, {"values": [1], "note": object()})
    return total


async def test_arguments_of_a_path_are_values_as_those_of_a_function_are() -> None:
    async with Engine.open(":memory:", app=[add_up, add_a_tuple, add_an_object]) as engine:
        path = f"{__name__}:add_up".replace(".", "/")

        assert [3, 3] == await engine.query(add_a_tuple, path)
        with pytest.raises(InvalidValue, match="note: a object is not a value"):
            await engine.query(add_an_object, path)
