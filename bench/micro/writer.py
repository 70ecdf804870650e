"""
Which writer keeps up with a busy loop: a thread of the engine's process, or a process of its own?

A batch changes 100 documents with two index entries each and appends one log record of their bytes.
"puts" writes documents at random keys; "moves" patches them so that one entry of each moves, which
is a delete and a put. Nine tenths of the loop's time go to LMDB gets, whoever writes:

    open    the next batch is there as soon as one is done, and the loop never waits for it
    paced   batches are due at a fixed rate; latency counts from when one was due
    closed  the loop does nothing but wait for its batch, as most benchmarks do

The loop's loss is what fewer gets it does than in the same store with nobody writing.
"""

from __future__ import annotations

import gc
import random
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Literal, get_args

import trio

from bench.harness import Bench, Param, Result, percentile
from engine.store.interface import Batch, Tree
from engine.store.lmdb_store import LmdbStore, WriterKind

Workload = Literal["puts", "moves"]

SWITCH_INTERVAL_S: Final = 0.0005
"""What the engine sets for its process."""
BATCH_DOCUMENTS: Final = 100
DOCUMENT_BYTES: Final = 200
DOCUMENTS: Final = 100_000
DOCUMENTS_QUICK: Final = 20_000
PACE_PER_S: Final = 50
STOCK_PER_S: Final = 400
"""Batches made ahead; a machine that writes more makes the rest as they are needed."""
SLICE_S: Final = 0.001
SLICES: Final = 9
"""Of the loop's work, then as long a pause as one slice: nine tenths."""
GETS_A_LOOK: Final = 100
"""Between two looks at the clock."""
PHASES: Final = 5
"""Idle before, open, paced, idle after, closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """Latencies of the batches that were due, and how many never were written."""

    latencies_s: list[float]
    missed: int


def run(bench: Bench) -> Iterator[Result]:
    """The same budget for each writer and workload; the same seed, so the same batches."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        cases = [(work, kind) for work in get_args(Workload) for kind in get_args(WriterKind)]
        for workload, writer in cases:
            phase_s = bench.budget_s / len(cases) / PHASES
            directory = bench.directory / f"{workload}-{writer}"
            documents = DOCUMENTS_QUICK if bench.quick else DOCUMENTS
            with LmdbStore.open(directory, writer=writer) as store:
                case = Case(store, workload, documents, random.Random(bench.seed))
                yield from trio.run(_measure, case, writer, phase_s)
    finally:
        sys.setswitchinterval(before)


class Case:
    """One store full of documents, and an endless supply of batches for it."""

    def __init__(
        self, store: LmdbStore, workload: Workload, documents: int, dice: random.Random
    ) -> None:
        self.store = store
        self.workload = workload
        self._dice = dice
        self._ts = 0
        self._rows = [dice.randbytes(20) for _ in range(documents)]
        self._ready: deque[bytes] = deque()
        self._moved = [dice.randbytes(16) for _ in range(documents)]

    async def fill(self) -> None:
        """Write every document once."""
        chunk = 50 * BATCH_DOCUMENTS
        for start in range(0, len(self._rows), chunk):
            await self.store.apply(self._batch(range(start, start + chunk), moves=False))

    def stock(self, count: int) -> None:
        """Have `count` batches ready, so that to make them is no part of what is measured."""
        while len(self._ready) < count:
            self._ready.append(self._make())

    def next_batch(self) -> bytes:
        """The next batch, encoded; batches are to be applied in the order they come."""
        return self._ready.popleft() if self._ready else self._make()

    def _make(self) -> bytes:
        picked = self._dice.sample(range(len(self._rows)), BATCH_DOCUMENTS)
        if self.workload == "moves":
            return self._batch(picked, moves=True)
        for n in picked:  # documents that are new, in the places of others
            self._rows[n], self._moved[n] = self._dice.randbytes(20), self._dice.randbytes(16)
        return self._batch(picked, moves=False)

    def get_some(self) -> None:
        """What the loop does: documents at random."""
        with self.store.snapshot() as snapshot:
            for row in self._dice.choices(self._rows, k=GETS_A_LOOK):
                snapshot.get(Tree.ROWS, row)

    def _batch(self, picked: range | list[int], *, moves: bool) -> bytes:
        batch = Batch()
        images = []
        for n in picked:
            row, document = self._rows[n], self._dice.randbytes(DOCUMENT_BYTES)
            images.append(document)
            batch.put(Tree.ROWS, row, document)
            if moves:
                batch.delete(Tree.ENTRIES, b"\0\0\0\2" + self._moved[n] + row[4:])
                self._moved[n] = self._dice.randbytes(16)
            else:
                batch.put(Tree.ENTRIES, b"\0\0\0\1" + row[4:12] + row[4:], b"")
            batch.put(Tree.ENTRIES, b"\0\0\0\2" + self._moved[n] + row[4:], b"")
        self._ts += 1
        batch.put(Tree.LOG, self._ts.to_bytes(8, "big"), b"".join(images))
        return batch.encode()


async def _measure(case: Case, writer: WriterKind, phase_s: float) -> list[Result]:
    await case.fill()
    params: dict[str, Param] = {
        "writer": writer,
        "workload": case.workload,
        "documents_a_batch": BATCH_DOCUMENTS,
        "switch_interval_ms": SWITCH_INTERVAL_S * 1e3,
    }
    idle = await _busy(case, phase_s)
    open_per_s, open_gets = await _open(case, phase_s)
    paced, paced_gets = await _paced(case, phase_s)
    idle = (idle + await _busy(case, phase_s)) / 2
    closed_per_s = await _closed(case, phase_s)
    at_pace: dict[str, Param] = {**params, "loop": "paced", "batches_a_second": PACE_PER_S}
    figures = [
        ({**params, "loop": "open"}, "rate", open_per_s, "batches/s"),
        ({**params, "loop": "open"}, "loop lost", (1 - open_gets / idle) * 100, "%"),
        (at_pace, "p50", percentile(paced.latencies_s, 0.5) * 1e3, "ms"),
        (at_pace, "p99", percentile(paced.latencies_s, 0.99) * 1e3, "ms"),
        (at_pace, "missed", paced.missed, "batches"),
        (at_pace, "loop lost", (1 - paced_gets / idle) * 100, "%"),
        ({**params, "loop": "closed"}, "rate", closed_per_s, "batches/s"),
        ({**params, "loop": "idle"}, "rate", idle, "gets/s"),
    ]
    return [
        Result(name="writer", params=of, metric=metric, value=value, unit=unit)
        for of, metric, value, unit in figures
    ]


async def _busy(case: Case, phase_s: float) -> float:
    """Keep the loop busy for `phase_s`; how many gets a second it did."""
    gets, began = 0, perf_counter()
    while perf_counter() < began + phase_s:
        worked_s = 0.0
        for _ in range(SLICES):
            slice_began = perf_counter()
            while perf_counter() < slice_began + SLICE_S:
                case.get_some()
                gets += GETS_A_LOOK
            worked_s += perf_counter() - slice_began
            await trio.lowlevel.checkpoint()
        await trio.sleep(worked_s / SLICES)
    return gets / (perf_counter() - began)


async def _beside(case: Case, phase_s: float, write: Callable[[float], Awaitable[None]]) -> float:
    """Keep the loop busy while `write` runs until the time that it is given; gets a second."""
    case.stock(round(phase_s * STOCK_PER_S))
    gc.collect()
    until = perf_counter() + phase_s
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, until)
        return await _busy(case, phase_s)
    raise AssertionError("a nursery that is not cancelled lets its block end")


async def _open(case: Case, phase_s: float) -> tuple[float, float]:
    written, spent_s = 0, 0.0

    async def write(until: float) -> None:
        nonlocal written, spent_s
        began = perf_counter()
        while perf_counter() < until:
            await case.store.apply(case.next_batch())
            written += 1
        spent_s = perf_counter() - began

    gets = await _beside(case, phase_s, write)
    return written / spent_s, gets


async def _paced(case: Case, phase_s: float) -> tuple[Paced, float]:
    latencies_s: list[float] = []
    due_count = round(phase_s * PACE_PER_S)

    async def write(until: float) -> None:
        began = perf_counter()
        for n in range(due_count):
            due = began + n / PACE_PER_S
            if perf_counter() >= until:
                return
            await trio.sleep(max(0, due - perf_counter()))
            await case.store.apply(case.next_batch())
            latencies_s.append(perf_counter() - due)

    gets = await _beside(case, phase_s, write)
    return Paced(latencies_s=latencies_s, missed=due_count - len(latencies_s)), gets


async def _closed(case: Case, phase_s: float) -> float:
    written, spent_s = 0, 0.0
    case.stock(round(phase_s * STOCK_PER_S))
    until = perf_counter() + phase_s
    while perf_counter() < until:
        batch = case.next_batch()
        began = perf_counter()
        await case.store.apply(batch)
        spent_s += perf_counter() - began
        written += 1
    return written / spent_s
