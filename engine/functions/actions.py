"""
Actions: functions that reach the outside world, and the database by calling others.

An action is an ordinary task without a transaction.  Each query it calls reads
a snapshot of its own, each mutation commits on its own; what an action has
done so far stays done when it fails.
"""

# ruff: noqa: A002 - a filter is called `filter`

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeAlias, TypeVar

import trio

from engine.app.contexts import ActionCtx, Auth, Committed, FunctionMeta, Scheduler
from engine.app.crons import Retry
from engine.errors import NotAllowed
from engine.functions import absences
from engine.functions.context import due_after, due_at
from engine.functions.database import user_table
from engine.functions.deployment import Deployment
from engine.functions.results import ActionResult, Caller, Failure, MutationResult, QueryResult
from engine.functions.retries import Retrying, scheduled_arguments
from engine.functions.scheduling import cancel_job, schedule
from engine.functions.targets import call_arguments
from engine.functions.turns import Turns
from engine.indexes.vectors.asked import VectorSearch, asked
from engine.kernel.runtime import Runtime
from engine.model.limits import VECTOR_RESULTS
from engine.transaction.vector_search import Hit

T = TypeVar("T")

Carry: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, Any]]
"""Runs on trio what is awaited elsewhere."""


class CallableFunctions(Protocol):
    """The functions that an action can call, as the engine runs them."""

    @property
    def deployment(self) -> Deployment: ...
    async def query(
        self, path: str, args: Mapping[str, Any], *, caller: Caller, component: str = ""
    ) -> QueryResult: ...
    async def mutation(
        self, path: str, args: Mapping[str, Any], *, caller: Caller, component: str = ""
    ) -> MutationResult: ...
    async def action_in_place(
        self, path: str, args: Mapping[str, Any], *, caller: Caller, component: str = ""
    ) -> ActionResult: ...
    async def vector_search(
        self, component: str, table: str, wanted: VectorSearch
    ) -> list[Hit]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionScope:
    """What one action has at hand."""

    functions: CallableFunctions
    turns: Turns
    runtime: Runtime
    caller: Caller
    component: str
    path: str

    @property
    def deployment(self) -> Deployment:
        """The newest one, however long the action has run."""
        return self.functions.deployment


class ActionCall(Coroutine[Any, Any, T], Generic[T]):
    """A call of an action: begun when it is awaited, or run as a task."""

    __slots__ = ("_begin", "_open", "_running", "name")

    def __init__(
        self, name: str, begin: Callable[[], Coroutine[Any, Any, T]], open_: set[ActionCall[Any]]
    ) -> None:
        self.name = name
        self._begin = begin
        self._open = open_
        self._running: Coroutine[Any, Any, T] | None = None
        open_.add(self)

    def begin(self) -> Coroutine[Any, Any, T]:
        """What runs it, to be awaited once."""
        self._open.discard(self)
        return self._begin()

    def __await__(self) -> Generator[Any, Any, T]:
        return self.begin().__await__()

    def send(self, value: Any, /) -> Any:
        return self._begun().send(value)

    def throw(self, *error: Any) -> Any:
        return self._begun().throw(*error)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()

    def _begun(self) -> Coroutine[Any, Any, T]:
        if self._running is None:
            self._running = self.begin()
        return self._running


class ActionCalls:
    """The calls that one action makes, until it has ended."""

    __slots__ = ("_carry", "_is_closed", "_open", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: set[ActionCall[Any]] = set()
        self._carry: Carry | None = None
        self._is_closed = False

    def carry_by(self, carry: Carry) -> None:
        """From now on calls are awaited elsewhere than on trio, and `carry` takes them there."""
        self._carry = carry

    def make(self, name: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> ActionCall[T]:
        """
        Raises:
            NotAllowed: the action has ended.
        """
        if self._is_closed:
            raise NotAllowed(
                f"the action {self._path} has ended; its ctx cannot be used any more, "
                "nor kept for later"
            )
        carry = self._carry
        if carry is None:
            return ActionCall(name, begin, self._open)
        return ActionCall(name, lambda: carry(begin), self._open)

    def close(self) -> list[str]:
        """Refuse further calls; return the names of those never awaited, which never began."""
        self._is_closed = True
        return sorted(call.name for call in self._open)


class ActionContext(ActionCtx):
    """`ctx` of an action."""

    def __init__(self, scope: ActionScope, calls: ActionCalls) -> None:
        self._scope = scope
        self._calls = calls

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise absences.of_action(name, "await ")

    @property
    def auth(self) -> ActionAuth:
        return ActionAuth(self._scope.caller, self._calls)

    @property
    def meta(self) -> ActionMeta:
        return ActionMeta(self._scope, self._calls)

    @property
    def scheduler(self) -> ActionScheduler:
        return ActionScheduler(self._scope, self._calls)

    def create_function_handle(self, fn: Any, /) -> ActionCall[str]:
        return self._calls.make("create_function_handle", lambda: self._handle(fn))

    async def _handle(self, fn: Any) -> str:
        return self._scope.deployment.handle(fn, self._scope.component)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ms / 1000, UTC)

    @property
    def now_ms(self) -> float:
        return self._scope.runtime.now_ns() // 1_000_000

    @property
    def random(self) -> random.Random:
        return self._scope.runtime.random

    def uuid4(self) -> uuid.UUID:
        return uuid.UUID(bytes=self._scope.runtime.random_bytes(16), version=4)

    def vector_search(
        self,
        table: Any,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: float = VECTOR_RESULTS,
        filter: Callable[[Any], object] | None = None,
    ) -> ActionCall[list[Any]]:
        scope, name = self._scope, user_table(table)
        wanted = asked(index, vector, limit, filter)
        return self._calls.make(
            f"vector_search({name})",
            lambda: scope.functions.vector_search(scope.component, name, wanted),
        )

    def run_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> ActionCall[Any]:
        return self._call("run_query", self._query, fn, args, kwargs)

    def run_mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> ActionCall[Any]:
        return self._call("run_mutation", self._mutation, fn, args, kwargs)

    def commit(self, fn: Any, /, *args: Any, **kwargs: Any) -> ActionCall[Committed[Any]]:
        return self._call("commit", self._commit, fn, args, kwargs)

    def run_action(self, fn: Any, /, *args: Any, **kwargs: Any) -> ActionCall[Any]:
        return self._call("run_action", self._action, fn, args, kwargs)

    def _call(
        self,
        verb: str,
        run: Callable[[str, str, Mapping[str, Any], Caller], Coroutine[Any, Any, Any]],
        fn: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> ActionCall[Any]:
        scope = self._scope
        component, path, may_call_internal = scope.deployment.target(fn, scope.component)
        raw = call_arguments(fn, args, kwargs)
        caller = scope.caller._replace(admin=may_call_internal, origin="action")
        if component != scope.component:
            caller = caller._replace(identity=None)
        return self._calls.make(f"{verb}({path})", lambda: run(component, path, raw, caller))

    async def _query(
        self, component: str, path: str, args: Mapping[str, Any], caller: Caller
    ) -> Any:
        # An answer from the cache is waited for by nobody: an action that asks on and on would
        # keep out all others, and whoever writes what it waits for.
        await trio.lowlevel.checkpoint()
        found = await self._scope.functions.query(path, args, caller=caller, component=component)
        found.live.release()
        return _value(found.value, found.failure)

    async def _mutation(
        self, component: str, path: str, args: Mapping[str, Any], caller: Caller
    ) -> Any:
        return (await self._commit(component, path, args, caller)).value

    async def _commit(
        self, component: str, path: str, args: Mapping[str, Any], caller: Caller
    ) -> Committed[Any]:
        functions = self._scope.functions
        done = await functions.mutation(path, args, caller=caller, component=component)
        value = _value(done.value, done.failure)
        assert done.ts is not None, "a mutation that succeeded has a timestamp"
        return Committed(value=value, ts=done.ts)

    async def _action(
        self, component: str, path: str, args: Mapping[str, Any], caller: Caller
    ) -> Any:
        functions = self._scope.functions
        done = await functions.action_in_place(path, args, caller=caller, component=component)
        return _value(done.value, done.failure)


class ActionMeta(FunctionMeta):
    """`ctx.meta` of an action."""

    def __init__(self, scope: ActionScope, calls: ActionCalls) -> None:
        self._scope = scope
        self._calls = calls

    def get_function_metadata(self, fn: Any = None, /) -> ActionCall[Any]:
        return self._calls.make("get_function_metadata", lambda: self._get(fn))

    async def _get(self, fn: Any) -> Any:
        scope = self._scope
        if fn is None:
            return scope.deployment.metadata(scope.path, scope.component)
        return scope.deployment.metadata_of(fn, scope.component)


class ActionAuth(Auth):
    """`ctx.auth` of an action."""

    def __init__(self, caller: Caller, calls: ActionCalls) -> None:
        self._caller = caller
        self._calls = calls

    def get_user_identity(self) -> ActionCall[Any]:
        return self._calls.make("get_user_identity", self._get)

    async def _get(self) -> dict[str, Any] | None:
        identity = self._caller.identity
        return None if identity is None else identity.as_value()


class ActionScheduler(Scheduler):
    """`ctx.scheduler` of an action: each call is a transaction, durable when it returns."""

    def __init__(
        self, scope: ActionScope, calls: ActionCalls, retrying: Retrying | None = None
    ) -> None:
        self._scope = scope
        self._calls = calls
        self._retrying = retrying

    def with_retry(
        self, retry: Retry, /, *, on_complete: Any = None, context: Any = None
    ) -> ActionScheduler:
        scope = self._scope
        retrying = Retrying.of(retry, on_complete, context, scope.component, scope.deployment)
        return ActionScheduler(scope, self._calls, retrying)

    def run_after(
        self, delay: float | timedelta, fn: Any, /, *args: Any, **kwargs: Any
    ) -> ActionCall[Any]:
        return self._schedule(lambda: due_after(self._now_ms(), delay), fn, args, kwargs)

    def run_at(self, when: Any, fn: Any, /, *args: Any, **kwargs: Any) -> ActionCall[Any]:
        return self._schedule(lambda: due_at(self._now_ms(), when), fn, args, kwargs)

    def cancel(self, job: Any, /) -> ActionCall[None]:
        owner = self._scope.component
        write = self._scope.turns.write
        return self._calls.make("cancel", lambda: write(lambda turn: cancel_job(turn, owner, job)))

    def _schedule(
        self,
        due: Callable[[], float],
        fn: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> ActionCall[Any]:
        scope, retrying = self._scope, self._retrying
        path = scope.deployment.target(fn, scope.component).path
        raw = scheduled_arguments(fn, args, kwargs)

        def write() -> Coroutine[Any, Any, str]:
            target, found = scope.deployment.find_for_later(fn, scope.component)
            if retrying is not None:
                retrying.refuse_unless_action(found)
            due_ms = due()
            return scope.turns.write(
                lambda turn: schedule(
                    turn,
                    scope.component,
                    *target,
                    raw,
                    due_ms=due_ms,
                    request_id=scope.caller.request_id,
                    retrying=retrying,
                )
            )

        return self._calls.make(f"schedule({path})", write)

    def _now_ms(self) -> float:
        return self._scope.runtime.now_ns() / 1e6


def _value(value: Any, failure: Failure | None) -> Any:
    if failure is None:
        return value
    raise failure.error
