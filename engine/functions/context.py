"""
The context that a query or mutation is given: one per call, closed when the call ends.

It is made of what the execution has: a transaction, the calls it makes, its
frozen clock and its seeded dice.  A nested call gets a context of its own over
the same transaction.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Unpack

from engine.app.contexts import (
    Auth,
    CronReader,
    CronRegistry,
    Meta,
    MutationCalls,
    MutationCtx,
    QueryCalls,
    QueryCtx,
    Scheduler,
    TriggerCtx,
)
from engine.app.crons import CronSpec, Retry, registered_cron
from engine.app.environment import using
from engine.app.registered import Kind, RegisteredFunction
from engine.app.triggers import Change, Trigger
from engine.app.types import Cron, TransactionLimits
from engine.app.validators import Tables
from engine.errors import InvalidValue, LimitExceeded, NotAllowed
from engine.functions import absences
from engine.functions.calls import Call, Calls, Slice, Steps
from engine.functions.crons import crons_of, find_cron, register, shown_cron, unregister
from engine.functions.database import DatabaseAccess, Reader, Writer
from engine.functions.deployment import Deployment
from engine.functions.driver import Execution
from engine.functions.job_rows import request_of
from engine.functions.metrics import budget_of, metrics_of
from engine.functions.queries import PaginationState
from engine.functions.results import Caller
from engine.functions.retries import Retrying, scheduled_arguments
from engine.functions.scheduling import cancel_job, schedule
from engine.functions.targets import call_arguments
from engine.functions.triggers import FollowedWriter
from engine.model.limits import SCHEDULE_S_MAX, Limits
from engine.model.text import brief, number_text
from engine.transaction.transaction import Transaction
from engine.transaction.usage import Usage


class Scope(NamedTuple):
    """What one execution and the calls nested in it share."""

    execution: Execution
    transaction: Transaction
    deployment: Deployment
    caller: Caller
    limits: Limits
    slice: Slice
    pagination: PaginationState
    component: str
    path: str
    callers: tuple[str, ...] = ()
    """The functions and triggers that this is in, the outermost first."""

    def within(self, component: str, path: str, *, at_beginning: bool = False) -> Scope:
        """
        The scope of what this calls; a component is not told who the caller is.

        Args:
            at_beginning: what it reads is as it was before this transaction wrote anything.

        Raises:
            LimitExceeded: it is in too many others.
        """
        chain = (*self.callers, self.path)
        levels, allowed = len(chain) + 1, self.limits.call_depth_max
        self.transaction.usage.note("call_depth_max", levels, allowed)
        if levels > allowed:
            calls = " > ".join((*chain, path))
            raise LimitExceeded(
                "call_depth_max",
                levels,
                allowed,
                "functions inside functions",
                f"They are {calls}.",
            )
        caller = self.caller
        if component != self.component and caller.identity is not None:
            caller = caller._replace(identity=None)
        return Scope(
            self.execution,
            self.transaction.beginning() if at_beginning else self.transaction,
            self.deployment,
            caller,
            self.limits,
            self.slice,
            self.pagination,
            component,
            path,
            chain,
        )


@absences.lacking(absences.CONTEXT[Kind.QUERY])
class QueryContext(QueryCtx):
    """`ctx` of a query."""

    __slots__ = ("_calls", "_scope", "db")

    db: Any

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._calls = Calls(scope.path, scope.execution, scope.slice)
        self.db = self._database()

    def _database(self) -> Reader:
        return Reader(self._access())

    def _access(self) -> DatabaseAccess:
        scope = self._scope
        return DatabaseAccess(
            scope.transaction,
            self._calls,
            scope.component,
            scope.pagination,
            scope.limits.slice_rows_max,
        )

    @property
    def auth(self) -> AuthAccess:
        return AuthAccess(self._scope, self._calls)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ms / 1000, UTC)

    @property
    def now_ms(self) -> float:
        return self._scope.execution.read_clock() // 1_000_000

    @property
    def random(self) -> random.Random:
        return self._scope.execution.random

    def uuid4(self) -> uuid.UUID:
        return uuid.UUID(bytes=self._scope.execution.random.randbytes(16), version=4)

    def create_function_handle(self, fn: Any, /) -> Call[str]:
        scope = self._scope
        return self._calls.run(scope.deployment.handle, fn, scope.component)

    @property
    def crons(self) -> CronsReading:
        return CronsReading(self._scope, self._calls)

    @property
    def meta(self) -> MetaAccess:
        return MetaAccess(self._scope, self._calls)

    def run_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Call[Any]:
        return self._calls.defer(lambda: self._nested(Kind.QUERY, fn, args, kwargs))

    def transaction_limits(self, **limits: Unpack[TransactionLimits]) -> LimitedCalls:
        return LimitedCalls(self, budget_of(limits))

    def _nested(
        self,
        kind: Kind,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        budget: Mapping[str, int] | None = None,
        *,
        at_beginning: bool = False,
    ) -> Steps[Any]:
        """The steps of a call, of the function and the arguments that it has now."""
        scope = self._scope
        component, path, may_call_internal = scope.deployment.target(fn, scope.component)
        raw = self._calls.in_own_time(call_arguments, fn, args, kwargs)
        function = scope.deployment.find(
            path, kind, component=component, may_call_internal=may_call_internal
        )
        inner = scope.within(component, path, at_beginning=at_beginning)
        if budget is None:
            return run_nested(function, raw, inner)
        return _within_budget(run_nested(function, raw, inner), scope.transaction.usage, budget)


@absences.lacking(absences.CONTEXT[Kind.MUTATION])
class MutationContext(QueryContext, MutationCtx):
    """`ctx` of a mutation."""

    __slots__ = ()

    def _database(self) -> Writer:
        scope = self._scope
        if triggers := scope.deployment.triggers_of(scope.component):
            return FollowedWriter(self._access(), triggers, partial(fire, scope))
        return Writer(self._access())

    @property
    def scheduler(self) -> SchedulerAccess:
        return SchedulerAccess(self._scope, self._calls)

    @property
    def crons(self) -> CronsAccess:
        return CronsAccess(self._scope, self._calls)

    def run_mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Call[Any]:
        return self._calls.defer(lambda: self._nested(Kind.MUTATION, fn, args, kwargs))

    def run_snapshot_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Call[Any]:
        return self._calls.defer(
            lambda: self._nested(Kind.QUERY, fn, args, kwargs, at_beginning=True)
        )

    def transaction_limits(self, **limits: Unpack[TransactionLimits]) -> LimitedMutationCalls:
        return LimitedMutationCalls(self, budget_of(limits))


class TriggerContext(MutationContext, TriggerCtx):
    """`ctx` of a trigger."""

    __slots__ = ()

    @property
    def raw_db(self) -> Writer:
        return Writer(self._access())


class LimitedCalls(QueryCalls):
    """Calls within a function that have limits of their own."""

    __slots__ = ("_budget", "_ctx")

    def __init__(self, ctx: QueryContext, budget: Mapping[str, int]) -> None:
        self._ctx = ctx
        self._budget = budget

    def run_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Call[Any]:
        ctx, budget = self._ctx, self._budget
        return ctx._calls.defer(lambda: ctx._nested(Kind.QUERY, fn, args, kwargs, budget))


class LimitedMutationCalls(LimitedCalls, MutationCalls):
    """The same within a mutation."""

    __slots__ = ()

    def run_mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Call[Any]:
        ctx, budget = self._ctx, self._budget
        return ctx._calls.defer(lambda: ctx._nested(Kind.MUTATION, fn, args, kwargs, budget))

    def run_snapshot_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Call[Any]:
        ctx, budget = self._ctx, self._budget
        return ctx._calls.defer(
            lambda: ctx._nested(Kind.QUERY, fn, args, kwargs, budget, at_beginning=True)
        )


def _within_budget(steps: Steps[Any], usage: Usage, budget: Mapping[str, int]) -> Steps[Any]:
    saved = usage.tighten(budget)
    try:
        return (yield from steps)
    finally:
        usage.loosen(saved)


def close_context(ctx: QueryContext) -> None:
    """
    The function of `ctx` has ended.

    Raises:
        NotAwaited: a call was made and never awaited.
    """
    ctx._calls.close()


class AuthAccess(Auth):
    """`ctx.auth`."""

    def __init__(self, scope: Scope, calls: Calls) -> None:
        self._scope = scope
        self._calls = calls

    def get_user_identity(self) -> Call[Any]:
        return self._calls.run(self._get)

    def _get(self) -> dict[str, Any] | None:
        self._scope.execution.observed_identity = True
        identity = self._scope.caller.identity
        return None if identity is None else identity.as_value()


class MetaAccess(Meta):
    """`ctx.meta`."""

    def __init__(self, scope: Scope, calls: Calls) -> None:
        self._scope = scope
        self._calls = calls

    def get_transaction_metrics(self) -> Call[Any]:
        return self._calls.run(metrics_of, self._scope.transaction.usage)

    def get_function_metadata(self, fn: Any = None, /) -> Call[Any]:
        scope = self._scope
        if fn is None:
            return self._calls.run(scope.deployment.metadata, scope.path, scope.component)
        return self._calls.run(scope.deployment.metadata_of, fn, scope.component)


class SchedulerAccess(Scheduler):
    """`ctx.scheduler` of a mutation: part of its transaction."""

    def __init__(self, scope: Scope, calls: Calls, retrying: Retrying | None = None) -> None:
        self._scope = scope
        self._calls = calls
        self._retrying = retrying

    def with_retry(
        self, retry: Retry, /, *, on_complete: Any = None, context: Any = None
    ) -> SchedulerAccess:
        scope = self._scope
        retrying = Retrying.of(retry, on_complete, context, scope.component, scope.deployment)
        return SchedulerAccess(scope, self._calls, retrying)

    def run_after(self, delay: float | timedelta, fn: Any, /, *args: Any, **kw: Any) -> Call[Any]:
        return self._calls.run(self._schedule, due_after(self._now_ms(), delay), fn, args, kw)

    def run_at(self, when: float | datetime, fn: Any, /, *args: Any, **kw: Any) -> Call[Any]:
        return self._calls.run(self._schedule, due_at(self._now_ms(), when), fn, args, kw)

    def cancel(self, job: str, /) -> Call[None]:
        return self._calls.run(self._cancel, job)

    def _now_ms(self) -> float:
        return self._scope.execution.now_ns // 1_000_000

    def _cancel(self, job: str) -> None:
        if self._scope.caller.request_id == request_of(job):
            raise NotAllowed("a scheduled function cannot cancel itself while it runs; return")
        cancel_job(self._scope.transaction, self._scope.component, job)

    def _schedule(
        self, due_ms: float, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> str:
        scope = self._scope
        raw = self._calls.in_own_time(scheduled_arguments, fn, args, kwargs)
        target, found = scope.deployment.find_for_later(fn, scope.component)
        if self._retrying is not None:
            self._retrying.refuse_unless_action(found)
        return schedule(
            scope.transaction,
            scope.component,
            *target,
            raw,
            due_ms=due_ms,
            request_id=scope.caller.request_id,
            retrying=self._retrying,
        )


@absences.lacking(absences.CRON_READER)
class CronsReading(CronReader):
    """`ctx.crons` of a query: part of what it reads."""

    def __init__(self, scope: Scope, calls: Calls) -> None:
        self._scope = scope
        self._calls = calls

    def get(self, name: str, /) -> Call[Cron | None]:
        return self._calls.run(self._get, name)

    def _get(self, name: str) -> Cron | None:
        row = find_cron(self._scope.transaction, self._scope.component, name)
        return None if row is None else shown_cron(row)

    def _list(self) -> list[Cron]:
        return list(map(shown_cron, crons_of(self._scope.transaction, self._scope.component)))

    def list(self) -> Call[list[Cron]]:
        return self._calls.run(self._list)


class CronsAccess(CronsReading, CronRegistry):
    """`ctx.crons` of a mutation: part of its transaction."""

    def register(
        self,
        name: str,
        fn: Any,
        args: Mapping[str, Any] | None = None,
        /,
        *,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        cron: str | None = None,
        tz: str = "UTC",
    ) -> Call[None]:
        spec = registered_cron(
            name, fn, args, seconds=seconds, minutes=minutes, hours=hours, cron=cron, tz=tz
        )
        return self._calls.run(self._register, fn, spec)

    def _register(self, fn: Any, spec: CronSpec) -> None:
        scope = self._scope
        target, _ = scope.deployment.find_for_later(fn, scope.component)
        register(scope.transaction, scope.component, spec, target)

    def remove(self, name: str, /) -> Call[bool]:
        scope = self._scope
        request_id = scope.caller.request_id
        return self._calls.run(unregister, scope.transaction, scope.component, name, request_id)


def due_after(now_ms: float, delay: float | timedelta) -> float:
    """
    The due time of `delay`: a timedelta, or milliseconds.

    Raises:
        InvalidValue: it is neither, negative, or over `SCHEDULE_S_MAX`.
    """
    delay_ms = delay.total_seconds() * 1000 if isinstance(delay, timedelta) else delay
    if not _is_number(delay_ms) or not delay_ms >= 0:
        told = number_text(delay_ms) if _is_number(delay_ms) else brief(repr(delay))
        raise InvalidValue(f"a delay is a timedelta or milliseconds, not negative; not {told}")
    return _soon_enough(now_ms, now_ms + delay_ms)


def due_at(now_ms: float, when: float | datetime) -> float:
    """
    The due time `when`: an aware datetime, or milliseconds since 1970.

    Raises:
        InvalidValue: it is neither, or further away than `SCHEDULE_S_MAX`.
    """
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise InvalidValue("run_at needs a datetime with a time zone, such as ctx.now + delta")
        return _soon_enough(now_ms, when.timestamp() * 1000)
    if not _is_number(when):
        told = brief(repr(when))
        raise InvalidValue(f"run_at takes an aware datetime or milliseconds; not {told}")
    return _soon_enough(now_ms, when)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _soon_enough(now_ms: float, due_ms: float) -> float:
    if not abs(due_ms - now_ms) <= SCHEDULE_S_MAX * 1000:
        raise InvalidValue(
            f"{number_text(due_ms)} ms since 1970 is further from now than {SCHEDULE_S_MAX:,} s, "
            "which are five years (SCHEDULE_S_MAX); seconds may have been taken for milliseconds"
        )
    return due_ms


def run_nested(function: RegisteredFunction, raw: Mapping[str, Any], scope: Scope) -> Steps[Any]:
    """Run a function within the transaction of another; a mutation that fails leaves no writes."""
    transaction = scope.transaction
    tables = scope.deployment.tables_of(scope.component)
    is_mutation = function.kind is Kind.MUTATION
    if is_mutation:
        transaction.begin_child()
    try:
        ctx = MutationContext(scope) if is_mutation else QueryContext(scope)
        with using(scope.deployment.environment_of(scope.component)):
            value = yield from scope.execution.nested(
                lambda: run_handler(function, function.handler, ctx, raw, tables)
            )
    except BaseException:
        if is_mutation:
            transaction.drop_child()
        raise
    if is_mutation:
        transaction.merge_child()
    return value


async def run_handler(
    function: RegisteredFunction,
    handler: Callable[..., Any],
    ctx: QueryContext,
    raw: Mapping[str, Any],
    tables: Tables,
) -> Any:
    """
    Run a handler on arguments that are values; what it returns, as a value.

    Making both is part of its slice: classes of the application that check themselves when
    they are made, or are returned, run code that has to end in time and to fail this call only.
    """
    signature = function.signature
    result = handler(ctx, **signature.load(raw, tables))
    if function.is_async or isinstance(result, Coroutine):
        result = await result
    close_context(ctx)
    return signature.dump(result, tables)


def fire(scope: Scope, trigger: Trigger[Any], change: Change[Any]) -> Steps[None]:
    """Run a trigger of what the function of `scope` has written."""
    ctx = TriggerContext(scope.within(scope.component, trigger.path))
    yield from scope.execution.nested(lambda: run_trigger(trigger, ctx, change))


async def run_trigger(trigger: Trigger[Any], ctx: TriggerContext, change: Change[Any]) -> None:
    """Run a trigger; what it raises says in which one, and after which write."""
    try:
        await trigger(ctx, change)
        close_context(ctx)
    except Exception as error:
        error.add_note(
            f"in the trigger {trigger.path} of {trigger.table_name!r}, "
            f"at the {change.operation} of {change.id}"
        )
        raise
