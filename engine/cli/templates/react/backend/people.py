"""Who is here: each window says so again and again, and is forgotten when it no longer does."""

from datetime import timedelta
from typing import TypedDict

from headrace import MutationCtx, QueryCtx, internal_mutation, mutation, query

from .schema import Tab

SILENCE_MAX = timedelta(seconds=30)
SHOWN_MAX = 500


class Me(TypedDict):
    user: str
    name: str


class Online(TypedDict):
    names: list[str]
    guests: int


@query
async def me(ctx: QueryCtx) -> Me | None:
    """Who is asking, as their token says."""
    who = await ctx.auth.get_user_identity()
    if who is None:
        return None
    return {"user": who["tokenIdentifier"], "name": who.get("name") or who["subject"]}


@query
async def online(ctx: QueryCtx) -> Online:
    """The names of who is signed in, and how many windows nobody has signed in to."""
    tabs = await ctx.db.query(Tab).with_index("by_name").take(SHOWN_MAX)
    names = [tab["name"] for tab in tabs if tab["name"] is not None]
    return {"names": list(dict.fromkeys(names)), "guests": len(tabs) - len(names)}


@mutation
async def here(ctx: MutationCtx, key: str) -> None:
    """This window is open, and will say so again within half of SILENCE_MAX."""
    who = await ctx.auth.get_user_identity()
    name = None if who is None else who.get("name") or who["subject"]
    leaves = await ctx.scheduler.run_after(SILENCE_MAX, forget, key=key)
    tab = await ctx.db.query(Tab).with_index("by_key", key=key).unique()
    if tab is None:
        await ctx.db.insert(Tab, {"key": key, "name": name, "leaves": leaves})
    else:
        await ctx.scheduler.cancel(tab["leaves"])
        await ctx.db.patch(tab["_id"], {"name": name, "leaves": leaves})


@mutation
async def gone(ctx: MutationCtx, key: str) -> None:
    """This window closes."""
    tab = await ctx.db.query(Tab).with_index("by_key", key=key).unique()
    if tab is not None:
        await ctx.scheduler.cancel(tab["leaves"])
        await ctx.db.delete(tab["_id"])


@internal_mutation
async def forget(ctx: MutationCtx, key: str) -> None:
    """It has said nothing for SILENCE_MAX."""
    tab = await ctx.db.query(Tab).with_index("by_key", key=key).unique()
    if tab is not None:
        await ctx.db.delete(tab["_id"])
