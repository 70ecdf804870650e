"""
What one function sees: a snapshot, plus what is staged, or minus what came since.

    own writes        (the transaction's, not the view's)
    staged versions   up to `begin_ts`, for mutations
    sheets            of rows as they were, for reads in the past
    snapshot          one published timestamp, leased

A view never changes while a function holds it, however often the function
yields: a staged version stays in memory until no view is older than it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from engine.indexes.buckets import Buckets
from engine.indexes.catalog import Catalog, IndexInfo
from engine.indexes.counts import Counts
from engine.indexes.live import LiveIndex
from engine.indexes.snapshot import SharedSnapshot
from engine.indexes.stored import Entry
from engine.transaction.overlay import OverlayEntry, merged

FOLLOWED_AT_ONCE: Final = 256
"""Rows that are looked at for an index between two chances to yield."""
NOWHERE: Final = b""
"""The row key of an entry that is none: so far nothing was found, and there may be a lot to go."""

Version = tuple[int, bytes | None]
"""A timestamp, and the image that a row has from there on."""


class StagedVersions(Protocol):
    """Writes that are staged, as the committer keeps them."""

    @property
    def rows(self) -> Mapping[bytes, Sequence[Version]]:
        """The images of each row that are staged, oldest first."""

    def entries(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, *, reverse: bool, upto: int
    ) -> Iterator[OverlayEntry]:
        """What is staged for an interval of an index."""


class TakenBack(Protocol):
    """What lies between a view of the past and its snapshot."""

    def row(self, key: bytes) -> bytes | None:
        """The image that a row had."""

    def prepare(self, index: IndexInfo, rows_max: int) -> bool:
        """Work out some of what `entries` of an index need; whether that was all of it."""

    def entries(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
        buckets: Buckets | None,
    ) -> Iterator[Entry]:
        """As `View.entries`."""


class View:
    """
    An immutable state of the database.

    Args:
        begin_ts: the newest commit it shows.
        counts: rows of each table at `begin_ts`.
        generation: the committer's at the time; a failed batch raises it, and
            whatever this view has shown is then to be thrown away.
        is_validated: others may commit meanwhile, so what was read from this view is
            compared with their commits before it is committed itself.
        is_as_of: somebody asked for the past; a query that began before the newest commit
            may be shown its state in the same way, and is not to notice.
    """

    __slots__ = (
        "_staged",
        "begin_ts",
        "catalog",
        "counts",
        "generation",
        "is_as_of",
        "is_validated",
        "past",
        "snapshot",
    )

    def __init__(
        self,
        snapshot: SharedSnapshot,
        *,
        begin_ts: int,
        catalog: Catalog,
        counts: Counts,
        staged: StagedVersions | None = None,
        past: TakenBack | None = None,
        generation: int = 0,
        is_validated: bool = False,
        is_as_of: bool = False,
    ) -> None:
        self.snapshot = snapshot
        self._staged = staged
        self.past = past
        self.begin_ts = begin_ts
        self.catalog = catalog
        self.counts = counts
        self.generation = generation
        self.is_validated = is_validated
        self.is_as_of = is_as_of

    def as_of(self) -> View:
        """The same state, for somebody who asked for the past."""
        changed = self.with_catalog(self.catalog)
        changed.is_as_of = True
        return changed

    def with_catalog(self, catalog: Catalog) -> View:
        """The same state under another catalog."""
        return View(
            self.snapshot,
            begin_ts=self.begin_ts,
            catalog=catalog,
            counts=self.counts,
            staged=self._staged,
            past=self.past,
            generation=self.generation,
            is_validated=self.is_validated,
            is_as_of=self.is_as_of,
        )

    def live(self, index: IndexInfo) -> LiveIndex | None:
        """A text or vector index that answers for this state; `None` if none does."""
        found = self.snapshot.live.find(index.index_id)
        return found if found is not None and found.floor_ts <= self.begin_ts else None

    def count_search(self, kind: str, began: float) -> None:
        """
        Count a search that has ended, with the turns that others had meanwhile.

        Args:
            kind: the value of that of its index.
            began: what `clock` said then.
        """
        live = self.snapshot.live
        live.took.add(kind, live.clock() - began)

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, monotonic."""
        return self.snapshot.live.clock

    @property
    def snapshot_ts(self) -> int:
        return self.snapshot.ts

    def check_age(self) -> None:
        self.snapshot.check_age()

    def row(self, row_key: bytes) -> bytes | None:
        """The encoded document of a row, or `None`."""
        if self._staged is not None:
            if (versions := self._staged.rows.get(row_key)) is not None:
                for ts, image in reversed(versions):
                    if ts <= self.begin_ts:
                        return image
        elif self.past is not None:
            return self.past.row(row_key)
        return self.snapshot.row(row_key)

    def row_reader(self) -> Callable[[bytes], bytes | None]:
        """`row` by the shortest way."""
        if self.past is not None:
            return self.past.row
        return self.snapshot.row if self._staged is None else self.row

    def prepare(self, index: IndexInfo) -> bool:
        """
        Work out a part of what `entries` of `index` need; whether that was all of it.

        A view of the past has many rows to look at for an index that nobody has read in it yet.
        """
        return self.past is None or self.past.prepare(index, FOLLOWED_AT_ONCE)

    def count(self, table_number: int) -> int:
        """How many rows a table has."""
        return self.counts.get(table_number, 0)

    def entries(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
        buckets: Buckets | None = None,
    ) -> Iterator[Entry]:
        """
        Entries of `index` in `[lower, upper)`, in order; read to the end or dropped at once.

        In the past, where many rows were otherwise, some lead to `NOWHERE`: whoever reads should
        let others have their turn, and go on behind the key of such a one.
        """
        if self.past is not None:
            return self.past.entries(index, lower, upper, reverse=reverse, buckets=buckets)
        below = self.snapshot.entries(index, lower, upper, reverse=reverse, buckets=buckets)
        if self._staged is not None:
            above = self._staged.entries(index, lower, upper, reverse=reverse, upto=self.begin_ts)
            return merged(below, above, reverse=reverse)
        return below


def view_of(snapshot: SharedSnapshot) -> View:
    """What is durable and published, and nothing else."""
    return View(snapshot, begin_ts=snapshot.ts, catalog=snapshot.catalog, counts=snapshot.counts)
