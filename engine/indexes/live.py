"""
The text and vector indexes that answer, and what keeps them up.

A transaction that is staged is in them at once, as it is in the overlay of entries, and a batch
that fails is taken back.  They keep several versions of a document, so whoever has a view of any
timestamp that is still leased finds what was there at it.  One that is being built, or whose files
turned out to be damaged, is not here: whoever searches looks at the documents meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from engine.indexes.catalog import SEARCHED, IndexInfo
from engine.kernel.counters import Durations
from engine.model.commits import RowWrite

Install: TypeAlias = Callable[[], None]
"""Puts what a thread has made into its place; on the engine's own thread, in no time."""


class Leisure(Enum):
    """How much time there is for what only makes searches faster."""

    NONE = "none"
    PAUSE = "pause"
    """Nobody has written for some seconds."""
    REST = "rest"
    """Nothing was due for long, or the index was just built."""


class Checkpoint(NamedTuple):
    """An index as it is on disk; `files.py` has the formats."""

    ts: int
    """What was written later is to be looked at again when it is read."""
    manifest: dict[str, Any]
    write: Callable[[Path], Install]
    """In a thread: write the segments that the folder does not have yet."""
    names: list[str]
    """The files of all segments."""


class OwnWrites(Protocol):
    """What a transaction has written, as an index would have it that knows nothing of it yet."""

    def put(self, internal: bytes, doc: dict[str, Any] | None) -> None:
        """A document as it is from now on, or that it is gone."""


class LiveIndex(Protocol):
    """An index that is kept in memory and follows what is staged."""

    info: IndexInfo

    @property
    def floor_ts(self) -> int:
        """Views that are older cannot be answered."""

    @property
    def changed_ts(self) -> int:
        """The last commit that changed what documents are ranked by, staged ones included."""

    @property
    def unfolded_bytes(self) -> int:
        """What is in memory until it is folded."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory, files that are mapped included."""

    def count(self) -> int:
        """How many documents it has now."""

    def parts_count(self) -> int:
        """Of how many parts it is made."""

    @property
    def is_due(self) -> bool:
        """Whether there may be something to fold."""

    @property
    def is_loose(self) -> bool:
        """Whether there is something that a pause is to be used for."""

    def own(self) -> OwnWrites:
        """For what a transaction writes."""

    def stage(self, ts: int, write: RowWrite) -> None:
        """Take in what a commit of `ts` does to a row of the table."""

    def put(self, ts: int, internal: bytes, doc: dict[str, Any] | None) -> None:
        """From `ts` on a document is this, or gone, whatever it was; `ts` never falls."""

    def put_in_steps(self, ts: int, internal: bytes, doc: dict[str, Any] | None) -> Iterator[None]:
        """As `put`, in steps of some milliseconds; nobody looks at it before the last is done."""

    def roll_back(self, ts: int) -> None:
        """Forget what was staged after `ts`: it will never have been."""

    def retire(self) -> None:
        """It is kept up no more, so from now on nothing has the order in which it was found."""

    def forget(self, floor_ts: int) -> None:
        """No view is older than that."""

    def freeze(self, leisure: Leisure = Leisure.NONE) -> None:
        """See to it that all that is durable can be folded, and what there is leisure for."""

    def checkpoint(self, durable_ts: int) -> Checkpoint:
        """
        What is to be on disk so that everything up to its timestamp is there.

        Args:
            durable_ts: what is staged after it may still be taken back, and is left out.
        """

    def fold(self, durable_ts: int) -> Callable[[], Install] | None:
        """
        What there is to do for a thread, or `None`; it returns what puts the result in its place.

        Args:
            durable_ts: what is staged after it may still be taken back.
        """


class LiveIndexes:
    """
    Those of one engine, by table and by number.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.took = Durations(*sorted(kind.value for kind in SEARCHED))
        """How long searches took, by the kind of their index; whoever searches counts it."""
        self._by_table: dict[int, tuple[LiveIndex, ...]] = {}
        self._by_id: dict[int, LiveIndex] = {}

    def add(self, index: LiveIndex) -> None:
        """From now on it is kept up, and answers."""
        self._by_id[index.info.index_id] = index
        number = index.info.table_number
        self._by_table[number] = (*self._by_table.get(number, ()), index)

    def remove(self, index_id: int) -> None:
        """From now on it is not kept up."""
        index = self._by_id.pop(index_id)
        index.retire()
        number = index.info.table_number
        left = tuple(one for one in self._by_table[number] if one is not index)
        if left:
            self._by_table[number] = left
        else:
            del self._by_table[number]

    def find(self, index_id: int) -> LiveIndex | None:
        """An index, if it answers."""
        return self._by_id.get(index_id)

    def of_table(self, table_number: int) -> Sequence[LiveIndex]:
        return self._by_table.get(table_number, ())

    def behind(self, writes: Iterable[RowWrite], bytes_max: int) -> LiveIndex | None:
        """An index of a table that is written which has over `bytes_max` to fold, if one has."""
        if not self._by_table:
            return None
        for number in {write.table_number for write in writes}:
            for index in self._by_table.get(number, ()):
                if index.unfolded_bytes > bytes_max:
                    return index
        return None

    def __iter__(self) -> Iterator[LiveIndex]:
        return iter(self._by_id.values())

    def stage(self, ts: int, writes: Iterable[RowWrite]) -> None:
        """Take in a commit."""
        if not self._by_table:
            return
        for write in writes:
            for index in self._by_table.get(write.table_number, ()):
                index.stage(ts, write)

    def roll_back(self, ts: int) -> None:
        """Forget what was staged after `ts`."""
        for index in self._by_id.values():
            index.roll_back(ts)
