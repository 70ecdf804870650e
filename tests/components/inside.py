"""A way into a mounted component, for tests that look at its tables or put something there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from types import MappingProxyType
from typing import Any

from engine import Mount, MutationCtx, internal_mutation
from engine.app.registry import Application
from engine.rehearsal.harness import BlockingHarness

MODULE, NAME = "_inside", "run"


class Inside:
    """
    One mount, of which a test may run functions of its own.

    Args:
        application: has the mount; `self.application` is what is to be opened in its place.
    """

    def __init__(self, application: Application, mount: Mount) -> None:
        self._mount = mount
        self._numbers = count()
        self._given: dict[int, tuple[Callable[[MutationCtx], Awaitable[Any]], list[Any]]] = {}
        self.application = self._with_run(application)

    def run(self, t: BlockingHarness, fn: Callable[[MutationCtx], Awaitable[Any]]) -> Any:
        """Run a function as a mutation of the component, and return whatever it returns."""
        number, returned = next(self._numbers), list[Any]()
        self._given[number] = (fn, returned)
        try:
            t.mutation(self._mount[MODULE][NAME], {"number": number})
        finally:
            del self._given[number]
        return returned[-1]

    def rows(self, t: BlockingHarness, table: str) -> list[Any]:
        """All documents of a table of the component, without what each of them has anew."""

        async def collect(ctx: MutationCtx) -> list[Any]:
            return [row async for row in ctx.db.query(table)]

        rows: list[Any] = self.run(t, collect)
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]

    def _with_run(self, application: Application) -> Application:
        @internal_mutation
        async def run(ctx: MutationCtx, number: int) -> None:
            fn, returned = self._given[number]
            returned.append(await fn(ctx))

        path = self._mount.path
        run.bind(MODULE, NAME, path)
        part = application.mounts[path]
        functions = MappingProxyType({**part.functions, f"{MODULE}:{NAME}": run})
        mounts = {**application.mounts, path: replace(part, functions=functions)}
        return replace(application, mounts=MappingProxyType(mounts))
