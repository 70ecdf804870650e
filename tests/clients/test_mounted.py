"""The official JavaScript client of an engine that FastAPI has mounted, under uvicorn."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from engine import aio
from tests.node import hosted

HERE = Path(__file__).parent
APP = Path(hosted.__file__).parent

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and (HERE / "node_modules" / "convex").is_dir()),
    reason="needs Node, and `npm ci` in tests/clients",
)


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncGenerator[None, None]:
    async with aio.open(":memory:", app=APP) as engine:
        web.mount("/convex", engine.asgi)
        yield


async def said_by_node(url: str) -> Any:
    node = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "javascript" / "mounted.mjs"),
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await asyncio.wait_for(node.communicate(), 60)
    assert node.returncode == 0, complained.decode()
    return json.loads(said)


@pytest.mark.parametrize("ws", ["wsproto", "auto"])
def test_the_javascript_client_works_at_a_prefix(ws: Any) -> None:
    async def story() -> Any:
        config = uvicorn.Config(FastAPI(lifespan=lifespan), port=0, log_level="error", ws=ws)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not (server.started or serving.done()):  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            return await said_by_node(f"http://127.0.0.1:{port}/convex")
        finally:
            server.should_exit = True
            await serving

    said = asyncio.run(story())

    assert said == {
        "seen": [[], ["0"], ["0", "1"]],
        "acted": ["0", "1", "a", "b", "c"],
        "refused": {"code": 7},
        "asked": ["0", "1", "a", "b", "c"],
    }
