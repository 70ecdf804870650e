"""
The process that the search proof kills: it writes notes, folds, builds, and says what it finds.

    python -m tests.proofs.search_subject DIRECTORY PLANT SEED LIFE VERSION MOMENT

SEED says what the workers write, LIFE all else, VERSION which indexes are pushed first.  It kills
itself when it has come to MOMENT a few times, and as many milliseconds later as the dice say; with
"any" it waits to be killed.

Lines of JSON on standard output: `opened` and what `verify` has found, `wrote` after each mutation,
`answered` with all notes that there were, `pushed`, and `dying`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.functions.loader import load
from engine.host import Engine
from engine.indexes import keeper
from engine.indexes.checkpoints import Checkpoints
from engine.indexes.text import index as text_index
from engine.indexes.text.index import TextIndex
from engine.indexes.vectors import index as vector_index
from engine.indexes.vectors import nearest
from engine.indexes.vectors.graph import Graph
from engine.indexes.vectors.index import VectorIndex
from engine.indexes.verify import verify
from engine.kernel.runtime import SystemRuntime
from engine.kernel.trace import trace_to_stderr
from tests.node.nodes import mutate
from tests.proofs.search_notes import (
    ASKED_AT_FIRST,
    DIMENSIONS,
    TAGS,
    WORKERS,
    Question,
    note,
    question,
    steps,
)
from tests.proofs.search_planted import planted

DIED_LATE_S_MAX: Final = 0.02
COMES: Final = {"open": (0, 4), "files": (10, 60), "fold": (10, 60), "build": (5, 40)}
"""Moments, and how often it goes past each before it dies there, at least and at most."""
OPENING: Final = {"read", "follow"}
"""It reads files, and what is in the log after them; either is of the moment of opening."""


@mutation
async def write(
    ctx: MutationCtx, seed: float, worker: float, number: float, asked: list[Any] | None
) -> Any:
    """Do the worker's mutation of that number, and ask amid what it has written."""
    line = await ctx.db.query("workers").with_index("by_worker", worker=worker).unique()
    assert number == (0 if line is None else line["done"]), "each is done once, in order"
    who = int(worker)
    for verb, slot in steps(int(seed), who, int(number)):
        there = ctx.db.query("notes").with_index("by_slot", worker=who, slot=slot)
        found = await there.unique()
        fields = dict(note(int(seed), who, slot, int(number)))
        if verb == "drop":
            if found is not None:
                await ctx.db.delete(found["_id"])
        elif found is None:
            await ctx.db.insert("notes", fields)
        else:
            await ctx.db.replace(found["_id"], fields)
    if line is None:
        await ctx.db.insert("workers", {"worker": worker, "done": 1})
    else:
        await ctx.db.patch(line["_id"], {"done": number + 1})
    return None if asked is None else await _answer(ctx, Question(*asked))


@query
async def look(ctx: QueryCtx, asked: list[Any]) -> Any:
    return await _answer(ctx, Question(*asked))


@action
async def nearly(ctx: ActionCtx, asked: list[Any]) -> list[Any]:
    one = Question(*asked)
    hits = await ctx.vector_search(
        "notes",
        "by_place",
        vector=one.place,
        limit=int(one.wanted),
        filter=_condition(one.tag),
    )
    return [[hit["_id"], hit["_score"]] for hit in hits]


async def _answer(ctx: QueryCtx, asked: Question) -> dict[str, Any]:
    """What is found by words and by vector, and all notes that there are."""
    tag, count = int(asked.tag), int(asked.wanted)

    def search(s: Any) -> Any:
        s = s.search("text", asked.text)
        return s if tag < 0 else s.eq("tag", TAGS[tag])

    words = await ctx.db.query("notes").with_search_index("by_text", search).take(count)
    hits = await ctx.db.vector_search(
        "notes", "by_place", vector=asked.place, limit=count, filter=_condition(tag)
    )
    done = {str(int(d["worker"])): d["done"] async for d in ctx.db.query("workers")}
    notes = [
        [d["_id"], d["_creationTime"], d["worker"], d["slot"], d["number"]]
        async for d in ctx.db.query("notes")
    ]
    return {
        "words": [doc["_id"] for doc in words],
        "near": [[hit["_id"], hit["_score"]] for hit in hits],
        "done": [done.get(str(worker), 0) for worker in range(WORKERS)],
        "notes": notes,
    }


def _condition(tag: float) -> Callable[[Any], Any] | None:
    return None if tag < 0 else lambda q: q.eq("tag", TAGS[int(tag)])


def _application(filter_fields: list[str]) -> Application:
    notes = Table(v.any()).index("by_slot", ["worker", "slot"])
    notes = notes.search_index("by_text", search_field="text", filter_fields=filter_fields)
    notes = notes.vector_index(
        "by_place", vector_field="place", dimensions=DIMENSIONS, filter_fields=filter_fields
    )
    workers = Table(v.any()).index("by_worker", ["worker"])
    return load([write, look, nearly, Schema(notes=notes, workers=workers)])


VERSIONS: Final = [_application(fields) for fields in (["tag"], ["tag", "worker"])]
"""What one of them has for an index is another to the other, and is built when it is pushed."""


class Doomed(SystemRuntime):
    """
    It ends when it comes to its moment, on whatever thread, amid whatever the others do.

    Args:
        moment: of `COMES`, or another that it never comes to.
    """

    def __init__(self, moment: str, dice: Random) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.builds_for = ""
        self._moment = moment
        self._left = dice.randint(*COMES.get(moment, (0, 0)))
        self._late_s = dice.random() * DIED_LATE_S_MAX

    async def pause(self, point: str) -> None:
        if point == "index.walked":
            self.come("build" if self.builds_for else "follow")

    def come(self, what: str) -> None:
        self.counts[what] += 1
        if self._moment == ("open" if what in OPENING else what):
            self._left -= 1
            if self._left == -1:
                threading.Thread(target=self._die, daemon=True).start()

    def _die(self) -> None:
        amid = f"a build for {self.builds_for}" if self._moment == "build" else self._moment
        _say("dying", amid=amid)
        time.sleep(self._late_s)
        os.kill(os.getpid(), signal.SIGKILL)


class Subject:
    def __init__(self, engine: Engine, seed: int, version: int, doom: Doomed, dice: Random) -> None:
        self._engine = engine
        self._seed = seed
        self._version = version
        self._doom = doom
        self._dice = dice
        self._turns = [trio.Lock() for _ in range(WORKERS)]

    async def begin(self) -> list[int]:
        """Say what is there after opening; how many mutations each worker has done."""
        node = self._engine.node
        for status in node.keeper.statuses():
            await node.keeper.wait_settled(status.index_id, lambda _: None)
        *_, findings = verify(node.store.snapshot)
        problems = [one async for one in node.keeper.problems() if one is not None]
        _say("opened", problems=findings.problems + problems)
        for _ in range(ASKED_AT_FIRST):
            done = await self._ask_at_rest()
        return done

    async def live(self, done: list[int]) -> None:
        async with trio.open_nursery() as nursery:
            for worker, number in enumerate(done):
                nursery.start_soon(self._work, worker, number)
            nursery.start_soon(self._ask)
            nursery.start_soon(self._rest)
            nursery.start_soon(self._operate)

    async def _work(self, worker: int, number: int) -> None:
        while True:
            asked = question(self._dice) if self._dice.random() < 0.05 else None
            async with self._turns[worker]:
                wrote = await mutate(
                    self._engine.node, write, self._seed, worker, number, asked and [*asked]
                )
                _say("wrote", worker=worker, number=number)
            number += 1
            if asked is not None:
                self._say_answer(asked, wrote)
            await trio.sleep(self._dice.choice([0, 0, 0.01]))

    async def _ask(self) -> None:
        """Beside whoever writes, as of the state that there happens to be."""
        while True:
            asked = question(self._dice)
            self._say_answer(asked, await self._engine.query(look, [*asked]))
            await trio.sleep(0.2 * self._dice.random())

    async def _rest(self) -> None:
        """Now and then nobody writes; then it is known what an action might find."""
        while True:
            await trio.sleep(0.2 * self._dice.random())
            async with AsyncExitStack() as stack:
                for turn in self._turns:
                    await stack.enter_async_context(turn)
                await self._ask_at_rest()

    async def _ask_at_rest(self) -> list[int]:
        asked = question(self._dice)
        before = self._doom.counts["graphs"]
        hits = await self._engine.action(nearly, [*asked])
        is_by_graph = self._doom.counts["graphs"] > before
        answer = await self._engine.query(look, [*asked])
        self._say_answer(asked, answer, nearly=hits, is_by_graph=is_by_graph)
        return [int(number) for number in answer["done"]]

    async def _operate(self) -> None:
        """Push other indexes, and build those there are anew, while the others go on."""
        node = self._engine.node
        while True:
            if self._dice.random() < 0.5:
                self._doom.builds_for = "a push"
                self._version = 1 - self._version
                await node.push(VERSIONS[self._version])
                _say("pushed", version=self._version)
            else:
                self._doom.builds_for = "a rebuild"
                await node.keeper.rebuild(self._dice.choice(node.keeper.statuses()).index_id)
                _say("rebuilt")
            await trio.sleep(self._dice.random())

    def _say_answer(self, asked: Question, answer: dict[str, Any], **more: Any) -> None:
        _say("answered", asked=asked, **answer, **more, counts=self._doom.counts)


async def main(directory: Path, bug: str, seed: int, life: int, version: int, moment: str) -> None:
    dice = Random(life)
    doom = Doomed(moment, dice)
    _make_small()
    with planted(bug):
        _watch(doom)
        async with Engine.open(directory, app=VERSIONS[version], runtime=doom) as engine:
            subject = Subject(engine, seed, version, doom, dice)
            await subject.live(await subject.begin())


def _make_small() -> None:
    """So small that some seconds have many folds, and so large that graphs are asked."""
    _set(text_index, "TAIL_SLOTS_MAX", 60)
    _set(text_index, "SEGMENT_SLOTS_MAX", 600)
    _set(keeper, "CHECKPOINT_EVERY_S", 0.2)
    _set(vector_index, "ROWS_MIN", 200)
    _set(nearest, "CANDIDATE_ROWS", 2)
    _set(VectorIndex.__init__, "__kwdefaults__", {"tail_rows_max": 60, "part_rows_max": 900})


def _watch(doom: Doomed) -> None:
    """Have it know what the engine comes to."""
    _come_before(Checkpoints, "read", partial(doom.come, "read"))
    _come_before(Checkpoints, "write", partial(doom.come, "files"))
    _come_before(Graph, "nearest", partial(doom.come, "graphs"))
    for kind in (TextIndex, VectorIndex):
        _come_with_folds(kind, doom)


def _come_before(owner: Any, name: str, come: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def wrapped(*args: Any) -> Any:
        come()
        return original(*args)

    _set(owner, name, wrapped)


def _come_with_folds(kind: Any, doom: Doomed) -> None:
    original = kind.fold

    def fold(self: Any, durable_ts: int) -> Any:
        work = original(self, durable_ts)
        if work is not None:
            doom.come("fold")
        return work

    _set(kind, "fold", fold)


def _set(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _say(what: str, **fields: Any) -> None:
    os.write(1, json.dumps({"what": what, **fields}).encode() + b"\n")


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    where, plant, notes_seed, life_seed, pushed, when = sys.argv[1:]
    trio.run(main, Path(where), plant, int(notes_seed), int(life_seed), int(pushed), when)
