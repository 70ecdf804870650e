"""
Runs jobs when they are due: the one actor that looks at the clock.

    look      read what is due, and when the next one is; remember under which
              read set that was found
    begin     start what there is room for, mutations and actions apart, in the
              order in which they are due
    wait      until a commit touches what was read, a job has ended, or the
              next one is due; nothing is asked again and again

Closing it lets the jobs that have begun come to their end; what has not begun
stays pending.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

import trio

from engine.app.registered import Kind
from engine.errors import Overloaded, StoreFull
from engine.functions.job_rows import PENDING
from engine.functions.jobs import Job, Jobs
from engine.kernel.counters import Counters, Labels
from engine.kernel.runtime import Runtime
from engine.kernel.trace import traceback_of, tracer
from engine.model.limits import Limits
from engine.subscriptions.token import Live

trace = tracer(__name__)

CLOCK_STEP_S: Final = 60.0
"""A wait is no longer than this, since the wall clock may be set and computers may sleep."""
JOBS: Final = "jobs"
CRONS: Final = "crons"
TICK_S: Final = 0.001
"""The shortest wait for a time that has not come."""


class Scheduler:
    """
    Args:
        jobs: what there is to run.
        counters: told how late, how many and how they end.

    It begins when `start` says that the application is deployed.
    """

    name = "scheduler"

    def __init__(self, jobs: Jobs, *, runtime: Runtime, limits: Limits, counters: Counters) -> None:
        self.jobs = jobs
        self._counters = counters
        counters.watch("scheduler.lag_s", lambda: {(): self.lag_s})
        counters.watch("scheduler.paused", lambda: {(): self._is_paused})
        for of in (JOBS, CRONS):
            counters.watch(f"{of}.running", partial(self._running, of))
            counters.watch(f"{of}.queued", partial(self._queued, of))
            counters.watch(f"{of}.lag_s", partial(self._lag_s, of))
        self._runtime = runtime
        self._limits = limits
        self._lanes = {
            Kind.MUTATION: _Lane(limits.mutation_jobs_running_max),
            Kind.ACTION: _Lane(limits.action_jobs_running_max),
        }
        self._put_off: dict[bytes, _PutOff] = {}
        self._live: Live | None = None
        self._next_due_ms: float | None = None
        self._woken = trio.Event()
        self._resting: trio.Event | None = None
        self._is_started = False
        self._is_paused = False
        self._is_closed = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """As `Actor.run`."""
        is_recovered = await self._recovers()
        task_status.started()
        # A disk without room can still be read; and nothing begins that could be taken for old.
        while not (is_recovered or self._is_closed):
            await self._runtime.sleep(self._limits.job_backoff_s)
            is_recovered = await self._recovers()
        async with trio.open_nursery() as nursery:
            while not self._is_closed:
                self._woken = trio.Event()
                if self._is_started and not self._is_paused:
                    self._begin(nursery)
                with trio.move_on_after(self._delay_s()):
                    await self._woken.wait()
            self._forget()

    async def _recovers(self) -> bool:
        """End what an earlier run of the engine had begun; false if there is no room for that."""
        try:
            interrupted = await self.jobs.fail_interrupted()
        except (StoreFull, Overloaded) as error:
            trace.warning("scheduler.interruptions_not_noted", error=str(error))
            return False
        if interrupted:
            trace.warning("scheduler.actions_interrupted", count=interrupted)
        return True

    def close(self) -> None:
        """As `Actor.close`."""
        self._is_closed = True
        self.wake()

    @property
    def next_due_ms(self) -> float | None:
        """When the first job is due that was not due at the last look."""
        return self._next_due_ms

    @property
    def lag_s(self) -> float:
        """For how long the job has been due that waits longest; 0 if none does."""
        due_ms = [job.due_ms for job in self._waiting()]
        if self._next_due_ms is not None:
            due_ms.append(self._next_due_ms)  # it has passed while nobody looks, in a pause
        return self._late_s(min(due_ms, default=math.inf))

    def _late_s(self, due_ms: float) -> float:
        return max(0.0, self._runtime.now_ns() / 1e9 - due_ms / 1000)

    def _waiting(self) -> Iterator[Job]:
        """What is due and has not begun, of what was seen."""
        for lane in self._lanes.values():
            yield from lane.waiting
        now_s = self._runtime.monotonic()
        yield from (one.job for one in self._put_off.values() if one.until_s > now_s)

    def _running(self, of: str) -> dict[Labels, float]:
        running = (job for lane in self._lanes.values() for job in lane.running)
        return dict(Counter(_function(job) for job in running if _of(job) == of))

    def _queued(self, of: str) -> dict[Labels, float]:
        return dict(Counter(_function(job) for job in self._waiting() if _of(job) == of))

    def _lag_s(self, of: str) -> dict[Labels, float]:
        first_ms: dict[Labels, float] = {}
        for job in self._waiting():
            if _of(job) == of:
                labels = _function(job)
                first_ms[labels] = min(job.due_ms, first_ms.get(labels, math.inf))
        return {labels: self._late_s(due_ms) for labels, due_ms in first_ms.items()}

    def start(self) -> None:
        """Begin to run jobs: the functions that they name are deployed."""
        self._is_started = True
        self.wake()

    def pause(self) -> None:
        """Begin no more jobs until `resume`; those that run go on."""
        self._is_paused = True
        self.wake()

    def resume(self) -> None:
        self._is_paused = False
        self.wake()

    def wake(self) -> None:
        """Have it look again, soon."""
        self._woken.set()

    async def wait_resting(self) -> None:
        """Wait until no job runs and none is due that is durable by then; not while paused."""
        if self._resting is None:
            self._resting = trio.Event()
        self.wake()
        await self._resting.wait()

    # One round

    def _begin(self, nursery: trio.Nursery) -> None:
        if any(lane.wants for lane in self._lanes.values()):
            self._look()
        for lane in self._lanes.values():
            for _ in range(lane.take_room()):
                nursery.start_soon(self._run, lane)
        is_idle = all(lane.is_idle for lane in self._lanes.values())
        if self._resting is not None and is_idle and not self._put_off:
            self._resting.set()
            self._resting = None

    def _look(self) -> None:
        self._forget()
        found = self.jobs.look()
        self._live = found.live
        self._next_due_ms = found.next_due_ms
        now_s = self._runtime.monotonic()
        for job in found.due:
            put_off = self._put_off.get(job.key)
            if put_off is None or put_off.until_s <= now_s:
                lane = self._lanes[Kind.ACTION if job.kind is Kind.ACTION else Kind.MUTATION]
                lane.add(job)
        if not found.is_cut:
            self._drop_stale({job.key for job in found.due}, now_s)
        found.live.watch(self.wake)

    def _drop_stale(self, due: set[bytes], now_s: float) -> None:
        """Forget jobs that were put off and have been canceled since."""
        for key, put_off in list(self._put_off.items()):
            if put_off.until_s <= now_s and key not in due:
                del self._put_off[key]

    def _forget(self) -> None:
        if self._live is not None:
            self._live.release()
            self._live = None

    def _delay_s(self) -> float:
        if not self._is_started or self._is_paused or self._is_closed:
            return math.inf
        waits = []
        if self._next_due_ms is not None:
            waits = [CLOCK_STEP_S, self._next_due_ms / 1000 - self._runtime.now_ns() / 1e9]
        now_s = self._runtime.monotonic()
        waits += [one.until_s - now_s for one in self._put_off.values() if one.until_s > now_s]
        return max(min(waits, default=math.inf), TICK_S)

    # One job

    async def _run(self, lane: _Lane) -> None:
        # Tasks that were started together run in any order; jobs are begun in theirs.
        job = lane.next()
        try:
            await self._runtime.pause("jobs.found")
            ended = await self.jobs.run(job)
            await self._runtime.pause("jobs.ended")
        except Exception as error:
            self._put_off_job(job, error)
        else:
            self._put_off.pop(job.key, None)
            if ended is not None:
                self._count(job, ended)
        finally:
            lane.ended(job)
            self.wake()

    def _count(self, job: Job, ended: str) -> None:
        if ended == PENDING:
            self._counters.add("jobs.tried_again", function=job.path)
            return
        self._counters.add(f"{_of(job)}.ended", function=job.path, state=ended)
        if job.cron is not None and (skipped := self.jobs.skipped_by(job)):
            self._counters.add("crons.skipped", skipped, function=job.path)

    def _put_off_job(self, job: Job, error: Exception) -> None:
        before = self._put_off.get(job.key)
        times = before.times + 1 if before else 1
        backoff_s = min(
            self._limits.job_backoff_s * 2 ** (times - 1), self._limits.job_backoff_s_max
        )
        self._counters.add(f"{_of(job)}.put_off", function=job.path)
        self._put_off[job.key] = _PutOff(job, times, self._runtime.monotonic() + backoff_s)
        trace.warning(
            "scheduler.job_put_off",
            function=job.path,
            seconds=backoff_s,
            exception=traceback_of(error),
        )


class _PutOff:
    """A job that the engine could not run, and when it is tried again."""

    __slots__ = ("job", "times", "until_s")

    def __init__(self, job: Job, times: int, until_s: float) -> None:
        self.job = job
        self.times = times
        self.until_s = until_s


class _Lane:
    """Jobs of one kind that wait here or run."""

    def __init__(self, running_max: int) -> None:
        self._running_max = running_max
        self._waiting: deque[Job] = deque()
        self._known: dict[bytes, Job] = {}
        self._promised = 0
        self._running = 0

    @property
    def wants(self) -> bool:
        """Whether there is room, and nothing here to fill it."""
        return len(self._waiting) == self._promised and self._running < self._running_max

    @property
    def is_idle(self) -> bool:
        return not self._known

    @property
    def running(self) -> list[Job]:
        waiting = {job.key for job in self._waiting}
        return [job for key, job in self._known.items() if key not in waiting]

    @property
    def waiting(self) -> Iterable[Job]:
        """Those that are due and have not begun, of those that were seen."""
        return self._waiting

    def add(self, job: Job) -> None:
        if job.key not in self._known:
            self._known[job.key] = job
            self._waiting.append(job)

    def take_room(self) -> int:
        """How many jobs are to begin now; each is had by one call of `next`."""
        count = min(len(self._waiting) - self._promised, self._running_max - self._running)
        self._running += count
        self._promised += count
        return count

    def next(self) -> Job:
        self._promised -= 1
        return self._waiting.popleft()

    def ended(self, job: Job) -> None:
        self._known.pop(job.key, None)
        self._running -= 1


def _of(job: Job) -> str:
    """What it is counted among."""
    return JOBS if job.cron is None else CRONS


def _function(job: Job) -> Labels:
    return (("function", job.path),)
