"""An application that does to an aggregate whatever a test asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.aggregate import Aggregate, DirectAggregate, component
from engine import UNDEFINED, ActionCtx, App, MutationCtx, QueryCtx, action, mutation, query
from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness, Place

app = App()
numbers = app.use(component, name="numbers")
others = app.use(component, name="others")
mounts = {"numbers": numbers, "others": others}
aggregates = {name: DirectAggregate(mount) for name, mount in mounts.items()}


async def called(ctx: Any, where: str, method: str, args: Sequence[Any], more: Any) -> Any:
    aggregate: Aggregate = aggregates[where]
    return shown(await getattr(aggregate, method)(ctx, *args, **more))


def shown(found: Any) -> Any:
    """What was found as a result can hold it: names that are none are told as such."""
    if isinstance(found, Mapping) and "page" in found:
        names = ["no namespace" if one is UNDEFINED else one for one in found["page"]]
        return {**found, "page": names}
    return found


@query
async def ask(ctx: QueryCtx, where: str, method: str, args: list[Any], more: dict[str, Any]) -> Any:
    return await called(ctx, where, method, args, more)


@mutation
async def tell(
    ctx: MutationCtx, where: str, method: str, args: list[Any], more: dict[str, Any]
) -> Any:
    return await called(ctx, where, method, args, more)


@action
async def act(
    ctx: ActionCtx, where: str, method: str, args: list[Any], more: dict[str, Any]
) -> Any:
    return await called(ctx, where, method, args, more)


@mutation
async def survive(
    ctx: MutationCtx, where: str, method: str, args: list[Any], more: dict[str, Any]
) -> str:
    """Go on after an error, as an application may; what has been written then is committed."""
    try:
        await called(ctx, where, method, args, more)
    except Exception as error:
        return type(error).__name__
    return ""


@mutation
async def survive_not(
    ctx: MutationCtx, where: str, method: str, args: list[Any], more: dict[str, Any]
) -> None:
    """Fail after it, so that nothing of it is committed."""
    await called(ctx, where, method, args, more)
    raise LookupError("this mutation fails")


APPLICATION = load([app, ask, tell, act, survive, survive_not])


def names_of(function: str, where: str = "numbers") -> dict[str, Any]:
    """What the module of a function has, in the copy of a mount."""
    handler: Any = APPLICATION.mounts[where].functions[function].handler
    names: dict[str, Any] = handler.__globals__
    return names


class Numbers:
    """One of its aggregates, for a test that is a plain function."""

    def __init__(self, place: Place, where: str = "numbers") -> None:
        self.t = BlockingHarness(place)
        self.where = where
        self.mount = mounts[where]

    def ask(self, method: str, *args: Any, **more: Any) -> Any:
        return self._call(self.t.query, ask, method, args, more)

    def tell(self, method: str, *args: Any, **more: Any) -> Any:
        return self._call(self.t.mutation, tell, method, args, more)

    def act(self, method: str, *args: Any, **more: Any) -> Any:
        return self._call(self.t.action, act, method, args, more)

    def survive(self, method: str, *args: Any, **more: Any) -> str:
        error: str = self._call(self.t.mutation, survive, method, args, more)
        return error

    def fail_after(self, method: str, *args: Any, **more: Any) -> None:
        self._call(self.t.mutation, survive_not, method, args, more)

    def items(self, **where: Any) -> list[Any]:
        """All of them, a few at a time."""
        found: list[Any] = []
        cursor = None
        while cursor != "":
            page = self.ask("paginate", cursor=cursor, page_size=3, **where)
            found, cursor = found + page["page"], page["cursor"]
        return found

    def verify(self, **which: Any) -> None:
        """
        Raises:
            AssertionError: a tree is not as it has to be.
        """
        walk = None
        while walk is None or walk["left"]:
            asked = {"which": which} if walk is None else {"which": which, "walk": walk}
            walk = self.t.query(mounts[self.where].verify, asked)
        assert walk["count"] == self.ask("count", stale=True, **which)

    def _call(self, run: Any, fn: Any, method: str, args: Any, more: Any) -> Any:
        return run(fn, self.where, method, list(args), more)
