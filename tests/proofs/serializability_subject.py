"""
The process that the proof of serializability kills: the application of lists, served.

    python -m tests.proofs.serializability_subject DIRECTORY [BUG]

It says `url URL` on a line and serves until it is killed.  There is room for what ordinary
transactions write until then, and not for one that stuffs it.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import trio

from engine.host import Engine
from engine.kernel.trace import trace_to_stderr
from engine.model.limits import Limits
from engine.server.listener import ListenConfig
from engine.store.lmdb_store import LmdbStore
from tests.simulation.lists import APPLICATION
from tests.simulation.planted import PLANTED

ROOM_BYTES = 16 << 20


async def main(directory: Path) -> None:
    with LmdbStore.open(directory, writer="thread") as store:
        size_bytes = store.size_bytes()
    limits = Limits(data_bytes_max=size_bytes + ROOM_BYTES)
    async with (
        Engine.open(directory, app=APPLICATION, limits=limits) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
    ):
        os.write(1, f"url {urls[0]}\n".encode())
        await trio.sleep_forever()


if __name__ == "__main__":
    trace_to_stderr(level="critical")
    with PLANTED[sys.argv[2]]() if len(sys.argv) > 2 else nullcontext():
        trio.run(main, Path(sys.argv[1]))
