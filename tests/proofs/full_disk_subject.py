"""
The process whose disk fills: an engine under load, and everything that is asked of it meanwhile.

    python -m tests.proofs.full_disk_subject DIRECTORY SCENARIO PLANT SEED

Scenarios: `disk`, where DIRECTORY is a file system of its own, which a ballast fills; `limit`,
where `data_bytes_max` is what is full; `flush`, where flushes will fail after a while. The last
line on standard output is a `Report` as JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from engine.committer.actor import Committer, RunAgain
from engine.errors import EngineError, OutcomeUnknown, Stopped, StoreFailed, StoreFull
from engine.functions.push import Push
from engine.host import Engine, readiness
from engine.kernel.trace import trace_to_stderr
from engine.model.limits import Limits
from engine.store import lmdb_environment
from engine.store.answer import Answer, Fate
from engine.store.lmdb_environment import LmdbWriter
from engine.store.lmdb_store import LmdbStore
from tests.proofs.ledger import APP, BULK_BYTES, bulk, credit_once, nudge, totals
from tests.proofs.reopening import Told, check

WORKERS: Final = 8
LOAD_S: Final = 0.3
FULL_S_MAX: Final = 10.0
"""Until a disk that is full has refused something."""
RECOVER_S_MAX: Final = 5.0
RETRY_S: Final = 0.02
SNAPSHOTS: Final = 300
"""More than fit on the pages of the table of readers that a small load has touched."""
BULK_ROOM_BYTES: Final = BULK_BYTES // 2
LEAVING_BYTES_MAX: Final = 400_000

TYPED: Final = "typed errors"
READS: Final = "reads"
ALONE: Final = "the oversized transaction"
RECOVERY: Final = "recovery"
REOPENING: Final = "reopening"
STOPPING: Final = "stopping"
ENGINE: Final = "the engine"


@dataclass
class Report:
    """What was done, and what contradicts the promise: the check that found it, and a text."""

    acknowledged: list[int] = field(default_factory=lambda: [0] * WORKERS)
    refused: int = 0
    reads: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    def found(self, check: str, text: str) -> None:
        self.problems.append((check, text))

    @property
    def told(self) -> Told:
        return Told(acknowledged=tuple(self.acknowledged), shown=(0,) * WORKERS)


class Room(Protocol):
    """What the database has room in."""

    def fill(self, leaving_bytes: int) -> None:
        """Leave no more than so much."""

    def free(self) -> None:
        """Leave plenty."""


class Disk:
    """A file system of its own, filled by a file beside the database."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self._ballast = os.open(directory / "ballast", os.O_RDWR | os.O_CREAT, 0o600)

    def fill(self, leaving_bytes: int) -> None:
        while (room_bytes := self._room_bytes() - leaving_bytes) > 0:
            size_bytes = os.fstat(self._ballast).st_size
            with suppress(OSError):  # somebody was faster
                os.posix_fallocate(self._ballast, size_bytes, room_bytes)

    def free(self) -> None:
        os.ftruncate(self._ballast, 0)

    def _room_bytes(self) -> int:
        found = os.fstatvfs(self._ballast)
        return found.f_bavail * found.f_frsize


class ByteLimit:
    """`data_bytes_max`, moved to where the database is."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self._store: LmdbStore | None = None

    def use(self, store: LmdbStore) -> None:
        self._store = store

    def fill(self, leaving_bytes: int) -> None:
        assert self._store is not None
        self._set(self._store.size_bytes() + leaving_bytes)

    def free(self) -> None:
        self._set(Limits().data_bytes_max)

    def _set(self, data_bytes_max: int) -> None:
        assert self._store is not None
        writer = self._store._opened.own
        assert writer is not None, "it is on a thread of this process"
        writer._data_bytes_max = data_bytes_max


class Crowd:
    """Workers that send again what was refused, and ask what they may ask."""

    def __init__(self, engine: Engine, report: Report) -> None:
        self._engine = engine
        self._report = report
        self.is_tired = False

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Inside the block they work; at its end each is answered once more."""
        async with trio.open_nursery() as nursery:
            for worker in range(WORKERS):
                nursery.start_soon(self._work, worker)
            try:
                yield
            finally:
                self.is_tired = True

    async def until(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Wait for it; whether it has come so far."""
        with trio.move_on_after(seconds):
            while not is_so():  # noqa: ASYNC110 - counters, which wake nobody
                await trio.sleep(RETRY_S)
            return True
        return False

    async def all_go_on(self) -> bool:
        """Whether each is acknowledged something that it sends from now on."""
        wanted = [number + 1 for number in self._report.acknowledged]
        now = self._report.acknowledged
        return await self.until(
            lambda: all(a > b for a, b in zip(now, wanted, strict=True)), RECOVER_S_MAX
        )

    async def _work(self, worker: int) -> None:
        report = self._report
        while not self.is_tired:
            try:
                await credit_once(self._engine.node, worker, report.acknowledged[worker])
            except StoreFull:
                report.refused += 1
                await trio.sleep(RETRY_S)
            except EngineError as error:
                report.found(TYPED, f"worker {worker} is told {type(error).__name__}: {error}")
                return
            else:
                report.acknowledged[worker] += 1


async def read(engine: Engine, report: Report) -> None:
    """Ask, show and hold snapshots, as on any other day."""
    before = list(report.acknowledged)
    try:
        counted = {int(worker): int(count) for worker, count in await engine.query(totals)}
        with trio.fail_after(RECOVER_S_MAX):
            async with engine.subscribe(totals) as results:
                await anext(aiter(results))
    except (EngineError, trio.TooSlowError) as error:
        report.found(READS, f"a query is told {type(error).__name__}: {error}")
        return
    report.reads += 1
    for worker, count in enumerate(before):
        if counted.get(worker, 0) < count:
            report.found(READS, f"worker {worker} reads {counted.get(worker, 0)} of {count}")
    snapshots = [engine.node.store.snapshot() for _ in range(SNAPSHOTS)]
    for snapshot in snapshots:
        snapshot.close()


async def fill_and_free(engine: Engine, room: Room, report: Report, dice: random.Random) -> None:
    """Under load: no room for a while, and then again."""
    crowd = Crowd(engine, report)
    async with crowd.working():
        await trio.sleep(LOAD_S)
        refused = report.refused
        room.fill(dice.randrange(LEAVING_BYTES_MAX))
        if not await crowd.until(lambda: report.refused > refused, FULL_S_MAX):
            report.found(TYPED, f"nothing was refused in {FULL_S_MAX:g} s without room")
        for _ in range(5):
            await read(engine, report)
            await trio.sleep(LOAD_S / 5)
        room.free()
        if not await crowd.all_go_on():
            report.found(RECOVERY, f"not all have gone on {RECOVER_S_MAX:g} s after there was room")
        elif not (ready := await readiness(engine.node)).is_ready:
            report.found(RECOVERY, f"it says that it is not ready: {ready.progress}")


async def close_without_room(engine: Engine, room: Room, report: Report) -> None:
    """Let it fill to the last byte, and leave it so."""
    crowd = Crowd(engine, report)
    async with crowd.working():
        refused = report.refused
        room.fill(0)
        await crowd.until(lambda: report.refused > refused, FULL_S_MAX)
    with trio.move_on_after(FULL_S_MAX), suppress(StoreFull):
        while True:
            await engine.mutation(nudge)


async def begin_without_room(engine: Engine, room: Room, report: Report) -> None:
    """An engine that was opened without room reads, and writes once there is some."""
    crowd = Crowd(engine, report)
    await read(engine, report)
    async with crowd.working():
        await trio.sleep(LOAD_S)
        await read(engine, report)
        room.free()
        if not await crowd.all_go_on():
            report.found(REOPENING, f"not all go on {RECOVER_S_MAX:g} s after there was room")


async def oversize(engine: Engine, room: Room, report: Report) -> None:
    """One that does not fit, among many that do, and the same once it fits."""
    crowd = Crowd(engine, report)
    async with crowd.working():
        await trio.sleep(LOAD_S)
        refused = report.refused
        room.fill(BULK_ROOM_BYTES)
        for _ in range(3):
            try:
                await engine.mutation(bulk)
                report.found(ALONE, "it was taken although there was no room for it")
            except StoreFull:
                pass
            except EngineError as error:
                report.found(ALONE, f"it is told {type(error).__name__}: {error}")
        if report.refused > refused:
            report.found(ALONE, f"{report.refused - refused} others were refused with it")
        room.free()
        try:
            await engine.mutation(bulk)
        except EngineError as error:
            report.found(RECOVERY, f"with room it is told {type(error).__name__}: {error}")


async def fill(room: Disk | ByteLimit, plant: str, report: Report, dice: random.Random) -> None:
    """The scenarios `disk` and `limit`."""
    limits = Limits()
    async with Engine.open(room.data, app=APP) as engine:
        _use(room, engine)
        if plant == "answer-before-sync":
            setattr(Committer, "settled", _settled_at_once)  # noqa: B010 - a method
        await fill_and_free(engine, room, report, dice)
        await fill_and_free(engine, room, report, dice)
        await close_without_room(engine, room, report)
        if isinstance(room, ByteLimit):
            limits = replace(limits, data_bytes_max=engine.node.store.size_bytes())
    try:
        async with Engine.open(room.data, app=APP, limits=limits) as engine:
            _use(room, engine)
            await begin_without_room(engine, room, report)
            await oversize(engine, room, report)
    except EngineError as error:
        report.found(REOPENING, f"without room it fails with {type(error).__name__}: {error}")


def _use(room: Disk | ByteLimit, engine: Engine) -> None:
    if isinstance(room, ByteLimit):
        store = engine.node.store
        assert isinstance(store, LmdbStore)
        room.use(store)


async def flush(data: Path, report: Report) -> None:
    """The scenario `flush`: work until the engine ends, which a flush that fails has to bring."""

    async def work(engine: Engine, worker: int) -> None:
        while True:
            try:
                await credit_once(engine.node, worker, report.acknowledged[worker])
            except (OutcomeUnknown, Stopped):
                return
            except EngineError as error:
                report.refused += 1
                report.found(STOPPING, f"worker {worker} is told {type(error).__name__}: {error}")
                return
            report.acknowledged[worker] += 1

    try:
        async with Engine.open(data, app=APP) as engine:
            with trio.move_on_after(FULL_S_MAX):
                async with trio.open_nursery() as nursery:
                    for worker in range(WORKERS):
                        nursery.start_soon(work, engine, worker)
                # The engine is to end this, not the workers.
                await trio.sleep(RECOVER_S_MAX)
            report.found(STOPPING, "it goes on after a flush has failed")
    except* StoreFailed:
        pass


def _plant(bug: str) -> None:
    """Break the engine in one known way; where the writer is broken, it is on a thread of ours."""
    if bug in WRITER_BUGS:
        on_a_thread()
        name, method = WRITER_BUGS[bug]
        setattr(LmdbWriter, name, method)
    elif bug == "fail-together":
        setattr(Committer, "settled", _settled_or_full)  # noqa: B010 - a method
    elif bug == "open-only-with-room":
        setattr(Push, "_take_up", _refuse_to_take_up)  # noqa: B010
    elif bug == "readers-in-a-hole":
        on_a_thread()
        setattr(lmdb_environment, "_allocate_readers", _leave_a_hole)  # noqa: B010
    else:
        assert bug in ("none", "answer-before-sync"), f"no such bug: {bug}"


def on_a_thread() -> None:
    """Have the writer in this process."""
    setattr(LmdbStore, "open", partial(LmdbStore.open, writer="thread"))  # noqa: B010


def _always_unknown(_writer: LmdbWriter, _error: Exception) -> Fate:
    return Fate.UNKNOWN


def _always_refused(_writer: LmdbWriter, _error: Exception) -> Fate:
    return Fate.REFUSED


_write = LmdbWriter.write
_sulking: set[int] = set()


def _never_again(writer: LmdbWriter, batch: bytes) -> Answer:
    """Refuse everything after the first refusal."""
    if id(writer) in _sulking:
        return Answer(fate=Fate.REFUSED, message="sulking")
    answer = _write(writer, batch)
    if answer.fate is Fate.REFUSED:
        _sulking.add(id(writer))
    return answer


_settled = Committer.settled


async def _settled_or_full(committer: Committer, ts: int, generation: int) -> None:
    """Tell everybody of a batch that it was refused."""
    try:
        await _settled(committer, ts, generation)
    except RunAgain as again:
        if isinstance(again.__cause__, StoreFull):
            raise again.__cause__ from None
        raise


async def _refuse_to_take_up(*_: object) -> bool:
    await trio.lowlevel.checkpoint()
    return False


def _leave_a_hole(_: Path) -> None:
    """Let LMDB make the file."""


async def _settled_at_once(_committer: Committer, _ts: int, _generation: int) -> None:
    await trio.lowlevel.checkpoint()


WRITER_BUGS: Final[dict[str, tuple[str, Any]]] = {
    "stop-when-full": ("_fate", _always_unknown),
    "go-on-after-a-failed-flush": ("_fate", _always_refused),
    "never-again": ("write", _never_again),
}


def main(directory: Path, scenario: str, plant: str, seed: int) -> Report:
    """Run a scenario, and look at what is left."""
    report = Report()
    _plant(plant)
    try:
        _run(directory, scenario, plant, seed, report)
    except* EngineError as ended:
        report.found(ENGINE, f"it ended: {ended.exceptions[0]!r}")
    if scenario != "flush":
        report.problems += check(directory / "data", report.told)
    return report


def _run(directory: Path, scenario: str, plant: str, seed: int, report: Report) -> None:
    match scenario:
        case "disk":
            trio.run(fill, Disk(directory), plant, report, random.Random(seed))
        case "limit":
            on_a_thread()
            trio.run(fill, ByteLimit(directory), plant, report, random.Random(seed))
        case "flush":
            trio.run(flush, directory / "data", report)
        case _:
            raise AssertionError(f"no such scenario: {scenario}")


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    done = main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    os.write(1, json.dumps(asdict(done)).encode() + b"\n")
