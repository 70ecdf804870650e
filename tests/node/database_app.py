"""
The application that the state machine drives: whatever a function may do, by description.

A transaction is a list of steps, and a read is a description too, so both can be drawn, shrunk and
followed by a model. Documents and jobs are named by their place among all there ever were.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import internal_mutation, mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import DocumentNotFound
from engine.model.values import UNDEFINED
from tests.node.javascript import Doc, shown
from tests.node.nodes import application

TABLE: Final = "things"
NOTES: Final = ("notes_0", "notes_1", "notes_2", "notes_3")
"""Tables that no schema declares: each is there from its first document on."""
DELAY_MS: Final = 60_000

Indexes = tuple[tuple[str, tuple[str, ...]], ...]
"""Those that are deployed beside the two that every table has: names and fields."""

MISSING: Final = "missing"
UNIQUE: Final = "one"
"""The name of the index that is unique, where it is deployed."""


class Broken(Exception):
    """What a step raises on purpose."""


@cache
def deployed(indexes: Indexes) -> Application:
    """The application with these indexes."""
    table = Table(v.any())
    for name, fields in indexes:
        table = table.index(name, list(fields), unique=name == UNIQUE)
    return application(transact, read, count, page, jobs, tick, Schema(things=table))


@mutation
async def transact(ctx: MutationCtx, steps: Any, known: Any, fails: bool = False) -> Any:
    """
    Do the steps, one after another.

    Args:
        known: ids of documents and of jobs that steps may name.
        fails: raise in the end.

    Returns:
        An answer for each step, and `known` with what was added.
    """
    answers = [await _step(ctx, step, known) for step in steps]
    if fails:
        raise Broken
    return [answers, known]


async def _step(ctx: MutationCtx, step: Any, known: Any) -> Any:
    verb, *given = step
    docs, jobs = known
    match verb:
        case "insert":
            docs.append(await ctx.db.insert(TABLE, _present(given[0])))
            return await ctx.db.get(docs[-1])
        case "stamp":
            fields = _present(given[0]) | {"a": ctx.db.vars.commit_ts}
            docs.append(await ctx.db.insert(TABLE, fields))
            return await ctx.db.get(docs[-1])
        case "patch" | "replace" | "delete" if docs:
            return await _change(ctx, verb, docs[given[0] % len(docs)], *given[1:])
        case "look":
            return [await run_read(ctx, given[0]), await ctx.db.count(TABLE)]
        case "ask":
            return await ctx.run_query(read, given[0])
        case "nest":
            return await _nest(ctx, given[0], given[1], known)
        case "note":
            await ctx.db.insert(NOTES[given[0]], {})
            return await ctx.db.count(NOTES[given[0]])
        case "schedule":
            jobs.append(await ctx.scheduler.run_after(DELAY_MS, tick, given[0]))
        case "cancel" if jobs:
            await ctx.scheduler.cancel(jobs[given[0] % len(jobs)])
    return None


async def _change(ctx: MutationCtx, verb: str, doc_id: Any, fields: Any = None) -> Any:
    """What has become of the document; `MISSING` where there was none."""
    try:
        if verb == "patch":
            await ctx.db.patch(doc_id, {name: shown(value) for name, value in fields.items()})
        elif verb == "replace":
            await ctx.db.replace(doc_id, _present(fields))
        else:
            await ctx.db.delete(doc_id)
    except DocumentNotFound:
        return MISSING
    return await ctx.db.get(doc_id)


async def _nest(ctx: MutationCtx, steps: Any, fails: bool, known: Any) -> Any:
    """The answers of another transaction within this one, or `None` if it failed."""
    try:
        mine = [list(ids) for ids in known]
        answers, known[:] = await ctx.run_mutation(transact, steps, mine, fails)
    except Broken:
        return None
    return answers


def _present(fields: Any) -> Doc:
    return {name: value for name, value in fields.items() if shown(value) is not UNDEFINED}


@query
async def read(ctx: QueryCtx, spec: Any) -> Any:
    return await run_read(ctx, spec)


@query
async def count(ctx: QueryCtx) -> list[int]:
    return [await ctx.db.count(table) for table in (TABLE, "ticks", *NOTES)]


@query
async def page(ctx: QueryCtx, spec: Any, opts: Any) -> Any:
    return await _ordered(ctx, spec).paginate(opts)


@query
async def jobs(ctx: QueryCtx) -> list[Any]:
    found = await ctx.db.system.query("_scheduled_functions").collect()
    return [[job["_id"], job["state"]["kind"], job["args"][0]["n"]] for job in found]


@internal_mutation
async def tick(ctx: MutationCtx, n: Any) -> None:
    await ctx.db.insert("ticks", {"n": n})


async def run_read(ctx: QueryCtx, spec: Any) -> Any:
    """
    Args:
        spec: index, bounds, order, filter, where, and how it ends.
    """
    found = _ordered(ctx, spec)
    if spec["filter"] is not None:
        found = found.filter(lambda q: _built(q, spec["filter"]))
    if spec["where"] is not None:
        found = found.where(lambda doc: has_kind(doc, spec["where"]))
    end, n = spec["end"], spec["n"]
    if end == "take":
        return await found.take(n)
    if end == "first":
        return await found.first()
    if end == "unique":
        return await found.unique()
    if end == "for":
        return [doc async for doc in _upto(found, n)]
    return await found.collect()


async def _upto(found: Any, n: int) -> Any:
    """An `async for` that is left early."""
    seen = 0
    async for doc in found:
        yield doc
        seen += 1
        if seen == n:
            break


def has_kind(doc: Doc, name: str) -> bool:
    return type(doc.get("a")).__name__ == name


def _ordered(ctx: QueryCtx, spec: Any) -> Any:
    found: Any = ctx.db.query(TABLE)
    if spec["index"] != "by_creation_time" or spec["bounds"]:
        found = found.with_index(spec["index"], lambda r: _bounded(r, spec["bounds"]))
    return found if spec["order"] is None else found.order(spec["order"])


def _bounded(r: Any, bounds: Any) -> Any:
    for verb, field, value in bounds:
        r = getattr(r, verb)(field, shown(value))
    return r


def _built(q: Any, expression: Any) -> Any:
    verb, *operands = expression
    if verb == "value":
        return shown(operands[0])
    if verb == "field":
        return q.field(operands[0])
    name = f"{verb}_" if verb in ("and", "or", "not") else verb
    return getattr(q, name)(*[_built(q, each) for each in operands])
