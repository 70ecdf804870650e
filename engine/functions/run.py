"""
Running functions: from a path and arguments to a value that may be told.

    query      view at one timestamp ── handler ── subscription, cache
    mutation   see `mutations`
    action     no transaction of its own; every call it makes is a query or mutation
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import trio

from engine.app.environment import using
from engine.app.registered import Kind
from engine.app.validators import Tables
from engine.committer.actor import Committer
from engine.errors import (
    Conflict,
    FunctionAborted,
    FunctionTimeout,
    OutOfRetention,
    Overloaded,
    SnapshotTooOld,
)
from engine.functions.actions import ActionCalls, ActionContext, ActionScope
from engine.functions.cache import CacheKey, QueryCache
from engine.functions.deployment import Deployment
from engine.functions.driver import Execution
from engine.functions.execute import Executor, Outcome, Request, check_size
from engine.functions.history import SNAPSHOT_TOO_OLD, ExecutionLog, ExecutionRecord, Way
from engine.functions.logs import listening
from engine.functions.loops import Loops
from engine.functions.mutations import JobResult, Mutations, NextKey
from engine.functions.past_reads import PastReads
from engine.functions.pausing import refuse_if_paused, set_paused
from engine.functions.places import Places
from engine.functions.queries import PaginationState
from engine.functions.replay import Replayed, replay
from engine.functions.results import (
    ActionResult,
    Caller,
    Failure,
    MutationResult,
    PastResult,
    QueryResult,
    failure_of,
    size_of_shown,
)
from engine.functions.turns import Turns
from engine.functions.watchdog import Watchdog
from engine.indexes.catalog import DEPLOYMENT_KEY
from engine.indexes.snapshot import SharedSnapshot, Snapshots
from engine.indexes.vectors.asked import VectorSearch
from engine.kernel.counters import Counters
from engine.kernel.runtime import Runtime
from engine.kernel.watermark import Watermark
from engine.model.codec import encode
from engine.model.commits import SYSTEM, RowWrite, SessionRequest, Source
from engine.model.limits import Limits
from engine.subscriptions.handle import Subscriptions
from engine.transaction.past import IndexNotLaid, with_its_catalog
from engine.transaction.transaction import Reading, Transaction
from engine.transaction.usage import Usage
from engine.transaction.vector_search import Hit, search_newest
from engine.transaction.view import View, view_of

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

SNAPSHOTS_TRIED: Final = 3
"""A query that outlived its snapshot runs on a newer one, so often."""


class CodeReplaced(Conflict):
    """The code that is deployed is newer than the state that was asked for."""


class Explained(NamedTuple):
    """A run of a query, and what it read."""

    outcome: Outcome
    readings: list[Reading]


class Functions:
    """
    The functions of the deployed application, to be called.

    Args:
        published: the newest timestamp that queries may read.
        past: gives views of those before it.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        committer: Committer,
        snapshots: Snapshots,
        subscriptions: Subscriptions,
        published: Watermark,
        past: PastReads,
        runtime: Runtime,
        limits: Limits,
        watchdog: Watchdog,
    ) -> None:
        self.published = published
        self.limits = limits
        self.executions = ExecutionLog(
            limits.executions_kept_max,
            limits.executions_bytes_max,
            self._from_cache,
            lambda component, path: self.deployment.application.find(path, component) is not None,
        )
        self.running_actions: Counter[str] = Counter()
        """Paths of the actions that have begun and not ended."""
        self.turns = Turns(committer, runtime=runtime, limits=limits)
        self.loops = Loops()
        self._places = Places(limits)
        self._committer = committer
        self._snapshots = snapshots
        self._subscriptions = subscriptions
        self._runtime = runtime
        self._executor = Executor(
            deployment,
            runtime=runtime,
            limits=limits,
            watchdog=watchdog,
            executions=self.executions,
        )
        self._searches_until = 0.0
        self.is_fresh = True
        """No code was deployed in this process yet, and nobody was answered."""
        self._code_ts = 0
        """Of states before this one other code answered."""
        self._past = past
        self._mutations = Mutations(committer, self._executor, runtime=runtime, limits=limits)
        self._cache: QueryCache[QueryResult] = QueryCache(
            limits.query_cache_bytes_max,
            subscriptions,
            monotonic=runtime.monotonic,
            time_age_s_max=limits.query_time_age_s_max,
        )

    @property
    def deployment(self) -> Deployment:
        return self._executor.deployment

    @deployment.setter
    def deployment(self, deployment: Deployment) -> None:
        """Called when what a push switched to is published, before anybody reads it."""
        self._executor.deployment = deployment
        self.is_fresh = False
        with self.pin() as ts:
            self._code_ts = ts

    @property
    def is_paused(self) -> bool:
        """Whether nothing new is called; what has begun goes on."""
        return self._executor.is_paused

    @is_paused.setter
    def is_paused(self, paused: bool) -> None:
        self._executor.is_paused = paused

    async def set_paused(self, *, paused: bool) -> bool:
        """
        Let functions be called, or not; it is durable when this returns, and stays so.

        Returns:
            Whether it was not so before.

        Raises:
            UsageError: nothing was ever deployed.
        """

        async def work(turn: Transaction) -> bool:
            if not set_paused(turn, paused=paused):
                return False
            self.turns.stage(turn, SYSTEM, on_publish=switch)
            return True

        def switch() -> None:
            self.is_paused = paused

        return await self.turns.repeat(work)

    def watch(self, counters: Counters) -> None:
        """Have operators read how often functions ran, and what is cached."""
        counters.watch("executions", self.executions.counts)
        statistics = self._cache.statistics
        counters.watch("cache.entries", lambda: {(): statistics().entries})
        counters.watch("cache.bytes", lambda: {(): statistics().size_bytes})
        counters.watch("cache.evictions", lambda: {(): statistics().evictions})
        counters.watch("actions.running", lambda: {(): self.running_actions.total()})

    def _from_cache(self) -> list[ExecutionRecord]:
        now_ns = self._runtime.now_ns()
        return [
            ExecutionRecord(
                Kind.QUERY.value,
                path,
                component,
                "",
                "program",
                now_ns,
                0.0,
                None,
                (),
                cached=count,
            )
            for component, path, count in self._cache.take_hits()
        ]

    @property
    def oldest_fresh_ts(self) -> int:
        """What was the newest timestamp `client_past_s_max` ago."""
        return self._snapshots.oldest_fresh_ts

    @property
    def processed(self) -> Watermark:
        """Up to where every `Live` has been told what touched it; follows `published`."""
        return self._subscriptions.processed

    def compared(self, ts: int) -> bool:
        """As `Subscriptions.compared`."""
        return self._subscriptions.compared(ts)

    # Queries

    @contextmanager
    def pin(self) -> Iterator[int]:
        """Keep the newest snapshot at hand inside the block, for several queries at its ts."""
        snapshot = self._snapshots.acquire()
        try:
            yield snapshot.ts
        finally:
            self._snapshots.release(snapshot)

    async def query(
        self,
        path: str,
        args: Mapping[str, Any],
        *,
        caller: Caller,
        ts: int | None = None,
        journal: str | None = None,
        component: str = "",
    ) -> QueryResult:
        """
        Run a query, or answer it from the cache.

        Args:
            ts: the state to read, nanoseconds, of the near past; the newest if `None`.
            journal: what an earlier run of this paginated query left.

        Returns:
            The result; one hold of its `live` is the caller's, to be released.

        Raises:
            OutOfRetention: `ts` lies in the future, or too long ago.
        """
        at = self.published.value if ts is None else await self._reached(ts)
        if self._subscriptions.processed.value < at:
            await self._subscriptions.processed.wait_reached(at)
        request = Request(Kind.QUERY, path, args, caller, component)
        key = CacheKey(
            component=component,
            path=path,
            args_bytes=encode([dict(args), caller.admin]),
            journal=journal,
        )
        identity = caller.identity.cache_key() if caller.identity else None
        if self.is_paused:
            # What is refused is nobody else's answer, nor is what others may still ask.
            return await self._query(request, at, journal)
        try:
            return await self._cache.fetch(
                key, identity, at, lambda: self._query(request, at, journal)
            )
        except CodeReplaced:
            if ts is not None:
                raise
            return await self.query(path, args, caller=caller, journal=journal, component=component)

    async def _query(self, request: Request, ts: int, journal: str | None) -> QueryResult:
        await self._executor.query_turn()
        way = Way()

        async def run(view: View) -> QueryResult:
            return await self._run_query(request, view, journal, way)

        def lease() -> SharedSnapshot:
            return self._snapshots.acquire(ts)

        def note() -> None:
            way.retries += (SNAPSHOT_TOO_OLD,)

        try:
            return await self._run_then(ts, lease, run, note)
        except SnapshotTooOld:
            late = FunctionTimeout(f"{request.path} reads for longer than a snapshot may be held")
            self._executor.tell_refused(request, way, late)
            raise late from None

    async def _run_then(
        self,
        ts: int,
        lease: Callable[[], SharedSnapshot],
        run: Callable[[View], Awaitable[T]],
        note: Callable[[], None] = lambda: None,
    ) -> T:
        """
        What `run` makes of a view of `ts`; run again where a snapshot was held for too long.

        Args:
            lease: takes a snapshot to begin from, not before `ts`.
            note: called each time that it was held for too long.

        Raises:
            SnapshotTooOld: it was, each time.
        """
        tries = 0
        async with AsyncExitStack() as laid:
            while True:
                try:
                    async with self._past.view(ts, lease) as view:
                        return await run(view)
                except IndexNotLaid as missing:
                    await laid.enter_async_context(self._past.laid(ts, missing.index))
                except SnapshotTooOld:
                    note()
                    tries += 1
                    if tries == SNAPSHOTS_TRIED:
                        raise

    async def query_at(
        self,
        path: str,
        args: Mapping[str, Any],
        *,
        caller: Caller,
        ts: int,
        component: str = "",
    ) -> PastResult:
        """
        Run a query on the state as it was at `ts`, however long ago; text search is refused.

        Code and schema are those of now, and so are indexes, but for names of then that none has
        now.  It has nothing to do with the cache: who asks
        for the newest state neither waits for this nor is answered with it.  The first who asks for
        a ts waits until all records since were gone through; see `PastReads` for what is kept.

        Raises:
            OutOfRetention: `ts` lies in the future, or further back than the log is kept, or what
                was changed since takes over `past_disk_bytes_max`.
            StoreFull: there is no room on the disk for what was changed since.
            Overloaded: others who ask for the past have kept it waiting for `past_patience_s`.
            FunctionTimeout: it reads for longer than a snapshot may be held.
        """
        at = await self._reached(ts)
        request = Request(Kind.QUERY, path, args, caller, component)
        is_reading = False

        async def run(view: View) -> PastResult:
            nonlocal is_reading
            is_reading = True
            return await self._run_past(request, view.as_of())

        try:
            return await self._run_then(at, partial(self._lease_with_newest_catalog, at), run)
        except SnapshotTooOld:
            if is_reading:
                late = f"{path} reads for longer than a snapshot may be held"
            else:
                late = (
                    f"too much was committed since ts {at} to be taken back while a snapshot may "
                    f"be held (snapshot_age_s_max, {self.limits.snapshot_age_s_max:g} s); ask "
                    "again, which goes on from there, or for a newer ts"
                )
            raise FunctionTimeout(late) from None

    async def _reached(self, ts: int) -> int:
        """
        `ts`, or the newest timestamp if nothing was committed between the two.

        Raises:
            OutOfRetention: `ts` lies in the future, where anything may yet be committed.
        """
        published = self.published
        if ts <= published.value:
            return ts
        now_ns = self._runtime.now_ns()
        if ts > now_ns:
            raise OutOfRetention(
                f"ts {ts} lies {(ts - now_ns) / 1e9:.3f} s in the future; the newest is "
                f"{published.value}"
            )
        staged_ts = self._committer.head.ts
        if published.value < staged_ts:
            await published.wait_reached(staged_ts)
        return min(ts, published.value)

    def _lease_with_newest_catalog(self, ts: int) -> SharedSnapshot:
        """Whether somebody still has the snapshot of `ts` is not to show in what can be asked."""
        newest = self._snapshots.acquire()
        snapshot = self._snapshots.acquire(ts)
        if snapshot.catalog is newest.catalog:
            self._snapshots.release(newest)
            return snapshot
        self._snapshots.release(snapshot)
        return newest

    async def _run_past(self, request: Request, view: View) -> PastResult:
        execution = self._executor.begin(Kind.QUERY, request.path)
        transaction = self._executor.transaction(view, execution)
        outcome = await self._executor.run(request, execution, transaction, PaginationState(None))
        self._executor.tell(outcome, Way())
        return PastResult(view.begin_ts, outcome.value, outcome.failure, outcome.log_lines)

    async def explain(
        self, path: str, args: Mapping[str, Any], *, caller: Caller, component: str = ""
    ) -> Explained:
        """Run a query now, whatever the cache has, and say what each of its queries read."""
        request = Request(Kind.QUERY, path, args, caller, component)
        snapshot = self._snapshots.acquire()
        try:
            execution = self._executor.begin(Kind.QUERY, path)
            transaction = self._executor.transaction(view_of(snapshot), execution)
            transaction.readings = []
            outcome = await self._executor.run(
                request, execution, transaction, PaginationState(None)
            )
            self._executor.tell(outcome, Way())
            return Explained(outcome, transaction.readings)
        finally:
            self._snapshots.release(snapshot)

    async def _run_query(
        self, request: Request, view: View, journal: str | None, way: Way
    ) -> QueryResult:
        if view.begin_ts < self._code_ts:
            raise CodeReplaced(
                f"a push has replaced the functions of ts {view.begin_ts}; ask for a newer one"
            )
        self.is_fresh = False
        execution = self._executor.begin(Kind.QUERY, request.path)
        transaction = self._executor.transaction(view, execution)
        transaction.reads.add_point(DEPLOYMENT_KEY)
        pagination = PaginationState(journal)
        outcome = await self._executor.run(request, execution, transaction, pagination)
        self._executor.tell(outcome, way)
        value_bytes = 0 if outcome.value is None else transaction.usage.result_bytes
        return QueryResult(
            ts=view.begin_ts,
            value=outcome.value,
            failure=outcome.failure,
            log_lines=outcome.log_lines,
            journal=pagination.written,
            live=self._subscriptions.subscribe(transaction.reads, view.begin_ts),
            observed_identity=execution.observed_identity,
            observed_time=execution.observed_time,
            size_bytes=size_of_shown(value_bytes, outcome.failure, pagination.written),
        )

    # Mutations

    def mutation(
        self,
        path: str,
        args: Mapping[str, Any],
        *,
        caller: Caller,
        request: SessionRequest | None = None,
        component: str = "",
    ) -> Coroutine[Any, Any, MutationResult]:
        """
        Run a mutation; what it wrote is durable when this returns.

        Args:
            request: the client's own number for it; the same one is run once only.

        Raises:
            Overloaded: there was no room; nothing was done.
            StoreFull: the disk is full; nothing was done.
            OutcomeUnknown: the disk failed; it may or may not be done.
        """
        return self._mutations.run(Request(Kind.MUTATION, path, args, caller, component), request)

    async def replay(
        self,
        source: Source,
        writes: Sequence[RowWrite],
        *,
        ts: int,
        after: int,
        debugs: bool = False,
    ) -> Replayed:
        """
        Run a mutation of the past again, on the state of `after`, and compare what it writes.

        Nothing is written, and nobody is told.

        Args:
            source, writes, ts: of its log record.
            after: the ts of the commit before it.
            debugs: stop at its first line in a debugger on this process's terminal.

        Raises:
            FunctionNotFound: the deployed code has no such mutation.
            NotAllowed: it takes secrets, and these are not recorded.
            SnapshotTooOld: it takes too long.
        """

        async def run(view: View) -> Replayed:
            then = with_its_catalog(view)
            return await replay(self._executor, then, source, writes, ts=ts, debugs=debugs)

        return await self._run_then(after, self._snapshots.acquire, run)

    async def run_jobs(self, next_key: NextKey) -> list[JobResult]:
        """As `Mutations.run_jobs`."""
        return await self._mutations.run_jobs(next_key)

    # Actions

    async def vector_search(self, component: str, table: str, wanted: VectorSearch) -> list[Hit]:
        """
        The documents of the newest state whose vectors are most like one, see `DatabaseReader`.

        Raises:
            UsageError: the search cannot be.
        """
        await self._search_turn()
        view = view_of(self._snapshots.current)
        search = search_newest(view, component, table, wanted, partial(self._reading, view))
        try:
            next(search)
        except StopIteration as end:
            hits: list[Hit] = end.value
            return hits
        # Others have their turn before it ends, and may publish another state.
        snapshot = self._snapshots.acquire()
        try:
            return await self._in_turns(search)
        finally:
            self._snapshots.release(snapshot)

    async def _in_turns(self, search: Generator[None, None, list[Hit]]) -> list[Hit]:
        """What a search comes to, amid which others run."""
        while True:
            await self._search_turn()
            try:
                next(search)
            except StopIteration as end:
                hits: list[Hit] = end.value
                return hits

    def _reading(self, view: View) -> Transaction:
        """A transaction for somebody who reads `view` and depends on nothing."""
        return Transaction(
            view,
            usage=Usage(self.limits),
            now_ns=self._runtime.now_ns(),
            dice=self._runtime.random,
            schema=None,
        )

    async def _search_turn(self) -> None:
        """Let others run if searches have had their time, which many short ones share."""
        now = self._runtime.monotonic()
        if now < self._searches_until and not self._runtime.is_virtual:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            self._searches_until = self._runtime.monotonic() + self.limits.slice_s_max

    async def action(
        self,
        path: str,
        args: Mapping[str, Any],
        *,
        caller: Caller,
        component: str = "",
    ) -> ActionResult:
        """
        Run an action, once; what it called stays done, whatever becomes of it.

        Raises:
            Overloaded: too many run, and none ended within `action_patience_s`; nothing was done.
        """
        way = Way()
        try:
            async with self._places.place(way):
                return await self.action_in_place(
                    path, args, caller=caller, component=component, way=way
                )
        except Overloaded as error:
            request = Request(Kind.ACTION, path, args, caller, component)
            self._executor.tell_refused(request, way, error)
            raise

    def kind_of(self, path: str, *, caller: Caller, component: str = "") -> Kind | None:
        """What `caller` may call the function at `path` as; `None` if it may know of none."""
        return self._executor.kind_of(path, caller, component)

    def tell_refused(
        self, kind: str, path: str, failure: Failure, caller: Caller, component: str = ""
    ) -> None:
        """
        Record a call that could not be made at all, of arguments that are no values for one.

        A client in production is told nothing but its request id.
        """
        self.executions.add(
            ExecutionRecord(
                kind=kind,
                path=path,
                component=component,
                request_id=caller.request_id,
                origin=caller.origin,
                ended_ns=self._runtime.now_ns(),
                duration_ms=0.0,
                error=failure.message,
                log_lines=(),
            )
        )

    async def action_in_place(
        self,
        path: str,
        args: Mapping[str, Any],
        *,
        caller: Caller,
        component: str = "",
        way: Way | None = None,
    ) -> ActionResult:
        """As `action`, for whoever has a place: an action that calls it, a job."""
        request = Request(Kind.ACTION, path, args, caller, component)
        execution = self._executor.begin(Kind.ACTION, path)
        began = self._runtime.monotonic()
        usage = Usage(self.limits)
        value: Any = None
        failure: Failure | None = None
        self.running_actions[path] += 1
        try:
            value = await self._act(request, execution, usage)
        except Exception as error:
            failure = _failure(error)
        finally:
            self.running_actions[path] -= 1
            if not self.running_actions[path]:
                del self.running_actions[path]
        seconds = self._runtime.monotonic() - began
        usage.note("action_time_s_max", seconds, self.limits.action_time_s_max)
        usage.note_log_lines(len(execution.log_lines))
        for warning in usage.warnings():
            execution.log("WARN", warning)
        lines = tuple(execution.log_lines)
        self.executions.add(
            ExecutionRecord(
                kind=Kind.ACTION.value,
                path=path,
                component=component,
                request_id=caller.request_id,
                origin=caller.origin,
                ended_ns=self._runtime.now_ns(),
                duration_ms=seconds * 1000,
                error=failure.message if failure else None,
                log_lines=lines,
                queued=0 if way is None else way.queued,
                queue_ms=0.0 if way is None else way.queue_ms,
                args_bytes=usage.args_bytes,
                result_bytes=usage.result_bytes,
            )
        )
        return ActionResult(value=value, failure=failure, log_lines=lines)

    async def _act(self, request: Request, execution: Execution, usage: Usage) -> Any:
        _, path, args, caller, component = request
        if self.is_paused:
            refuse_if_paused(caller, path)
        function = self.deployment.find(
            path, Kind.ACTION, component=component, may_call_internal=caller.admin
        )
        tables = self.deployment.tables_of(component)
        check_size("args_bytes_max", function, dict(args), usage)
        arguments = _converted(request, function.signature.load, args, tables)
        calls = ActionCalls(path)
        ctx = ActionContext(
            ActionScope(
                functions=self,
                turns=self.turns,
                runtime=self._runtime,
                caller=caller,
                component=component,
                path=path,
            ),
            calls,
        )
        limit_s = self.limits.action_time_s_max
        try:
            environment = using(self.deployment.environment_of(component))
            with trio.move_on_after(limit_s) as deadline, listening(execution), environment:
                result = await self.loops.run(function, ctx, arguments, calls)
        finally:
            for name in calls.close():
                execution.log("WARN", f"{name} was called and never awaited, so it never ran")
        if deadline.cancelled_caught:
            raise FunctionTimeout(f"the action {path} ran longer than {limit_s:g} s")
        value = _converted(request, function.signature.dump, result, tables)
        check_size("result_bytes_max", function, value, usage)
        return value


@trio.lowlevel.enable_ki_protection
def _converted(request: Request, convert: Callable[[A, Tables], R], given: A, tables: Tables) -> R:
    """
    Arguments or result of an action, made by classes of the application.

    Raises:
        FunctionAborted: they raised SystemExit or another exception that is no `Exception`.
    """
    try:
        return convert(given, tables)
    except Exception:
        raise
    except BaseException as error:
        raise FunctionAborted(f"the action {request.path}", error) from error


@trio.lowlevel.enable_ki_protection
def _failure(error: Exception) -> Failure:
    return failure_of(error)
