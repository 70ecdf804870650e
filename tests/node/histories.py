"""Random histories by seed, with what the table then was, for tests that want a past to look at."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cmp_to_key
from typing import Any

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registered import loading
from engine.app.registry import Application, functions_of
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.functions.results import Caller
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import ENTRY_HEAD_BYTES, Limits
from engine.model.values import UNDEFINED, Int64, compare, get_path
from engine.node import Node, running_node
from engine.store.interface import Store

ADMIN = Caller(admin=True)
LONG = "long" * (ENTRY_HEAD_BYTES // 4 + 30)
EDGE = "e" * (ENTRY_HEAD_BYTES - 4)
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1.5,
    2.0**60,
    Int64(1),
    Int64(-(2**40)),
    "",
    "a",
    "a\0b",
    "é",
    LONG,
    LONG + "a",
    LONG + "b",
    EDGE,
    EDGE + "\0",
    EDGE + "\0b",
    EDGE + "e",
    EDGE + "e\0b",
    b"",
    b"\x00\xff",
    [1, "a"],
    {"x": 1},
    {"x": None, "y": [2]},
]
INDEXES = {"by_a": ["a"], "by_ab": ["a", "b"]}

schema = Schema(things=Table(v.any()).index("by_a", ["a"]).index("by_ab", ["a", "b"]))


@mutation
async def write(ctx: MutationCtx, steps: list[Any]) -> list[Any]:
    """Insert, patch, replace and delete, in one transaction; look at the table in between."""
    answers: list[Any] = []
    for verb, doc_id, fields in steps:
        given = {n: UNDEFINED if x == "absent" else x for n, x in (fields or {}).items()}
        if verb == "insert":
            answers.append(
                await ctx.db.insert(
                    "things", {n: x for n, x in given.items() if x is not UNDEFINED}
                )
            )
        elif verb == "patch":
            await ctx.db.patch(doc_id, given)
        elif verb == "replace":
            await ctx.db.replace(doc_id, {n: x for n, x in given.items() if x is not UNDEFINED})
        elif verb == "delete":
            await ctx.db.delete(doc_id)
        else:
            found = await ctx.db.query("things").with_index("by_ab").collect()
            assert len(found) == await ctx.db.count("things")
            answers.append(found)
    return answers


@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.count("things")


@query
async def scan(ctx: QueryCtx, index: str, order: str) -> list[Any]:
    things = ctx.db.query("things").with_index(index)
    return await (things.order("desc") if order == "desc" else things).collect()


def application(tables: Schema, digest: str) -> Application:
    functions = {f.handler.__name__: f for f in (write, count, scan)}
    with loading("t"):
        for function in functions.values():
            function.module = "t"
    return Application(functions=functions_of("t", functions), schema=tables, digest=digest)


@asynccontextmanager
async def opened(
    store: Store, tables: Schema, seed: int, limits: Limits | None = None
) -> AsyncIterator[Node]:
    limits = limits or Limits()
    watchdog = Watchdog(limits)
    watchdog.start()
    try:
        runtime = VirtualRuntime(seed)
        async with running_node(store, runtime=runtime, limits=limits, watchdog=watchdog) as node:
            await node.push(application(tables, f"{len(tables.tables['things'].indexes)}"))
            yield node
    finally:
        watchdog.close()


Model = dict[str, dict[str, Any]]


class History:
    """Runs random transactions and remembers what the table then was."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.model: Model = {}
        self.states: list[tuple[int, Model]] = []

    async def step(self, node: Node) -> None:
        gone: set[str] = set()
        steps = [self._verb(gone) for _ in range(self.dice.randint(1, 6))]
        result = await node.functions.mutation("t:write", {"steps": steps}, caller=ADMIN)
        assert result.failure is None, result.failure.message
        answers = iter(result.value)
        await self._follow(node, steps, answers)
        assert result.ts is not None
        self.states.append((result.ts, {k: dict(d) for k, d in self.model.items()}))

    def _verb(self, gone: set[str]) -> list[Any]:
        known = [doc_id for doc_id in self.model if doc_id not in gone]
        verb = self.dice.choice(["insert", "insert", "patch", "replace", "delete", "look"])
        if verb in ("insert", "look") or not known:
            return ["look" if verb == "look" else "insert", None, self._fields()]
        doc_id = self.dice.choice(known)
        if verb == "delete":
            gone.add(doc_id)
        return [verb, doc_id, self._fields()]

    def _fields(self) -> dict[str, Any]:
        names = [n for n in ("a", "b") if self.dice.random() < 0.8]
        fields = {n: self.dice.choice(VALUES) for n in names}
        return fields | ({"a": "absent"} if self.dice.random() < 0.1 else {})

    async def _follow(self, node: Node, steps: list[Any], answers: Any) -> None:
        for verb, doc_id, fields in steps:
            given = {n: x for n, x in fields.items() if x != "absent"}
            if verb == "insert":
                new = next(answers)
                self.model[new] = {"_id": new, **given}
            elif verb == "look":
                seen = {doc["_id"]: doc for doc in next(answers)}
                for known in self.model:
                    creation = seen[known]["_creationTime"]
                    self.model[known].setdefault("_creationTime", creation)
                assert self.model.keys() == seen.keys()
                assert all(same(self.model[k], seen[k]) for k in seen)
            elif verb == "delete":
                del self.model[doc_id]
            else:
                old = self.model[doc_id]
                system = {n: old[n] for n in ("_id", "_creationTime") if n in old}
                kept = old if verb == "patch" else system
                removed = [n for n, x in fields.items() if x == "absent"]
                merged = {**kept, **given}
                self.model[doc_id] = {n: x for n, x in merged.items() if n not in removed}
        for doc in await read(node, "scan", index="by_id", order="asc"):
            self.model[doc["_id"]].setdefault("_creationTime", doc["_creationTime"])


def same(a: Any, b: Any) -> bool:
    return compare(a, b) == 0


async def read(node: Node, name: str, ts: int | None = None, **args: Any) -> Any:
    if ts is not None:
        then = await node.functions.query_at(f"t:{name}", args, caller=ADMIN, ts=ts)
        assert then.failure is None, then.failure.message
        return then.value
    result = await node.functions.query(f"t:{name}", args, caller=ADMIN)
    result.live.release()
    assert result.failure is None, result.failure.message
    return result.value


def in_order(model: Model, fields: list[str]) -> list[dict[str, Any]]:
    def key(doc: dict[str, Any]) -> list[Any]:
        return [get_path(doc, path) for path in (*fields, "_creationTime", "_id")]

    def order(a: dict[str, Any], b: dict[str, Any]) -> int:
        pairs = (compare(x, y) for x, y in zip(key(a), key(b), strict=True))
        return next((decided for decided in pairs if decided), 0)

    return sorted(model.values(), key=cmp_to_key(order))


async def check(node: Node, model: Model, ts: int | None = None) -> None:
    assert len(model) == await read(node, "count", ts=ts)
    for index, fields in {"by_creation_time": [], **INDEXES}.items():
        expected = in_order(model, fields)
        for order in ("asc", "desc"):
            found = await read(node, "scan", ts=ts, index=index, order=order)
            assert same(expected if order == "asc" else expected[::-1], found), (index, order)
