"""
Reads in the past: the present with everything that came since taken back.

The oldest before-image of a row among the records after `ts` is what the row
was at `ts`.  Going through these records takes time in proportion to how many
there are, so it is done in slices, and what was found for a timestamp is kept
for whoever asks for the same one again: then only newer records are added.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from engine.errors import OutOfRetention
from engine.indexes.catalog import INDEXES, TABLES, Catalog, index_of_row
from engine.indexes.snapshot import SharedSnapshot
from engine.log.records import decode_record
from engine.model.codec import decode
from engine.model.commits import RowWrite
from engine.transaction.overlay import Overlay
from engine.transaction.view import View

SLICE_RECORDS: Final = 128
"""Records read, or rows compared, between two chances to yield."""
KEPT_MAX: Final = 8
KEPT_ROWS_MAX: Final = 50_000


@dataclass(slots=True)
class _Moment:
    """The images that rows had at one timestamp, of all that changed until another."""

    upto: int
    images: dict[bytes, bytes | None] = field(default_factory=dict)


class Past:
    """Views of timestamps before the newest."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, _Moment] = OrderedDict()

    def view(self, snapshot: SharedSnapshot, ts: int) -> Iterator[View | None]:
        """
        Yields `None` now and then, and in the end the view of `snapshot` as it was at `ts`.

        The snapshot stays leased meanwhile.

        Raises:
            OutOfRetention: the log does not go back so far any more.
        """
        anchor_ts = snapshot.anchor_ts
        if ts < anchor_ts:
            raise OutOfRetention(
                f"ts {ts} is further back than the log is kept; the oldest is {anchor_ts} "
                "(log_age_s_max, log_bytes_max)"
            )
        moment = self._kept.pop(ts, None)
        if moment is None or moment.upto > snapshot.ts:
            moment = _Moment(ts)
        for count, data in enumerate(snapshot.log(moment.upto, snapshot.ts), 1):
            for write in decode_record(data).writes:
                moment.images.setdefault(write.key, write.before)
            if count % SLICE_RECORDS == 0:
                yield None
        moment.upto = snapshot.ts
        self._keep(ts, moment)
        overlay = Overlay()
        for count, (key, image) in enumerate(list(moment.images.items()), 1):
            overlay.write(RowWrite(key, snapshot.row(key), image))
            if count % SLICE_RECORDS == 0:
                yield None
        yield View(
            snapshot,
            begin_ts=ts,
            catalog=snapshot.catalog,
            counts=snapshot.counts,
            past=overlay,
        )

    @staticmethod
    def with_its_catalog(view: View) -> View:
        """
        The view with the tables that there were then, for who writes.

        Indexes that were dropped since are left out: their entries are gone.
        """
        rows = [*_rows_of(view, TABLES), *_rows_of(view, INDEXES)]
        known = {prefix for table in view.catalog.by_number.values() for prefix in table.by_prefix}
        kept = [(key, image) for key, image in rows if _is_known(key, image, known)]
        return view.with_catalog(Catalog.of_rows(kept))

    def _keep(self, ts: int, moment: _Moment) -> None:
        if len(moment.images) <= KEPT_ROWS_MAX:
            self._kept[ts] = moment
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)


def _rows_of(view: View, table_number: int) -> Iterator[tuple[bytes, bytes]]:
    table = view.catalog.by_number[table_number]
    for _, key in view.entries(table.indexes["by_id"], b"", None, reverse=False):
        image = view.row(key)
        assert image is not None, "a row of by_id is there"
        yield key, image


def _is_known(key: bytes, image: bytes, known: Collection[bytes]) -> bool:
    if int.from_bytes(key[:4], "big") != INDEXES:
        return True
    return index_of_row(key, decode(image)).prefix in known
