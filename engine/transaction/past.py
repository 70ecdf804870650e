"""
Reads in the past: the present with everything that came since taken back.

The oldest before-image of a row among the records after `ts` is what the row
was at `ts`.  Going through these records takes time in proportion to how many
there are, so it is done in slices, and what was found for a timestamp is kept
for whoever asks for the same one again: then only newer records are added.
Who gives up half-way has lost nothing either.

    records after ts  ──▶  images, kept  ──▶  overlay on one snapshot  ──▶  view

The documents are those of then, found by the indexes of now: an index that is
kept up has an entry for every document there is, and what the overlay takes
back it takes back in each of them.  So one that was added since can be used,
and one that was dropped since cannot.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from engine.errors import OutOfRetention
from engine.indexes.catalog import INDEXES, TABLES, Catalog, TableInfo, index_of_row
from engine.indexes.snapshot import SharedSnapshot
from engine.log.records import decode_record
from engine.model.codec import decode
from engine.model.commits import RowWrite
from engine.transaction.overlay import Overlay
from engine.transaction.view import View

SLICE_RECORDS: Final = 128
"""Records read, or rows compared, between two chances to yield."""
SLICE_BYTES: Final = 256 << 10
"""Of records, likewise."""
ROW_BYTES: Final = 200
"""About what a row takes up besides its image."""

_CATALOG_ROWS: Final = (TABLES.to_bytes(4, "big"), INDEXES.to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class _Laid:
    """What a moment comes to on one snapshot; nobody changes it any more."""

    snapshot_ts: int
    overlay: Overlay
    catalog: Catalog


@dataclass(slots=True)
class _Moment:
    """
    The images that rows had at one timestamp, of all that changed until another.

    Several may add to it at a time: each goes through the records in order, so all up to
    `upto` are in it, and what is in it twice is the same.
    """

    upto: int
    images: dict[bytes, bytes | None] = field(default_factory=dict)
    size_bytes: int = 0
    laid: _Laid | None = None

    def take_back(self, writes: Collection[RowWrite], ts: int) -> None:
        """Add the record of `ts`."""
        for write in writes:
            if write.key not in self.images:
                self.images[write.key] = write.before
                self.size_bytes += len(write.before or b"") + ROW_BYTES
        self.upto = max(self.upto, ts)


class Past:
    """
    Views of timestamps before the newest.

    Args:
        bytes_max: of images that are kept, and of those of one timestamp.
        count_max: of timestamps that are kept.
    """

    def __init__(self, bytes_max: int, count_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._kept: OrderedDict[int, _Moment] = OrderedDict()

    def view(self, snapshot: SharedSnapshot, ts: int) -> Iterator[View | None]:
        """
        Yields `None` now and then, and in the end the view of `snapshot` as it was at `ts`.

        The snapshot stays leased meanwhile, and has the whole log for as long as it is.

        Raises:
            OutOfRetention: the log does not go back so far any more, or too much was changed since.
        """
        anchor_ts = snapshot.anchor_ts
        if ts < anchor_ts:
            raise OutOfRetention(
                f"ts {ts} is further back than the log is kept; the oldest is {anchor_ts} "
                "(log_age_s_max, log_bytes_max)"
            )
        moment = self._kept.setdefault(ts, _Moment(ts))
        self._kept.move_to_end(ts)
        for _ in self._follow(moment, ts, snapshot):
            yield None
        laid = moment.laid
        if laid is None or laid.snapshot_ts != snapshot.ts:
            overlay = Overlay()
            for _ in _lay(moment, snapshot, overlay):
                yield None
            laid = moment.laid = _Laid(snapshot.ts, overlay, _catalog_of(snapshot, overlay, ts))
        yield View(
            snapshot,
            begin_ts=ts,
            catalog=laid.catalog,
            counts=snapshot.counts,
            past=laid.overlay,
        )

    @staticmethod
    def with_its_catalog(view: View) -> View:
        """
        The view with the tables that there were then, for who writes.

        Indexes that were dropped since are left out: their entries are gone.
        """
        known = {prefix for table in view.catalog.by_number.values() for prefix in table.by_prefix}
        kept = [(key, image) for key, image in _rows_of(view) if _is_known(key, image, known)]
        return view.with_catalog(Catalog.of_rows(kept))

    def _follow(self, moment: _Moment, ts: int, snapshot: SharedSnapshot) -> Iterator[None]:
        """Take back what the moment does not have yet of what came until the snapshot."""
        count = size = 0
        for data in snapshot.log(moment.upto, snapshot.ts):
            record = decode_record(data)
            moment.take_back(record.writes, record.ts)
            count, size = count + 1, size + len(data)
            if count == SLICE_RECORDS or size >= SLICE_BYTES:
                count = size = 0
                self._make_room(moment, ts)
                yield
        moment.upto = max(moment.upto, snapshot.ts)
        self._make_room(moment, ts)

    def _make_room(self, moment: _Moment, ts: int) -> None:
        if moment.size_bytes > self._bytes_max:
            self._kept.pop(ts, None)
            raise OutOfRetention(
                f"rows of over {self._bytes_max:,} bytes were changed since ts {ts}, and no more "
                "may be taken back (past_bytes_max); ask for a newer ts"
            )
        while len(self._kept) > self._count_max or self._size_bytes > self._bytes_max:
            self._kept.popitem(last=False)

    @property
    def _size_bytes(self) -> int:
        return sum(moment.size_bytes for moment in self._kept.values())


def _lay(moment: _Moment, snapshot: SharedSnapshot, overlay: Overlay) -> Iterator[None]:
    """Lay over the snapshot what was otherwise."""
    for count, (key, image) in enumerate(list(moment.images.items()), 1):
        present = snapshot.row(key)
        if present != image:
            overlay.write(RowWrite(key, present, image))
        if count % SLICE_RECORDS == 0:
            yield


def _catalog_of(snapshot: SharedSnapshot, overlay: Overlay, ts: int) -> Catalog:
    """
    The tables of then by their numbers and names of then, with the indexes of now.

    Those that came later are there too, and are empty, unless they took a place that was taken.
    """
    now = snapshot.catalog
    if not any(key.startswith(_CATALOG_ROWS) for key in overlay.rows):
        return now
    view = View(snapshot, begin_ts=ts, catalog=now, counts=snapshot.counts, past=overlay)
    then = {
        number: _with_indexes_of(now, table)
        for number, table in Catalog.of_rows(_rows_of(view)).by_number.items()
    }
    later = {number: table for number, table in now.by_number.items() if number not in then}
    tables = [*later.values(), *then.values()]
    return replace(
        now,
        by_number={**later, **then},
        by_name={(t.component, t.name): t for t in tables if not t.is_dropping},
    )


def _with_indexes_of(now: Catalog, table: TableInfo) -> TableInfo:
    """
    The table of then, to be read with what there is now.

    One that is no more has only what every table has: its rows are all in the overlay.
    """
    same = now.by_number.get(table.number)
    if same is not None and same.row == table.row:
        return replace(same, is_dropping=table.is_dropping)
    every = {name: one for name, one in table.indexes.items() if one.row is None}
    return replace(table, indexes=every)


def _rows_of(view: View) -> Iterator[tuple[bytes, bytes]]:
    """What a catalog is made of: the rows of tables, then those of indexes."""
    for table_number in (TABLES, INDEXES):
        table = view.catalog.by_number[table_number]
        for _, key in view.entries(table.indexes["by_id"], b"", None, reverse=False):
            image = view.row(key)
            assert image is not None, "a row of by_id is there"
            yield key, image


def _is_known(key: bytes, image: bytes, known: Collection[bytes]) -> bool:
    if int.from_bytes(key[:4], "big") != INDEXES:
        return True
    return index_of_row(key, decode(image)).prefix in known
