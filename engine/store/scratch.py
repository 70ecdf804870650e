"""
Scratch: rows and entries that are nobody's truth, beside a store.

    writer.add(rows, entries)                # a key that is there keeps its value

    with scratch.snapshot() as snapshot:
        snapshot.get(Tree.ROWS, row_key)

It has the trees of a store, of which two are used, and outlives no engine.  There is one in a
folder, and one in memory; one suite of tests holds both to this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

from engine.store.interface import Snapshot

Items: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Keys and values."""


class Scratch(Protocol):
    """What a reader has of one."""

    def snapshot(self) -> Snapshot:
        """The state of now."""

    def close(self) -> None:
        """Let go of it, snapshots included."""


class ScratchWriter(Protocol):
    """What fills one; there is one at a time."""

    def fresh(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of these row keys that it does not have yet, in their order."""

    def add(self, rows: Items, entries: Items) -> None:
        """
        Put rows and entries, in one step, where none are.

        Raises:
            StoreFull: there is no room; nothing was put.
        """

    def snapshot(self) -> Snapshot:
        """The state of now."""

    def size_bytes(self) -> int:
        """About what it takes."""
