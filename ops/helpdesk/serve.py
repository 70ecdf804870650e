"""Serves the help desk: the engine, a page at `/`, and the official browser client beside it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import trio

from engine.host import Engine
from engine.kernel.actor import running
from engine.kernel.runtime import SystemRuntime
from engine.model.limits import Limits
from engine.server.listener import ListenConfig, Listener
from engine.server.requests import Request, Response, Route, error_response
from engine.server.server import Server, ServerConfig
from ops.helpdesk.corpus import entries
from ops.helpdesk.load import load

HERE = Path(__file__).parent
CLIENT = (HERE / "node_modules" / "convex" / "dist" / "esm").resolve()


async def run(data: Path, port: int, loads: bool) -> None:
    """Serve until interrupted; the first time, load the documents through the HTTP API."""
    data.parent.mkdir(parents=True, exist_ok=True)
    limits = Limits()
    async with Engine.open(data, app=HERE / "desk.py") as engine:
        server = Server(
            engine.node.functions,
            runtime=SystemRuntime(),
            limits=limits,
            config=ServerConfig(instance_name="help desk"),
            page=_page,
            routes=[Route(method="GET", path="/client/*", handler=_client)],
        )
        listener = Listener(server, ListenConfig(bind=(f"127.0.0.1:{port}",)), limits)
        async with (
            running(server, grace_s=limits.drain_s),
            running(listener, grace_s=limits.drain_s),
        ):
            print(f"The help desk is open: {listener.urls[0]}")
            if loads:
                await _load_once(listener.urls[0])
                await engine.mutation("desk:count_all_words")
                print("The words of each are being counted, by a migration.")
                print("Open the page in two windows, then kill -9 this process and start it again.")
            await trio.sleep_forever()


async def _load_once(url: str) -> None:
    """Load what is not there yet; entries that are keep their ids."""
    documents = list(entries())
    print(f"Loading {len(documents):,} entries of Python's documentation ...")
    began = time.perf_counter()
    async with httpx.AsyncClient(base_url=url) as http:
        acknowledged = await load(http, documents)
    rate = len(acknowledged) / (time.perf_counter() - began)
    print(f"{len(acknowledged):,} entries are durable, {rate:,.0f} a second.")


def _page() -> str:
    html = (HERE / "page.html").read_text()
    return html.replace("__CLIENT__", json.dumps(CLIENT.is_dir()))


async def _client(request: Request) -> Response:
    """A module of the official client, as npm installed it."""
    path = (CLIENT / request.path.removeprefix("/client/")).resolve()
    if not path.is_relative_to(CLIENT) or path.suffix != ".js" or not path.is_file():
        return error_response(404, "NotFound", f"There is no module at {request.path}")
    return Response(body=path.read_bytes(), content_type="text/javascript; charset=utf-8")
