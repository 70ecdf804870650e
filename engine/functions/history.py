"""The last executions, for whoever wants to know what the engine has been doing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import trio

from engine.model.limits import SHOWN_LENGTH_MAX
from engine.model.text import brief

EXECUTIONS_KEPT: Final = 1_000


class ExecutionRecord(NamedTuple):
    """One run of a function: what it cost and how it ended."""

    kind: str
    path: str
    component: str
    request_id: str
    ended_ns: int
    duration_ms: float
    error: str | None
    log_lines: tuple[str, ...]
    documents_read: int = 0
    bytes_read: int = 0
    documents_written: int = 0
    bytes_written: int = 0


class ExecutionLog:
    """A ring of the last executions that others can follow; cursors rise by one each."""

    def __init__(self) -> None:
        self._records: deque[tuple[int, ExecutionRecord]] = deque(maxlen=EXECUTIONS_KEPT)
        self._count = 0
        self._more = trio.lowlevel.ParkingLot()

    def add(self, record: ExecutionRecord) -> None:
        self._count += 1
        if len(record.path) > SHOWN_LENGTH_MAX or len(record.component) > SHOWN_LENGTH_MAX:
            record = record._replace(path=brief(record.path), component=brief(record.component))
        self._records.append((self._count, record))
        if self._more:
            self._more.unpark_all()

    def after(self, cursor: int) -> Iterator[tuple[int, ExecutionRecord]]:
        """Those kept that are later than `cursor`, oldest first."""
        return ((number, record) for number, record in self._records if number > cursor)

    async def wait_past(self, cursor: int) -> None:
        """Wait until there is one later than `cursor`."""
        while self._count <= cursor:
            await self._more.park()
