"""
How long from starting a process to its first answered query, and what does it weigh?

Each server is started as a process of its own, with one row in its database, and
asked over HTTP until it answers with that row.  Ours is `headrace serve` on a
directory; the peer is a Flask application on SQLite, served by Flask's own
server, which does a good deal less.  Importing the engine and opening
`:memory:` is measured in a process without a server.  All of them find the
bytecode that an earlier start has written.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Bench, Param, Result, percentile

ROOT = Path(__file__).parents[2]
ASK_S = 0.005
"""Between two questions to a server that does not answer yet."""
START_S_MAX = 30.0
ROUNDS_MIN = 3
BODY = "hello"

APP = """\
from headrace import MutationCtx, QueryCtx, mutation, query

@mutation
async def send(ctx: MutationCtx, body: str) -> None:
    await ctx.db.insert("messages", {"body": body})

@query
async def bodies(ctx: QueryCtx) -> list[str]:
    return [message["body"] async for message in ctx.db.query("messages")]
"""

FLASK = """\
import sqlite3
import sys

from flask import Flask, jsonify

database, port = sys.argv[1], int(sys.argv[2])
connection = sqlite3.connect(database, check_same_thread=False)
connection.execute("CREATE TABLE IF NOT EXISTS messages (body TEXT)")
app = Flask(__name__)

@app.get("/bodies")
def bodies():
    return jsonify([body for (body,) in connection.execute("SELECT body FROM messages")])

@app.post("/send/<body>")
def send(body):
    with connection:
        connection.execute("INSERT INTO messages VALUES (?)", (body,))
    return jsonify(None)

app.run("127.0.0.1", port)
"""

MEMORY = """\
import re, time
began = time.perf_counter()
import trio
from engine.host import Engine
from engine import QueryCtx, query

@query
async def one(ctx: QueryCtx) -> float:
    return 1

async def main():
    imported = time.perf_counter()
    async with Engine.open(":memory:", app=[one]) as engine:
        await engine.query(one)
        answered = time.perf_counter()
        status = open("/proc/self/status").read()
        rss = int(re.search(r"VmRSS:\\s+(\\d+)", status)[1])
        print(imported - began, answered - imported, rss * 1024)

trio.run(main)
"""


def run(bench: Bench) -> Iterator[Result]:
    """Rounds of ours and of the peer in turn, then rounds of `:memory:`."""
    environment = _with_bytecode(bench.directory)
    servers = _Servers(bench.directory, environment)
    cases: list[tuple[str | None, dict[str, Param], Callable[[], tuple[float, int]]]] = [
        (None, {"server": "headrace serve", "store": "LMDB"}, servers.start_ours),
        ("Flask", {"server": "Flask's own", "store": "SQLite"}, servers.start_flask),
    ]
    found: list[list[tuple[float, int]]] = [[start()] for *_, start in cases]
    found = [[] for _ in found]  # the first start of each wrote the row, and the bytecode
    until = time.perf_counter() + bench.budget_s * 2 / 3
    while len(found[0]) < ROUNDS_MIN or time.perf_counter() < until:
        for (*_, start), samples in zip(cases, found, strict=True):
            samples.append(start())
    for (peer, params, _), samples in zip(cases, found, strict=True):
        seconds, sizes = zip(*samples, strict=True)
        yield _figure("process to first answered query", params, seconds, "ms", 1e3, peer)
        yield _figure("memory of the server", params, sizes, "MB", 1e-6, peer)
    yield from _in_memory(bench.budget_s / 3, environment)


def _in_memory(budget_s: float, environment: Mapping[str, str]) -> Iterator[Result]:
    samples: list[tuple[float, ...]] = []
    _measured_in_memory(environment)
    until = time.perf_counter() + budget_s
    while len(samples) < ROUNDS_MIN or time.perf_counter() < until:
        samples.append(_measured_in_memory(environment))
    imports, opens, sizes = zip(*samples, strict=True)
    params: dict[str, Param] = {"store": ":memory:", "server": "none"}
    yield _figure("import of the engine", params, imports, "ms", 1e3)
    yield _figure("open to first answered query", params, opens, "ms", 1e3)
    yield _figure("memory of the process", params, sizes, "MB", 1e-6)


def _measured_in_memory(environment: Mapping[str, str]) -> tuple[float, ...]:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(float(word) for word in done.stdout.split())


def _with_bytecode(directory: Path) -> dict[str, str]:
    """This environment, with bytecode that is kept for the length of the bench."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(directory / "bytecode")}


def _figure(
    name: str,
    params: dict[str, Param],
    samples: Sequence[float],
    unit: str,
    scale: float,
    peer: str | None = None,
) -> Result:
    return Result(
        name=name,
        params={**params, "starts": len(samples)},
        metric="p50",
        value=percentile(samples, 0.5) * scale,
        unit=unit,
        peer=peer,
    )


class _Servers:
    """Starts each server anew on the data that it had before."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        (directory / "app.py").write_text(APP)
        (directory / "flask_app.py").write_text(FLASK)

    def start_ours(self) -> tuple[float, int]:
        """Seconds to the first answer, and resident bytes of the process then."""
        port = _free_port()
        app, data = self._directory / "app.py", self._directory / "data"
        command = ["-m", "engine", "serve", app, "--data", data, "--port", str(port)]
        return self._started(
            [sys.executable, *map(str, command)],
            _request(port, "/api/query", {"path": "app:bodies", "args": {}, "format": "json"}),
            _request(
                port,
                "/api/mutation",
                {"path": "app:send", "args": {"body": BODY}, "format": "json"},
            ),
        )

    def start_flask(self) -> tuple[float, int]:
        """Likewise."""
        port = _free_port()
        script, database = self._directory / "flask_app.py", self._directory / "peer.sqlite3"
        return self._started(
            [sys.executable, str(script), str(database), str(port)],
            _request(port, "/bodies"),
            _request(port, f"/send/{BODY}", {}),
        )

    def _started(
        self, command: Sequence[str], query: urllib.request.Request, write: urllib.request.Request
    ) -> tuple[float, int]:
        """Run `command` until the query is answered; write the row if there is none."""
        began = time.perf_counter()
        with _process(command, self._environment) as process:
            while (answer := _answer(query)) is None:
                assert process.poll() is None, f"{command} ended by itself"
                assert time.perf_counter() - began < START_S_MAX, f"{command} did not answer"
                time.sleep(ASK_S)
            took_s = time.perf_counter() - began
            if BODY not in answer:
                assert _answer(write) is not None
            return took_s, _rss_bytes(process.pid)


@contextmanager
def _process(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _request(port: int, path: str, body: object = None) -> urllib.request.Request:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    return urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)


def _answer(request: urllib.request.Request) -> str | None:
    """The body of a successful answer; `None` as long as there is none."""
    try:
        with urllib.request.urlopen(request, timeout=START_S_MAX) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except OSError:
        return None


def _rss_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found, "no VmRSS"
    return int(found[1]) * 1024


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port
