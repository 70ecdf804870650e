"""
Asyncio, seen from trio: run a coroutine on a loop in another thread, and a thread for such a loop.

    thread = AsyncioThread("actions")
    value = await run_on_asyncio(thread.loop(), work)     # on trio
    thread.close()

Cancellation crosses over: whoever is cancelled here cancels the asyncio task
there, and waits for its end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, Generic, TypeVar

import outcome
import trio

from engine.errors import Stopped

T = TypeVar("T")

CLOSING_S_MAX: Final = 5.0
"""For the tasks of a loop that is closed, and for its thread."""


async def run_on_asyncio(
    loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """
    Run `work` as a task of `loop`, with the caller's context variables, and return its result.

    A result that was there before the cancellation is not lost: it is returned.

    Raises:
        Exception: what `work` raised.
        Stopped: the loop is closed, or somebody there cancelled the task.
    """
    return await _Crossing(loop, work).run()


class _Crossing(Generic[T]):
    """One task of trio that waits for one task of asyncio."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> None:
        self._loop = loop
        self._work = work
        self._context = copy_context()
        self._token = trio.lowlevel.current_trio_token()
        self._waiting = trio.lowlevel.current_task()
        self._task: asyncio.Task[T] | None = None
        self._cancelled: Callable[[], None] | None = None

    async def run(self) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._loop.call_soon_threadsafe(self._begin, context=self._context)
        except RuntimeError:
            raise Stopped("the asyncio loop is closed; nothing was done") from None
        result = await trio.lowlevel.wait_task_rescheduled(self._abort)
        assert isinstance(result, outcome.Value | outcome.Error)
        if isinstance(result, outcome.Error) and isinstance(result.error, asyncio.CancelledError):
            if self._cancelled is not None:
                self._cancelled()
            raise Stopped("the asyncio task was cancelled")
        value: T = result.unwrap()
        return value

    def _abort(self, raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        """On trio: pass the cancellation on, and go on waiting."""
        self._cancelled = raise_cancel
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # the loop is closed and will not answer
            return trio.lowlevel.Abort.SUCCEEDED
        return trio.lowlevel.Abort.FAILED

    # On asyncio.

    def _begin(self) -> None:
        if self._cancelled is not None:
            self._answer(outcome.Error(asyncio.CancelledError()))
            return
        self._task = self._loop.create_task(self._work())
        self._task.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._answer(outcome.Error(asyncio.CancelledError()))
        elif (error := task.exception()) is not None:
            self._answer(outcome.Error(error))
        else:
            self._answer(outcome.Value(task.result()))

    def _answer(self, result: outcome.Outcome[T]) -> None:
        with suppress(trio.RunFinishedError):  # nobody is left to be told
            self._token.run_sync_soon(
                trio.lowlevel.reschedule, self._waiting, outcome.Value(result)
            )


class AsyncioThread:
    """
    An asyncio loop in a thread of its own.

    Args:
        name: of the thread.
        task_factory: makes the loop's tasks; see `asyncio.loop.set_task_factory`.
    """

    def __init__(self, name: str, *, task_factory: Callable[..., Any] | None = None) -> None:
        self._name = name
        self._task_factory = task_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started when somebody first asks for it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_task_factory(self._task_factory)
            self._thread = threading.Thread(
                target=self._run, args=(self._loop,), name=self._name, daemon=True
            )
            self._thread.start()
        return self._loop

    def close(self) -> None:
        """Cancel what runs there and end the thread; blocks until then, some seconds at most."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = self._thread = None
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSING_S_MAX)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(_cancel_all(loop))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


async def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSING_S_MAX)
