"""
`gather` and `async_map`: several calls at once, their results in order.

    message, author = await gather(ctx.db.get(a), ctx.db.get(b))
    authors = await async_map(lambda m: ctx.db.get(m["author"]), messages)

Inside a query or mutation they run one after another, in the order in which
they are written, so that a run can be had again.  In an action, and outside of
functions, they run concurrently, on trio and on asyncio alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, overload

import trio

from engine.functions.slots import active

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


@overload
async def gather(a: Awaitable[T1], /) -> tuple[T1]: ...
@overload
async def gather(a: Awaitable[T1], b: Awaitable[T2], /) -> tuple[T1, T2]: ...
@overload
async def gather(a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /) -> tuple[T1, T2, T3]: ...
@overload
async def gather(
    a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], /
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def gather(
    a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], e: Awaitable[T5], /
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def gather(*awaitables: Awaitable[T]) -> tuple[T, ...]: ...
async def gather(*awaitables: Awaitable[Any]) -> tuple[Any, ...]:
    """
    Await all of `awaitables`, and return their results in order.

    Raises:
        Exception: the first error. In a query or mutation the others have run to their end;
            in an action they are cancelled, and what they did stays done.
    """
    if active() is not None:
        return await _in_order(awaitables)
    if trio.lowlevel.in_trio_task():
        return await _on_trio(awaitables)
    return await _on_asyncio(awaitables)


async def async_map(fn: Callable[[T1], Awaitable[T]], items: Iterable[T1], /) -> list[T]:
    """Call `fn` with each of `items`, and await all of it as `gather` does."""
    return list(await gather(*[fn(item) for item in items]))


async def _in_order(awaitables: Sequence[Awaitable[Any]]) -> tuple[Any, ...]:
    results: list[Any] = []
    first: Exception | None = None
    for one in awaitables:
        try:
            results.append(await one)
        except Exception as error:
            first = first or error
    if first is not None:
        raise first
    return tuple(results)


async def _on_trio(awaitables: Sequence[Awaitable[Any]]) -> tuple[Any, ...]:
    results: list[Any] = [None] * len(awaitables)
    errors: list[Exception] = []

    async def run(at: int, one: Awaitable[Any]) -> None:
        try:
            results[at] = await one
        except Exception as error:
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for at, one in enumerate(awaitables):
            nursery.start_soon(run, at, one)
    if errors:
        raise errors[0]
    return tuple(results)


async def _on_asyncio(awaitables: Sequence[Awaitable[Any]]) -> tuple[Any, ...]:
    errors: list[Exception] = []

    async def run(one: Awaitable[Any]) -> Any:
        try:
            return await one
        except Exception as error:
            errors.append(error)
            raise

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(one)) for one in awaitables]
    except ExceptionGroup:
        raise errors[0] from None
    return tuple(task.result() for task in tasks)
