"""
Scratch in a folder: an LMDB environment that a process fills, and the engine reads.

Nothing of it is flushed: whatever a crash leaves of it is removed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, Self

import lmdb

from engine.errors import StoreDamaged, StoreFailed, StoreFull
from engine.store.interface import Tree
from engine.store.lmdb_environment import (
    NO_ROOM,
    TREE_NAMES,
    Trees,
    file_bytes,
    open_environment,
)
from engine.store.lmdb_snapshot import LmdbSnapshot
from engine.store.scratch import Items


class LmdbScratch:
    """
    A folder that somebody has filled, to be read.

    Raises:
        StoreFailed, StoreDamaged: it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._env = open_environment(folder, readonly=True, sync=False)
        self._trees = _open_trees(self._env, folder, create=False)
        self._snapshots: weakref.WeakSet[LmdbSnapshot] = weakref.WeakSet()

    def snapshot(self) -> LmdbSnapshot:
        """As `Scratch.snapshot`."""
        snapshot = LmdbSnapshot(self._env.begin(), self._trees)
        self._snapshots.add(snapshot)
        return snapshot

    def close(self) -> None:
        """As `Scratch.close`."""
        for snapshot in list(self._snapshots):
            snapshot.close()
        self._env.close()


class LmdbScratchWriter:
    """
    A folder, made if it is missing, to be filled.

    Raises:
        StoreFailed, StoreFull: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._env = open_environment(folder, readonly=False, sync=False)
        except StoreFailed as error:
            _refuse(error.__cause__ or error, folder)
        try:
            self._trees = _open_trees(self._env, folder, create=True)
        except BaseException:
            self._env.close()
            raise

    def fresh(self, keys: Iterable[bytes]) -> list[bytes]:
        """As `ScratchWriter.fresh`."""
        rows = self._trees[Tree.ROWS]
        with self._env.begin() as txn:
            return [key for key in keys if txn.get(key, None, rows) is None]

    def add(self, rows: Items, entries: Items) -> None:
        """As `ScratchWriter.add`."""
        try:
            with self._env.begin(write=True) as txn:
                for tree, items in ((Tree.ROWS, rows), (Tree.ENTRIES, entries)):
                    with txn.cursor(self._trees[tree]) as cursor:
                        cursor.putmulti(items, overwrite=False)
        except lmdb.Error as error:
            _refuse(error, self._folder)

    def snapshot(self) -> LmdbSnapshot:
        """As `ScratchWriter.snapshot`."""
        return LmdbSnapshot(self._env.begin(), self._trees)

    def size_bytes(self) -> int:
        """As `ScratchWriter.size_bytes`: of the file."""
        return file_bytes(self._env)

    def close(self) -> None:
        """What was added stays for those who read."""
        self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_trees(env: lmdb.Environment, folder: Path, *, create: bool) -> Trees:
    try:
        return tuple(env.open_db(name, create=create) for name in TREE_NAMES)
    except lmdb.NotFoundError as error:
        raise StoreDamaged(f"{folder} has not been filled: {error}") from error
    except lmdb.Error as error:
        _refuse(error, folder)


def _refuse(error: BaseException, folder: Path) -> NoReturn:
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", 0)
    if code in NO_ROOM or isinstance(error, lmdb.MapFullError):
        raise StoreFull(
            f"{folder} has no room for rows as they were: {error}. Make room on the disk, or ask "
            "for a newer ts"
        ) from error
    raise StoreFailed(
        f"{folder} cannot be written: {error}. {folder.parent} has to be a folder, or a link to "
        "one, that this process may write to"
    ) from error
