"""
The servers that a crowd of clients is connected to, each a process on a core of its own.

    with served("engine", directory) as server:
        server.port, server.cpu_s(), server.memory_bytes()

`engine` serves the functions below.  `bare` is the same server library without
us: it sends back what it hears, and what is told to it once to everybody who
listens, one after another.  The one who starts it keeps to another core.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from bench.crowd import HOST
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import Document
from engine.host import Engine
from engine.kernel.trace import trace_to_stderr
from engine.model.limits import Limits
from engine.server.listener import ListenConfig

ROOT: Final = Path(__file__).parents[1]
ENGINE, BARE = "engine", "bare"
LISTEN, TELL = "listen", "tell "
"""What the bare server understands; it says everything back."""
SESSIONS_MAX: Final = 20_000


# What the engine serves.


class Message(Document):
    author: str
    body: str


class Cell(Document):
    number: float
    text: str


schema = Schema(messages=Table(Message), cells=Table(Cell).index("by_number", ["number"]))


@mutation
async def send(ctx: MutationCtx, author: str, body: str) -> None:
    await ctx.db.insert(Message, {"author": author, "body": body})


_runs = 0


@query
async def newest(ctx: QueryCtx) -> dict[str, Any]:
    """The newest message, and how often this was run: a client can tell who shared an execution."""
    global _runs
    _runs += 1
    return {"message": await ctx.db.query(Message).order("desc").first(), "runs": _runs}


@query
async def total(ctx: QueryCtx) -> float:
    return await ctx.db.count(Message)


@mutation
async def fill(ctx: MutationCtx, first: int, count: int) -> None:
    for number in range(first, first + count):
        await ctx.db.insert(Cell, {"number": number, "text": ""})


@mutation
async def touch(ctx: MutationCtx, number: float, text: str) -> None:
    cells = ctx.db.query(Cell).with_index("by_number", lambda r: r.eq("number", number))
    cell = await cells.unique()
    assert cell is not None
    await ctx.db.patch(cell["_id"], {"text": text})


@query
async def cell(ctx: QueryCtx, number: float) -> Cell | None:
    cells = ctx.db.query(Cell).with_index("by_number", lambda r: r.eq("number", number))
    return await cells.unique()


# How its clients put it.


def greeting() -> str:
    return json.dumps({"type": "Connect", "sessionId": str(uuid4()), "connectionCount": 0})


def shows(name: str, args: Mapping[str, object]) -> str:
    """The edit with which a client begins to show one query."""
    add = {"type": "Add", "queryId": 0, "udfPath": f"main:{name}", "args": [args]}
    edit = {"baseVersion": 0, "newVersion": 1, "modifications": [add]}
    return json.dumps({"type": "ModifyQuerySet", **edit})


def calls(number: int, name: str, args: Mapping[str, object]) -> str:
    """A mutation; its number is higher than those of the ones before it."""
    call = {"requestId": number, "udfPath": f"main:{name}", "args": [args]}
    return json.dumps({"type": "Mutation", **call})


def is_answer(message: bytes) -> bool:
    """Whether a mutation was answered; one that failed is no load."""
    if not message.startswith(b'{"type":"MutationResponse"'):
        return False
    assert b'"success":true' in message, message
    return True


def tells(text: str) -> str:
    """What has the bare server say `text` to everybody who listens."""
    return f"{TELL}{text}"


def is_echo(message: bytes) -> bool:
    """Whether the bare server has told everybody."""
    return message.startswith(TELL.encode())


# The process, from outside.


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    pid: int
    port: int

    def cpu_s(self) -> float:
        """Of all its threads, and without the process that writes."""
        clock = (~self.pid << 3) | 2  # the process's CPU clock, as Linux numbers them
        return time.clock_gettime(clock)

    def memory_bytes(self) -> int:
        """What it has allocated and touched; the pages of its database are not in it."""
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found, "no RssAnon of the server"
        return int(found[1]) * 1024


@contextmanager
def served(kind: str, directory: Path) -> Iterator[Served]:
    """A server on the first core, while this process keeps to the others."""
    before = os.sched_getaffinity(0)
    first, *others = sorted(before)
    os.sched_setaffinity(0, others or before)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.served", kind, str(directory), str(first)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the {kind} server did not start"
        yield Served(pid=process.pid, port=int(line))
    finally:
        process.kill()
        process.communicate()
        os.sched_setaffinity(0, before)


# The process, from inside.


async def _serve_engine(directory: str) -> None:
    limits = Limits(sessions_max=SESSIONS_MAX)
    functions = [schema, send, newest, total, fill, touch, cell]
    async with (
        Engine.open(directory, app=functions, limits=limits) as engine,
        engine.listen(ListenConfig(bind=(f"{HOST}:0",))) as urls,
    ):
        _say_port(urls[0])
        await trio.sleep_forever()


Send = Callable[[dict[str, Any]], Awaitable[None]]


async def _serve_bare() -> None:
    listeners: list[Send] = []

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        assert scope["type"] == "websocket", "which says that it has no lifespan"
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            text = event["text"]
            if text == LISTEN:
                listeners.append(send)
            elif text.startswith(TELL):
                for each in listeners:
                    await each({"type": "websocket.send", "text": text})
            await send({"type": "websocket.send", "text": text})

    config = Config()
    config.bind = [f"{HOST}:0"]
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve, app, config)
        _say_port(urls[0])


def _say_port(url: str) -> None:
    print(url.rpartition(":")[2], flush=True)


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    kind, directory, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    if kind == BARE:
        trio.run(_serve_bare)
    else:
        trio.run(_serve_engine, directory)
