"""
Jobs, as the scheduler sees them: which are due, and how each is run to its end.

A mutation runs exactly once: its writes and the end of its job are one
transaction.  An action runs at most once: it is marked as begun before it
begins, and one that is found begun after a restart has failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeAlias

import trio

from engine.app.registered import Kind
from engine.errors import DocumentNotFound, Overloaded, StoreFull
from engine.functions.crons import (
    CRONS_SLICE_ROWS,
    Skipping,
    is_tick,
    skip_missed,
    stored_crons,
    unregister,
)
from engine.functions.due_jobs import DueJobs, Job, as_job
from engine.functions.execute import Request
from engine.functions.job_rows import (
    CANCELED,
    FAILED,
    IN_PROGRESS,
    PENDING,
    SUCCESS,
    components_of,
    is_job_key,
    is_pending,
    standing,
)
from engine.functions.mutations import JobResult, job_request
from engine.functions.run import Functions
from engine.functions.scheduling import begin_job, end_action, finish_job
from engine.functions.sweeping import Room
from engine.functions.turns import unbounded
from engine.indexes.catalog import JOBS_BY_DUE
from engine.indexes.snapshot import Snapshots
from engine.indexes.written import RecentCommits
from engine.kernel.runtime import Runtime
from engine.kernel.trace import traceback_of, tracer
from engine.model.ids import id_of, row_key_of
from engine.model.limits import Limits
from engine.model.values import UNDEFINED, size_of
from engine.subscriptions.handle import Subscriptions
from engine.transaction.scan import Plan, Scan
from engine.transaction.transaction import Transaction
from engine.transaction.usage import Usage
from engine.transaction.view import View, view_of

trace = tracer(__name__)

LISTED_ROWS_MAX: Final = 100_000
"""Of a component, that one look for an operator goes through: a third of a second, in slices."""
LISTED_SLICE_ROWS: Final = 1_000
TURN_ROWS: Final = 200
"""Jobs that one transaction ends."""

INTERRUPTED: Final = (
    "the engine stopped while this action ran; it may have done a part of its work, "
    "so it is not run again"
)
LOST: Final = (
    "the engine failed while this action ran; it may have done a part of its work, "
    "so it is not run again"
)


Ended: TypeAlias = str | None
"""
What a job is after a run: "success" or "failed"; "pending" if it is tried again later; "canceled"
if it was while it ran; `None` if it was canceled before, or is of another kind by now, and was left
alone.
"""


class Listed(NamedTuple):
    """Rows of jobs that an operator asked for."""

    rows: list[dict[str, Any]]
    looked_at: int
    """How many of that state were gone through."""
    is_whole: bool
    """Whether that were all, or as many were found as were asked for."""


NextJob: TypeAlias = Callable[[], Awaitable[Job | None]]
"""Takes the job that begins now; `None` for no more."""


class Jobs:
    """
    The jobs of one engine.

    Attributes:
        due: those that are to be begun.
    """

    def __init__(
        self,
        functions: Functions,
        *,
        snapshots: Snapshots,
        subscriptions: Subscriptions,
        recent: RecentCommits,
        runtime: Runtime,
        limits: Limits,
    ) -> None:
        self._functions = functions
        self._snapshots = snapshots
        self._runtime = runtime
        self._limits = unbounded(limits)
        self.due = DueJobs(
            lambda: functions.deployment.application,
            recent=recent,
            snapshots=snapshots,
            subscriptions=subscriptions,
            runtime=runtime,
            limits=limits,
        )

    def _is_mounted(self, component: str) -> bool:
        """Jobs of a component that is not mounted wait until it is, or they are deleted with it."""
        return self._functions.deployment.application.at(component) is not None

    async def next_due_ms(self) -> float | None:
        """When the first pending job that is no tick of a cron is due."""
        first = await self.rows(PENDING, 1, lambda _: True)
        return first[0]["due"] if first else None

    async def rows(
        self, state: str, count: int, accepts: Callable[[dict[str, Any]], bool]
    ) -> list[dict[str, Any]]:
        """The rows of `listed`."""
        return (await self.listed(state, count, accepts)).rows

    async def listed(
        self, state: str, count: int, accepts: Callable[[dict[str, Any]], bool]
    ) -> Listed:
        """
        The first rows of a state that are no ticks of crons: those that wait by when they are due,
        those that ended newest first.

        Of each component it goes through `LISTED_ROWS_MAX`, and says if there are more.
        """

        def is_asked_for(job: dict[str, Any]) -> bool:
            return not is_tick(job) and job["state"]["kind"] == state and accepts(job)

        has_ended = state not in (PENDING, IN_PROGRESS)
        found: list[dict[str, Any]] = []
        looked_at, is_whole = 0, True
        snapshot = self._snapshots.acquire()
        try:
            reader = self._reader(view_of(snapshot))
            for component in components_of(reader.view):
                stand = standing(component)
                where = {PENDING: stand.pending, IN_PROGRESS: stand.begun}
                lower, upper = where.get(state, stand.ended)
                plan = Plan(
                    index=JOBS_BY_DUE,
                    lower=lower,
                    upper=upper,
                    reverse=has_ended,
                    predicates=(is_asked_for,),
                )
                scan, left = Scan(reader, plan, LISTED_SLICE_ROWS), count
                while left and not scan.is_exhausted and len(scan.keys) < LISTED_ROWS_MAX:
                    some = scan.read(left)
                    found += some
                    left -= len(some)
                    await trio.lowlevel.checkpoint()
                looked_at += len(scan.keys)
                is_whole = is_whole and (scan.is_exhausted or not left)
        finally:
            self._snapshots.release(snapshot)
        order = {PENDING: "due", IN_PROGRESS: "scheduledTime"}.get(state, "completedTime")
        rows = sorted(found, key=lambda job: job[order], reverse=has_ended)[:count]
        return Listed(rows, looked_at, is_whole)

    def row(self, job_id: str) -> dict[str, Any] | None:
        """
        The row of a job, if it is there.

        Raises:
            InvalidId: not an id at all.
        """
        key = row_key_of(job_id)
        snapshot = self._snapshots.acquire()
        try:
            return self._reader(view_of(snapshot)).get(key) if is_job_key(key) else None
        finally:
            self._snapshots.release(snapshot)

    async def crons(self) -> list[dict[str, Any]]:
        """The rows of all crons, by component and name."""
        found: list[dict[str, Any]] = []
        snapshot = self._snapshots.acquire()
        try:
            for row in stored_crons(self._reader(view_of(snapshot))):
                found.append(row)
                if len(found) % CRONS_SLICE_ROWS == 0:
                    await trio.lowlevel.checkpoint()
        finally:
            self._snapshots.release(snapshot)
        return found

    async def forget_cron(self, component: str, name: str) -> bool:
        """
        Remove a cron that a function registered, durably; returns whether it was there.

        Raises:
            InvalidValue: it is declared in the application.
        """
        return await self._functions.turns.write(lambda turn: unregister(turn, component, name))

    async def skip_missed(self, place: bytes, until_ms: float) -> Skipping:
        """A slice of `crons.skip_missed`, durably."""
        return await self._functions.turns.write(lambda turn: skip_missed(turn, place, until_ms))

    async def cancel(self, job_id: str) -> bool:
        """
        Cancel a job of whatever component, durably; returns whether it had not ended.

        Raises:
            InvalidId, DocumentNotFound: there is no such job.
        """
        key = row_key_of(job_id)
        return await self._functions.turns.write(lambda turn: _cancel(turn, key))

    async def run_mutations(self, next_job: NextJob) -> list[Ended | Exception]:
        """
        Run mutations to their ends, one after another; what they do becomes durable together.

        Returns:
            Of each, in order, what it is then, or why the engine could not run it, and it is
            pending.
        """

        async def next_key() -> bytes | None:
            job = await next_job()
            return None if job is None else job.key

        results = await self._functions.run_jobs(next_key)
        return [_ended(result) for result in results]

    async def run_action(self, job: Job) -> Ended:
        """
        Run an action to its end, which is durable when this returns; failing is an end too.

        Raises:
            EngineError: the engine could not begin it.
        """
        request = await self._functions.turns.write(lambda turn: self._begin(turn, job.key))
        return None if request is None else await self._end(job.key, *await self._act(request))

    def skipped_by(self, tick: Job) -> int:
        """How many times of its cron a tick that has ended just now was too late for."""
        assert tick.cron is not None, "a tick is of a cron"
        snapshot = self._snapshots.acquire()
        try:
            row = self._reader(view_of(snapshot)).get(row_key_of(tick.cron))
        finally:
            self._snapshots.release(snapshot)
        runs = row.get("runs") if row is not None else None
        return int(runs[-1]["skipped"]) if runs else 0

    async def fail_interrupted(self) -> list[tuple[Job, Ended]]:
        """End the actions that an earlier run of the engine had begun; what each is then."""
        interrupted: list[tuple[Job, Ended]] = []
        while some := await self._functions.turns.write(_fail_begun):
            interrupted += some
        return interrupted

    def _reader(self, view: View) -> Transaction:
        return Transaction(
            view,
            usage=Usage(self._limits),
            now_ns=self._runtime.now_ns(),
            dice=self._runtime.random,
            schema=None,
        )

    def _begin(self, turn: Transaction, key: bytes) -> Request | None:
        job = turn.get(key)
        if job is None or not is_pending(job) or not self._is_mounted(job["component"]):
            return None
        if self.due.kind_of(job["name"], job["target"]) is not Kind.ACTION:
            return None  # since a push; it is found again, as what it is now
        begin_job(turn, key, job)
        return job_request(Kind.ACTION, job)

    async def _act(self, request: Request) -> tuple[dict[str, Any], Any]:
        """Run an action that is marked as begun: the state to be noted, and what it returned."""
        try:
            await self._runtime.pause("jobs.begun")
            result = await self._functions.action_in_place(
                request.path, request.args, caller=request.caller, component=request.component
            )
            await self._runtime.pause("jobs.acted")
        except Exception as error:
            # Nobody would begin it again, so nobody else would ever end it.
            trace.error("jobs.lost", function=request.path, exception=traceback_of(error))
            return {"kind": FAILED, "error": LOST}, UNDEFINED
        if result.failure is not None:
            return {"kind": FAILED, "error": result.failure.message}, UNDEFINED
        return {"kind": SUCCESS}, result.value

    async def _end(self, key: bytes, state: dict[str, Any], returned: Any) -> str:
        """Note how an action ended, however long there is no room for that; what it is then."""
        while True:
            try:
                return await self._functions.turns.write(
                    lambda turn: _finish(turn, key, state, returned)
                )
            except (Overloaded, StoreFull) as error:
                trace.warning("jobs.end_not_noted", error=str(error))
                await self._runtime.sleep(self._limits.job_backoff_s)


def _ended(result: JobResult) -> Ended | Exception:
    if result is None or isinstance(result, Exception):
        return result
    return SUCCESS if result.failure is None else FAILED


def _finish(turn: Transaction, key: bytes, state: dict[str, Any], returned: Any) -> str:
    job = turn.get(key)
    if job is None or job["state"]["kind"] != IN_PROGRESS:
        return CANCELED
    return end_action(turn, key, job, state, returned)


def _cancel(turn: Transaction, key: bytes) -> bool:
    job = turn.get(key) if is_job_key(key) else None
    if job is None or is_tick(job):
        raise DocumentNotFound(f"there is no scheduled function {id_of(key)}")
    if job["state"]["kind"] not in (PENDING, IN_PROGRESS):
        return False
    finish_job(turn, key, job, {"kind": CANCELED})
    return True


def _fail_begun(turn: Transaction) -> list[tuple[Job, Ended]]:
    failed = {"kind": FAILED, "error": INTERRUPTED}
    room = Room(TURN_ROWS)
    for component in components_of(turn.view):
        ended: list[tuple[Job, Ended]] = []
        begun = standing(component).begun
        for _, key in turn.view.entries(JOBS_BY_DUE, *begun, reverse=False):
            if not room.is_left:
                break
            row = turn.get(key)
            assert row is not None, "an entry leads to a row"
            room.take(size_of(row))
            ended.append((as_job(key, row, Kind.ACTION, b""), end_action(turn, key, row, failed)))
        if ended:
            return ended
    return []
