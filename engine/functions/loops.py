"""
Where an action runs: on trio, in a thread, or on an asyncio loop of its own.

    async def                        a task of trio
    def                              a worker thread; calls on its ctx block
    @action(loop="asyncio")          a task of an asyncio loop that all such actions share

Wherever it runs, its context variables go along, so that what it prints and
logs becomes its log lines; when its time is up it is cancelled; and when it has
ended its ctx is closed, and tasks that it left behind are cancelled.  A thread
cannot be cancelled: it is left alone, and the next call on its ctx fails.
"""

# ruff: noqa: A002 - a filter is called `filter`

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context, ContextVar
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar
from uuid import UUID
from weakref import WeakSet

import outcome
import trio

from engine.app.blocking import (
    BlockingActionCtx,
    BlockingAuth,
    BlockingFunctionMeta,
    BlockingScheduler,
)
from engine.app.contexts import Committed
from engine.app.crons import Retry
from engine.app.registered import RegisteredFunction
from engine.errors import FunctionAborted, NotAllowed, Stopped
from engine.functions import absences
from engine.functions.actions import (
    ActionAuth,
    ActionCall,
    ActionCalls,
    ActionContext,
    ActionMeta,
    ActionScheduler,
)
from engine.functions.logs import listener
from engine.kernel.asyncio_loop import AsyncioThread, run_on_asyncio
from engine.kernel.errands import Errands, open_errands
from engine.kernel.trace import tracer
from engine.model.limits import VECTOR_RESULTS

trace = tracer(__name__)

T = TypeVar("T")

LEFTOVERS_S_MAX: Final = 5.0
"""For tasks that an action left behind, once they are cancelled."""


class Loops:
    """The threads and the loop that the actions of one engine run on."""

    def __init__(self) -> None:
        self._asyncio = AsyncioThread("headrace asyncio", task_factory=_make_task)
        self._threads = trio.CapacityLimiter(float("inf"))
        self._on_asyncio = 0

    @property
    def running_elsewhere(self) -> int:
        """How many actions run in threads and on asyncio, where trio does not see what they do."""
        return int(self._threads.borrowed_tokens) + self._on_asyncio

    async def run(
        self,
        function: RegisteredFunction,
        ctx: ActionContext,
        arguments: Mapping[str, Any],
        calls: ActionCalls,
    ) -> Any:
        """
        Run an action where its declaration says, and return what it returns.

        Args:
            calls: those that `ctx` makes.

        Raises:
            Exception: what the action raised.
            FunctionAborted: it raised SystemExit or another exception that is no `Exception`.
        """
        name = f"the action {function.path or function.handler.__name__}"
        call = partial(_handled, function.handler, arguments)
        match function.loop:
            case "trio":
                return await _run_on_trio(name, call, ctx)
            case "thread":
                return await self._run_in_thread(name, call, ctx)
            case "asyncio":
                return await self._run_on_asyncio(name, call, ctx, calls)

    def close(self) -> None:
        """Cancel what is left on the asyncio loop, and end its thread; blocks until then."""
        self._asyncio.close()

    async def _run_in_thread(
        self, name: str, call: Callable[[Any], Any], ctx: ActionContext
    ) -> Any:
        answers: list[outcome.Outcome[Any]] = []

        def run() -> None:
            answers.append(_captured(name, call, ThreadContext(ctx, errands)))

        async with open_errands(partial(_has_ended, name)) as errands:
            try:
                await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._threads)
            except trio.Cancelled:
                trace.warning("action.thread_abandoned", action=name)
                raise
        return answers[0].unwrap()

    async def _run_on_asyncio(
        self, name: str, call: Callable[[Any], Any], ctx: ActionContext, calls: ActionCalls
    ) -> Any:
        async with open_errands(partial(_has_ended, name)) as errands:
            calls.carry_by(errands.run_from_asyncio)
            work = partial(_supervised, name, call, ctx)
            self._on_asyncio += 1
            try:
                answer = await run_on_asyncio(self._asyncio.loop(), work)
            except Stopped as error:
                answer = outcome.Error(error)
            finally:
                self._on_asyncio -= 1
        return answer.unwrap()


def _handled(handler: Callable[..., Any], arguments: Mapping[str, Any], ctx: Any) -> Any:
    return handler(ctx, **arguments)


def _has_ended(name: str) -> NotAllowed:
    return NotAllowed(f"{name} has ended; its ctx cannot be used any more, nor kept for later")


def _aborted(name: str, error: BaseException) -> FunctionAborted:
    aborted = FunctionAborted(name, error)
    aborted.__cause__ = error
    return aborted


# On trio.


@trio.lowlevel.enable_ki_protection
async def _run_on_trio(name: str, call: Callable[[Any], Any], ctx: ActionContext) -> Any:
    """Ctrl-C goes to the host's own task, so whatever is raised in here is the action's."""
    try:
        return await call(ctx)
    except (Exception, trio.Cancelled):
        raise
    except BaseExceptionGroup as group:
        if group.split(trio.Cancelled)[0] is not None:
            raise
        raise _aborted(name, group) from group
    except BaseException as error:
        raise _aborted(name, error) from error


# In a thread.


def _captured(name: str, call: Callable[[Any], Any], ctx: ThreadContext) -> outcome.Outcome[Any]:
    try:
        return outcome.Value(call(ctx))
    except Exception as error:
        return outcome.Error(error)
    except BaseException as error:
        return outcome.Error(_aborted(name, error))


class ThreadContext(BlockingActionCtx):
    """`ctx` of an action that runs in a thread."""

    def __init__(self, ctx: ActionContext, errands: Errands) -> None:
        self._ctx = ctx
        self._errands = errands

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise absences.of_action(name, "")

    @property
    def auth(self) -> ThreadAuth:
        return ThreadAuth(self._ctx.auth, self._errands)

    @property
    def meta(self) -> ThreadMeta:
        return ThreadMeta(self._ctx.meta, self._errands)

    @property
    def scheduler(self) -> ThreadScheduler:
        return ThreadScheduler(self._ctx.scheduler, self._errands)

    @property
    def now(self) -> datetime:
        return self._ctx.now

    @property
    def now_ms(self) -> float:
        return self._ctx.now_ms

    @property
    def random(self) -> random.Random:
        return self._ctx.random

    def uuid4(self) -> UUID:
        return self._ctx.uuid4()

    def vector_search(
        self,
        table: Any,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = VECTOR_RESULTS,
        filter: Callable[[Any], object] | None = None,
    ) -> Any:
        search = self._ctx.vector_search(table, index, vector=vector, limit=limit, filter=filter)
        return _wait(self._errands, search)

    def run_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _wait(self._errands, self._ctx.run_query(fn, *args, **kwargs))

    def run_mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _wait(self._errands, self._ctx.run_mutation(fn, *args, **kwargs))

    def commit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Committed[Any]:
        return _wait(self._errands, self._ctx.commit(fn, *args, **kwargs))

    def run_action(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _wait(self._errands, self._ctx.run_action(fn, *args, **kwargs))

    def create_function_handle(self, fn: Any, /) -> str:
        return _wait(self._errands, self._ctx.create_function_handle(fn))


class ThreadMeta(BlockingFunctionMeta):
    """`ctx.meta` of an action that runs in a thread."""

    def __init__(self, meta: ActionMeta, errands: Errands) -> None:
        self._meta = meta
        self._errands = errands

    def get_function_metadata(self, fn: Any = None, /) -> Any:
        return _wait(self._errands, self._meta.get_function_metadata(fn))


class ThreadAuth(BlockingAuth):
    """`ctx.auth` of an action that runs in a thread."""

    def __init__(self, auth: ActionAuth, errands: Errands) -> None:
        self._auth = auth
        self._errands = errands

    def get_user_identity(self) -> Any:
        return _wait(self._errands, self._auth.get_user_identity())


class ThreadScheduler(BlockingScheduler):
    """`ctx.scheduler` of an action that runs in a thread."""

    def __init__(self, scheduler: ActionScheduler, errands: Errands) -> None:
        self._scheduler = scheduler
        self._errands = errands

    def with_retry(
        self, retry: Retry, /, *, on_complete: Any = None, context: Any = None
    ) -> ThreadScheduler:
        tried = self._scheduler.with_retry(retry, on_complete=on_complete, context=context)
        return ThreadScheduler(tried, self._errands)

    def run_after(self, delay: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _wait(self._errands, self._scheduler.run_after(delay, fn, *args, **kwargs))

    def run_at(self, when: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _wait(self._errands, self._scheduler.run_at(when, fn, *args, **kwargs))

    def cancel(self, job: Any, /) -> None:
        return _wait(self._errands, self._scheduler.cancel(job))


def _wait(errands: Errands, call: ActionCall[T]) -> T:
    return errands.run_from_thread(call.begin)


# On asyncio.

_tasks: Final[ContextVar[WeakSet[asyncio.Task[Any]] | None]] = ContextVar(
    "tasks of an action", default=None
)


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    *,
    context: Context | None = None,
    **options: Any,
) -> asyncio.Task[Any]:
    """A task that is known to belong to the action that made it."""
    task = asyncio.Task(coroutine, loop=loop, context=context, **options)
    tasks = _tasks.get() if context is None else context.get(_tasks)
    if tasks is not None:
        tasks.add(task)
    return task


async def _supervised(
    name: str, call: Callable[[Any], Any], ctx: ActionContext
) -> outcome.Outcome[Any]:
    """What the action came to; the tasks that it made have ended by then."""
    tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
    _tasks.set(tasks)
    try:
        return outcome.Value(await call(ctx))
    except asyncio.CancelledError as error:
        if _is_being_cancelled():
            raise
        return outcome.Error(_aborted(name, error))
    except Exception as error:
        return outcome.Error(error)
    except BaseException as error:
        return outcome.Error(_aborted(name, error))
    finally:
        await _end_leftovers(tasks)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _end_leftovers(tasks: WeakSet[asyncio.Task[Any]]) -> None:
    left = [task for task in tasks if not task.done()]
    to = listener()
    for task in left:
        task.cancel()
        coroutine = task.get_coro()
        name = getattr(coroutine, "__qualname__", None) or getattr(coroutine, "name", task)
        if to is not None:
            to.log("WARN", f"{name} was still running when the action ended, and was cancelled")
    if left:
        await asyncio.wait(left, timeout=LEFTOVERS_S_MAX)
