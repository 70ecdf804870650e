"""Who builds an index of large documents, or looks at them all, lets others have their turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.indexes import keeper, written
from engine.indexes.text import parts, words
from engine.indexes.vectors import index as vector_index
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.transaction import nearest
from engine.transaction.view import View
from tests.node.nodes import application, ask, mutate, serving

SMALL, LARGE = 20_000, 900_000
"""Letters of a text; of the small ones four are a slice."""
TURN_LETTERS_MAX = 300_000
MANY = 1_000
"""Mutations; a build that is not outrun has come to its end by a third of them."""
WORD = 16
"""Letters that take about as long as a word that is added to an index."""
SEARCHED = Table(v.any()).search_index("by_text", search_field="text")
DIMENSIONS, NUMBER_BYTES = 2_048, 9
DRAWN = Table(v.any()).vector_index("by_direction", vector_field="direction", dimensions=DIMENSIONS)


@mutation
async def write(ctx: MutationCtx, count: int, letters: int) -> None:
    for n in range(count):
        text = " ".join(f"w{at}n{n}" for at in range(letters // 8))
        await ctx.db.insert("notes", {"text": text[:letters]})


@mutation
async def rewrite(ctx: MutationCtx, count: int, number: int) -> None:
    for note in await ctx.db.query("notes").take(count):
        await ctx.db.patch(note["_id"], {"text": f"w{number}"})


@mutation
async def draw(ctx: MutationCtx, count: int) -> None:
    for n in range(count):
        await ctx.db.insert("notes", {"direction": [n + 0.1] * DIMENSIONS})


@query
async def found(ctx: QueryCtx, text: str) -> int:
    notes = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", text))
    return len(await notes.collect())


@query
async def near(ctx: QueryCtx) -> int:
    ones = [1.0] * DIMENSIONS
    return len(await ctx.db.vector_search("notes", "by_direction", vector=ones, limit=3))


class Turns(trio.abc.Instrument):
    """What is done between two turns of the loop, in each of which whoever can has its own."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._done = 0
        self.each: list[int] = []
        trio.lowlevel.add_instrument(self)

    def count(self, module: Any, name: str, size: Callable[..., int]) -> None:
        """Count the sizes of what a function is called with."""
        original = getattr(module, name)

        def counting(*args: Any) -> Any:
            self._done += size(*args)
            return original(*args)

        self._patch.setattr(module, name, counting)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as trio calls it
        if self._done:
            self.each.append(self._done)
            self._done = 0


async def test_an_index_of_large_texts_is_built_a_few_at_a_time_and_long_ones_by_pieces(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(application(write, found, Schema(notes=Table(v.any())))) as node:
        await mutate(node, write, 20, SMALL)
        await mutate(node, write, 1, LARGE)
        turns = Turns(monkeypatch)
        turns.count(words, "words_of", len)
        turns.count(parts.Tail, "_add_postings", lambda *args: WORD * len(args[2]))
        await node.push(application(write, found, Schema(notes=SEARCHED)))

        assert sum(turns.each) > 20 * SMALL + LARGE
        assert max(turns.each) < TURN_LETTERS_MAX
        assert 21 == await ask(node, found, "w1n")


async def test_what_is_written_behind_a_build_is_followed_a_few_texts_at_a_time(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = VirtualRuntime()
    limits = Limits(history_bytes_max=SMALL)  # so that it is read from the log
    plain = application(write, found, Schema(notes=Table(v.any())))
    async with serving(plain, runtime=runtime, limits=limits) as node:
        await mutate(node, write, 9, SMALL)
        turns = Turns(monkeypatch)
        turns.count(words, "words_of", len)
        turns.count(written, "decode_record", len)
        hold = runtime.hold("index.walked")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.push, application(write, found, Schema(notes=SEARCHED)))
            with trio.fail_after(60):
                await hold.wait_reached()
            for letters in [SMALL] * 20 + [LARGE] * 4:
                await mutate(node, write, 1, letters)
            hold.release()

        assert max(turns.each) < 2 * LARGE + TURN_LETTERS_MAX
        assert 33 == await ask(node, found, "w1n")


async def test_a_build_comes_to_its_end_though_more_is_written_in_each_turn_than_a_slice(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SLICE_BYTES", 100)
    app = write, rewrite, found
    async with serving(application(*app, Schema(notes=Table(v.any())))) as node:
        await mutate(node, write, 100, 80)
        is_pushed = False
        count = 0

        async def push() -> None:
            nonlocal is_pushed
            await node.push(application(*app, Schema(notes=SEARCHED)))
            is_pushed = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            while not is_pushed and count < MANY:
                await mutate(node, rewrite, 30, count)
                count += 1

        assert count < MANY


async def test_vectors_of_many_numbers_are_taken_in_a_few_at_a_time(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(application(draw, near, Schema(notes=Table(v.any())))) as node:
        await mutate(node, draw, 50)
        turns = Turns(monkeypatch)
        turns.count(vector_index, "entry_of", lambda *_: 1)
        await node.push(application(draw, near, Schema(notes=DRAWN)))

        assert 50 == sum(turns.each)
        assert max(turns.each) * DIMENSIONS * NUMBER_BYTES < 100_000
        assert 3 == await ask(node, near)


async def test_a_search_without_an_index_looks_at_a_few_vectors_at_a_time(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = application(draw, near, Schema(notes=DRAWN))
    async with serving(drawn, limits=Limits(slice_s_max=0.0)) as node:
        await mutate(node, draw, 50)
        monkeypatch.setattr(View, "live", lambda _view, _index: None)
        turns = Turns(monkeypatch)
        turns.count(nearest, "entry_of", lambda *_: 1)
        assert 3 == await ask(node, near)

        assert sum(turns.each) > 40
        assert max(turns.each) <= 8


async def test_a_search_without_an_index_reads_large_texts_a_few_at_a_time(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(slice_s_max=0.0)
    searched = application(write, found, Schema(notes=SEARCHED))
    async with serving(searched, limits=limits) as node:
        await mutate(node, write, 20, SMALL)
        await mutate(node, write, 1, LARGE)
        monkeypatch.setattr(View, "live", lambda _view, _index: None)
        turns = Turns(monkeypatch)
        turns.count(words, "words_of", len)
        assert 21 == await ask(node, found, "w1n")

        assert sum(turns.each) > 20 * SMALL
        assert max(turns.each) < TURN_LETTERS_MAX
