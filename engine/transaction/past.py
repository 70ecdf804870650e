"""
Reads in the past: the present with everything that came since taken back.

The oldest before-image of a row among the records after `ts` is what the row
was at `ts`.  Going through these records takes time in proportion to how many
there are, so it is done in slices, and what was found for a timestamp is kept
for whoever asks for the same one again: then only newer records are added.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from engine.indexes.snapshot import SharedSnapshot
from engine.log.records import decode_record
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
        """
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

    def _keep(self, ts: int, moment: _Moment) -> None:
        if len(moment.images) <= KEPT_ROWS_MAX:
            self._kept[ts] = moment
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
