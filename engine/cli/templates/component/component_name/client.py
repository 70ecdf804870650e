"""What applications use: the component's functions, with types."""

from headrace import ActionCtx, Mount, MutationCtx, QueryCtx


class ComponentName:
    """
    Args:
        mount: what `app.use(component, ...)` returned.
    """

    def __init__(self, mount: Mount, /) -> None:
        self._mount = mount

    async def add(self, ctx: MutationCtx | ActionCtx, name: str, by: int = 1) -> int:
        """
        Count `by` further: in a mutation as a part of it, in an action as a transaction.

        Returns:
            How many there are now.

        Raises:
            ConvexError: it would be more than `Settings.most`.
        """
        count: int = await ctx.run_mutation(self._mount.add, {"name": name, "by": by})
        return count

    async def count(self, ctx: QueryCtx | ActionCtx, name: str) -> int:
        """How many there are; a query that is shown is asked again when this changes."""
        count: int = await ctx.run_query(self._mount.count, {"name": name})
        return count
