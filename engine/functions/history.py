"""
The last executions, for whoever wants to know what the engine has been doing.

    async for number, record in executions.follow(): ...      in this process
    as_json(record), of_json(...)                              for programs elsewhere
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, Final, Literal, NamedTuple

import trio

from engine.errors import Conflict
from engine.functions.results import Origin
from engine.kernel.counters import Labels
from engine.model.limits import SHOWN_LENGTH_MAX
from engine.model.text import brief

COUNTED_MAX: Final = 5_000
"""Functions that are counted apart: pushes may bring others again and again."""
OTHERS: Final = "(others)"
FORMAT: Final = 1
"""Of `as_json`: rises when a name goes or means something else, not when one is added."""


class Retry(NamedTuple):
    """A run that was thrown away, of which nobody was told; of a conflict also with what."""

    reason: Literal["batch refused", "snapshot too old", "timestamp too early", "conflict"]
    table: str = ""
    document: str = ""
    index_name: str = ""
    writer: str = ""
    commit_ts: int | None = None

    @staticmethod
    def after(conflict: Conflict) -> Retry:
        return Retry(
            "conflict",
            conflict.table,
            conflict.document,
            conflict.index,
            conflict.writer,
            conflict.ts or None,
        )


BATCH_REFUSED: Final = Retry("batch refused")
SNAPSHOT_TOO_OLD: Final = Retry("snapshot too old")
TIMESTAMP_TOO_EARLY: Final = Retry("timestamp too early")


@dataclass(slots=True)
class Way:
    """What a call met before it was answered, besides its own run."""

    queued: int = 0
    """How many waited for their turn when it came, and had to wait too."""
    queue_ms: float = 0.0
    retries: tuple[Retry, ...] = ()
    commit_ms: float = 0.0


class ExecutionRecord(NamedTuple):
    """
    One run of a function: what it cost and how it ended; or its answers from the cache.

    Bytes, documents and times are those of the last run, the calls nested in it included.
    """

    kind: str
    path: str
    component: str
    request_id: str
    origin: Origin
    ended_ns: int
    duration_ms: float
    """Of the run."""
    error: str | None
    log_lines: tuple[str, ...]
    user_ms: float = 0.0
    """Of that the application's own code, and below what the engine did for it."""
    engine_ms: float = 0.0
    queued: int = 0
    queue_ms: float = 0.0
    """Waiting for the lane, or for a place among the actions."""
    commit_ms: float = 0.0
    """From the end of the run until its answer was durable and could be given."""
    commit_ts: int | None = None
    """Of a mutation: its commit, or what it has read if it wrote nothing."""
    retries: tuple[Retry, ...] = ()
    documents_read: int = 0
    bytes_read: int = 0
    ranges_read: int = 0
    documents_written: int = 0
    bytes_written: int = 0
    functions_scheduled: int = 0
    scheduled_args_bytes: int = 0
    args_bytes: int = 0
    result_bytes: int = 0
    cached: int = 0
    """How many answers from the cache this stands for; nothing ran for them."""


class ExecutionLog:
    """
    A ring of the last executions that others can follow; cursors rise by one each.

    Args:
        kept_max: how many.
        bytes_max: of what they have printed, all together; the newest is kept whatever its size.
        uncounted: answers from the cache since it was called last, a record a function. Asked
            when somebody looks: a record for each would cost more than the answer.
        is_deployed: whether there is a function, by component and path; what is called and is not
            there is counted as one.
    """

    def __init__(
        self,
        kept_max: int,
        bytes_max: int,
        uncounted: Callable[[], Iterable[ExecutionRecord]] = tuple,
        is_deployed: Callable[[str, str], bool] = lambda _component, _path: True,
    ) -> None:
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        """Since the engine was opened, by kind, path and component."""
        self._records: deque[tuple[int, ExecutionRecord]] = deque()
        self._bytes = 0
        self._kept_max = kept_max
        self._bytes_max = bytes_max
        self._count = 0
        self._uncounted = uncounted
        self._is_deployed = is_deployed
        self._more = trio.lowlevel.ParkingLot()

    def add(self, record: ExecutionRecord) -> None:
        self._count += 1
        if len(record.path) > SHOWN_LENGTH_MAX or len(record.component) > SHOWN_LENGTH_MAX:
            record = record._replace(path=brief(record.path), component=brief(record.component))
        self._tally(record)
        records = self._records
        records.append((self._count, record))
        if record.log_lines or record.error is not None:
            self._bytes += _size_of(record)
        if len(records) > self._kept_max or self._bytes > self._bytes_max:
            self._forget()
        if self._more:
            self._more.unpark_all()

    def _tally(self, record: ExecutionRecord) -> None:
        called = record[:3]
        tally = self._tallies.get(called)
        if tally is None:
            is_there = self._is_deployed(record.component, record.path)
            if not is_there or len(self._tallies) >= COUNTED_MAX:
                called = (record.kind, OTHERS, "")
            tally = self._tallies.setdefault(called, _Tally())
        if record.cached:
            tally.cached += record.cached
        elif record.error is None:
            tally.success += 1
        else:
            tally.failed += 1

    def _forget(self) -> None:
        """Drop the oldest, as many as are too many."""
        records = self._records
        while len(records) > self._kept_max or (self._bytes > self._bytes_max and len(records) > 1):
            _, oldest = records.popleft()
            if oldest.log_lines or oldest.error is not None:
                self._bytes -= _size_of(oldest)

    def after(self, cursor: int) -> Iterator[tuple[int, ExecutionRecord]]:
        """Those kept that are later than `cursor`, oldest first."""
        self.catch_up()
        return ((number, record) for number, record in self._records if number > cursor)

    def catch_up(self) -> None:
        """Have answers from the cache among those that are kept and counted."""
        for record in self._uncounted():
            self.add(record)

    def counts(self) -> dict[Labels, float]:
        """How many there were since the engine was opened, by function and how they ended."""
        self.catch_up()
        return {
            (("function", of_component(component, path)), ("kind", kind), ("state", state)): count
            for (kind, path, component), tally in self._tallies.items()
            for state, count in tally.by_state()
            if count
        }

    async def follow(self, cursor: int = 0) -> AsyncIterator[tuple[int, ExecutionRecord]]:
        """Those kept that are later than `cursor`, and then each that comes; never ends."""
        while True:
            for number, record in list(self.after(cursor)):
                cursor = number
                yield number, record
            await self.wait_past(cursor)

    async def wait_past(self, cursor: int) -> None:
        """Wait until there is one later than `cursor`."""
        while self._count <= cursor:
            await self._more.park()


class _Tally:
    """How often a function ended in which way."""

    __slots__ = ("cached", "failed", "success")

    def __init__(self) -> None:
        self.cached = self.failed = self.success = 0

    def by_state(self) -> Iterator[tuple[str, int]]:
        return ((state, getattr(self, state)) for state in self.__slots__)


def of_component(component: str, path: str) -> str:
    """A function as numbers name it: by its path, and before it the component, if it is of one."""
    return f"{component}: {path}" if component else path


def _size_of(record: ExecutionRecord) -> int:
    """In memory, of what has no small bound: what was printed, and the error."""
    size = getsizeof(record.error)
    for line in record.log_lines:
        size += getsizeof(line)
    return size


# For programs elsewhere.


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


_NAMES: Final = {name: _camel(name) for name in ExecutionRecord._fields}
_RETRY_NAMES: Final = {name: _camel(name) for name in Retry._fields}
_IN_DIGITS: Final = ("ended_ns", "commit_ts")
"""Nanoseconds, which are too many for a number of JavaScript's."""


def as_json(record: ExecutionRecord) -> dict[str, Any]:
    """A record as a JSON object that says which format it has."""
    found = _spelled(record, _NAMES)
    found["retries"] = [_spelled(retry, _RETRY_NAMES) for retry in record.retries]
    return {"version": FORMAT, **found}


def of_json(found: Mapping[str, Any]) -> ExecutionRecord:
    """What `as_json` made, also by another release: names that are not known are left out."""
    values = _read(found, _NAMES)
    retries = found.get("retries", ())
    values["retries"] = tuple(Retry(**_read(each, _RETRY_NAMES)) for each in retries)
    values["log_lines"] = tuple(values["log_lines"])
    return ExecutionRecord(**values)


def _spelled(values: ExecutionRecord | Retry, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        spelling: str(value) if name in _IN_DIGITS and value is not None else value
        for (name, spelling), value in zip(names.items(), values, strict=True)
    }


def _read(found: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: int(found[spelling]) if name in _IN_DIGITS and found[spelling] else found[spelling]
        for name, spelling in names.items()
        if spelling in found
    }
