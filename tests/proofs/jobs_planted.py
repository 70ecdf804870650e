"""Bugs that the jobs proof has to catch, each planted for the rest of the process."""

from __future__ import annotations

from typing import Any, Final

from engine.functions import crons, job_rows, jobs, mutations, scheduling
from engine.functions.cron_times import NextTime
from engine.functions.due_jobs import Job
from engine.functions.jobs import NextJob
from engine.functions.results import Caller
from engine.functions.retries import tell
from engine.functions.scheduling import finish_job
from engine.indexes.catalog import JOBS_BY_DUE
from engine.model.ids import row_key_of
from engine.transaction.transaction import Transaction
from engine.transaction.view import view_of

PLANTED: Final = {
    "ends-in-a-transaction-of-its-own": ("mutation", True),
    "forgets-the-canceled-state": ("cancel", True),
    "runs-the-backlog": ("cron", True),
    "begins-again-what-was-begun": ("action", False),
    "tells-in-a-transaction-of-its-own": ("retry", False),
    "lets-children-of-the-canceled-run": ("cancel of a running action", False),
}
"""With the kind of jobs that suffers, and whether the crowd has to notice too."""


def plant(bug: str) -> None:
    """Break the engine in one known way, or not at all: "none"."""
    match bug:
        case "ends-in-a-transaction-of-its-own":
            setattr(jobs.Jobs, "run_mutations", _run_in_two)  # noqa: B010 - no method is assigned to
        case "forgets-the-canceled-state":
            for module in (jobs, mutations):
                setattr(module, "is_pending", _is_there)  # noqa: B010
        case "runs-the-backlog":
            setattr(crons, "next_time", _every_beat)  # noqa: B010
        case "begins-again-what-was-begun":
            setattr(jobs, "_fail_begun", _begin_again)  # noqa: B010
        case "tells-in-a-transaction-of-its-own":
            setattr(scheduling, "tell", lambda *_: None)  # noqa: B010
            setattr(jobs.Jobs, "_end", _end_and_tell)  # noqa: B010
        case "lets-children-of-the-canceled-run":
            setattr(scheduling, "_is_canceled", lambda *_: False)  # noqa: B010
        case _:
            assert bug == "none", f"no such bug: {bug}"


_run = jobs.Jobs.run_mutations


async def _run_in_two(self: jobs.Jobs, next_job: NextJob) -> list[Any]:
    came_of: list[Any] = []
    while (job := await next_job()) is not None:
        came_of += [await _run_one_in_two(self, job)]
    return came_of


async def _run_one_in_two(self: jobs.Jobs, job: Job) -> Any:
    """First what a mutation does, durably, then that its job has ended."""
    functions = self._functions
    snapshot = self._snapshots.acquire()
    row = self._reader(view_of(snapshot)).get(job.key)
    self._snapshots.release(snapshot)
    if row is None or "cron" in row:
        rest = iter([job])

        async def next_job() -> Job | None:
            return next(rest, None)

        (only,) = await _run(self, next_job)
        return only
    caller = Caller(admin=True, request_id=job_rows.request_of(row["_id"]), origin="job")
    await functions.mutation(row["name"], row["args"][0], caller=caller)
    await self._runtime.pause("jobs.acted")

    def end(turn: Any) -> None:
        found = turn.get(job.key)
        if job_rows.is_pending(found):
            finish_job(turn, job.key, found, {"kind": job_rows.SUCCESS})

    await functions.turns.write(end)
    return job_rows.SUCCESS


_end = jobs.Jobs._end


async def _end_and_tell(self: jobs.Jobs, key: bytes, state: Any, returned: Any) -> str:
    """First that an action has ended, durably, then who is to be told of it."""
    ended = await _end(self, key, state, returned)
    if ended != job_rows.PENDING:
        turns = self._functions.turns
        await turns.write(lambda turn: tell(turn, turn.get(key) or {}, state, returned))
    return ended


def _is_there(job: Any) -> bool:
    return job is not None


def _every_beat(schedule: Any, _seed: str, last_ms: float, _now_ms: float) -> NextTime:
    return NextTime(last_ms + schedule.seconds * 1000, 0)


def _begin_again(turn: Transaction) -> list[Any]:
    where = job_rows.standing("").begun
    begun = turn.read_slice(JOBS_BY_DUE, *where, reverse=False, rows_max=100).docs
    for job in begun:
        turn.put_row(row_key_of(job["_id"]), job_rows.pending_again(job, job["scheduledTime"]))
    return []
