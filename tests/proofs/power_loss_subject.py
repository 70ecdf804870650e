"""
The process that the power-loss proof traces: an engine under load.

    python -m tests.proofs.power_loss_subject DIRECTORY PLANT SECONDS FIRST...

Lines on standard output, each written at once: `ack WORKER NUMBER` for every mutation that was
answered, and `seen WORKER COUNT` for every total that a subscription has shown. After SECONDS it
says `tired` and goes on until it is killed. FIRST has, for each worker, the first number that was
never acknowledged.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import trio

from engine.committer.actor import Committer
from engine.host import Engine
from engine.kernel.trace import trace_to_stderr
from engine.node import Node
from engine.store import lmdb_environment
from engine.store.lmdb_store import LmdbStore
from tests.proofs.ledger import APP, credit_once, totals


async def main(directory: Path, plant: str, seconds: float, first: list[int]) -> None:
    _plant_before(plant)
    async with Engine.open(directory, app=APP) as engine, trio.open_nursery() as nursery:
        _plant_after(plant)
        nursery.start_soon(_watch, engine)
        for worker, number in enumerate(first):
            nursery.start_soon(_work, engine.node, worker, number)
        await trio.sleep(seconds)
        _say("tired")


async def _work(node: Node, worker: int, number: int) -> None:
    while True:
        await credit_once(node, worker, number)
        _say(f"ack {worker} {number}")
        number += 1


async def _watch(engine: Engine) -> None:
    async with engine.subscribe(totals) as results:
        async for shown in results:
            for worker, count in shown:
                _say(f"seen {int(worker)} {int(count)}")


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def _plant_before(bug: str) -> None:
    """Break the store in one known way; where the writer is broken, it is on a thread of ours."""
    match bug:
        case "sync=False":
            setattr(LmdbStore, "open", partial(LmdbStore.open, sync=False))  # noqa: B010 - a method
        case "metasync=False":
            setattr(LmdbStore, "open", partial(LmdbStore.open, writer="thread"))  # noqa: B010
            setattr(lmdb, "open", partial(_open_without_metasync, lmdb.open))  # noqa: B010
        case "folders-unflushed":
            setattr(LmdbStore, "open", partial(LmdbStore.open, writer="thread"))  # noqa: B010
            setattr(lmdb_environment, "_flush_folder", _leave_unflushed)  # noqa: B010
        case _:
            assert bug in ("none", "answer-before-sync"), f"no such bug: {bug}"


def _plant_after(bug: str) -> None:
    """Break an engine that runs, and could not be opened in this way."""
    if bug == "answer-before-sync":
        setattr(Committer, "settled", _settled_at_once)  # noqa: B010


def _leave_unflushed(_: Path) -> None:
    """Believe that the names in it will come through."""


def _open_without_metasync(really_open: Any, *args: Any, **options: Any) -> Any:
    return really_open(*args, **{**options, "metasync": False})


async def _settled_at_once(_committer: Committer, _ts: int, _generation: int) -> None:
    await trio.lowlevel.checkpoint()


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    directory, plant, seconds, *first = sys.argv[1:]
    trio.run(main, Path(directory), plant, float(seconds), [int(number) for number in first])
