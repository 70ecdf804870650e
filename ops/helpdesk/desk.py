"""The help desk's application: what a user of the engine would write."""

from __future__ import annotations

from engine import Document, Id, MutationCtx, QueryCtx, Schema, Table, mutation, query


class Entry(Document):
    """One docstring of the standard library."""

    module: str
    name: str
    kind: str
    text: str


class Question(Document):
    author: str
    text: str
    module: str


schema = Schema(
    entries=Table(Entry).index("by_module", ["module", "name"]),
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
async def page(ctx: QueryCtx, after: str) -> list[list[str]]:
    """Id, module and name of a part of all entries, in the order of their ids."""
    part = ctx.db.query(Entry).with_index("by_id", lambda r: r.gt("_id", after))
    return [[d["_id"], d["module"], d["name"]] for d in await part.take(2_000)]


@query
async def questions(ctx: QueryCtx) -> list[Question]:
    """The newest questions first."""
    return await ctx.db.query(Question).order("desc").take(50)


@mutation
async def ask(ctx: MutationCtx, author: str, text: str, module: str) -> Id[Question]:
    return await ctx.db.insert(Question, {"author": author, "text": text, "module": module})
