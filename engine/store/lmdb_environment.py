"""
An LMDB environment as the store uses it: how it is opened, and how one batch is written.

Knows no tasks and no other process, so that the writer runs the same code on a thread and in a
process of its own. LMDB allows an environment to be opened once in a process, and one writer at
a time; who opens what is decided in `lmdb_store`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Final, Self, TypeAlias

import lmdb

from engine.errors import StoreDamaged, StoreFailed
from engine.model.limits import STORE_MAP_BYTES, STORE_READERS_MAX
from engine.store.answer import Answer, Fate
from engine.store.format import HEADER_KEY, check_header, new_header
from engine.store.interface import Tree, decode_batch

Trees: TypeAlias = tuple[lmdb._Database, ...]

DATA_FILE: Final = "data.mdb"
READERS_FILE: Final = "lock.mdb"
TREE_NAMES: Final = tuple(tree.name.lower().encode() for tree in Tree)
FILE_MODE: Final = 0o600
READERS_FILE_BYTES: Final = 128 + 64 * STORE_READERS_MAX
"""As LMDB makes it: a head, and a line of the processor's cache for each reader."""

_UNREADABLE: Final = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)
_NOTHING_WRITTEN: Final = (lmdb.MapFullError, lmdb.TxnFullError, lmdb.BadValsizeError)
"""Raised by a put, or by a commit that has not begun to write."""
NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""A disk without room; EIO is what LMDB makes of a write that was cut short by it."""

# fdatasync, as LMDB itself: macOS has none.
_flush = getattr(os, "fdatasync", os.fsync)


class SizeLimitReached(Exception):
    """The trees would take more than `data_bytes_max` after this batch."""


def open_environment(path: Path, *, readonly: bool, sync: bool) -> lmdb.Environment:
    """
    Open the environment in the folder `path`, made if missing unless `readonly`.

    Raises:
        StoreDamaged: the files are not LMDB's.
        StoreFailed: they cannot be opened; nothing was changed.
    """
    try:
        if not readonly:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _allocate_readers(path / READERS_FILE)
        env = lmdb.open(
            str(path),
            map_size=STORE_MAP_BYTES,
            readonly=readonly,
            create=not readonly,
            metasync=sync,
            sync=sync,
            writemap=False,  # a full disk would end the process by SIGBUS
            mode=FILE_MODE,
            max_readers=STORE_READERS_MAX,
            max_dbs=len(Tree),
            lib_version=0,  # the file format of LMDB 0.9, whatever the library's default becomes
        )
    except _UNREADABLE as error:
        raise StoreDamaged(f"{path} cannot be read: {error}; restore a backup") from error
    except (lmdb.Error, OSError) as error:
        raise StoreFailed(f"{path} cannot be opened: {error}") from error
    _check_length(env, path / DATA_FILE)
    return env


def _allocate_readers(file: Path) -> None:
    """
    Take the room of the table of readers before anything is mapped.

    LMDB makes it as a hole. A snapshot that is the first on its page of the table would find no
    room for the page on a full disk, and end the process by SIGBUS.

    Raises:
        OSError: there is no room now.
    """
    if sys.platform == "darwin":
        return  # has no such call, and none that leaves alone what others have written
    # Closing it lets go of all locks that this process has on it: none, before it is opened.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, READERS_FILE_BYTES)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        # A file system that cannot promise room, such as one that never writes in place.
    finally:
        os.close(descriptor)


def _check_length(env: lmdb.Environment, file: Path) -> None:
    """A page past the end of the file cannot be read: the process would end by SIGBUS."""
    wanted, found = file_bytes(env), file.stat().st_size
    if found < wanted:
        env.close()
        raise StoreDamaged(
            f"{file} has {found} bytes where its newest state needs {wanted}: it was cut off; "
            "restore a backup"
        )


def create_environment(path: Path, *, sync: bool, created_by: str) -> None:
    """
    Make the folder `path` with empty trees and the format header; a crash leaves all or nothing.

    Raises:
        StoreFailed: the disk failed, or the folder is there and not empty.
    """
    # A new environment is durable only after its first commit, so it gets its name after that.
    unfinished = path.with_name(f"{path.name}.new")
    try:
        for file in unfinished.glob("*"):
            file.unlink()
        with (
            open_environment(unfinished, readonly=False, sync=sync) as env,
            env.begin(write=True) as txn,
        ):
            trees = [env.open_db(name, txn=txn) for name in TREE_NAMES]
            txn.put(HEADER_KEY, new_header(created_by), db=trees[Tree.META])
        if sync:
            _flush_folder(unfinished)
        unfinished.rename(path)
    except (lmdb.Error, OSError) as error:
        raise StoreFailed(f"{path} cannot be made: {error}") from error


def open_trees(env: lmdb.Environment, path: Path, *, reader: str) -> Trees:
    """
    The trees of `env`.

    Args:
        path: its folder. reader: this software's name, for a message.

    Raises:
        StoreDamaged: it is of a newer format, or no store of ours.
        StoreFailed: the disk failed.
    """
    try:
        trees = tuple(env.open_db(name, create=False) for name in TREE_NAMES)
        with env.begin() as txn:
            header = txn.get(HEADER_KEY, None, trees[Tree.META])
    except (lmdb.NotFoundError, *_UNREADABLE) as error:
        raise StoreDamaged(f"{path} is no store: {error}; restore a backup") from error
    except lmdb.Error as error:
        raise StoreFailed(f"{path} cannot be opened: {error}") from error
    check_header(header, where=str(path), reader=reader)
    return trees


def file_bytes(env: lmdb.Environment) -> int:
    """Bytes of the file up to the last page that its newest state has ever used."""
    last_page: int = env.info()["last_pgno"]
    return (last_page + 1) * env.stat()["psize"]


def bytes_in_use(txn: lmdb.Transaction, trees: Trees) -> int:
    """Bytes of the pages that `trees` consist of, as `txn` sees them."""
    stats = [txn.stat(tree) for tree in trees]
    pages = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
    return pages * stats[0]["psize"]


def write_batch(env: lmdb.Environment, trees: Trees, batch: bytes, *, data_bytes_max: int) -> None:
    """
    Write an encoded batch in one transaction; if this raises, the transaction was aborted.

    A batch that makes the trees smaller is written also when they are above `data_bytes_max`.

    Raises:
        SizeLimitReached: nothing was written.
        lmdb.Error: `LmdbWriter` knows which mean what.
    """
    changes = decode_batch(batch)
    with env.begin(write=True) as txn:
        before = bytes_in_use(txn, trees)
        for tree in Tree:
            keys, values = changes[tree]
            if keys:
                _write_tree(txn, trees[tree], keys, values, append=tree is Tree.LOG)
        after = bytes_in_use(txn, trees)
        if after > data_bytes_max and after > before:
            raise SizeLimitReached(f"{after} bytes would be over the limit of {data_bytes_max}")


def _write_tree(
    txn: lmdb.Transaction,
    tree: lmdb._Database,
    keys: list[bytes],
    values: list[bytes | None],
    *,
    append: bool,
) -> None:
    # In key order, so that neighbours meet their page while it is at hand, and in as few calls
    # as there are: on a thread each one gives up the interpreter and waits to get it back.
    changes = sorted(zip(keys, values, strict=True))
    gone = [key for key, value in changes if value is None]
    deque(map(txn.delete, gone, repeat(b""), repeat(tree)), maxlen=0)
    puts = changes if not gone else [change for change in changes if change[1] is not None]
    if puts:
        with txn.cursor(tree) as cursor:
            _, added = cursor.putmulti(puts, append=append)  # type: ignore[arg-type]
        assert added == len(puts), "the log only grows at its end"


class LmdbWriter:
    """
    The one writer of an environment: writes a batch and tells what became of it.

    Args:
        path: the folder of the environment, made if missing.
        sync: False leaves flushing to the system; a power cut then loses what was acknowledged.
        data_bytes_max: bytes that the trees may take.
        created_by: who signs the header of a new store.

    Raises:
        StoreDamaged: what is there is of a newer format, or no store.
        StoreFailed: it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync: bool,
        data_bytes_max: int,
        created_by: str,
    ) -> None:
        if not (path / DATA_FILE).exists():
            create_environment(path, sync=sync, created_by=created_by)
        self.env = open_environment(path, readonly=False, sync=sync)
        # Tells flushes that failed from writes that were cut short: an error while a file is
        # written back is reported once to each descriptor that was open, so to this one too.
        self._witness = os.open(path / DATA_FILE, os.O_RDWR | os.O_CLOEXEC)
        try:
            if sync:
                _make_durable(self._witness, path)
            self.trees = open_trees(self.env, path, reader=created_by)
        except BaseException:
            self.close()
            raise
        self._data_bytes_max = data_bytes_max

    def write(self, batch: bytes) -> Answer:
        """Write `batch` in one transaction; what can go wrong is in the answer."""
        before = self.env.info()["last_txnid"]
        try:
            write_batch(self.env, self.trees, batch, data_bytes_max=self._data_bytes_max)
        except Exception as error:
            fate = self._fate(error)
            cut_short = fate is Fate.REFUSED and getattr(error, "code", 0) == errno.EIO
            why = "a write was cut short, " if cut_short else ""
            return Answer(fate=fate, message=f"{why}{type(error).__name__}: {error}")
        written = self.env.info()["last_txnid"] != before
        return Answer(fate=Fate.WRITTEN, flushes=written * flushes_of(self.env))

    def describe(self) -> dict[str, object]:
        """The flags of the environment and the version of LMDB, as JSON has them."""
        return {"flags": self.env.flags(), "lmdb": list(self.env.lib_version())}

    def close(self) -> None:
        """Close the environment; nothing has to be written for it."""
        os.close(self._witness)
        self.env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fate(self, error: Exception) -> Fate:
        if isinstance(error, (SizeLimitReached, *_NOTHING_WRITTEN)):
            return Fate.REFUSED
        no_room = isinstance(error, lmdb.Error) and error.code in NO_ROOM
        return Fate.REFUSED if no_room and self._is_sound() else Fate.UNKNOWN

    def _is_sound(self) -> bool:
        """Whether a commit that failed stopped short of the meta page, and lost nothing else."""
        with suppress(OSError, lmdb.Error):
            _flush(self._witness)
            # LMDB refuses this one if writing a meta page has failed.
            self.env.begin(write=True).abort()
            return True
        return False


def _make_durable(data: int, path: Path) -> None:
    """
    Flush what a process that died may have left in the system's cache, names included.

    So whatever is found is durable: it may be told to others before anything more is written.
    """
    try:
        _flush(data)
        for folder in (path, path.parent, path.parent.parent):
            _flush_folder(folder)
    except OSError as error:
        raise StoreFailed(f"{path} cannot be flushed: {error}") from error


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flushes_of(env: lmdb.Environment) -> int:
    """Flushes of one commit: the pages, then the meta page; fewer if the flags say so."""
    flags = env.flags()
    return flags["sync"] + (flags["sync"] and flags["metasync"])
