from headrace import MutationCtx, QueryCtx, mutation, query

from .app import few, many

COUNTERS = {"few": few, "many": many}


@mutation
async def add(ctx: MutationCtx, counter: str, by: int = 1) -> int:
    return await COUNTERS[counter].add(ctx, "apples", by)


@mutation
async def add_and_fail(ctx: MutationCtx) -> None:
    await many.add(ctx, "apples")
    raise LookupError("after all not")


@query
async def counts(ctx: QueryCtx) -> list[int]:
    return [await one.count(ctx, "apples") for one in (few, many)]
