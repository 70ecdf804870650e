"""
The application of the proofs of serializability: lists, and transactions of several steps on them.

    ["append", key, value]              ["read", key]
    ["window", first, last, count, down]    the first or last `count` lists of a range of keys
    ["get", key, id]                    by the id that somebody was told
    ["undo", steps]                     a transaction within this one, that fails
    ["fail"]                            the whole transaction fails
    ["stuff", count]                    documents of almost a megabyte

A list with an even key is one document; one with an odd key is a row for each value, so that an
append is an insert in a range that the appender has read to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final, TypeAlias

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import ConvexError
from engine.functions.loader import load
from tests.proofs.histories import Append, Read, Step

Program: TypeAlias = list[list[Any]]

STUFFING: Final = "x" * 900_000

schema = Schema(
    lists=Table(v.object({"key": v.number(), "values": v.array(v.number())})).index(
        "by_key", ["key"]
    ),
    items=Table(v.object({"key": v.number(), "place": v.number(), "value": v.number()})).index(
        "by_place", ["key", "place"]
    ),
    stuff=Table(v.object({"filling": v.string()})),
)


@mutation
async def act(ctx: MutationCtx, steps: list[Any]) -> list[Any]:
    """Take all steps; what each of them found."""
    return [await _change(ctx, step) for step in steps]


@mutation
async def undo(ctx: MutationCtx, steps: list[Any]) -> None:
    """Take all steps and fail."""
    for step in steps:
        await _change(ctx, step)
    raise ConvexError("as planned")


@query
async def look(ctx: QueryCtx, steps: list[Any]) -> list[Any]:
    """Take steps that only read."""
    return [await _look(ctx, step) for step in steps]


APPLICATION: Final = load([act, undo, look, schema])
ACT, _, LOOK = APPLICATION.functions


async def _change(ctx: MutationCtx, step: list[Any]) -> Any:
    match step:
        case ["append", key, value]:
            await (_append_item if key % 2 else _append_value)(ctx, key, value)
        case ["undo", steps]:
            try:
                await ctx.run_mutation(undo, steps=steps)
            except ConvexError:
                return None
        case ["fail"]:
            raise ConvexError("as planned")
        case ["stuff", count]:
            for _ in range(int(count)):
                await ctx.db.insert("stuff", {"filling": STUFFING})
        case _:
            return await _look(ctx, step)
    return None


async def _append_value(ctx: MutationCtx, key: float, value: float) -> None:
    found = await ctx.db.query("lists").with_index("by_key", key=key).first()
    if found is None:
        await ctx.db.insert("lists", {"key": key, "values": [value]})
    else:
        await ctx.db.patch(found["_id"], {"values": [*found["values"], value]})


async def _append_item(ctx: MutationCtx, key: float, value: float) -> None:
    last = await ctx.db.query("items").with_index("by_place", key=key).order("desc").first()
    place = 0 if last is None else last["place"] + 1
    await ctx.db.insert("items", {"key": key, "place": place, "value": value})


async def _look(ctx: QueryCtx, step: list[Any]) -> Any:
    match step:
        case ["read", key] if key % 2:
            items = ctx.db.query("items").with_index("by_place", key=key)
            return [None, [item["value"] async for item in items]]
        case ["read", key]:
            found = await ctx.db.query("lists").with_index("by_key", key=key).collect()
            ids = [one["_id"] for one in found]
            return [ids[0] if ids else None, [one for row in found for one in row["values"]]]
        case ["get", _, doc_id]:
            row = await ctx.db.get(doc_id)
            return [doc_id, [] if row is None else row["values"]]
        case ["window", first, last, count, down]:
            lists = ctx.db.query("lists")
            inside = lists.with_index("by_key", lambda r: r.gte("key", first).lte("key", last))
            ordered = inside.order("desc" if down else "asc")
            return [[row["key"], row["values"]] for row in await ordered.take(int(count))]
    raise AssertionError(f"no such step: {step}")


# What a client makes of a program and of its results.


def appends(program: Program) -> list[Append]:
    """What a program is going to append."""
    return [
        Append(key=step[1], value=step[2])
        for step in program
        if step[0] == "append"  # what is undone has a list of its own
    ]


def undone(program: Program) -> list[Append]:
    """What a program is going to append and to roll back."""
    return [one for step in program if step[0] == "undo" for one in appends(step[1])]


def is_meant_to_fail(program: Program) -> bool:
    return any(step[0] in ("fail", "stuff") for step in program)


def steps_taken(program: Program, results: Sequence[Any]) -> list[Step]:
    """The steps of a program with what they found."""
    taken: list[Step] = []
    for step, result in zip(program, results, strict=True):
        match step:
            case ["append", key, value]:
                taken.append(Append(key=key, value=value))
            case ["read" | "get", key, *_]:
                taken.append(_read(key, result[1]))
            case ["window", first, last, count, down]:
                taken += _window(range(first, last + 1), count, down, result)
    return taken


def _window(keys: range, count: int, down: bool, rows: Sequence[Any]) -> list[Read]:
    """Of each list in the part of the range that was looked at: those that are not there, too."""
    found: dict[int, list[Any]] = {}
    for key, values in rows:
        found.setdefault(int(key), []).extend(values)
    seen = [key for key in (reversed(keys) if down else keys) if key % 2 == 0]
    if len(rows) == count:
        seen = seen[: seen.index(int(rows[-1][0])) + 1]
    return [_read(key, found.get(key, [])) for key in seen]


def _read(key: int, values: Sequence[float]) -> Read:
    return Read(key=key, values=tuple(map(int, values)))


class Programs:
    """
    Makes programs, by the dice, on a few lists at a time; one that is long gives way to a new one.

    Args:
        keys_count: how many lists are written at a time.
        appends_max: how often each of them is.
    """

    def __init__(self, dice: Random, *, keys_count: int, appends_max: int) -> None:
        self._dice = dice
        self._appends_max = appends_max
        self._active = list(range(keys_count))
        self._appended = [0] * keys_count
        self._ids: dict[int, str] = {}

    @property
    def keys(self) -> range:
        """All keys there ever were."""
        return range(len(self._appended))

    def change(self) -> Program:
        """A transaction that appends and reads."""
        dice = self._dice
        program = [
            self._append() if dice.random() < 0.5 else self._look()
            for _ in range(dice.randint(1, 4))
        ]
        if dice.random() < 0.05:
            program.insert(dice.randrange(len(program)), ["undo", [self._append()]])
        if dice.random() < 0.03:
            program.append(["fail"])
        return program

    def stuffing(self, count: int) -> Program:
        """A transaction for which there is no room."""
        return [self._append(), ["stuff", count]]

    def look(self) -> Program:
        """A transaction that only reads."""
        return [self._look() for _ in range(self._dice.randint(1, 3))]

    def learn(self, program: Program, results: Sequence[Any]) -> None:
        """Remember the ids that a client was told."""
        for step, result in zip(program, results, strict=True):
            if step[0] == "read" and result[0] is not None:
                self._ids[step[1]] = result[0]

    def _look(self) -> list[Any]:
        dice = self._dice
        key = dice.choice(self._active)
        if (kind := dice.random()) < 0.3 and key in self._ids:
            return ["get", key, self._ids[key]]
        if kind < 0.7:
            first = max(0, key - dice.randint(0, 4))
            return ["window", first, first + dice.randint(1, 8), dice.randint(1, 4), kind < 0.5]
        return ["read", key]

    def _append(self) -> list[Any]:
        at = self._dice.randrange(len(self._active))
        key = self._active[at]
        self._appended[key] += 1
        if self._appended[key] == self._appends_max:
            self._active[at] = len(self._appended)
            self._appended.append(0)
        return ["append", key, self._appended[key]]
