"""What applications call, as `mount.add`: public functions; internal ones are its own."""

from headrace import ConvexError, MutationCtx, QueryCtx, mutation, query

from . import component
from .schema import Thing


@mutation
async def add(ctx: MutationCtx, name: str, by: int) -> int:
    """Count further, and return how far that is; it is a part of the caller's transaction."""
    thing = await ctx.db.query(Thing).with_index("by_name", name=name).unique()
    count = by + (thing["count"] if thing else 0)
    if count > component.config.most:
        raise ConvexError({"kind": "TooMany", "name": name, "most": component.config.most})
    if thing:
        await ctx.db.patch(thing["_id"], {"count": count})
    else:
        await ctx.db.insert(Thing, {"name": name, "count": count})
    return count


@query(name="count")
async def count_of(ctx: QueryCtx, name: str) -> int:
    thing = await ctx.db.query(Thing).with_index("by_name", name=name).unique()
    return thing["count"] if thing else 0
