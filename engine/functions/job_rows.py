"""
Rows of `_scheduled_functions`: one for each job, from when it is scheduled to when it is forgotten.

`due` tells where a job stands, so that one index, `by_due`, is all that the scheduler has to read,
and whoever collects old ones:

    null        an action that has begun
    an Int64    ended, at that time
    a number    pending; may run from that time on

Times are milliseconds since 1970.  Kinds of values have an order, so each of the three lies
together; and each component's jobs do, so that none has to wait behind those of another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from engine.functions.sweeping import Room
from engine.indexes.catalog import JOBS_BY_DUE, SCHEDULED_FUNCTIONS
from engine.model.keys import NUMBER_KEY_BYTES, decode_key, encode_key, end_of_values, past
from engine.model.values import INT64_MIN, Int64, Value, normalize
from engine.transaction.transaction import Transaction
from engine.transaction.view import View

PENDING: Final = "pending"
IN_PROGRESS: Final = "inProgress"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CANCELED: Final = "canceled"

FORGOTTEN_ROWS: Final = 256
"""Jobs that one transaction removes."""

_REQUEST: Final = "job-"

Interval: TypeAlias = tuple[bytes, bytes]


class Standing(NamedTuple):
    """Intervals of `by_due` with the jobs of one component, by where they stand."""

    prefix: bytes
    """With which the keys of all of them begin."""

    @property
    def begun(self) -> Interval:
        """Actions that have begun."""
        key = self._at(None)
        return key, past(key)

    @property
    def ended(self) -> Interval:
        """Jobs that ended, oldest first."""
        return self._at(Int64(INT64_MIN)), self._at(-math.inf)

    @property
    def pending(self) -> Interval:
        """Jobs that wait, by when they are due."""
        return self._at(-math.inf), past(self.prefix)

    def pending_until(self, now_ms: float) -> Interval:
        """Of those that wait, what is due at `now_ms`."""
        return self._at(-math.inf), past(self._at(normalize(float(now_ms))))

    def due_ms(self, place: bytes) -> float:
        """When a job that waits is due, by its key."""
        begin = len(self.prefix)
        (due,) = decode_key(place[begin : begin + NUMBER_KEY_BYTES])
        assert isinstance(due, int | float), "of those that wait it is a number"
        return due

    def ended_before(self, ms: float) -> Interval:
        """Of those that ended, what did so before `ms`."""
        return self._at(Int64(INT64_MIN)), self._at(Int64(math.floor(ms)))

    def _at(self, due: Value) -> bytes:
        return self.prefix + encode_key([due])


def standing(component: str) -> Standing:
    """Where the jobs of a component stand in `by_due`."""
    found = Standing(encode_key([component]))
    ends = (found.begun[1], *found.ended, *found.pending)
    assert list(ends) == sorted(ends), "the three lie apart"
    return found


def components_of(view: View) -> Iterator[str]:
    """The components that have jobs, by name: one seek each, however many jobs there are."""
    lower = b""
    while found := next(view.entries(JOBS_BY_DUE, lower, None, reverse=False), None):
        end = end_of_values(found[0], 1)
        (component,) = decode_key(found[0][:end])
        yield str(component)
        lower = past(found[0][:end])


def forget_jobs(turn: Transaction, components: Iterable[str]) -> int:
    """Remove jobs of some components, whatever their state: a slice; returns how many."""
    room = Room(FORGOTTEN_ROWS)
    for component in components:
        prefix = standing(component).prefix
        if count := drop_jobs(turn, prefix, past(prefix), room):
            return count
    return 0


def drop_jobs(turn: Transaction, lower: bytes, upper: bytes, room: Room) -> int:
    """Remove the jobs in an interval of `by_due` for which there is room; returns how many."""
    count = 0
    for _, key in turn.view.entries(JOBS_BY_DUE, lower, upper, reverse=False):
        if not room.is_left:
            break
        image = turn.view.row(key)
        assert image is not None, "an entry leads to a row"
        room.take(len(image))
        turn.put_row(key, None)
        count += 1
    return count


def add_job(
    transaction: Transaction,
    *,
    owner: str,
    component: str,
    path: str,
    args: Mapping[str, Any],
    due_ms: float,
    cron: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> str:
    """
    Add a pending job and return its id.

    Args:
        owner: the component whose job it is.
        component: the component whose function runs.
        args: canonical values.
        due_ms: milliseconds since 1970.
        cron: the id of the cron that it is a tick of.
        more: of an action that is tried again, how.
    """
    # What is asked for the past has waited since now, and waits behind what is overdue.
    due = normalize(max(float(due_ms), float(transaction.now_ms)))
    row: dict[str, Any] = {
        "name": path,
        "component": owner,
        "target": component,
        "args": [dict(args)],
        "scheduledTime": normalize(float(due_ms)),
        "state": {"kind": PENDING},
        "due": due,
    }
    if cron is not None:
        row["cron"] = cron
    row.update(more or {})
    return transaction.insert_row(transaction.catalog.by_number[SCHEDULED_FUNCTIONS], row)


def pending_again(job: Mapping[str, Any], due_ms: float) -> dict[str, Any]:
    """The row of a job that has begun, and waits for another time."""
    return {**job, "state": {"kind": PENDING}, "due": normalize(float(due_ms))}


def request_of(job_id: str) -> str:
    """The id of the request that is the run of a job."""
    return f"{_REQUEST}{job_id}"


def job_of(request_id: str) -> str | None:
    """The id of the job whose run a request is, if it is one."""
    return request_id.removeprefix(_REQUEST) if request_id.startswith(_REQUEST) else None


def is_pending(job: Mapping[str, Any] | None) -> bool:
    """Whether a job is there and has not begun."""
    return job is not None and job["state"]["kind"] == PENDING


def is_job_key(key: bytes) -> bool:
    """Whether a row, which may be gone, is one of a job."""
    return int.from_bytes(key[:4], "big") == SCHEDULED_FUNCTIONS
