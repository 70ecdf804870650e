"""
Runs jobs when they are due: the one actor that looks at the clock.

    look      read on in what is due, a slice at a time, until it is known
    begin     start those who run it, as many as there is room for, mutations
              and actions apart; each takes a job when it begins it
    wait      until a commit touches jobs, one has ended, or the next one is
              due; nothing is asked again and again

Closing it lets the jobs that have begun come to their end; what has not begun
stays pending.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from heapq import heappop, heappush
from typing import Final

import trio

from engine.app.registered import Kind
from engine.errors import Overloaded, StoreFull
from engine.functions.due_jobs import Job
from engine.functions.history import of_component
from engine.functions.job_rows import PENDING
from engine.functions.jobs import Ended, Jobs
from engine.kernel.counters import Counters, Labels
from engine.kernel.runtime import Runtime
from engine.kernel.trace import traceback_of, tracer
from engine.model.limits import Limits

trace = tracer(__name__)

CLOCK_STEP_S: Final = 60.0
"""A wait is no longer than this, since the wall clock may be set and computers may sleep."""
JOBS: Final = "jobs"
CRONS: Final = "crons"
TICK_S: Final = 0.001
"""The shortest wait for a time that has not come."""
MUTATION_RUNNERS: Final = 2
"""While the jobs of one are on their way to the disk, the other runs the next ones."""


def _never(_: Job) -> bool:
    return False


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
        many, some = limits.mutation_jobs_running_max, limits.action_jobs_running_max
        self._lanes = {
            Kind.MUTATION: _Lane(many, runners_max=min(many, MUTATION_RUNNERS)),
            Kind.ACTION: _Lane(some, runners_max=some),
        }
        self._put_off: list[tuple[float, Job]] = []
        """A heap, by when they are tried again."""
        self._woken = trio.Event()
        self._resting: trio.Event | None = None
        self._gives_up: Callable[[Job], bool] = _never
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
            self.jobs.due.close()

    async def _recovers(self) -> bool:
        """End what an earlier run of the engine had begun; false if there is no room for that."""
        try:
            interrupted = await self.jobs.fail_interrupted()
        except (StoreFull, Overloaded) as error:
            trace.warning("scheduler.interruptions_not_noted", error=str(error))
            return False
        if interrupted:
            trace.warning("scheduler.actions_interrupted", count=len(interrupted))
        for job, end in interrupted:
            self._count(job, str(end))
        return True

    def close(self) -> None:
        """As `Actor.close`."""
        self._is_closed = True
        self.wake()

    @property
    def next_due_ms(self) -> float | None:
        """When the first job is due that was not due at the last look."""
        return self.jobs.due.next_due_ms

    @property
    def lag_s(self) -> float:
        """For how long the job has been due that waits longest; 0 if none does."""
        due_ms = [job.due_ms for job in self._waiting()]
        if self.next_due_ms is not None:
            due_ms.append(self.next_due_ms)  # it has passed while nobody looks, in a pause
        return self._late_s(min(due_ms, default=math.inf))

    def _late_s(self, due_ms: float) -> float:
        return max(0.0, self._runtime.now_ns() / 1e9 - due_ms / 1000)

    def _waiting(self) -> Iterator[Job]:
        """What is due and has not begun, of what was seen."""
        yield from self.jobs.due.all_waiting
        yield from (job for _, job in self._put_off)

    def _running(self, of: str) -> dict[Labels, float]:
        running = (job for lane in self._lanes.values() for job in lane.running.values())
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
        """Begin to run jobs: the functions that they name are deployed, or others than before."""
        self._is_started = True
        self.jobs.due.renew()
        self.wake()

    def pause(self) -> None:
        """Begin no more jobs until `resume`; those that run go on."""
        self._is_paused = True
        self.wake()

    def resume(self) -> None:
        self._is_paused = False
        self.wake()

    async def skip_missed(self) -> None:
        """
        Have crons not run for the times that have come in a pause, durably, and count these.

        It is done in slices; whoever is stopped between two and begins anew comes to the same end.
        """
        until_ms = self._runtime.now_ns() / 1e6
        crons = times = 0
        place: bytes | None = b""
        while place is not None:
            some = await self.jobs.skip_missed(place, until_ms)
            for (target, name), count in some.times.items():
                self._counters.add("crons.skipped", count, function=of_component(target, name))
            place, crons, times = some.place, crons + some.crons, times + some.times.total()
            await trio.lowlevel.checkpoint()
        if crons:
            trace.warning("scheduler.times_skipped_in_a_pause", crons=crons, times=times)

    def wake(self) -> None:
        """Have it look again, soon."""
        self._woken.set()

    async def wait_resting(self, gives_up: Callable[[Job], bool] = _never) -> None:
        """
        Wait until no job runs and none is due that is durable by then; not while paused.

        Args:
            gives_up: told of each job that begins, whether not to wait any longer.
        """
        if self._resting is None:
            self._resting = trio.Event()
        self._gives_up = gives_up
        self.wake()
        await self._resting.wait()

    # One round

    def _begin(self, nursery: trio.Nursery) -> None:
        due = self.jobs.due
        self._resume_put_off()
        is_behind = due.look(self.wake)
        if is_behind:
            self.wake()
        for kind, lane in self._lanes.items():
            waiting = due.waiting(kind) if self._may_begin else 0
            for _ in range(lane.runners_wanted(waiting)):
                nursery.start_soon(self._serve, kind, lane)
        if due.is_none_known and not is_behind:
            self._end_waiting()

    def _end_waiting(self) -> None:
        if self._resting is not None:
            self._resting.set()
            self._resting = None
            self._gives_up = _never

    def _resume_put_off(self) -> None:
        now_s = self._runtime.monotonic()
        while self._put_off and self._put_off[0][0] <= now_s:
            _, job = heappop(self._put_off)
            self.jobs.due.put_back(job)

    def _delay_s(self) -> float:
        if not self._is_started or self._is_paused or self._is_closed:
            return math.inf
        waits = []
        if self.next_due_ms is not None:
            waits = [CLOCK_STEP_S, self.next_due_ms / 1000 - self._runtime.now_ns() / 1e9]
        if self._put_off:
            waits.append(self._put_off[0][0] - self._runtime.monotonic())
        return max(min(waits, default=math.inf), TICK_S)

    # Running

    async def _serve(self, kind: Kind, lane: _Lane) -> None:
        """Run jobs for as long as there are any to begin."""
        lane.has_come()
        try:
            while await self._run_some(kind, lane):
                self.wake()
        finally:
            lane.has_left()
            self.wake()

    async def _run_some(self, kind: Kind, lane: _Lane) -> bool:
        """Run what one runner has at a time to the end; False if there was nothing to begin."""
        began: list[Job] = []

        async def next_job() -> Job | None:
            job = await self._take(kind, lane) if len(began) < lane.share else None
            if job is not None:
                began.append(job)
            return job

        try:
            if kind is Kind.MUTATION:
                came_of = await self.jobs.run_mutations(next_job)
            else:
                job = await next_job()
                came_of = [] if job is None else [await self.jobs.run_action(job)]
        except Exception as error:
            came_of = [error] * len(began)
        for job, end in zip(began, came_of, strict=True):
            await self._end(job, end)
            del lane.running[job.key]
        return bool(began)

    async def _take(self, kind: Kind, lane: _Lane) -> Job | None:
        """The job that begins now, if one may."""
        while self._may_begin and lane.has_room:
            job = self.jobs.due.take(kind)
            if job is None:
                break
            lane.running[job.key] = job
            if self._gives_up(job):
                self._end_waiting()
            try:
                await self._runtime.pause("jobs.found")
            except Exception as error:
                del lane.running[job.key]
                self._put_off_job(job, error)
            else:
                return job
        return None

    @property
    def _may_begin(self) -> bool:
        return not (self._is_closed or self._is_paused)

    async def _end(self, job: Job, end: Ended | Exception) -> None:
        if not isinstance(end, Exception):
            try:
                await self._runtime.pause("jobs.ended")
            except Exception:
                end = None  # whatever it is, it is not to be run as what it was
        if isinstance(end, Exception):
            self._put_off_job(job, end)
            return
        if end is None or end == PENDING:
            # The next attempt may have the place that the last one had, if no time has passed.
            self.jobs.due.left_alone(job)
        else:
            self.jobs.due.ended(job)
        if end is not None:
            self._count(job, end)

    def _count(self, job: Job, ended: str) -> None:
        if ended == PENDING:
            self._counters.add("jobs.tried_again", function=job.path)
            return
        self._counters.add(f"{_of(job)}.ended", function=job.path, state=ended)
        if job.cron is not None and (skipped := self.jobs.skipped_by(job)):
            self._counters.add("crons.skipped", skipped, function=job.path)

    def _put_off_job(self, job: Job, error: Exception) -> None:
        again = self.jobs.due.put_off(job) - 1
        backoff_s = min(self._limits.job_backoff_s * 2**again, self._limits.job_backoff_s_max)
        self._counters.add(f"{_of(job)}.put_off", function=job.path)
        heappush(self._put_off, (self._runtime.monotonic() + backoff_s, job))
        trace.warning(
            "scheduler.job_put_off",
            function=job.path,
            seconds=backoff_s,
            exception=traceback_of(error),
        )


class _Lane:
    """
    Those who run the jobs of one kind.

    Attributes:
        running: jobs that have begun and not come to their end, by key.
        share: what one of them has running at a time.
    """

    def __init__(self, running_max: int, *, runners_max: int) -> None:
        self._running_max = running_max
        self._runners_max = runners_max
        self._runners = 0
        self._coming = 0
        """Those who were started and have taken nothing yet."""
        self.share = math.ceil(running_max / runners_max)
        self.running: dict[bytes, Job] = {}

    @property
    def has_room(self) -> bool:
        return len(self.running) < self._running_max

    def runners_wanted(self, waiting: int) -> int:
        """How many more are to be started for so many jobs; each says when it has come."""
        wanted = math.ceil(waiting / self.share) - self._coming
        count = max(min(wanted, self._runners_max - self._runners), 0)
        self._runners += count
        self._coming += count
        return count

    def has_come(self) -> None:
        self._coming -= 1

    def has_left(self) -> None:
        self._runners -= 1


def _of(job: Job) -> str:
    """What it is counted among."""
    return JOBS if job.cron is None else CRONS


def _function(job: Job) -> Labels:
    return (("function", job.path),)
