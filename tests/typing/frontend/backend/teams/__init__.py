"""Functions of a folder, and of a module in it that is called as one of them."""

from headrace import QueryCtx, query


@query(name="members")
async def list_members(ctx: QueryCtx, team: str) -> list[str]:
    return [team]


@query(name="default")
async def all_of_them(ctx: QueryCtx) -> list[str]:
    return []
