"""
Which rows are written from a timestamp on, for whoever walks rows while others write them.

The newest commits are in memory; whoever has fallen behind them reads the log, a slice at a time.
Either way each commit comes by once and in order, and none is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, TypeAlias

from engine.indexes.entries import Applied
from engine.indexes.snapshot import SharedSnapshot
from engine.log.recent import Recent
from engine.log.records import Record, decode_record

RecentCommits: TypeAlias = Recent[Applied]

SLICE_RECORDS: Final = 128
"""Records that are read from the log at a time: some five milliseconds."""
SLICE_BYTES: Final = 1 << 20
"""Or so many bytes, of large ones: as long."""


class WrittenRows:
    """
    Args:
        recent: the newest commits.
        ts: rows of every later commit come by.
    """

    def __init__(self, recent: RecentCommits, ts: int) -> None:
        self._recent = recent
        self.ts = ts
        """Up to here every commit has come by."""

    @property
    def is_outrun(self) -> bool:
        """Whether the next commits are to be read from the log."""
        return not self._recent.covers(self.ts)

    def next_rows(self, snapshot: SharedSnapshot) -> list[bytes]:
        """
        Keys of the rows that the next commits wrote, a row as often as it was written.

        These are all commits up to `snapshot` if `ts` is its timestamp afterwards.
        """
        assert snapshot.ts >= self.ts, "snapshots only become newer"
        return self._from_log(snapshot) if self.is_outrun else self._from_memory(snapshot)

    def _from_memory(self, snapshot: SharedSnapshot) -> list[bytes]:
        after, self.ts = self.ts, snapshot.ts
        commits = self._recent.between(after, snapshot.ts)
        return [key for commit in commits for key in commit.rows]

    def _from_log(self, snapshot: SharedSnapshot) -> list[bytes]:
        assert self.ts >= snapshot.anchor_ts, "what is followed stays for `log_age_s_min`"
        records = _slice(snapshot.log(self.ts, snapshot.ts))
        if records:
            self.ts = records[-1].ts
        return [write.key for record in records for write in record.writes]


def _slice(log: Iterator[bytes]) -> list[Record]:
    records, size = [], 0
    for data in islice(log, SLICE_RECORDS):
        records.append(decode_record(data))
        size += len(data)
        if size >= SLICE_BYTES:
            break
    return records
