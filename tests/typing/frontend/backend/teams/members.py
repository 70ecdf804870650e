from headrace import MutationCtx, mutation


@mutation(name="addOne")
async def add_one(ctx: MutationCtx, name: str) -> None: ...
