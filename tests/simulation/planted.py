"""
Bugs that a proof of serializability has to catch, each planted for the length of a block.

    with PLANTED["a forgotten phantom"]():
        ...

Each is caught where mutations run beside each other; in the lane nobody conflicts with anybody, and
most would do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, TypeAlias, cast
from unittest.mock import patch
from weakref import WeakKeyDictionary

import trio

from engine.committer import actor as committer_actor
from engine.committer.actor import Committer
from engine.functions import idempotence
from engine.functions.history import Way
from engine.functions.mutations import Attempt, Mutations, Try
from engine.functions.turns import pinned
from engine.indexes.buckets import Buckets
from engine.indexes.catalog import IndexInfo
from engine.indexes.stored import Entry
from engine.store.interface import Tree
from engine.store.memory_store import MemorySnapshot, MemoryStore
from engine.transaction.transaction import Transaction
from engine.transaction.view import View

Plant: TypeAlias = Callable[[], AbstractContextManager[Any]]


def in_place_of(owner: object, name: str, planted: object) -> Plant:
    return partial(patch.object, owner, name, planted)


# A read missing from the read set.

_get = Transaction.get


def _get_unnoticed(transaction: Transaction, key: bytes) -> Any:
    was_read = key in transaction.reads.points
    doc = _get(transaction, key)
    if not was_read:
        transaction.reads.points.discard(key)
    return doc


# Ranges that are not remembered as they were read.


def _record_but_the_last(
    transaction: Transaction,
    index: IndexInfo,
    lower: bytes,
    upper: bytes | None,
    reverse: bool,
    read: Any,
) -> None:
    """Where a limit ended the read, the document it ended with is left out."""
    if read.is_exhausted:
        transaction.reads.add_range(index.prefix, lower, upper)
    elif read.keys and reverse:
        transaction.reads.add_range(index.prefix, read.keys[-1] + b"\0", upper)
    elif read.keys:
        transaction.reads.add_range(index.prefix, lower, read.keys[-1])


def _record_what_is_there(
    transaction: Transaction,
    index: IndexInfo,
    _lower: bytes,
    _upper: bytes | None,
    _reverse: bool,
    read: Any,
) -> None:
    """The documents that were found, and nothing of where there was none."""
    for key in read.keys:
        transaction.reads.add_range(index.prefix, key, key + b"\0")


# A retry on the old snapshot.


class _OldView(View):
    """Shows what an older view does, and claims to be new."""

    __slots__ = ("_old",)

    def __init__(self, new: View, old: View) -> None:
        super().__init__(
            new.snapshot,
            begin_ts=new.begin_ts,
            catalog=new.catalog,
            counts=old.counts,
            generation=new.generation,
            is_validated=new.is_validated,
        )
        self._old = old

    def row(self, row_key: bytes) -> bytes | None:
        return self._old.row(row_key)

    def entries(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
        buckets: Buckets | None = None,
    ) -> Iterator[Entry]:
        return self._old.entries(index, lower, upper, reverse=reverse, buckets=buckets)


_beside_others = Mutations._beside_others


async def _on_what_was(mutations: Mutations, attempt: Try, way: Way) -> Any:
    """Every attempt reads what the first one did."""
    old = pinned(mutations._committer, is_validated=True)

    async def on_old(view: View) -> Attempt:
        return await attempt(_OldView(view, old) if view.is_validated else view)

    try:
        return await _beside_others(mutations, on_old, way)
    finally:
        mutations._committer.unpin(old.snapshot)


# A staged version dropped too early.


def _forget_what_is_published(committer: Committer) -> None:
    committer._staged.drop_through(committer._durable.ts)


# An answer before the fsync: everybody sees what the disk has not got yet.

_apply = MemoryStore.apply
_synced: WeakKeyDictionary[MemoryStore, MemorySnapshot] = WeakKeyDictionary()


async def _apply_unsynced(store: MemoryStore, batch: bytes) -> None:
    """What was written before is synced now, and this when the next one comes."""
    _synced[store] = store.snapshot()
    await _apply(store, batch)


def _synced_copy(store: MemoryStore, *, in_flight: bool = False) -> MemoryStore:
    copy = MemoryStore(flush=store._flush)
    for tree, its in zip(Tree, copy._trees, strict=True):
        for key, value in _synced[store].range(tree, b"", None):
            its.put(0, key, value)
    return copy


@contextmanager
def _synced_late() -> Iterator[None]:
    with (
        patch.object(MemoryStore, "apply", _apply_unsynced),
        patch.object(MemoryStore, "durable_copy", _synced_copy),
    ):
        yield


# An answer before anything is written.


class _Hasty:
    """A committer that lets mutations answer as soon as they are staged."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._committer, name)

    async def settled(self, _ts: int, _generation: int) -> None:
        await trio.lowlevel.checkpoint()


_mutations = Mutations.__init__


def _hasty_mutations(mutations: Mutations, committer: Committer, *args: Any, **kwargs: Any) -> None:
    _mutations(mutations, cast("Committer", _Hasty(committer)), *args, **kwargs)


# Others, that come with what is simulated.

_roll_back = Committer._roll_back


def _roll_back_in_silence(committer: Committer, batch: Any, error: Any) -> None:
    _roll_back(committer, batch, error)
    committer.generation -= 1


def _no_conflict(*_: object) -> None:
    """Whatever was read."""


def _never_found(*_: object) -> None:
    """No request was ever seen before."""


PLANTED: Final[Mapping[str, Plant]] = {
    "a read missing from the read set": in_place_of(Transaction, "get", _get_unnoticed),
    "an interval end off by one": in_place_of(Transaction, "_record", _record_but_the_last),
    "a forgotten phantom": in_place_of(Transaction, "_record", _record_what_is_there),
    "a retry on the old snapshot": in_place_of(Mutations, "_beside_others", _on_what_was),
    "a staged version dropped too early": in_place_of(
        Committer, "_forget_staged", _forget_what_is_published
    ),
    "an answer before the fsync": _synced_late,
    "an answer before the write": in_place_of(Mutations, "__init__", _hasty_mutations),
    "no validation": in_place_of(committer_actor, "find_conflict", _no_conflict),
    "a failed batch that nobody notices": in_place_of(
        Committer, "_roll_back", _roll_back_in_silence
    ),
    "a request that is forgotten": in_place_of(idempotence, "find", _never_found),
}
