"""
What a store promises: four ordered trees of bytes, written by whole batches, read at one state.

    batch = Batch()
    batch.put(Tree.ROWS, row_key, document)
    batch.delete(Tree.ENTRIES, old_entry)
    await store.apply(batch.encode())      # durable here, or an error that says what became of it

    with store.snapshot() as snapshot:     # never sees a later batch
        snapshot.get(Tree.ROWS, row_key)

Two stores keep these promises, and one suite of tests holds them to it: `LmdbStore` on a disk,
`MemoryStore` for tests and simulations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeAlias, cast

from engine.errors import InvalidValue, StoreDamaged
from engine.model.cbor import add_items, array_head
from engine.model.codec import decode

Changes: TypeAlias = Mapping[bytes, bytes | None]
"""The new value of each key; None deletes it."""


class Tree(IntEnum):
    """Which of the four trees. The numbers are part of the encoding of a batch."""

    META = 0
    """Small named values: the format, the epoch."""
    LOG = 1
    """Timestamp (8 bytes, big-endian) to record. Only ever appended to, or deleted from."""
    ROWS = 2
    """Row key to document."""
    ENTRIES = 3
    """Index entries."""


class Batch:
    """
    What is to be written at once. For each key the last that was said counts.

    Not bound to a store, and not changed by being encoded.
    """

    __slots__ = ("_changes",)

    def __init__(self) -> None:
        self._changes: tuple[dict[bytes, bytes | None], ...] = tuple({} for _ in Tree)

    def put(self, tree: Tree, key: bytes, value: bytes) -> None:
        """Set `key`, 1 to `STORE_KEY_BYTES_MAX` bytes, whether it is there or not."""
        self._changes[tree][key] = value

    def delete(self, tree: Tree, key: bytes) -> None:
        """Remove `key`; nothing if it is not there."""
        self._changes[tree][key] = None

    def merge(self, tree: Tree, changes: Changes) -> None:
        """Every put and delete (None) of `changes`, later than what was said so far."""
        self._changes[tree].update(changes)

    def __len__(self) -> int:
        """How many keys it changes."""
        return sum(map(len, self._changes))

    def encode(self) -> bytes:
        """
        The batch as the bytes that `Store.apply` takes.

        Raises:
            InvalidValue: a key or a value is not bytes.
        """
        # Flat lists, so that the writer walks them in C. It puts them in order as well: where
        # that is another process, it costs this one nothing.
        parts = [array_head(len(Tree))]
        try:
            for changes in self._changes:
                parts += (array_head(2), array_head(len(changes)))
                add_items(parts, changes)
                parts.append(array_head(len(changes)))
                add_items(parts, changes.values())
            return b"".join(parts)
        except TypeError as error:
            raise InvalidValue(f"a batch holds bytes only: {error}") from None


def decode_batch(data: bytes) -> list[tuple[list[bytes], list[bytes | None]]]:
    """
    The keys of each tree, in the order of `Tree`, and their values: None means delete.

    Raises:
        StoreDamaged: `data` is nothing that `Batch.encode` made.
    """
    lists = decode(data)
    if type(lists) is not list or len(lists) != len(Tree) or not all(map(_are_changes, lists)):
        raise StoreDamaged("a batch of a shape that is not known here")
    return cast("list[tuple[list[bytes], list[bytes | None]]]", lists)


_KEY: Final = frozenset((bytes,))
_VALUE: Final = frozenset((bytes, type(None)))


def _are_changes(pair: Any) -> bool:
    """Whether it is a list of keys and one of as many values."""
    match pair:
        case [list(keys), list(values)]:
            return (
                len(keys) == len(values)
                and _KEY.issuperset(map(type, keys))
                and _VALUE.issuperset(map(type, values))
            )
    return False


class Snapshot(Protocol):
    """
    One state of the store, as it was when the snapshot was taken; belongs to its thread.

    Every method raises Stopped once it, or the store, is closed, and in a forked process.
    Hold one briefly: what it can see is not reclaimed.
    """

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        """The value of `key`, or None. Microseconds, unless its page is not in memory."""

    def range(
        self, tree: Tree, lower: bytes, upper: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """
        Keys and values with ``lower <= key < upper``, rising or, reversed, falling.

        No `upper` means up to the last key. May be abandoned at any point.
        """

    def last(self, tree: Tree) -> tuple[bytes, bytes] | None:
        """The greatest key and its value, or None if the tree is empty."""

    def close(self) -> None:
        """Let go of the state. Twice is the same as once."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Store(Protocol):
    """Four trees that change by whole batches."""

    @property
    def folder(self) -> Path | None:
        """Of the environment, which other processes may read; `None` of a store in memory."""

    def snapshot(self) -> Snapshot:
        """
        The state of now: all of each batch whose `apply` has returned, nothing of the others.

        While one is in flight it may or may not be seen, but never in part.

        Raises:
            Stopped: the store is closed, or was opened before this process was forked.
            Overloaded: too many snapshots are open, in all processes together.
        """

    async def apply(self, batch: bytes) -> None:
        """
        Write an encoded batch. When this returns, all of it is durable.

        At most one at a time. Cancelled before the batch is handed over, nothing happens; from
        there on it waits, whatever is cancelled, until the fate of the batch is known.

        Raises:
            StoreFull: no room, or a key that is too long; certainly nothing of it was written,
                and the store goes on.
            StoreFailed: it may or may not have been written. From here on every `apply` is
                refused like this; open the store again and look.
            Stopped: the store was closed or forked; nothing was written.
        """

    def obstacle(self) -> str | None:
        """Why no batch will be taken any more, if so; it has to be opened again then."""

    def reader_check(self) -> int:
        """Free what processes that were killed still hold of the store; how much that was."""

    def size_bytes(self, tree: Tree | None = None) -> int:
        """
        Bytes that `tree`, or all of them, take.

        Falls when keys are deleted, though the file does not.
        """

    def describe(self) -> dict[str, object]:
        """What operators may want to know; small, JSON."""

    def close(self) -> None:
        """End it, snapshots included. Twice is the same as once. Not while applying."""
