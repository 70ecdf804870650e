"""Queries that are woken together have a turn one after the other, with others in between."""

from __future__ import annotations

from collections import Counter

import trio

from engine.functions.passes import BEGINNERS, WOKEN_MAX, Passes


class Loop:
    """Counts the passes of trio's loop: whoever else there is has a turn in each."""

    def __init__(self) -> None:
        self.passes = 0

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.passes += 1


async def _computed_by_pass(count: int, seconds: float, slices: int) -> tuple[list[int], int]:
    """How many slices each pass had, and the most queries that were amid their work at once."""
    passes, loop = Passes(0.005), Loop()
    by_pass: Counter[int] = Counter()
    amid = most = 0

    async def query() -> None:
        nonlocal amid, most
        await passes.begin()
        amid += 1
        most = max(most, amid)
        for at in range(slices):
            if at:
                await passes.go_on()
            by_pass[loop.passes] += 1
            passes.note(seconds)
        amid -= 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        async with trio.open_nursery() as queries:
            for _ in range(count):
                queries.start_soon(query)
        nursery.cancel_scope.cancel()
    return list(by_pass.values()), most


def test_a_pass_has_as_many_queries_as_there_is_time_for() -> None:
    long, _ = trio.run(_computed_by_pass, 100, 0.006, 1)
    short, _ = trio.run(_computed_by_pass, 1_000, 0.0005, 1)

    # Two passes may be one to those who count, as their place in each is by chance.
    assert sum(long) == 100
    assert max(long) <= 2
    assert sum(short) == 1_000
    assert 5 <= max(short) <= 21


def test_those_that_have_begun_end_before_the_others_begin() -> None:
    by_pass, amid = trio.run(_computed_by_pass, 100, 0.006, BEGINNERS)

    assert sum(by_pass) == 100 * BEGINNERS
    assert max(by_pass) <= 2
    assert amid <= 5


def test_one_that_comes_alone_waits_for_nobody() -> None:
    async def main() -> int:
        passes, loop = Passes(0.005), Loop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run)
            before = loop.passes
            for _ in range(4):
                await passes.begin()
                passes.note(0.001)
            nursery.cancel_scope.cancel()
        return loop.passes - before

    assert trio.run(main) == 0


def test_whoever_is_cancelled_in_line_holds_nobody_up() -> None:
    async def main() -> list[int]:
        passes, ended = Passes(0.005), []
        passes.note(1.0)
        scopes = [trio.CancelScope() for _ in range(2 * WOKEN_MAX)]

        async def query(number: int) -> None:
            with scopes[number]:
                await passes.begin()
                ended.append(number)
                passes.note(0.006)

        async with trio.open_nursery() as nursery:
            for number in range(len(scopes)):
                nursery.start_soon(query, number)
            for number in range(0, len(scopes), 2):
                await trio.lowlevel.checkpoint()
                scopes[number].cancel()
        return ended

    assert set(range(1, 2 * WOKEN_MAX, 2)) <= set(trio.run(main))
