"""
Annexes: rows as they were at a timestamp, where they take no memory.

    <data>/past/<name>.annex/     an LMDB environment each, filled by a process of its own

An annex has the image at its timestamp of every row that was changed since, up to some record, and
the entries of the indexes that were asked for.  It is filled in slices, and whatever ends that
(somebody who asked has gone, the process was killed) leaves one that goes on from there.

Nothing of it is flushed, and none outlives its engine: who opens the directory next removes what
it finds.  An engine in memory has its annexes there, too.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import trio

from engine import errors
from engine.indexes import past_process
from engine.indexes.catalog import IndexInfo
from engine.indexes.past_process import (
    FULL,
    lay_all_job,
    lay_job,
    refuse_if_trimmed,
    take_back_job,
)
from engine.indexes.snapshot import Snapshots
from engine.indexes.taken_back import Taken, first_row, lay, lay_all, take_back
from engine.store.children import command_of
from engine.store.interface import Snapshot
from engine.store.lmdb_environment import DATA_FILE
from engine.store.lmdb_scratch import LmdbScratch
from engine.store.memory_scratch import MemoryScratch

FOLDER: Final = "past"
_SUFFIX: Final = ".annex"
SLICE_ROWS: Final = 128
"""In memory they are put by trio's own thread: a millisecond or two."""

Tell: TypeAlias = Callable[[Taken], None]


class AnnexFull(Exception):
    """An annex has reached the bound that it was given."""


class Annex(Protocol):
    """One timestamp's."""

    taken: Taken
    """How far it goes."""
    laid: dict[bytes, IndexInfo]
    """The indexes whose entries it has, by prefix."""

    def snapshot(self) -> Snapshot:
        """
        The rows and entries that it has now: all of `laid`, and more than `taken` perhaps.

        There has to be a record in `taken`.
        """

    def size_bytes(self) -> int:
        """About what it takes."""

    async def take_back(self, bytes_max: int, tell: Tell) -> None:
        """
        Go on to the newest record; one at a time.

        Raises:
            AnnexFull: it has more than `bytes_max`.
            OutOfRetention: the log does not go back so far any more.
            StoreFull: the disk has no room.
            StoreFailed: the process has ended before it was done.
        """

    async def lay(self, index: IndexInfo, bytes_max: int) -> None:
        """Put the entries of an index; raises as `take_back` does."""

    async def lay_all(self, index: IndexInfo, bytes_max: int, tell: Tell) -> None:
        """
        Put those of an index that is no more, also of rows that are as they were.

        It takes back everything on its way, and raises as `take_back` does.
        """

    async def close(self) -> None:
        """Remove it; nobody has a snapshot of it any more."""


class Annexes(Protocol):
    """Where annexes are made."""

    def begin(self, ts: int) -> Annex:
        """An empty one."""

    async def clear(self) -> None:
        """Remove what there is, also of an engine before; nobody uses any."""


class DiskAnnexes:
    """
    Beside a store.

    Args:
        store: the folder of its environment.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._folder = store.parent / FOLDER
        # No name is that of what another engine has left, whose removal may have failed.
        self._names = map(f"{secrets.token_hex(4)}-{{}}{_SUFFIX}".format, count(1))

    def begin(self, ts: int) -> Annex:
        """As `Annexes.begin`."""
        return _DiskAnnex(self._folder / next(self._names), self._store, ts)

    async def clear(self) -> None:
        """As `Annexes.clear`."""
        await trio.to_thread.run_sync(self._clear)

    def _clear(self) -> None:
        for left in self._folder.glob(f"*{_SUFFIX}"):
            shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):  # it is a link to another disk, or holds what is not ours
            self._folder.rmdir()


class _DiskAnnex:
    def __init__(self, folder: Path, store: Path, ts: int) -> None:
        self.taken = Taken(ts)
        self.laid: dict[bytes, IndexInfo] = {}
        self._folder = folder
        self._store = store
        self._ts = ts
        self._scratch: LmdbScratch | None = None

    def snapshot(self) -> Snapshot:
        if self._scratch is None:
            self._scratch = LmdbScratch(self._folder)
        return self._scratch.snapshot()

    def size_bytes(self) -> int:
        try:
            return (self._folder / DATA_FILE).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0

    async def take_back(self, bytes_max: int, tell: Tell) -> None:
        await self._run(self._take_back_job(), bytes_max, self._teller(tell))

    async def lay(self, index: IndexInfo, bytes_max: int) -> None:
        await self._run(lay_job(index), bytes_max, lambda _: None)
        self.laid[index.prefix] = index

    async def lay_all(self, index: IndexInfo, bytes_max: int, tell: Tell) -> None:
        job = lay_all_job(self._take_back_job(), index)
        await self._run(job, bytes_max, self._teller(tell))
        self.laid[index.prefix] = index

    def _take_back_job(self) -> dict[str, Any]:
        return take_back_job(self._store, self._ts, self.taken.upto, self.laid.values())

    def _teller(self, tell: Tell) -> Callable[[dict[str, Any]], None]:
        """What takes in how far the process is, from here on."""
        before = self.taken

        def told(line: dict[str, Any]) -> None:
            grown = dict(before.grown)
            for number, by in line["grown"]:
                grown[number] = grown.get(number, 0) + by
            self.taken = Taken(line["upto"], grown, before.records + line["records"])
            tell(self.taken)

        return told

    async def close(self) -> None:
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
        with trio.CancelScope(shield=True):  # some gigabytes take a moment
            await trio.to_thread.run_sync(partial(shutil.rmtree, self._folder, ignore_errors=True))

    async def _run(
        self, job: dict[str, Any], bytes_max: int, told: Callable[[dict[str, Any]], None]
    ) -> None:
        """Have the process do a job; it is gone when this returns."""
        command = command_of(past_process.__name__, "")
        try:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise errors.StoreFailed(
                f"the process that takes rows back cannot be started: {error}; ask again"
            ) from error
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            job |= {"scratch": str(self._folder), "bytes_max": bytes_max}
            with suppress(trio.BrokenResourceError):  # its exit code says more
                await process.stdin.send_all(json.dumps(job).encode() + b"\n")
            rest = b""
            async for data in process.stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in map(json.loads, lines):
                    if "error" in line:
                        raise _error_of(line)
                    told(line)
            if code := await process.wait():
                raise errors.StoreFailed(
                    f"the process that takes rows back ended by itself (exit code {code}); what it "
                    "wrote to stderr may say more; ask again"
                )
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                await process.stdin.aclose()
                await process.stdout.aclose()


def _error_of(line: dict[str, Any]) -> Exception:
    if line["error"] == FULL:
        return AnnexFull()
    error: Exception = getattr(errors, line["error"])(line["message"])
    return error


class MemoryAnnexes:
    """In memory, for a store that is there too."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def begin(self, ts: int) -> Annex:
        """As `Annexes.begin`."""
        return _MemoryAnnex(self._snapshots, ts)

    async def clear(self) -> None:
        """As `Annexes.clear`."""


class _MemoryAnnex:
    def __init__(self, snapshots: Snapshots, ts: int) -> None:
        self.taken = Taken(ts)
        self.laid: dict[bytes, IndexInfo] = {}
        self._snapshots = snapshots
        self._ts = ts
        self._scratch = MemoryScratch()

    def snapshot(self) -> Snapshot:
        return self._scratch.snapshot()

    def size_bytes(self) -> int:
        return self._scratch.size_bytes()

    async def take_back(self, bytes_max: int, tell: Tell) -> None:
        taken = self.taken
        while taken.upto < (newest := self._snapshots.current.ts):
            snapshot = self._snapshots.acquire()
            try:
                refuse_if_trimmed(snapshot.anchor_ts, self._ts)
                log = snapshot.log(taken.upto, newest)
                laid = list(self.laid.values())
                for _ in take_back(log, self._scratch, laid, taken, rows_max=SLICE_ROWS):
                    tell(taken)
                    await self._breathe(bytes_max)
                    if snapshot is not self._snapshots.current:
                        break
                else:
                    taken.upto = newest
            finally:
                self._snapshots.release(snapshot)

    async def lay(self, index: IndexInfo, bytes_max: int) -> None:
        for _ in lay(self._scratch, index, rows_max=SLICE_ROWS):
            await self._breathe(bytes_max)
        self.laid[index.prefix] = index

    async def lay_all(self, index: IndexInfo, bytes_max: int, tell: Tell) -> None:
        lower = first_row(index)
        is_behind = True
        while is_behind:
            await self.take_back(bytes_max, tell)
            snapshot = self._snapshots.acquire()
            assert snapshot.ts == self.taken.upto, "what a row is in it is what it was"
            is_behind = False
            try:
                rows = snapshot.rows
                for reached in lay_all(rows, self._scratch, index, lower, rows_max=SLICE_ROWS):
                    lower = reached
                    await self._breathe(bytes_max)
                    if is_behind := snapshot is not self._snapshots.current:
                        break
            finally:
                self._snapshots.release(snapshot)
        self.laid[index.prefix] = index

    async def close(self) -> None:
        self._scratch = MemoryScratch()

    async def _breathe(self, bytes_max: int) -> None:
        if self._scratch.size_bytes() > bytes_max:
            raise AnnexFull
        await trio.lowlevel.checkpoint()
