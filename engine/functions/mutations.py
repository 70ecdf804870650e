"""
Mutations: one after another in the lane, told only when what they saw is durable.

    enter the lane ── view of all that is staged ── handler ── stage ── leave ── wait ── answer
          ▲                                                                       │
          └──────────────── a batch below it was refused: run again, alone ◀──────┘
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import trio

from engine.app.registered import Kind
from engine.committer.actor import Committer, RunAgain
from engine.errors import (
    Conflict,
    EngineError,
    FunctionTimeout,
    OutOfRetention,
    Overloaded,
    SnapshotTooOld,
    StoreFull,
    UsageError,
)
from engine.functions import idempotence
from engine.functions.crons import is_tick
from engine.functions.driver import Execution
from engine.functions.execute import Executor, Outcome, Request
from engine.functions.history import (
    BATCH_REFUSED,
    SNAPSHOT_TOO_OLD,
    TIMESTAMP_TOO_EARLY,
    Retry,
    Way,
)
from engine.functions.job_rows import FAILED, SUCCESS, is_pending, request_of
from engine.functions.queries import PaginationState
from engine.functions.results import Caller, MutationResult, Origin, failure_of
from engine.functions.scheduling import finish_job
from engine.functions.turns import pinned
from engine.indexes.live import LiveIndex
from engine.kernel.runtime import Runtime
from engine.model.commits import SessionRequest, Source
from engine.model.limits import Limits
from engine.transaction.transaction import TimestampTooEarly, Transaction
from engine.transaction.view import View

INDEX_LOOK_S: Final = 0.05
"""Between two looks whether an index has room again."""
SNAPSHOTS_TRIED: Final = 3
"""A mutation that outlived its snapshot runs again, so often."""
CREATED_ROOM_NS: Final = 62_500
"""
Between what a mutation has created and the timestamp that it asks for: 256 times of creation.  Most
take longer than that, so however many ask, timestamps do not run ahead of the clock.
"""
ROOM_GROWTH: Final = 64
"""Of that where it was too little: then for 16,384 documents, as many as a function may write."""
JOBS_SLICE_S: Final = 0.0002
"""Jobs run for so long, one or two of them, before others have their turn."""


class _IndexBehind(Exception):
    """An index of a table that is written has no room until more of it is folded."""

    def __init__(self, index: LiveIndex) -> None:
        super().__init__(index.info.name)
        self.index = index


class Attempt(NamedTuple):
    """One run: its result, and which commit has to be durable before it may be told."""

    result: MutationResult | None
    waits_for: int
    outcome: Outcome | None = None
    """`None` if nothing was run."""


Try: TypeAlias = Callable[[View], Awaitable[Attempt]]
NextKey: TypeAlias = Callable[[], Awaitable[bytes | None]]
"""The row of the job that begins now; `None` for no more."""
JobResult: TypeAlias = MutationResult | Exception | None
"""
`None` if the job was canceled, has run or is an action by now; an exception if the engine could not
run it, and it is pending still.
"""


@dataclass(slots=True)
class _JobRun:
    """A run of a job's mutation: what was staged, or what kept the engine from that."""

    key: bytes
    way: Way
    done: Attempt | None = None
    generation: int = 0
    refusal: Exception | None = None
    is_behind: bool = False
    """A text or vector index has no room for what it would write: it waits for that by itself."""


class Mutations:
    """Runs mutations, of clients and of jobs."""

    def __init__(
        self, committer: Committer, executor: Executor, *, runtime: Runtime, limits: Limits
    ) -> None:
        self._committer = committer
        self._executor = executor
        self._runtime = runtime
        self._limits = limits
        self._jobs_turn = trio.Lock()
        """Of one series of jobs after the other, which runs while the first is being written."""

    async def run(self, request: Request, session: SessionRequest | None) -> MutationResult:
        """As `Functions.mutation`."""
        way = Way()
        try:
            result = await self._committed(partial(self._attempt, request, session, way), way)
        except EngineError as error:
            self._executor.tell_refused(request, way, error)
            raise
        assert result is not None, "a mutation has a result"
        return result

    async def run_jobs(self, next_key: NextKey) -> list[JobResult]:
        """
        Run the mutations of jobs, each of which ends its job in the same transaction.

        They run one after another and wait for the disk together, so what a task and a batch cost
        is shared.

        Returns:
            What became of each, in order.
        """
        if self._runtime.interleave is not None:
            return await self._jobs_beside_others(next_key)
        async with self._jobs_turn:
            runs = await self._staged_jobs(next_key)
        are_durable = await self._settled(runs)
        return [await self._come_of(run, is_durable=are_durable) for run in runs]

    async def _staged_jobs(self, next_key: NextKey) -> list[_JobRun]:
        runs: list[_JobRun] = []
        began = self._runtime.monotonic()
        with self._committer.series():
            while (key := await next_key()) is not None:
                runs.append(run := await self._run_in_lane(key))
                if isinstance(run.refusal, Overloaded) or run.is_behind:
                    break
                if self._runtime.monotonic() - began > JOBS_SLICE_S:
                    await trio.lowlevel.checkpoint()
                    began = self._runtime.monotonic()
        return runs

    async def _jobs_beside_others(self, next_key: NextKey) -> list[JobResult]:
        results: dict[bytes, JobResult] = {}

        async def run(key: bytes) -> None:
            results[key] = await self._run_job(key, Way())

        async with trio.open_nursery() as nursery:
            while (key := await next_key()) is not None:
                results[key] = None
                nursery.start_soon(run, key)
        return list(results.values())

    async def _run_job(self, key: bytes, way: Way) -> JobResult:
        """Run one by itself."""
        try:
            return await self._committed(partial(self._attempt_job, key, way), way)
        except Exception as error:
            return error

    async def _run_in_lane(self, key: bytes) -> _JobRun:
        """Stage one run; what keeps it from that is noted."""
        run = _JobRun(key, Way())
        lane = self._committer.lane
        try:
            if not lane.enter_nowait():
                await self._wait_for_lane(run.way)
            try:
                view = pinned(self._committer)
                try:
                    run.done = await self._attempt_job(key, run.way, view)
                    run.generation = view.generation
                finally:
                    self._committer.unpin(view.snapshot)
            finally:
                lane.leave()
        except RunAgain:
            run.way.retries += (BATCH_REFUSED,)
        except SnapshotTooOld:
            run.way.retries += (SNAPSHOT_TOO_OLD,)
        except TimestampTooEarly:
            run.way.retries += (TIMESTAMP_TOO_EARLY,)
        except _IndexBehind:
            run.is_behind = True
        except Exception as error:
            run.refusal = error
        return run

    async def _settled(self, runs: Sequence[_JobRun]) -> bool:
        """Wait until what was staged is durable; False if it may not be, as a batch was refused."""
        staged = [(run.generation, run.done.waits_for) for run in runs if run.done is not None]
        if not staged:
            return True
        generation = staged[0][0]
        try:
            await self._committer.settled(max(ts for _, ts in staged), generation)
        except RunAgain:
            return False
        except Exception as error:
            for run in runs:
                run.refusal = run.refusal or error
        return all(one == generation for one, _ in staged)

    async def _come_of(self, run: _JobRun, *, is_durable: bool) -> JobResult:
        if run.refusal is not None:
            return run.refusal
        if run.done is not None and is_durable:
            return self._told(run.done, run.way)
        if run.done is not None:
            run.way.retries += (BATCH_REFUSED,)
        return await self._run_job(run.key, run.way)

    async def _committed(self, attempt: Try, way: Way) -> MutationResult | None:
        run = self._in_lane if self._runtime.interleave is None else self._beside_others
        while True:
            try:
                return await run(attempt, way)
            except _IndexBehind as error:
                await self._wait_for_index(error.index)
            except TimestampTooEarly:
                way.retries += (TIMESTAMP_TOO_EARLY,)

    async def _beside_others(self, attempt: Try, way: Way) -> MutationResult | None:
        """Run outside the lane, validated; after too many conflicts, or a failed batch, in it."""
        backoff_s = self._limits.retry_backoff_s
        for _ in range(self._limits.conflict_retries_max + 1):
            try:
                view = pinned(self._committer, is_validated=True)
                try:
                    done = await attempt(view)
                finally:
                    self._committer.unpin(view.snapshot)
                await self._committer.settled(done.waits_for, view.generation)
            except RunAgain:
                way.retries += (BATCH_REFUSED,)
                break
            except (Conflict, SnapshotTooOld) as error:
                way.retries += (_retry(error),)
                await self._runtime.sleep(self._runtime.random.random() * backoff_s)
                backoff_s = min(2 * backoff_s, self._limits.retry_backoff_s_max)
            else:
                return self._told(done, way)
        return await self._in_lane(attempt, way)

    async def _in_lane(self, attempt: Try, way: Way) -> MutationResult | None:
        committer = self._committer
        lane = committer.lane
        alone = False
        tried = 0
        while True:
            if not lane.enter_nowait():
                await self._wait_for_lane(way)
            try:
                if alone:
                    await committer.wait_settled()
                view = pinned(committer)
                try:
                    done = await attempt(view)
                finally:
                    committer.unpin(view.snapshot)
                if alone:
                    await committer.settled(done.waits_for, view.generation)
                    return self._told(done, way)
            except RunAgain as again:
                if alone and isinstance(again.__cause__, StoreFull):
                    raise again.__cause__ from None
                alone = True
                way.retries += (BATCH_REFUSED,)
                continue
            except SnapshotTooOld:
                tried += 1
                way.retries += (SNAPSHOT_TOO_OLD,)
                if tried == SNAPSHOTS_TRIED:
                    raise FunctionTimeout(
                        "a mutation read for longer than a snapshot may be held"
                    ) from None
                continue
            finally:
                lane.leave()
            try:
                await committer.settled(done.waits_for, view.generation)
            except RunAgain:
                alone = True
                way.retries += (BATCH_REFUSED,)
                continue
            return self._told(done, way)

    async def _wait_for_lane(self, way: Way) -> None:
        lane = self._committer.lane
        way.queued = max(way.queued, lane.waiting_count)
        began = self._runtime.monotonic()
        try:
            await lane.enter(self._limits.mutation_patience_s)
        finally:
            way.queue_ms += (self._runtime.monotonic() - began) * 1000

    async def _wait_for_index(self, index: LiveIndex) -> None:
        """
        Raises:
            Overloaded: it took longer than a mutation has patience.
        """
        limit, patience = self._limits.index_unfolded_bytes_max, self._limits.mutation_patience_s
        until = self._runtime.monotonic() + patience
        while index.unfolded_bytes > limit:
            if self._runtime.monotonic() >= until:
                what = (
                    f"the index {index.info.name!r}, of which over {limit:,} bytes wait to be "
                    "folded (index_unfolded_bytes_max),"
                )
                raise Overloaded(what, patience)
            await self._runtime.sleep(INDEX_LOOK_S)

    def _told(self, done: Attempt, way: Way) -> MutationResult | None:
        """The result, which is durable now; who watches executions learns of it as well."""
        if done.outcome is not None and done.result is not None:
            way.commit_ms = (self._runtime.now_ns() - done.outcome.ended_ns) / 1e6
            self._executor.tell(done.outcome, way, commit_ts=done.result.ts)
        return done.result

    def _stamp(self, way: Way, created_ns: int) -> int:
        """A timestamp with room for what is created until the commit, and more after each retry."""
        retries = way.retries.count(TIMESTAMP_TOO_EARLY)
        return self._committer.next_ts(created_ns + CREATED_ROOM_NS * ROOM_GROWTH**retries)

    async def _attempt(
        self, request: Request, session: SessionRequest | None, way: Way, view: View
    ) -> Attempt:
        execution = self._executor.begin(Kind.MUTATION, request.path)
        transaction = self._executor.transaction(view, execution, partial(self._stamp, way))
        if session is not None and self._is_there(request, session):
            again = _answered(transaction, session)
            if again is not None:
                return Attempt(again, view.begin_ts)
        outcome = await self._executor.run(request, execution, transaction, PaginationState(None))
        ts = view.begin_ts
        if outcome.failure is None:
            ts = self._stage(request, outcome, execution, transaction, session)
        failure = outcome.failure
        result = MutationResult(None if failure else ts, outcome.value, failure, outcome.log_lines)
        return Attempt(result, ts, outcome)

    def _is_there(self, request: Request, session: SessionRequest) -> bool:
        """
        Whether what was answered before is looked for.

        A session goes on with its requests, whatever was pushed; with a key, of a function
        that the caller cannot call is said that alone.
        """
        path, caller, component = request.path, request.caller, request.component
        return not session.call or self._executor.kind_of(path, caller, component) is Kind.MUTATION

    async def _attempt_job(self, key: bytes, way: Way, view: View) -> Attempt:
        execution = self._executor.begin(Kind.MUTATION, "")
        transaction = self._executor.transaction(view, execution, partial(self._stamp, way))
        job = transaction.own_row(key)
        if job is None or not is_pending(job) or not self._is_mounted(job):
            return Attempt(None, view.begin_ts)
        execution.path = job["name"]
        request = job_request(Kind.MUTATION, job)
        kind = self._executor.kind_of(request.path, request.caller, request.component)
        if kind is Kind.ACTION:
            return Attempt(None, view.begin_ts)  # since a push
        outcome = await self._executor.run(request, execution, transaction, PaginationState(None))
        ts = view.begin_ts
        if outcome.failure is None:
            succeeded = {"kind": SUCCESS}
            ts = self._stage_ended(key, job, succeeded, request, outcome, transaction, execution)
        # Also what was only refused when it was staged.
        if outcome.failure is not None:
            failed = {"kind": FAILED, "error": outcome.failure.message}
            ended = Outcome(value=None, failure=None, log_lines=(), request=request)
            transaction = self._executor.transaction(view, execution)
            ts = self._stage_ended(key, job, failed, request, ended, transaction, execution)
            assert ended.failure is None, "a job can always be ended"
        result = MutationResult(
            ts=ts, value=outcome.value, failure=outcome.failure, log_lines=outcome.log_lines
        )
        return Attempt(result, ts, outcome)

    def _is_mounted(self, job: dict[str, Any]) -> bool:
        """Whether a push has not taken away the component whose job it is."""
        return self._executor.deployment.application.at(job["component"]) is not None

    def _stage_ended(
        self,
        key: bytes,
        job: dict[str, Any],
        state: dict[str, Any],
        request: Request,
        outcome: Outcome,
        transaction: Transaction,
        execution: Execution,
    ) -> int:
        """Stage what a job's run wrote together with its end."""
        try:
            # As it was read: a run cannot change its own job, other than by removing its cron.
            finish_job(transaction, key, job, state)
        except UsageError as error:
            outcome.value, outcome.failure = None, failure_of(error)
            return transaction.view.begin_ts
        return self._stage(request, outcome, execution, transaction, None)

    def _stage(
        self,
        request: Request,
        outcome: Outcome,
        execution: Execution,
        transaction: Transaction,
        session: SessionRequest | None,
    ) -> int:
        """Stage what a run wrote; return the timestamp that its answer waits for."""
        begin_ts = transaction.view.begin_ts
        if transaction.view.generation != self._committer.generation:
            raise RunAgain
        ts = transaction.commit_ts or self._committer.next_ts(transaction.created_upto)
        try:
            if session is not None:
                idempotence.record(
                    transaction,
                    session,
                    ts=ts,
                    value=outcome.value,
                    log_lines=outcome.log_lines,
                )
            writes = transaction.finish()
        except UsageError as error:
            outcome.value, outcome.failure = None, failure_of(error)
            return begin_ts
        # Only now, because what has to be unique was read just before.
        if transaction.view.is_validated:
            if transaction.schema is not self._executor.deployment.schemas:
                raise Conflict("a push has changed what writes have to meet; run it again")
            self._committer.validate(transaction.reads, begin_ts, request.path, ts)
        if not writes and not transaction.commit_ts:
            return begin_ts
        if (behind := self._committer.index_behind(writes)) is not None:
            raise _IndexBehind(behind)
        path, component, caller = request.path, request.component, request.caller
        deployment = self._executor.deployment
        recorded = deployment.recorded(path, component, request.args)
        identity = None
        if execution.observed_identity and caller.identity is not None and recorded is not None:
            identity = caller.identity.as_value()
        source = Source(
            path,
            component,
            caller.request_id,
            deployment.digest,
            recorded,
            identity,
            execution.seed,
            execution.now_ns,
        )
        return self._committer.stage(writes, source, ts=ts)


def _answered(transaction: Transaction, session: SessionRequest) -> MutationResult | None:
    """What a request was answered before, or that this is not known any more."""
    try:
        known = idempotence.find(transaction, session)
    except OutOfRetention as error:
        # An answer like any other: a client that is sent away comes back with the same request.
        return MutationResult(ts=None, value=None, failure=failure_of(error), log_lines=())
    if known is None:
        return None
    return MutationResult(ts=known.ts, value=known.value, failure=None, log_lines=known.log_lines)


def _retry(error: Conflict | SnapshotTooOld) -> Retry:
    return Retry.after(error) if isinstance(error, Conflict) else SNAPSHOT_TOO_OLD


def job_request(kind: Kind, job: dict[str, Any]) -> Request:
    """The call that a row of `_scheduled_functions` describes; nobody's identity goes with it."""
    origin: Origin = "cron" if is_tick(job) else "job"
    caller = Caller(admin=True, request_id=request_of(job["_id"]), origin=origin)
    return Request(kind, job["name"], job["args"][0], caller, job["target"])
