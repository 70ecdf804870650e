"""Scratch in memory, with the promises of the one in a folder: for engines that have none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from engine.store.interface import Tree
from engine.store.memory_store import NEVER, MemorySnapshot, VersionedTree
from engine.store.scratch import Items

KEY_BYTES: Final = 200
"""About what a key takes up besides itself and its value."""


class MemoryScratch:
    """Filled and read by the same thread; see `Scratch` and `ScratchWriter`."""

    def __init__(self) -> None:
        self._trees = tuple(VersionedTree() for _ in Tree)
        self._state = 0
        self._size_bytes = 0

    def fresh(self, keys: Iterable[bytes]) -> list[bytes]:
        """As `ScratchWriter.fresh`."""
        rows = self._trees[Tree.ROWS]
        return [key for key in keys if rows.get(key, NEVER) is None]

    def add(self, rows: Items, entries: Items) -> None:
        """As `ScratchWriter.add`."""
        self._state += 1
        for tree, items in ((Tree.ROWS, rows), (Tree.ENTRIES, entries)):
            for key, value in items:
                if self._trees[tree].get(key, NEVER) is None:
                    self._trees[tree].put(self._state, key, value)
                    self._size_bytes += len(key) + len(value) + KEY_BYTES

    def snapshot(self) -> MemorySnapshot:
        """As `Scratch.snapshot`."""
        return MemorySnapshot(self._trees, self._state)

    def size_bytes(self) -> int:
        """As `Scratch.size_bytes`."""
        return self._size_bytes

    def close(self) -> None:
        """As `Scratch.close`."""
