"""
What there is to do to an index besides keeping it up: older documents are added, and what a push
dropped is removed, a slice at a time.  Dropped tables go the same way.

    fill      a record of kind BACKFILL a slice; its row of `_index` says how far it is
    sweep     a record of kind DROP a slice, or one that removes documents; what is left says how
              far it is

A slice is one transaction, so whoever goes on after a restart, or beside somebody else, goes on
after the last one.  A push fills what it needs itself.  What has time is done in the background:
staged indexes are filled, and dropped ones are swept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

import trio

from engine.committer.actor import Committer
from engine.errors import Overloaded, Stopped, StoreFull
from engine.functions.turns import Turns
from engine.indexes.catalog import (
    DROPPED,
    IN_PART,
    SEARCHED,
    IndexInfo,
    IndexKind,
    IndexState,
    TableInfo,
    index_of_row,
)
from engine.indexes.entries import Change, entry_key
from engine.indexes.keeper import IndexKeeper
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.model.codec import decode
from engine.model.commits import Kind, Source
from engine.model.limits import Limits
from engine.transaction.transaction import Transaction
from engine.transaction.view import View

trace = tracer(__name__)

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""What is being done, how much of it is done, and how much there is, if known."""

SLICE_ROWS: Final = 500
"""Rows of one slice, unless its time is up before: a few milliseconds of the lane, one record."""
DROPPED_ROWS: Final = 100
DROPPED_BYTES: Final = 1 << 20
"""Documents of a dropped table that one transaction removes, and logs; or their bytes, about."""
RETRY_S: Final = 30.0
"""Until the background tries again what the disk had no room for."""
FILLED_UPTO: Final = "filledUpto"
FILLED: Final = "filled"
"""Of a row of `_index`: the last row that has its entry, and how many were added one by one."""
SOURCE: Final = Source(path="_system:indexes")


class IndexUpkeep:
    """Fills and sweeps indexes: in the background, or for a push that waits for it."""

    def __init__(
        self,
        committer: Committer,
        turns: Turns,
        keeper: IndexKeeper,
        *,
        runtime: Runtime,
        limits: Limits,
    ) -> None:
        self._committer = committer
        self._turns = turns
        self._keeper = keeper
        self._runtime = runtime
        self._slice_s_max = limits.slice_s_max
        self._work = trio.Event()

    def wake(self) -> None:
        """There may be something to do in the background."""
        self._work.set()

    async def run(self) -> None:
        """Do what has time, whenever there is some of it."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            try:
                await self._catch_up()
            except (StoreFull, Overloaded) as error:
                trace.warning("indexes.put_off", error=str(error))
                await self._runtime.sleep(RETRY_S)
                self.wake()
            except Stopped:
                return

    async def _catch_up(self) -> None:
        await self.sweep()
        for row, index in self.indexes(IndexState.STAGING):
            await self.fill(row, _silent)
            trace.info("indexes.staged", index=index.name)

    def indexes(self, *states: IndexState) -> list[tuple[bytes, IndexInfo]]:
        """The indexes in one of these states, with their rows."""
        tables = self._committer.head.catalog.by_number.values()
        return [
            (index.row, index)
            for table in tables
            for index in table.indexes.values()
            if index.state in states and index.row is not None
        ]

    # Fill

    async def fill(self, row: bytes, progress: Progress) -> None:
        """
        See to it that an index has an entry for each document, unless somebody drops it.

        What is durable of it stays, whatever becomes of the caller.

        Raises:
            StoreFull: there is no room on the disk; the next time goes on from there.
        """
        for _, index in self.indexes(*IN_PART):
            if index.row == row and index.kind in SEARCHED:
                await self._keeper.wait_settled(index.index_id, self._telling(index, progress))
        end = await self._turns.write(partial(_last_row, row))
        while filled := await self._turns.repeat(partial(self._fill_slice, row, end)):
            progress(*filled)
            await self._runtime.pause("index.filled")

    def _telling(self, index: IndexInfo, progress: Progress) -> Callable[[int], None]:
        catalog = self._committer.head.catalog
        label = catalog.by_number[index.table_number].label
        return lambda done: progress(f"index {label}.{index.name}", done, None)

    async def _fill_slice(
        self, row: bytes, end: bytes, turn: Transaction
    ) -> tuple[str, int, int | None] | None:
        """Stage the entries of the next rows, up to `end`; how far it is, or None at the end."""
        doc = turn.get(row)
        if doc is None or (index := index_of_row(row, doc)).state not in IN_PART:
            return None
        after = doc[FILLED_UPTO] + b"\0" if FILLED_UPTO in doc else b""
        changes = list(self._additions(turn.view, index, after, end))
        if not changes:
            if index.state is IndexState.STAGING:
                turn.put_row(row, {**doc, "state": IndexState.STAGED.value})
                self._turns.stage(turn, SOURCE)
            return None
        last = changes[-1][2]
        assert last is not None, "entries are added"
        filled = doc.get(FILLED, 0) + len(changes)
        turn.put_row(row, {**doc, FILLED_UPTO: last[4:], FILLED: filled})
        covered = [index.index_id, after, last[4:]]
        self._turns.stage(turn, SOURCE, kind=Kind.BACKFILL, covered=covered, changes=changes)
        table = turn.catalog.by_number[index.table_number]
        return f"index {table.label}.{index.name}", filled, turn.count(table)

    def _additions(
        self, view: View, index: IndexInfo, after: bytes, end: bytes
    ) -> Iterator[Change]:
        """The entries of the next rows in the order of their internal ids."""
        if index.kind is not IndexKind.RANGE:
            return
        table = view.catalog.by_number[index.table_number]
        rows = view.entries(table.indexes["by_id"], after, end, reverse=False)
        until = self._runtime.monotonic() + self._slice_s_max / 2  # staging takes the other half
        for count, (internal, key) in enumerate(rows, 1):
            image = view.row(key)
            assert image is not None, "a row of by_id is there"
            yield index.prefix, entry_key(index, decode(image), internal), key
            if count == SLICE_ROWS or self._runtime.monotonic() > until:
                return

    # Sweep

    async def sweep(self) -> None:
        """
        Remove the entries of dropped indexes and the documents of dropped tables, also those that
        an earlier run left.

        Raises:
            StoreFull: there is no room on the disk; the next time goes on from there.
        """
        for row, index in self.indexes(IndexState.DROPPING):
            lower: bytes | None = b"" if index.kind is IndexKind.RANGE else None
            while lower is not None:
                lower = await self._turns.repeat(partial(self._drop_slice, index, lower))
                await self._runtime.pause("index.swept")
            await self._turns.write(partial(_remove_row, row), SOURCE)
        for table in self._committer.head.catalog.by_number.values():
            while table.is_dropping and await self._turns.write(
                partial(_remove_documents, table.number), SOURCE
            ):
                await self._runtime.pause("table.swept")

    async def _drop_slice(self, index: IndexInfo, lower: bytes, turn: Transaction) -> bytes | None:
        """Stage the removal of the next entries; returns where to go on, or None at the end."""
        changes: list[Change] = []
        for key, _ in turn.view.entries(index, lower, None, reverse=False):
            changes.append((index.prefix, key, None))
            if len(changes) == SLICE_ROWS:
                break
        if not changes:
            return None
        after = changes[-1][1] + b"\0"
        covered = [index.index_id, after]
        self._turns.stage(turn, SOURCE, kind=Kind.DROP, covered=covered, changes=changes)
        return after


def _last_row(row: bytes, turn: Transaction) -> bytes:
    """Past the last row that the index's table has: later ones are added as they are written."""
    doc = turn.get(row)
    if doc is None:
        return b""
    by_id = turn.catalog.by_number[int(doc["table"])].indexes["by_id"]
    last = next(iter(turn.view.entries(by_id, b"", None, reverse=True)), None)
    return last[0] + b"\0" if last else b""


def _remove_documents(number: int, turn: Transaction) -> bool:
    """Remove the next documents of a table; of one that has none, itself. Whether it had some."""
    table = turn.catalog.by_number.get(number)
    if table is None or any(i.state is IndexState.DROPPING for i in table.indexes.values()):
        return False  # such an index is swept first: nobody would know of its entries any more
    keys = list(_documents(turn, table))
    declared = [index.row for index in table.indexes.values() if index.row is not None]
    for key in keys or declared:
        turn.put_row(key, None)
    if not keys:
        assert table.row is not None, "a table of an application has a row"
        row = turn.get(table.row)
        assert row is not None, "it is in the catalog"
        turn.put_row(table.row, {**row, "state": DROPPED})
    return bool(keys)


def _documents(turn: Transaction, table: TableInfo) -> Iterator[bytes]:
    """The first rows of a table, as many as one transaction removes."""
    size = 0
    rows = turn.view.entries(table.indexes["by_id"], b"", None, reverse=False)
    for _, key in islice(rows, DROPPED_ROWS):
        yield key
        size += len(turn.view.row(key) or b"")
        if size > DROPPED_BYTES:
            return


def _remove_row(row: bytes, turn: Transaction) -> None:
    turn.put_row(row, None)


def _silent(_what: str, _done: int, _total: int | None) -> None:
    """Nobody waits for it."""
