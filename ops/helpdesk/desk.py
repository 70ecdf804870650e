"""The help desk's application: what a user of the engine would write."""

from __future__ import annotations

from datetime import timedelta
from typing import NotRequired, TypedDict

import trio

from components.aggregate import Bounds, TableAggregate, between, excl, incl
from components.aggregate import component as aggregate
from components.migrations import Migrations, MigrationStatus
from components.migrations import component as migrations_component
from components.rate_limiter import RateLimiter, TokenBucket
from components.rate_limiter import component as rate_limiter
from components.workpool import Result, Workpool
from components.workpool import component as workpool
from engine import (
    ActionCtx,
    App,
    Document,
    Id,
    MutationCtx,
    QueryCtx,
    Schema,
    Table,
    Value,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
    trigger,
)

THINKING_S = 1.0
"""Somebody who knows everything would not answer at once either."""

app = App()
limiter = RateLimiter(
    app.use(rate_limiter, name="limits"),
    questions=TokenBucket(rate=6, period=timedelta(minutes=1), capacity=3),
)
migrations = Migrations(app.use(migrations_component, name="migrations"))


answers = Workpool(app.use(workpool, name="answers"), max_parallelism=2)


class Entry(Document):
    """One docstring of the standard library."""

    module: str
    name: str
    kind: str
    text: str
    words: NotRequired[float]
    """That it has; counted after it was loaded."""


class Question(Document):
    author: str
    text: str
    module: str
    answer: NotRequired[str]


class Counts(TypedDict):
    entries: float
    questions: float


schema = Schema(
    entries=Table(Entry)
    .index("by_module", ["module", "name"])
    .search_index("by_text", search_field="text"),
    questions=Table(Question).index("by_module", ["module"]),
)


entries_counted = TableAggregate[Entry](
    app.use(aggregate, name="entries_counted"), sort_key=lambda entry: entry["module"]
)
questions_counted = TableAggregate[Question](
    app.use(aggregate, name="questions_counted"), sort_key=lambda question: question["module"]
)
in_step = trigger(Question)(questions_counted.trigger())


@mutation
async def add(ctx: MutationCtx, entries: list[dict[str, str]]) -> list[Id[Entry]]:
    """Add entries; one that is there already keeps its id."""
    added: list[Id[Entry]] = []
    new: list[Entry] = []
    for entry in entries:
        same = ctx.db.query(Entry).with_index(
            "by_module", module=entry["module"], name=entry["name"]
        )
        known = await same.first()
        added.append(known["_id"] if known else await ctx.db.insert(Entry, entry))
        if known is None and (inserted := await ctx.db.get(added[-1])):
            new.append(inserted)
    await entries_counted.insert_batch(ctx, new)
    return added


@query
async def counts(ctx: QueryCtx, module: str) -> Counts:
    """How many entries and questions there are of the modules whose names begin with `module`."""
    bounds: Bounds = between(incl(module), excl(module + "\U0010ffff"))
    return {
        "entries": await entries_counted.count(ctx, bounds=bounds),
        "questions": await questions_counted.count(ctx, bounds=bounds),
    }


@query
async def of_module(ctx: QueryCtx, module: str) -> list[Entry]:
    """The first entries of the modules whose names begin with `module`."""
    names = ctx.db.query(Entry).with_index(
        "by_module", lambda r: r.gte("module", module).lt("module", module + "\U0010ffff")
    )
    return await names.take(60)


@query
async def search(ctx: QueryCtx, text: str) -> list[Entry]:
    """The entries that fit best, while somebody types."""
    found = ctx.db.query(Entry).with_search_index("by_text", lambda s: s.search("text", text))
    return await found.take(30)


@query
async def page(ctx: QueryCtx, after: str) -> list[list[str]]:
    """Id, module and name of a part of all entries, in the order of their ids."""
    part = ctx.db.query(Entry).with_index("by_id", lambda r: r.gt("_id", after))
    return [[d["_id"], d["module"], d["name"]] for d in await part.take(2_000)]


@query
async def questions(ctx: QueryCtx) -> list[Question]:
    """The newest questions first."""
    return await ctx.db.query(Question).order("desc").take(50)


@mutation
async def ask(
    ctx: MutationCtx, author: str, text: str, module: str, visitor: str | None = None
) -> Id[Question]:
    """Each visitor has three at once, and then one every ten seconds."""
    await limiter.limit(ctx, "questions", key=visitor or author, throws=True)
    question = await ctx.db.insert(Question, {"author": author, "text": text, "module": module})
    args = {"module": module, "text": text}
    await answers.enqueue_action(ctx, answer, args, on_complete=answered, context=question)
    return question


@internal_action
async def answer(ctx: ActionCtx, module: str, text: str) -> str:
    """Think for a while, two questions at a time, and name what seems to be meant."""
    await trio.sleep(THINKING_S)
    return await ctx.run_query(nearest, module, text)


@internal_query
async def nearest(ctx: QueryCtx, module: str, text: str) -> str:
    """The entry of a module that has most words of a question."""
    words = set(text.lower().split())
    entries = await ctx.db.query(Entry).with_index("by_module", module=module).take(200)
    if not entries:
        return "Nobody here knows."
    best = max(entries, key=lambda entry: len(words & set(entry["text"].lower().split())))
    return f"See {best['module']}.{best['name']}."


@internal_mutation
async def answered(
    ctx: MutationCtx,
    work_id: str,  # noqa: ARG001 - the question is known by its context
    context: Id[Question],
    result: Result,
) -> None:
    """Put the answer beside the question; without one it stays open."""
    if result["kind"] == "success":
        await ctx.db.patch(context, {"answer": result["returnValue"]})


def visitor(_: QueryCtx, named: str | None) -> str | None:
    """Nobody signs in here: visitors are who they say."""
    return named


questions_left = limiter.hook_api("questions", key=visitor).get_rate_limit


@migrations.define(Entry)
async def count_words(_: MutationCtx, entry: Entry) -> dict[str, Value] | None:
    return None if "words" in entry else {"words": len(entry["text"].split())}


@mutation
async def count_all_words(ctx: MutationCtx) -> None:
    """Count those of entries that have come since it was last done, while everything goes on."""
    await migrations.run_one(ctx, count_words, reset=True)


@query
async def counting(ctx: QueryCtx) -> MigrationStatus:
    """How far that has come."""
    (status,) = await migrations.get_status(ctx, migrations=[count_words])
    return status
