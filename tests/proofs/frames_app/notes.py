"""Functions whose results say for whom they are: a canary for each user, and none for nobody."""

from __future__ import annotations

from typing import Any

from engine import (
    ActionCtx,
    ConvexError,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    action,
    internal_query,
    mutation,
    query,
)

from .schema import Note

WRITERS = ("ada", "bob")
SECRET = "canary of what is internal"


def canary(subject: str) -> str:
    """What nobody but this user is to be told."""
    return f"canary of {subject}"


async def _subject(ctx: QueryCtx | ActionCtx) -> str | None:
    identity = await ctx.auth.get_user_identity()
    return None if identity is None else str(identity["subject"])


@query
async def mine(ctx: QueryCtx) -> dict[str, Any]:
    """The number of the caller's newest note, if there is one."""
    subject = await _subject(ctx)
    if subject is None:
        return {"newest": None}
    found = await ctx.db.query(Note).with_index("by_owner", owner=subject).order("desc").first()
    return {"newest": found and found["n"], "for": canary(subject)}


@query
async def page(ctx: QueryCtx, opts: PaginationOptions) -> Page[Note]:
    """The notes of the caller."""
    subject = await _subject(ctx)
    return await ctx.db.query(Note).with_index("by_owner", owner=subject or "").paginate(opts)


@query
async def echo(ctx: QueryCtx, value: Any = None) -> Any:
    return value


@query
async def fail(ctx: QueryCtx, value: Any = None) -> None:
    raise ConvexError(value)


@mutation
async def write(ctx: MutationCtx, n: float) -> str:
    """Make a note, if the caller is one of those who may."""
    subject = await _subject(ctx)
    if subject not in WRITERS:
        raise ConvexError("who are you?")
    await ctx.db.insert(Note, {"owner": subject, "n": n})
    return canary(subject)


@action
async def ask(ctx: ActionCtx, value: Any = None) -> Any:
    """What the caller's own query says, and what was given."""
    return [await ctx.run_query(mine), value]


@internal_query
async def secret(ctx: QueryCtx) -> str:
    return SECRET


@internal_query
async def every(ctx: QueryCtx, opts: PaginationOptions) -> Page[Note]:
    """All notes, for those who look whether these are all."""
    return await ctx.db.query(Note).paginate(opts)
