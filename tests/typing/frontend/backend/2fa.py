# ruff: noqa: N999 - the name is what it is for
"""A module whose name is no identifier, and so imported by nobody."""

from headrace import QueryCtx, query


@query
async def needed(ctx: QueryCtx) -> bool:
    return True
