"""What clients are not to reach."""

from __future__ import annotations

from engine import MutationCtx, QueryCtx, mutation, query

SECRET = "canary of the vault"


@query
async def look(ctx: QueryCtx) -> str:
    return SECRET


@mutation
async def change(ctx: MutationCtx) -> str:
    return SECRET
