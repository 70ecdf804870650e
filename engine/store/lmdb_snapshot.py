"""A snapshot of an LMDB environment: a read transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn, Self

import lmdb

from engine.errors import Stopped, StoreDamaged
from engine.store.interface import Tree
from engine.store.lmdb_environment import Trees


class LmdbSnapshot:
    """A read transaction of LMDB; see `Snapshot`. Made by `LmdbStore.snapshot`."""

    __slots__ = ("__weakref__", "_get", "_refusal", "_trees", "_txn")

    def __init__(self, txn: lmdb.Transaction[bytes], trees: Trees) -> None:
        self._txn: lmdb.Transaction[bytes] | None = txn
        self._trees = trees
        self._get: Callable[[bytes, None, lmdb._Database], bytes | None] = txn.get
        self._refusal: str | None = None

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        """As `Snapshot.get`."""
        try:
            return self._get(key, None, self._trees[tree])
        except lmdb.Error as error:
            if isinstance(error, lmdb.BadValsizeError):
                return None  # no key is like that
            self._explain(error)

    def range(
        self, tree: Tree, lower: bytes, upper: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """As `Snapshot.range`."""
        self._refuse_if_closed()
        return self._falling(tree, lower, upper) if reverse else self._rising(tree, lower, upper)

    def last(self, tree: Tree) -> tuple[bytes, bytes] | None:
        """As `Snapshot.last`."""
        try:
            with self._cursor(tree) as cursor:
                return cursor.item() if cursor.last() else None
        except lmdb.Error as error:
            self._explain(error)

    def close(self) -> None:
        """As `Snapshot.close`."""
        txn = self._txn
        if txn is not None and self._refusal is None:
            self.end("the snapshot was closed")
            txn.abort()
            self._txn = None  # its slot in the table of readers is free once nothing refers to it

    def end(self, refusal: str) -> None:
        """Refuse every further use, for the reason given; the transaction is left alone."""
        self._refusal = refusal
        self._get = _refusing(refusal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rising(
        self, tree: Tree, lower: bytes, upper: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            cursor = self._cursor(tree)
            if not cursor.set_range(lower):
                return
            for item in cursor.iternext():
                if upper is not None and item[0] >= upper:
                    return
                yield item
                if self._refusal is not None:
                    raise Stopped(self._refusal)
        except lmdb.Error as error:
            self._explain(error)

    def _falling(
        self, tree: Tree, lower: bytes, upper: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            cursor = self._cursor(tree)
            is_at_upper = upper is not None and cursor.set_range(upper)
            if not (cursor.prev() if is_at_upper else cursor.last()):
                return
            for item in cursor.iterprev():
                if item[0] < lower:
                    return
                yield item
                if self._refusal is not None:
                    raise Stopped(self._refusal)
        except lmdb.Error as error:
            self._explain(error)

    def _cursor(self, tree: Tree) -> lmdb.Cursor[bytes]:
        self._refuse_if_closed()
        assert self._txn is not None
        return self._txn.cursor(self._trees[tree])

    def _explain(self, error: lmdb.Error) -> NoReturn:
        self._refuse_if_closed()
        raise StoreDamaged(f"the store cannot be read: {error}; restore a backup") from error

    def _refuse_if_closed(self) -> None:
        if self._refusal is not None:
            raise Stopped(self._refusal)


def _refusing(refusal: str) -> Callable[[bytes, None, lmdb._Database], NoReturn]:
    # Not a method: it would make each snapshot a cycle, for the garbage collector to find.
    def refuse(_key: bytes, _default: None, _tree: lmdb._Database) -> NoReturn:
        raise Stopped(refusal)

    return refuse
