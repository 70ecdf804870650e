"""
Executing a handler within a transaction: arguments in, handler driven, result out.

What comes out is an `Outcome`, which nobody may be told yet: what a mutation
saw may not be durable.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from engine.app.environment import using
from engine.app.registered import Kind, RegisteredFunction
from engine.committer.actor import RunAgain
from engine.errors import (
    EngineError,
    FunctionNotFound,
    LimitExceeded,
    SnapshotTooOld,
    UnmountedComponent,
)
from engine.functions.calls import SeededSlice, Slice
from engine.functions.context import MutationContext, QueryContext, Scope, run_handler
from engine.functions.deployment import Deployment
from engine.functions.driver import Execution, drive, last_slice
from engine.functions.history import ExecutionLog, ExecutionRecord, Way
from engine.functions.passes import Passes
from engine.functions.pausing import refuse_if_paused
from engine.functions.queries import PaginationState
from engine.functions.results import Caller, Failure, failure_of, undescribed
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import Runtime
from engine.model.commits import Source
from engine.model.limits import WARNING_RATIO, Limits
from engine.model.values import size_of
from engine.transaction.transaction import Stamp, TimestampTooEarly, Transaction
from engine.transaction.usage import Usage
from engine.transaction.view import View

Wrap: TypeAlias = Callable[[RegisteredFunction], Callable[..., Coroutine[Any, Any, Any]]]
_LEFT_RATIO: Final = 1 - WARNING_RATIO


class Request(NamedTuple):
    """Which function is called, with what, and by whom."""

    kind: Kind
    path: str
    args: Mapping[str, Any]
    caller: Caller
    component: str = ""


@dataclass(slots=True)
class Outcome:
    """
    What a handler came to, before anybody may be told.

    `Executor.tell` tells of it those who watch executions.
    """

    value: Any
    failure: Failure | None
    log_lines: tuple[str, ...]
    request: Request
    ended_ns: int = 0
    duration_ms: float = 0.0
    usage: Usage | None = None
    execution: Execution | None = None


class Executor:
    """
    Args:
        deployment: what is deployed at first; a push sets another.
        executions: told of every run.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        runtime: Runtime,
        limits: Limits,
        watchdog: Watchdog,
        executions: ExecutionLog,
    ) -> None:
        self.deployment = deployment
        self.is_paused = False
        self._runtime = runtime
        self._limits = limits
        self._watchdog = watchdog
        self._executions = executions
        self._passes = None if runtime.is_virtual else Passes(limits.slice_s_max)

    async def query_turn(self) -> None:
        """Let others run if queries have had their time, which many short ones share."""
        if self._passes is not None:
            await self._passes.begin()

    def kind_of(self, path: str, caller: Caller, component: str) -> Kind | None:
        """What `caller` may call the function at `path` as; `None` if it may know of none."""
        try:
            function = self.deployment.find(
                path, None, component=component, may_call_internal=caller.admin
            )
        except (FunctionNotFound, UnmountedComponent):
            return None
        return function.kind

    def begin(self, kind: Kind, path: str) -> Execution:
        """A new execution: its clock is frozen now, its dice have a fresh seed."""
        return Execution(
            kind=kind,
            path=path,
            now_ns=self._runtime.now_ns(),
            seed=int.from_bytes(self._runtime.random_bytes(8), "big"),
            limits=self._limits,
        )

    def again(self, kind: Kind, source: Source) -> Execution:
        """An execution with the clock and the dice of an earlier one."""
        return Execution(
            kind=kind,
            path=source.path,
            now_ns=source.now_ns,
            seed=source.seed,
            limits=self._limits,
        )

    def transaction(
        self, view: View, execution: Execution, stamp: Stamp | None = None
    ) -> Transaction:
        """A transaction over `view` for an execution; if that may commit, with a `stamp`."""
        return Transaction(
            view,
            usage=Usage(self._limits),
            now_ns=execution.now_ns,
            dice=IdDice(execution.seed),
            schema=self.deployment.schemas,
            marks=execution,
            stamp=stamp,
        )

    async def run(
        self,
        request: Request,
        execution: Execution,
        transaction: Transaction,
        pagination: PaginationState,
        *,
        wrap: Wrap | None = None,
    ) -> Outcome:
        """
        Run the handler to its end; what it raises is part of the outcome.

        Args:
            wrap: makes what is run instead of the handler, of the function.

        Raises:
            RunAgain, SnapshotTooOld: what it saw does not hold; nothing may be made of it.
            TimestampTooEarly: nor of what it was told of its commit.
        """
        began = self._runtime.monotonic()
        value: Any = None
        failure: Failure | None = None
        try:
            value = await self._call(request, execution, transaction, pagination, wrap)
        except (RunAgain, SnapshotTooOld, TimestampTooEarly):
            raise
        except Exception as error:
            failure = last_slice(execution, failure_of, error) or undescribed(error)
        if (spoiled_by := execution.spoiled_by) is not None:
            if isinstance(spoiled_by, SnapshotTooOld | TimestampTooEarly):
                raise spoiled_by
            value, failure = None, failure_of(spoiled_by)
        limits, usage = self._limits, transaction.usage
        if (
            execution.left_s < limits.user_time_s_max * _LEFT_RATIO
            or execution.engine_left_s < limits.system_time_s_max * _LEFT_RATIO
        ):
            execution.note_times(usage)
        if execution.log_lines:
            usage.note_log_lines(len(execution.log_lines))
        for warning in usage.warnings():
            execution.log("WARN", warning)
        return Outcome(
            value,
            failure,
            tuple(execution.log_lines),
            request,
            self._runtime.now_ns(),
            (self._runtime.monotonic() - began) * 1000,
            usage,
            execution,
        )

    def tell(self, outcome: Outcome, way: Way, *, commit_ts: int | None = None) -> None:
        """Record an execution where others see it: its log lines and records, and that it was."""
        request, usage, execution = outcome.request, outcome.usage, outcome.execution
        assert usage is not None, "what was run was measured"
        assert execution is not None, "what was run was an execution"
        if execution.held is not None:
            for held in execution.held:
                held.release()
        caller, failure = request.caller, outcome.failure
        self._executions.add(
            ExecutionRecord(
                request.kind._value_,  # `value` is a property of Python code
                request.path,
                request.component,
                caller.request_id,
                caller.origin,
                outcome.ended_ns,
                outcome.duration_ms,
                failure.message if failure else None,
                outcome.log_lines,
                execution.user_time_s * 1000,
                execution.engine_time_s * 1000,
                way.queued,
                way.queue_ms,
                way.commit_ms,
                commit_ts,
                way.retries,
                usage.documents_read,
                usage.bytes_read,
                usage.ranges_read,
                usage.documents_written,
                usage.bytes_written,
                usage.functions_scheduled,
                usage.scheduled_args_bytes,
                usage.args_bytes,
                usage.result_bytes,
            )
        )

    def tell_refused(self, request: Request, way: Way, error: EngineError) -> None:
        """Record a call that came to no answer of its own: there was no room, or no end to it."""
        self._executions.add(
            ExecutionRecord(
                kind=request.kind.value,
                path=request.path,
                component=request.component,
                request_id=request.caller.request_id,
                origin=request.caller.origin,
                ended_ns=self._runtime.now_ns(),
                duration_ms=0.0,
                error=failure_of(error).message,
                log_lines=(),
                queued=way.queued,
                queue_ms=way.queue_ms,
                retries=way.retries,
            )
        )

    async def _call(
        self,
        request: Request,
        execution: Execution,
        transaction: Transaction,
        pagination: PaginationState,
        wrap: Wrap | None,
    ) -> Any:
        deployment = self.deployment
        kind, path, args, caller, component = request
        if self.is_paused:
            refuse_if_paused(caller, path)
        function = deployment.find(path, kind, component=component, may_call_internal=caller.admin)
        tables = deployment.tables_of(component)
        if args:
            check_size("args_bytes_max", function, args, transaction.usage)
        scope = Scope(
            execution,
            transaction,
            deployment,
            caller,
            self._limits,
            self._slice(),
            pagination,
            component,
            path,
        )
        ctx = MutationContext(scope) if kind is Kind.MUTATION else QueryContext(scope)
        handler = function.handler if wrap is None else wrap(function)
        with using(deployment.environment_of(component)):
            value = await drive(
                run_handler(function, handler, ctx, args, tables),
                execution,
                limits=self._limits,
                watchdog=self._watchdog,
                passes=self._passes if kind is Kind.QUERY else None,
            )
        if value is not None:
            check_size("result_bytes_max", function, value, transaction.usage)
        return value

    def _slice(self) -> Slice:
        if self._runtime.interleave is not None:
            return SeededSlice(self._runtime.interleave)
        limits = self._limits
        return Slice(rows_max=limits.slice_rows_max, seconds_max=limits.slice_s_max)


def check_size(
    limit: Literal["args_bytes_max", "result_bytes_max"],
    function: RegisteredFunction,
    value: Any,
    usage: Usage,
) -> None:
    """
    Raises:
        LimitExceeded: the arguments or the result of `function` are too large.
    """
    size, allowed = size_of(value), getattr(usage.limits, limit)
    if limit == "args_bytes_max":
        usage.args_bytes = size
    else:
        usage.result_bytes = size
    if size >= allowed * WARNING_RATIO:
        if size > allowed:
            is_args = limit == "args_bytes_max"
            what = f"bytes {'to' if is_args else 'from'} {function.path}"
            advice = "Split it over several calls." if is_args else "Return less, or paginate."
            raise LimitExceeded(limit, size, allowed, what, advice)
        usage.note(limit, size, allowed)


class IdDice:
    """Seeded dice for ids: a hash of seed and count, as seeding a generator costs a read."""

    __slots__ = ("_count", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._count = 0

    def randbytes(self, n: int, /) -> bytes:
        """`n` bytes, 64 at most."""
        self._count += 1
        return blake2b(b"%d %d" % (self._seed, self._count), digest_size=n).digest()
