"""
Running functions: from a path and arguments to a value that may be told.

    query      view at one timestamp ── handler ── subscription, cache
    mutation   lane ── view of all that is staged ── handler ── stage ── wait until durable
    action     no transaction of its own; every call it makes is a query or mutation

Whatever a mutation answers (a value, an error, its log lines) is told only
when the writes that it could have seen are durable.  If a batch below it was
refused, it runs again, alone, on what there really is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import trio

from engine.app.registered import Kind, RegisteredFunction
from engine.committer.actor import Committer, RunAgain
from engine.errors import (
    FunctionTimeout,
    LimitExceeded,
    OutOfRetention,
    SnapshotTooOld,
    StoreFull,
    UsageError,
)
from engine.functions import idempotence
from engine.functions.actions import ActionContext, ActionScope
from engine.functions.cache import CacheKey, QueryCache
from engine.functions.calls import Slice
from engine.functions.context import MutationContext, QueryContext, Scope
from engine.functions.deployment import Deployment
from engine.functions.driver import Execution, drive
from engine.functions.history import ExecutionLog, ExecutionRecord
from engine.functions.logs import Level, listening
from engine.functions.loops import run_action
from engine.functions.queries import PaginationState
from engine.functions.results import (
    ActionResult,
    Caller,
    Failure,
    MutationResult,
    QueryResult,
    digest_of,
    failure_of,
)
from engine.functions.turns import Turns
from engine.functions.watchdog import Watchdog
from engine.indexes.catalog import DEPLOYMENT_KEY
from engine.indexes.snapshot import SharedSnapshot, Snapshots
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.kernel.watermark import Watermark
from engine.model.codec import encode
from engine.model.commits import SessionRequest, Source
from engine.model.limits import Limits
from engine.model.values import size_of
from engine.subscriptions.handle import Subscriptions
from engine.transaction.transaction import Transaction
from engine.transaction.usage import Usage
from engine.transaction.view import View, view_of_the_past

trace = tracer(__name__)


@dataclass(slots=True, kw_only=True)
class _Outcome:
    """What a handler came to, before anybody may be told."""

    value: Any
    failure: Failure | None
    log_lines: tuple[str, ...]


class Functions:
    """
    The functions of the deployed application, to be called.

    Args:
        published: the newest timestamp that queries may read.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        committer: Committer,
        snapshots: Snapshots,
        subscriptions: Subscriptions,
        published: Watermark,
        runtime: Runtime,
        limits: Limits,
        watchdog: Watchdog,
    ) -> None:
        self.deployment = deployment
        self.published = published
        self.limits = limits
        self.executions = ExecutionLog()
        self.turns = Turns(committer, runtime=runtime, limits=limits)
        self._committer = committer
        self._snapshots = snapshots
        self._subscriptions = subscriptions
        self._runtime = runtime
        self._watchdog = watchdog
        self._cache: QueryCache[QueryResult] = QueryCache(
            limits.query_cache_bytes_max,
            subscriptions,
            monotonic=runtime.monotonic,
            time_age_s_max=limits.query_time_age_s_max,
        )

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
            ts: the state to read, nanoseconds; the newest if `None`.
            journal: what an earlier run of this paginated query left.

        Returns:
            The result; one hold of its `live` is the caller's, to be released.

        Raises:
            OutOfRetention: `ts` is not reached yet, or too long ago.
        """
        at = self.published.value if ts is None else ts
        if at > self.published.value:
            newest = self.published.value
            raise OutOfRetention(f"ts {at} is not reached yet; the newest is {newest}")
        if self._subscriptions.processed.value < at:
            await self._subscriptions.processed.wait_reached(at)
        key = CacheKey(
            component=component,
            path=path,
            args_bytes=encode([dict(args), caller.admin]),
            journal=journal,
        )
        identity = caller.identity.cache_key() if caller.identity else None
        return await self._cache.fetch(
            key, identity, at, lambda: self._query(path, args, caller, at, journal, component)
        )

    async def _query(
        self,
        path: str,
        args: Mapping[str, Any],
        caller: Caller,
        ts: int,
        journal: str | None,
        component: str,
    ) -> QueryResult:
        while True:
            snapshot = self._snapshots.acquire(ts)
            try:
                view = self._view_at(snapshot, ts)
                return await self._run_query(view, path, args, caller, journal, component)
            except SnapshotTooOld:
                continue
            finally:
                self._snapshots.release(snapshot)

    def _view_at(self, snapshot: SharedSnapshot, ts: int) -> View:
        if snapshot.ts == ts:
            return View(snapshot, begin_ts=ts, catalog=snapshot.catalog)
        return view_of_the_past(snapshot, ts)

    async def _run_query(
        self,
        view: View,
        path: str,
        args: Mapping[str, Any],
        caller: Caller,
        journal: str | None,
        component: str,
    ) -> QueryResult:
        execution = self._execution(Kind.QUERY, path)
        transaction = self._transaction(view, execution)
        transaction.reads.add_point(DEPLOYMENT_KEY)
        pagination = PaginationState(journal)
        outcome = await self._run(
            Kind.QUERY, path, args, caller, component, execution, transaction, pagination
        )
        digest, size = digest_of(outcome.value, outcome.failure, pagination.written)
        live = self._subscriptions.subscribe(transaction.reads, view.begin_ts)
        return QueryResult(
            ts=view.begin_ts,
            value=outcome.value,
            failure=outcome.failure,
            log_lines=outcome.log_lines,
            journal=pagination.written,
            live=live,
            observed_identity=execution.observed_identity,
            observed_time=execution.observed_time,
            size_bytes=size,
            digest=digest,
        )

    # Mutations

    async def mutation(
        self,
        path: str,
        args: Mapping[str, Any],
        *,
        caller: Caller,
        request: SessionRequest | None = None,
        component: str = "",
    ) -> MutationResult:
        """
        Run a mutation; what it wrote is durable when this returns.

        Args:
            request: the client's own number for it; the same one is run once only.

        Raises:
            Overloaded: there was no room; nothing was done.
            StoreFull: the disk is full; nothing was done.
            OutcomeUnknown: the disk failed; it may or may not be done.
        """
        alone = False
        while True:
            await self._committer.lane.enter(self.limits.mutation_patience_s)
            try:
                attempt = await self._attempt(path, args, caller, request, component)
                if alone:
                    await self._committer.settled(attempt[1], attempt[2])
                    return attempt[0]
            except RunAgain as again:
                if alone and isinstance(again.__cause__, StoreFull):
                    raise again.__cause__ from None
                alone = True
                continue
            except SnapshotTooOld:
                continue
            finally:
                self._committer.lane.leave()
            try:
                await self._committer.settled(attempt[1], attempt[2])
            except RunAgain:
                alone = True
                continue
            return attempt[0]

    async def _attempt(
        self,
        path: str,
        args: Mapping[str, Any],
        caller: Caller,
        request: SessionRequest | None,
        component: str,
    ) -> tuple[MutationResult, int, int]:
        """One run, the lane being held: its result, the ts it waits for, and the generation."""
        committer = self._committer
        generation = committer.generation
        snapshot = committer.pin()
        try:
            head = committer.head
            view = View(
                snapshot,
                begin_ts=head.ts,
                catalog=head.catalog,
                staged=committer.staged,
                generation=generation,
            )
            execution = self._execution(Kind.MUTATION, path)
            transaction = self._transaction(view, execution)
            if request is not None and (known := idempotence.find(transaction, request)):
                result = MutationResult(
                    ts=known.ts, value=known.value, failure=None, log_lines=known.log_lines
                )
                return result, view.begin_ts, generation
            outcome = await self._run(
                Kind.MUTATION,
                path,
                args,
                caller,
                component,
                execution,
                transaction,
                PaginationState(None),
            )
            if generation != committer.generation:
                raise RunAgain
            ts = self._stage(outcome, transaction, execution, args, caller, request)
        finally:
            committer.unpin(snapshot)
        result = MutationResult(
            ts=None if outcome.failure else ts,
            value=outcome.value,
            failure=outcome.failure,
            log_lines=outcome.log_lines,
        )
        return result, ts, generation

    def _stage(
        self,
        outcome: _Outcome,
        transaction: Transaction,
        execution: Execution,
        args: Mapping[str, Any],
        caller: Caller,
        request: SessionRequest | None,
    ) -> int:
        """Stage what a run wrote, if it succeeded; return the ts that its answer waits for."""
        if outcome.failure is not None:
            return transaction.view.begin_ts
        ts = self._committer.next_ts()
        try:
            if request is not None:
                idempotence.record(
                    transaction,
                    request,
                    ts=ts,
                    value=outcome.value,
                    log_lines=outcome.log_lines,
                    limits=self.limits,
                )
            writes = transaction.finish()
        except UsageError as error:
            outcome.value, outcome.failure = None, failure_of(error)
            return transaction.view.begin_ts
        if not writes:
            return transaction.view.begin_ts
        source = Source(
            path=execution.path,
            request_id=caller.request_id,
            code=self.deployment.digest,
            args=encode(dict(args)),
            seed=execution.seed,
            now_ns=execution.now_ns,
        )
        return self._committer.stage(writes, source, ts=ts)

    # Actions

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
            Overloaded: too many actions are running; nothing was done.
        """
        execution = self._execution(Kind.ACTION, path)
        began = self._runtime.monotonic()
        value: Any = None
        failure: Failure | None = None
        try:
            function = self.deployment.find(
                path, Kind.ACTION, component=component, may_call_internal=caller.admin
            )
            value = await self._act(function, args, caller, component, execution)
        except Exception as error:
            failure = failure_of(error)
        lines = tuple(execution.log_lines)
        self.executions.add(
            ExecutionRecord(
                kind=Kind.ACTION.value,
                path=path,
                component=component,
                request_id=caller.request_id,
                ended_ns=self._runtime.now_ns(),
                duration_ms=(self._runtime.monotonic() - began) * 1000,
                error=failure.message if failure else None,
                log_lines=lines,
            )
        )
        return ActionResult(value=value, failure=failure, log_lines=lines)

    async def _act(
        self,
        function: RegisteredFunction,
        args: Mapping[str, Any],
        caller: Caller,
        component: str,
        execution: Execution,
    ) -> Any:
        tables = self.deployment.tables_of(component)
        arguments = function.signature.load(dict(args), tables)
        ctx = ActionContext(
            ActionScope(
                functions=self,
                turns=self.turns,
                runtime=self._runtime,
                caller=caller,
                component=component,
                path=path_of(function),
            )
        )
        limit_s = self.limits.action_time_s_max
        with trio.move_on_after(limit_s) as deadline:
            with listening(execution):
                result = await run_action(function, ctx, arguments)
        if deadline.cancelled_caught:
            raise FunctionTimeout(f"the action {path_of(function)} ran longer than {limit_s:g} s")
        for name in ctx.leftovers():
            execution.log(Level.WARN, f"{name} was called and never awaited, so it never ran")
        return function.signature.dump(result, tables)

    # Within

    async def _run(
        self,
        kind: Kind,
        path: str,
        args: Mapping[str, Any],
        caller: Caller,
        component: str,
        execution: Execution,
        transaction: Transaction,
        pagination: PaginationState,
    ) -> _Outcome:
        began = self._runtime.monotonic()
        value: Any = None
        failure: Failure | None = None
        try:
            function = self.deployment.find(
                path, kind, component=component, may_call_internal=caller.admin
            )
            value = await self._call(
                function, args, caller, component, execution, transaction, pagination
            )
        except (RunAgain, SnapshotTooOld):
            raise
        except Exception as error:
            failure = failure_of(error)
        for warning in transaction.usage.warnings():
            execution.log(Level.WARN, warning)
        lines = tuple(execution.log_lines)
        self.executions.add(
            ExecutionRecord(
                kind=kind.value,
                path=path,
                component=component,
                request_id=caller.request_id,
                ended_ns=self._runtime.now_ns(),
                duration_ms=(self._runtime.monotonic() - began) * 1000,
                documents_read=transaction.usage.documents_read,
                bytes_read=transaction.usage.bytes_read,
                documents_written=transaction.usage.documents_written,
                bytes_written=transaction.usage.bytes_written,
                error=failure.message if failure else None,
                log_lines=lines,
            )
        )
        return _Outcome(value=value, failure=failure, log_lines=lines)

    async def _call(
        self,
        function: RegisteredFunction,
        args: Mapping[str, Any],
        caller: Caller,
        component: str,
        execution: Execution,
        transaction: Transaction,
        pagination: PaginationState,
    ) -> Any:
        deployment = self.deployment
        tables = deployment.tables_of(component)
        arguments = function.signature.load(dict(args), tables)
        scope = Scope(
            execution=execution,
            transaction=transaction,
            deployment=deployment,
            caller=caller,
            limits=self.limits,
            slice=Slice(rows_max=self.limits.slice_rows_max, seconds_max=self.limits.slice_s_max),
            pagination=pagination,
            component=component,
            path=path_of(function),
        )
        is_mutation = function.kind is Kind.MUTATION
        ctx = MutationContext(scope) if is_mutation else QueryContext(scope)
        started = function.handler if function.is_async else _plain(function.handler)
        result = await drive(
            started(ctx, **arguments), execution, limits=self.limits, watchdog=self._watchdog
        )
        ctx.close()
        value = function.signature.dump(result, tables)
        if value is not None and size_of(value) > self.limits.result_bytes_max:
            used, allowed = size_of(value), self.limits.result_bytes_max
            raise LimitExceeded("result_bytes_max", used, allowed, f"bytes of {path_of(function)}")
        return value

    def _execution(self, kind: Kind, path: str) -> Execution:
        return Execution(
            kind=kind,
            path=path,
            now_ns=self._runtime.now_ns(),
            seed=int.from_bytes(self._runtime.random_bytes(8), "big"),
            limits=self.limits,
        )

    def _transaction(self, view: View, execution: Execution) -> Transaction:
        return Transaction(
            view,
            usage=Usage(self.limits),
            now_ns=execution.now_ns,
            dice=LazyDice(execution.seed),
            schema=self.deployment.schemas,
        )


class LazyDice:
    """Seeded dice for ids, made only by those that insert: making them costs more than a read."""

    __slots__ = ("_random", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random: Random | None = None

    def randbytes(self, n: int, /) -> bytes:
        if self._random is None:
            self._random = Random(self._seed + 1)
        return self._random.randbytes(n)


def _plain(handler: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A `def` handler as one that can be driven."""

    async def started(ctx: QueryContext, **arguments: Any) -> Any:
        result = handler(ctx, **arguments)
        return await result if isinstance(result, Coroutine) else result

    return started


def path_of(function: RegisteredFunction) -> str:
    return function.path or function.handler.__name__
