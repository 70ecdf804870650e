"""
An engine that listens, with its administrator's key, routes for operators, and a page.

    async with serving("data", app="backend", bind="127.0.0.1:0", dev=True) as served:
        print(served.url, served.admin_key)
        await served.engine.query("messages:list")

`Engine.open` is the engine; this is what the command line, the demo and tests put
around it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from engine.functions.index_upkeep import Progress
from engine.host import MEMORY, AppSource, Engine
from engine.model.limits import Limits
from engine.server.admin_key import KeyFile, keep_admin_key, new_admin_key
from engine.server.listener import ListenConfig
from engine.server.server import ServerConfig
from engine.serving.administration import Administration, described_functions
from engine.serving.deployer import Deployer
from engine.serving.page import page
from engine.serving.shell import PATH, Shell

__all__ = ["Served", "serving"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """
    A server that runs.

    `is_new_key` if nobody can have seen the admin key before: show it once.
    """

    engine: Engine
    url: str
    admin_key: str = field(repr=False)
    is_new_key: bool
    deployer: Deployer

    async def push(self, progress: Progress | None = None) -> list[str]:
        """As `Deployer.push`."""
        return await self.deployer.push(progress)


@asynccontextmanager
async def serving(
    data: str | Path,
    *,
    app: AppSource | None = None,
    bind: str = "127.0.0.1:0",
    dev: bool = False,
    allow_shell: bool | None = None,
    deferred: bool = False,
    looks: bool = False,
    limits: Limits | None = None,
) -> AsyncIterator[Served]:
    """
    Open `data`, deploy `app` and serve clients inside the block.

    At its end what was accepted is done, clients are sent away, and the directory is free.

    Args:
        data: a directory, or ":memory:". Its admin key is kept in it.
        app: what to deploy; `None` leaves what is stored as it is, and there are no functions.
        bind: HOST:PORT (port 0 is any free one) or unix:PATH.
        dev: clients are told what errors say, and `/` is a page about the application.
        allow_shell: evaluate what administrators type; by default as `dev`.
        deferred: begin to listen at once; clients are sent away, and `/readyz` answers 503,
            until the first `Served.push`, which is then the caller's to do.
        looks: serve `app` without deploying it, which takes that its tables and indexes are those
            of what is deployed; scheduled functions and crons that are due wait.

    Raises:
        StoreLocked: another process has the directory open.
        DeclarationError, PushRefused: the application cannot be deployed, or looked with.
        OSError: the address cannot be had.
    """
    key = _key_of(data)
    config = ServerConfig(redact=not dev, admin_key=key.key)
    async with Engine.open(data, app=None, server=config, limits=limits) as engine:
        if looks:
            engine.node.scheduler.pause()
        with_shell = dev if allow_shell is None else allow_shell
        deployer = _deployer(engine, app, with_shell)
        administration = Administration(engine.node, deployer, allow_shell=with_shell)
        engine.server.install(
            readiness=deployer.readiness,
            page=partial(_page, engine, deployer, administration) if dev else None,
            routes=administration.routes(),
        )
        if deferred:
            deployer.hold()
        elif app is not None:
            await (deployer.take_up() if looks else deployer.push())
        async with engine.listen(ListenConfig(bind=(bind,))) as urls:
            yield Served(
                engine=engine,
                url=urls[0],
                admin_key=key.key,
                is_new_key=key.is_new,
                deployer=deployer,
            )


def _key_of(data: str | Path) -> KeyFile:
    if data == MEMORY:
        return KeyFile(key=new_admin_key(), is_new=True)
    return keep_admin_key(Path(data))


def _deployer(engine: Engine, app: AppSource | None, with_shell: bool) -> Deployer:
    functions = engine.node.functions
    shell = Shell(lambda path, component: functions.deployment.application.find(path, component))
    return Deployer(engine, app, {PATH: shell.function()} if with_shell else {})


def _page(engine: Engine, deployer: Deployer, administration: Administration) -> str:
    return page(
        functions=described_functions(deployer.application),
        tables=administration.tables(),
        executions=[record for _, record in engine.node.functions.executions.after(0)],
    )
