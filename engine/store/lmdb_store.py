"""
The store on a disk: LMDB, one writer beside the engine, any number of snapshots.

    with LmdbStore.open(directory, data_bytes_max=limits.data_bytes_max) as store:
        ...                            # the tasks that use it begin and end in here

    directory/LOCK      which process has it open, and its URL
    directory/WRITER    which process writes
    directory/store/    LMDB's two files

Reads are LMDB's own, on the thread that asks. A batch goes to a writer, and is durable after two
flushes: of its pages, then of the meta page that makes them count. The map is taken once, and so
large that it never has to be resized under open snapshots; the file grows as it is written.
"""

from __future__ import annotations

import os
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

import lmdb
import trio

from engine.errors import Overloaded, Stopped, StoreDamaged, StoreFailed, StoreFull
from engine.model.limits import ORPHAN_WRITER_S_MAX, STORE_MAP_BYTES, STORE_READERS_MAX
from engine.store.answer import Answer, Fate
from engine.store.directory_lock import LOCK_FILE, WRITER_FILE, FileLock, LockHolder, read_lock
from engine.store.format import FORMAT_VERSION, this_version
from engine.store.interface import Tree
from engine.store.lmdb_environment import (
    LmdbWriter,
    Trees,
    bytes_in_use,
    file_bytes,
    open_environment,
    open_trees,
)
from engine.store.lmdb_snapshot import LmdbSnapshot
from engine.store.writers import ProcessWriter, ThreadWriter, Writer, WriterSettings

__all__ = ["LmdbSnapshot", "LmdbStore", "LockHolder", "read_lock"]

WriterKind: TypeAlias = Literal["process", "thread"]

LMDB_FOLDER: Final = "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """
    Everything that an open store holds.

    own: the writer's environment where it is in this process, and then also the one that is read.
    writer_lock: None where the writer's process has it.
    """

    directory: Path
    env: lmdb.Environment
    trees: Trees
    writer: Writer
    own: LmdbWriter | None
    lock: FileLock
    writer_lock: FileLock | None
    data_bytes_max: int

    def close(self) -> None:
        self.writer.close()
        if self.own is None:
            self.env.close()
        else:
            self.own.close()
        if self.writer_lock is not None:
            self.writer_lock.release()
        self.lock.release()

    def abandon(self) -> None:
        self.writer.abandon()
        if self.writer_lock is not None:
            self.writer_lock.abandon()
        self.lock.abandon()


class LmdbStore:
    """A directory that this process has open. Made by `open`."""

    def __init__(self, opened: _Opened) -> None:
        self._opened = opened
        self._snapshots: weakref.WeakSet[LmdbSnapshot] = weakref.WeakSet()
        self._is_applying = False
        self._refusal: str | None = None
        self._failure: str | None = None
        self._batches = 0
        self._flushes = 0
        _open_stores.add(self)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        data_bytes_max: int = STORE_MAP_BYTES,
        writer: WriterKind = "process",
        sync: bool = True,
    ) -> Self:
        """
        Open `directory`, made if missing, for this process alone. Blocks for some milliseconds,
        and for up to `ORPHAN_WRITER_S_MAX` if the engine before was killed while it wrote.

        Args:
            data_bytes_max: bytes that the trees may take.
            writer: where batches are written: in a process, or on a thread of this one.
            sync: False leaves flushing to the system; a power cut then loses what was
                acknowledged. For tests.

        Raises:
            StoreLocked: another engine has it open; names its pid and URL.
            StoreDamaged: it is of a newer format, or not readable.
            StoreFailed: the disk failed, or the writer could not be started.
        """
        assert 0 < data_bytes_max <= STORE_MAP_BYTES
        return cls(_open(directory, data_bytes_max=data_bytes_max, writer=writer, sync=sync))

    @property
    def folder(self) -> Path | None:
        """As `Store.folder`."""
        return self._opened.directory / LMDB_FOLDER

    def snapshot(self) -> LmdbSnapshot:
        """As `Store.snapshot`. Costs about a microsecond."""
        self._refuse_if_closed()
        snapshot = LmdbSnapshot(self._begin(), self._opened.trees)
        self._snapshots.add(snapshot)
        return snapshot

    @trio.lowlevel.enable_ki_protection  # Ctrl-C must not leave a batch whose fate nobody noted
    async def apply(self, batch: bytes) -> None:
        """As `Store.apply`."""
        assert not self._is_applying, "one batch at a time"
        self._refuse_if_closed()
        if self._failure is not None:
            raise StoreFailed(self._failure)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._is_applying = True
        try:
            answer = await self._opened.writer.write(batch)
        except BaseException:
            self._fail("the writer was left before it had answered")
            raise
        finally:
            self._is_applying = False
        self._note(answer, len(batch))

    def size_bytes(self, tree: Tree | None = None) -> int:
        """As `Store.size_bytes`: whole pages."""
        self._refuse_if_closed()
        txn = self._begin()
        try:
            trees = self._opened.trees
            return bytes_in_use(txn, trees if tree is None else trees[tree : tree + 1])
        finally:
            txn.abort()

    def describe(self) -> dict[str, object]:
        """
        The writer and the flags of its environment, sizes, readers, batches and flushes so far.

        Raises:
            Stopped: the store is closed.
        """
        size_bytes = self.size_bytes()
        opened = self._opened
        info = opened.env.info()
        return {
            "directory": str(opened.directory),
            "format": FORMAT_VERSION,
            **opened.writer.describe(),
            "map_bytes": info["map_size"],
            "data_bytes_max": opened.data_bytes_max,
            "size_bytes": size_bytes,
            "file_bytes": file_bytes(opened.env),
            "readers": len(opened.env.readers().splitlines()) - 1,
            "readers_max": info["max_readers"],
            "snapshots": len(self._snapshots),
            "batches": self._batches,
            "flushes": self._flushes,
        }

    def set_url(self, url: str | None) -> None:
        """Tell those whom the lock keeps out where this engine listens."""
        self._refuse_if_closed()
        self._opened.lock.set_url(url)

    def obstacle(self) -> str | None:
        """As `Store.obstacle`: a batch whose fate is not known, or a writer that is gone."""
        return self._failure or self._opened.writer.obstacle()

    def reader_check(self) -> int:
        """
        Free what killed processes were still reading; how many there were.

        Until then LMDB keeps every page that they could have seen. For every ten seconds or so.
        """
        self._refuse_if_closed()
        return self._opened.env.reader_check()

    def close(self) -> None:
        """As `Store.close`. What was applied is on disk already; this only lets go."""
        if self._refusal is not None:
            return
        assert not self._is_applying, "closed while a batch is being written"
        self._refusal = f"{self._opened.directory} was closed"
        for snapshot in list(self._snapshots):
            snapshot.close()
        _open_stores.discard(self)
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forked(self) -> None:
        """In a forked child: be closed here, and leave everything as it is to the parent."""
        holder = self._opened.lock.holder
        connect = f"Engine.connect({holder.url!r})" if holder.url else "Engine.connect(url)"
        self._refusal = (
            f"{self._opened.directory} is open in process {holder.pid}, of which this one was"
            f" forked: use {connect} here, or open the engine after forking"
        )
        for snapshot in list(self._snapshots):
            snapshot.end(self._refusal)
            _left_to_the_parent.append(snapshot)
        _left_to_the_parent.append(self)
        self._opened.abandon()

    def _begin(self) -> lmdb.Transaction[bytes]:
        env = self._opened.env
        try:
            try:
                return env.begin()
            except lmdb.ReadersFullError:
                env.reader_check()
                return env.begin()
        except lmdb.ReadersFullError as error:
            raise Overloaded(f"the table of {STORE_READERS_MAX} snapshots", 0) from error
        except lmdb.Error as error:
            raise StoreDamaged(f"{self._opened.directory} cannot be read: {error}") from error

    def _note(self, answer: Answer, batch_bytes: int) -> None:
        self._flushes += answer.flushes
        match answer.fate:
            case Fate.WRITTEN:
                self._batches += 1
            case Fate.REFUSED:
                raise StoreFull(
                    f"{self._opened.directory} took nothing of a batch of {batch_bytes} bytes:"
                    f" {answer.message}. Make room on the disk, delete, or raise data_bytes_max"
                )
            case _:
                self._fail(answer.message)
                raise StoreFailed(self._failure)

    def _fail(self, why: str) -> None:
        self._failure = (
            f"a batch may or may not have been written to {self._opened.directory}: {why}."
            " Open it again, and look for the batch"
        )

    def _refuse_if_closed(self) -> None:
        if self._refusal is not None:
            raise Stopped(self._refusal)


def _open(directory: Path, *, data_bytes_max: int, writer: WriterKind, sync: bool) -> _Opened:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreFailed(f"{directory} cannot be made: {error}") from error
    settings = WriterSettings(
        path=str(directory / LMDB_FOLDER),
        sync=sync,
        data_bytes_max=data_bytes_max,
        created_by=this_version(),
    )
    with ExitStack() as undo:
        lock = undo.enter_context(FileLock(directory / LOCK_FILE))
        patience_s = ORPHAN_WRITER_S_MAX
        writer_lock = undo.enter_context(FileLock(directory / WRITER_FILE, patience_s=patience_s))
        open_one = _open_thread if writer == "thread" else _open_process
        opened = open_one(directory, settings, lock, writer_lock)
        undo.pop_all()
    return opened


def _open_thread(
    directory: Path, settings: WriterSettings, lock: FileLock, writer_lock: FileLock
) -> _Opened:
    own = LmdbWriter(
        Path(settings.path),
        sync=settings.sync,
        data_bytes_max=settings.data_bytes_max,
        created_by=settings.created_by,
    )
    return _Opened(
        directory=directory,
        env=own.env,
        trees=own.trees,
        writer=ThreadWriter(own.write, opened=own.describe()),
        own=own,
        lock=lock,
        writer_lock=writer_lock,
        data_bytes_max=settings.data_bytes_max,
    )


def _open_process(
    directory: Path, settings: WriterSettings, lock: FileLock, writer_lock: FileLock
) -> _Opened:
    writer = ProcessWriter(settings, lock=writer_lock.descriptor)
    try:
        # After the writer, which makes what is missing. LMDB forbids a second environment on the
        # same files only within one process.
        path = Path(settings.path)
        env = open_environment(path, readonly=True, sync=settings.sync)
        trees = open_trees(env, path, reader=settings.created_by)
    except BaseException:
        writer.close()
        raise
    writer_lock.hand_over(writer.pid)
    return _Opened(
        directory=directory,
        env=env,
        trees=trees,
        writer=writer,
        own=None,
        lock=lock,
        writer_lock=None,
        data_bytes_max=settings.data_bytes_max,
    )


_open_stores: weakref.WeakSet[LmdbStore] = weakref.WeakSet()
_left_to_the_parent: Final[list[object]] = []
"""Kept alive in a forked child, so that no destructor touches what the parent is using."""


def _after_fork_in_child() -> None:
    for store in list(_open_stores):
        store.forked()
    _open_stores.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
