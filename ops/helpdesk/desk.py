"""The help desk's application: what a user of the engine would write."""

from __future__ import annotations

from datetime import timedelta
from typing import NotRequired

from components.migrations import Migrations, MigrationStatus
from components.migrations import component as migrations_component
from components.rate_limiter import RateLimiter, TokenBucket
from components.rate_limiter import component as rate_limiter
from engine import App, Document, Id, MutationCtx, QueryCtx, Schema, Table, Value, mutation, query

app = App()
limiter = RateLimiter(
    app.use(rate_limiter, name="limits"),
    questions=TokenBucket(rate=6, period=timedelta(minutes=1), capacity=3),
)
migrations = Migrations(app.use(migrations_component, name="migrations"))


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


schema = Schema(
    entries=Table(Entry)
    .index("by_module", ["module", "name"])
    .search_index("by_text", search_field="text"),
    questions=Table(Question).index("by_module", ["module"]),
)


@mutation
async def add(ctx: MutationCtx, entries: list[dict[str, str]]) -> list[Id[Entry]]:
    """Add entries; one that is there already keeps its id."""
    added: list[Id[Entry]] = []
    for entry in entries:
        same = ctx.db.query(Entry).with_index(
            "by_module", module=entry["module"], name=entry["name"]
        )
        known = await same.first()
        added.append(known["_id"] if known else await ctx.db.insert(Entry, entry))
    return added


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
    return await ctx.db.insert(Question, {"author": author, "text": text, "module": module})


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
