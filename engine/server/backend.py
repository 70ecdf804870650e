"""
What the server asks of the engine: run a function, and say when its result is stale.

The server knows nothing else of what is below it.  `Functions` is the real
one; the tests of the protocol have a small one in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from engine.app.registered import Kind
from engine.functions.results import (
    ActionResult,
    Caller,
    Failure,
    MutationResult,
    PastResult,
    QueryResult,
)
from engine.kernel.watermark import Watermark
from engine.model.commits import SessionRequest
from engine.model.values import Value


class Backend(Protocol):
    """
    The functions of an application, and the data they run on.

    What the application did wrong comes back as `.failure`; overload, a stopped
    engine and the like are raised.  One hold of a query result's `live` belongs to
    whoever is given it.
    """

    @property
    def published(self) -> Watermark:
        """The newest readable timestamp."""
        ...

    @property
    def oldest_fresh_ts(self) -> int:
        """Whoever took a timestamp within the last `client_past_s_max` has none below this."""
        ...

    @property
    def processed(self) -> Watermark:
        """Up to where every `Live` has been told what touched it; follows `published`."""
        ...

    def compared(self, ts: int) -> bool:
        """
        Whether `processed` has come to `ts`, which has been published.

        If what is missing takes little time it is made up for here and now.
        """
        ...

    def pin(self) -> AbstractContextManager[int]:
        """The newest readable timestamp, kept readable inside the block."""
        ...

    def kind_of(self, path: str, *, caller: Caller, component: str = "") -> Kind | None:
        """What `caller` may call the function at `path` as; `None` if it may know of none."""
        ...

    async def query(
        self,
        path: str,
        args: Mapping[str, Value],
        *,
        caller: Caller,
        ts: int | None = None,
        journal: str | None = None,
        component: str = "",
    ) -> QueryResult: ...

    async def query_at(
        self,
        path: str,
        args: Mapping[str, Value],
        *,
        caller: Caller,
        ts: int,
        component: str = "",
    ) -> PastResult: ...

    async def mutation(
        self,
        path: str,
        args: Mapping[str, Value],
        *,
        caller: Caller,
        request: SessionRequest | None = None,
        component: str = "",
    ) -> MutationResult: ...

    async def action(
        self,
        path: str,
        args: Mapping[str, Value],
        *,
        caller: Caller,
        component: str = "",
    ) -> ActionResult: ...

    def tell_refused(
        self, kind: str, path: str, failure: Failure, caller: Caller, component: str = ""
    ) -> None:
        """A call could not be made at all: let operators find it by its request id."""
        ...
