"""
The process that the proof of the past kills: it writes, pushes, trims, and answers what was.

    python -m tests.proofs.past_subject DIRECTORY PLANT SEED

Lines of JSON on standard output: `opened` with all that is there, `wrote` after each mutation,
`pushed` after each push, and `answered` or `refused` for each line of JSON on standard input that
asks for a state of the past.
"""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import trio

from engine import Id
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import EngineError
from engine.functions.loader import load
from engine.functions.past_reads import PastReads
from engine.functions.results import Caller
from engine.functions.run import Functions
from engine.host import Engine
from engine.indexes import annexes
from engine.indexes.annexes import FOLDER, DiskAnnexes
from engine.kernel.trace import trace_to_stderr
from engine.log.records import decode_record
from engine.model.limits import Limits
from engine.store.children import command_of
from engine.transaction import past
from engine.transaction.past import AnnexSheet
from tests.proofs import past_planted

ADMIN: Final = Caller(admin=True)
KEPT_S: Final = 2.0
"""What is younger may not be refused."""
NUMBERS: Final = 60
VALUES: Final = 7
PAGE_ITEMS: Final = 3
STATES_ASKED: Final = 3
"""At a time, at most: fewer than are asked for, so that some go while others are read."""

Step = tuple[str, int, int, int]
"""A verb, which thing, and its values."""


@mutation
async def change(ctx: MutationCtx, steps: list[Any]) -> list[Any]:
    """Put and drop things; the id of each."""
    return [await _step(ctx, *step) for step in steps]


async def _step(ctx: MutationCtx, verb: str, n: float, a: float, b: float) -> str | None:
    found = await ctx.db.query("things").with_index("by_n", n=n).unique()
    if verb == "drop":
        if found is not None:
            await ctx.db.delete(found["_id"])
        return None
    if found is not None:
        await ctx.db.patch(found["_id"], {"a": a, "b": b})
        return str(found["_id"])
    return await ctx.db.insert("things", {"n": n, "a": a, "b": b, "padding": "x" * 50})


@query
async def everything(ctx: QueryCtx) -> list[Any]:
    return [[d["n"], d["_id"], d["a"], d["b"]] async for d in ctx.db.query("things")]


@query
async def get(ctx: QueryCtx, thing: Id[Any]) -> list[Any] | None:
    doc = await ctx.db.get("things", thing)
    return doc and [doc["n"], doc["a"], doc["b"]]


@query
async def between(
    ctx: QueryCtx, index: str, first: float, last: float, order: str
) -> list[list[float]]:
    """Things by a value, and in the other order within one."""
    field = index.removeprefix("by_")
    found = ctx.db.query("things").with_index(index, lambda r: r.gte(field, first).lte(field, last))
    return [[d[field], d["n"]] async for d in (found.order("desc") if order == "desc" else found)]


@query
async def page(ctx: QueryCtx, index: str, cursor: str | None) -> Any:
    found = ctx.db.query("things").with_index(index)
    shown = await found.paginate({"numItems": PAGE_ITEMS, "cursor": cursor})
    return [[d["n"] for d in shown["page"]], shown["continueCursor"], shown["isDone"]]


@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.count("things")


def _application(*, has_b: bool) -> Application:
    number = v.number()
    fields = {"n": number, "a": number, "b": number, "padding": v.string()}
    things = Table(v.object(fields)).index("by_n", ["n"]).index("by_a", ["a"])
    functions = [change, everything, get, between, page, count]
    return load([*functions, Schema(things=things.index("by_b", ["b"]) if has_b else things)])


VERSIONS: Final = {has_b: _application(has_b=has_b) for has_b in (False, True)}


@dataclass
class Subject:
    engine: Engine
    dice: random.Random

    async def write(self) -> None:
        while True:
            steps = [list(self._step()) for _ in range(self.dice.randint(1, 6))]
            functions = self.engine.node.functions
            result = await functions.mutation("main:change", {"steps": steps}, caller=ADMIN)
            assert result.failure is None, result.failure
            _say("wrote", ts=result.ts, steps=steps, ids=result.value)
            await trio.sleep(self.dice.choice([0, 0.01, 0.1]))

    def _step(self) -> Step:
        verb = self.dice.choice(["put", "put", "drop"])
        n = self.dice.randrange(NUMBERS)
        return verb, n, self.dice.randrange(VALUES), self.dice.randrange(VALUES)

    async def operate(self, *, has_b: bool) -> None:
        node = self.engine.node
        while True:
            await trio.sleep(self.dice.random() * 0.4)
            if self.dice.random() < 0.5:
                await node.retention.trim()
                continue
            has_b = not has_b
            _say("pushing")
            await node.push(VERSIONS[has_b])
            _say("pushed", ts=node.published.value, has_b=has_b)

    async def serve(self) -> None:
        async with trio.open_nursery() as nursery:
            rest = b""
            stdin = trio.lowlevel.FdStream(os.dup(0))
            async for data in stdin:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    nursery.start_soon(self._answer, json.loads(line))

    async def _answer(self, asked: dict[str, Any]) -> None:
        try:
            value = await self._value(asked["ts"], asked["what"], asked["args"])
        except EngineError as error:
            anchor = self.engine.node.functions._snapshots.current.anchor_ts
            names = [one.__name__ for one in type(error).__mro__]
            _say("refused", asked=asked, errors=names, text=str(error), anchor=anchor)
        else:
            _say("answered", asked=asked, value=value)

    async def _value(self, ts: int, what: str, args: dict[str, Any]) -> Any:
        then = self.engine.at(ts)
        if what != "pages":
            return await then.query(f"main:{what}", args)
        found: list[Any] = []
        cursor, is_done = None, False
        while not is_done:
            shown, cursor, is_done = await then.query("main:page", {**args, "cursor": cursor})
            found.append(shown)
        return found


async def main(directory: Path, plant: str, seed: int) -> None:
    dice = random.Random(seed)
    has_b = dice.random() < 0.5
    limits = Limits(
        past_bytes_max=2 * STATES_ASKED * dice.choice([1, 4_000, 4_000, 40_000]),
        past_count_max=STATES_ASKED,
        log_bytes_max=dice.choice([200_000, 1 << 30]),
        log_age_s_min=KEPT_S,
    )
    setattr(past, "HIDDEN_AT_ONCE", 5)  # noqa: B010 - it is final for all others
    setattr(past, "LOOK_EVERY", 2)  # noqa: B010
    _plant(plant)
    async with Engine.open(directory, app=VERSIONS[has_b], limits=limits) as engine:
        left = [path.name for path in (directory / FOLDER).glob("*")]
        _say(
            "opened",
            pid=os.getpid(),
            ts=engine.node.published.value,
            has_b=has_b,
            left=left,
            things=await engine.query(everything),
        )
        subject = Subject(engine, dice)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subject.write)
            nursery.start_soon(partial(subject.operate, has_b=has_b))
            nursery.start_soon(subject.serve)


def _say(what: str, **fields: Any) -> None:
    os.write(1, json.dumps({"what": what, **fields}).encode() + b"\n")


# What may be wrong.


def _plant(bug: str) -> None:
    """Break the engine, or the process that makes annexes, in one known way."""
    command = command_of(past_planted.__name__, bug)
    setattr(annexes, "command_of", lambda *_: command)  # noqa: B010 - as others see it
    if bug in PLANTED:
        setattr(*PLANTED[bug])


async def _reached_the_next(functions: Functions, ts: int) -> int:
    newest = functions._snapshots.current
    return next((decode_record(data).ts for data in newest.log(ts, newest.ts)), ts)


_begin, _entries = DiskAnnexes.begin, AnnexSheet.entries


def _begin_in_one_place(self: DiskAnnexes, ts: int) -> Any:
    setattr(self, "_names", repeat("the.annex"))  # noqa: B010 - it is a map
    return _begin(self, ts)


async def _leave_all(_self: DiskAnnexes) -> None:
    """What an engine before has left stays."""


def _to_the_end(self: AnnexSheet, index: Any, lower: bytes, _upper: Any, **rest: Any) -> Any:
    return _entries(self, index, lower, None, **rest)


PLANTED: Final[dict[str, tuple[Any, str, Any]]] = {
    "the next commit": (Functions, "_reached", _reached_the_next),
    "an annex of another timestamp": (DiskAnnexes, "begin", _begin_in_one_place),
    "annexes of an engine before": (DiskAnnexes, "clear", _leave_all),
    "a page past the end": (AnnexSheet, "entries", _to_the_end),
    "an annex that goes while it is read": (PastReads, "_remove_if_idle", PastReads._remove),
}
"""Bugs of the engine; those of the process are `past_planted.BUGS`."""
ALL_PLANTED: Final = (*PLANTED, *past_planted.BUGS)


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    trio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
