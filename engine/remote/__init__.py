"""
An engine that runs elsewhere, with the methods of one that runs here.

    async with Engine.connect("http://127.0.0.1:3210", admin_key=key) as engine:
        await engine.mutation("messages:send", {"body": "hello"})

Calls are requests of the HTTP API.  Subscriptions share one WebSocket, which is
opened for the first of them and opened again whenever it breaks; meanwhile
results are as old as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from engine.functions.loader import Loadable, load, withdraw
from engine.interface import AsyncInterface
from engine.kernel.body import plain_errors
from engine.remote.calls import RemoteCallee
from engine.remote.requests import open_requests
from engine.remote.subscriptions import RemoteSubscriptions

__all__ = ["RemoteEngine", "connect"]


class RemoteEngine(AsyncInterface):
    """
    An engine that runs elsewhere. Made by `Engine.connect`.

    Without the administrator's key it calls what any client can call, as
    nobody.  An error of a function arrives as a `ConvexError` with its data, as
    the engine's own error if it is one, and as `FunctionFailed` otherwise.
    `now_ts` is the newest timestamp that this program has heard of.
    """


@asynccontextmanager
async def connect(
    url: str, /, *, admin_key: str | None = None, app: Loadable | None = None
) -> AsyncIterator[RemoteEngine]:
    """
    Call the engine whose server is at `url`, from trio.

    Args:
        url: with the prefix that it is mounted at, if there is one.
        admin_key: opens internal functions and those of components.
        app: the application that runs there, if its functions are to be given as such and not
            by their paths; it is loaded here for nothing else.

    Raises:
        Unreachable: nobody answers there, or not an engine.
        Unauthenticated: the key is not the right one.
        DeclarationError: `app` cannot be loaded.
    """
    with plain_errors() as body:
        async with (
            _loaded(app),
            open_requests(url, admin_key) as requests,
            trio.open_nursery() as nursery,
        ):
            subscriptions = RemoteSubscriptions(url, admin_key, nursery)
            callee = RemoteCallee(requests, subscriptions)
            with body:
                await callee.greet()
                yield RemoteEngine(callee)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _loaded(app: Loadable | None) -> AsyncIterator[None]:
    """In the block the functions of `app` know their paths."""
    if app is None:
        yield
        return
    application = await trio.to_thread.run_sync(load, app)
    try:
        yield
    finally:
        withdraw(application)
