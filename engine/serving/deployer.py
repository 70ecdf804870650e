"""Pushes of a server's own application: at its start, on a signal, when somebody asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import trio

from engine.app.registered import RegisteredFunction
from engine.app.registry import Application
from engine.errors import UsageError
from engine.functions.index_upkeep import Progress
from engine.functions.loader import make_live
from engine.host import AppSource, Engine, load_application, readiness
from engine.kernel.trace import tracer
from engine.server.http import Readiness

trace = tracer(__name__)

IDLE: Final[dict[str, Any]] = {"doing": "nothing"}


class Deployer:
    """
    Loads and pushes, one push after another.

    Args:
        source: where the application is read from, each time anew; `None` if there is none.
        extra: functions that are deployed with it, by path.
    """

    def __init__(
        self,
        engine: Engine,
        source: AppSource | None,
        extra: Mapping[str, RegisteredFunction],
    ) -> None:
        self._engine = engine
        self._source = source
        self._extra = extra
        self._lock = trio.Lock()
        self.progress: dict[str, Any] = IDLE
        """What the push that is on its way is doing, and how far it is."""
        self.push_when_asked: Callable[[], Awaitable[list[str]]] = self.push
        """How a push is done that somebody asks for over the network; a host may tell of it."""
        self.is_ready = source is None
        self.has_application = source is not None

    @property
    def application(self) -> Application:
        """What serves now."""
        return self._engine.node.functions.deployment.application

    def hold(self) -> None:
        """Send clients away until there is something to serve them."""
        if not self.is_ready:
            self._engine.server.is_holding = True

    async def push(self, progress: Progress | None = None) -> list[str]:
        """
        Read the application again and deploy it; it is durable and serves when this returns.

        Args:
            progress: told how far it is, as is who asks for `progress`.

        Returns:
            What changed in tables, indexes and crons, a line each.

        Raises:
            DeclarationError: it cannot be loaded. The version before serves on.
            PushRefused: the documents do not fit its schema. The version before serves on.
            UsageError: this server has no application.
        """
        if self._source is None:
            raise UsageError("this server was started without an application to push")

        def tell(doing: str, done: int, total: int | None) -> None:
            self._tell(doing, done, total)
            if progress is not None:
                progress(doing, done, total)

        async with self._lock:
            try:
                self._tell("loading", 0, None)
                application = await self._loaded(self._source)
                self._tell("checking", 0, None)
                lines = await self._engine.push(application, progress=tell)
            finally:
                self.progress = IDLE
        self.is_ready = True
        self._engine.server.is_holding = False
        trace.info("deployer.pushed", digest=application.digest, changes=lines)
        return lines

    async def take_up(self) -> None:
        """
        Serve the application as its files are, and write nothing.

        Raises:
            DeclarationError: it cannot be loaded.
            PushRefused: its tables or indexes are not those of what is deployed.
        """
        assert self._source is not None, "somebody looks with an application"
        application = await self._loaded(self._source)
        await self._engine.node.take_up(application)
        make_live(application)
        self.is_ready = True

    async def _loaded(self, source: AppSource) -> Application:
        application = await load_application(source)
        return replace(application, functions={**application.functions, **self._extra})

    async def readiness(self) -> Readiness:
        """Whether there is something to serve and it can commit; if not, how far it is or why."""
        if not self.is_ready:
            return Readiness(is_ready=False, progress=self.progress)
        return await readiness(self._engine.node)

    def _tell(self, doing: str, done: int, total: int | None) -> None:
        self.progress = {"doing": doing, "done": done, "total": total}
