"""
Functions that are given as a list have no shims: what is refused to them, and what is not.

`engine/README.md` tells it; what is refused in modules is in `tests/unit/functions/test_doors.py`.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable

from engine import Engine, NotAllowed, QueryCtx, query
from tests.architecture.source_tree import ROOT

OPEN: dict[str, Callable[[], object]] = {
    "time.sleep": lambda: time.sleep(0),
    "time.time": time.time,
    "random": random.random,
    "uuid": uuid.uuid4,
    "os.urandom": lambda: os.urandom(1),
    "Thread.start": lambda: threading.Thread(target=int).start(),
    "os.stat": lambda: os.stat(os.curdir),
    "os.environ": lambda: os.environ.get("PATH"),
}
REFUSED: dict[str, Callable[[], object]] = {
    "open": lambda: open(os.devnull),  # noqa: SIM115 - it never is
    "socket": socket.socket,
    "subprocess": lambda: subprocess.run(["true"]),
    "listdir": os.listdir,
    "unlink": lambda: os.unlink("nothing"),
    "putenv": lambda: os.environ.update(NAME="value"),
    "temporary": tempfile.mkdtemp,
}


@query
async def reach(ctx: QueryCtx, door: str) -> None:
    {**OPEN, **REFUSED}[door]()


async def test_a_listed_function_is_refused_what_raises_an_audit_event_and_nothing_else() -> None:
    refused = set[str]()
    async with Engine.open(":memory:", app=[reach]) as engine:
        for door in [*OPEN, *REFUSED]:
            try:
                await engine.query(reach, door=door)
            except NotAllowed:
                refused.add(door)

    assert set(REFUSED) == refused


def test_the_page_names_what_remains_open() -> None:
    page = (ROOT / "engine" / "README.md").read_text()
    section = page.partition("and what remains open\n")[2].partition("\n## ")[0]

    assert [] == [door for door in OPEN if f"`{door}`" not in section]
