"""
Errands: what other threads and asyncio have done on this trio thread.

    async with open_errands(refusal) as errands:     # here, on trio
        ...

    errands.run_from_thread(work)                    # in a thread: blocks until it is done
    await errands.run_from_asyncio(work)             # on an asyncio loop in another thread

`work` is an async function that runs as a task of trio.  What it returns or
raises comes back as it is, context variables go along, and whoever stops
waiting (a cancelled asyncio task, Ctrl-C in a thread) cancels it and waits for
its end first.
"""

from __future__ import annotations

import asyncio
import enum
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import outcome
import trio

from engine.errors import OutcomeUnknown
from engine.kernel.body import plain_errors

T = TypeVar("T")

Work: TypeAlias = Callable[[], Awaitable[T]]
Answer: TypeAlias = "outcome.Outcome[T]"


class WhenDrained(enum.Enum):
    """What becomes of an errand when the errands are drained."""

    FINISH = enum.auto()
    """It is waited for."""
    CANCEL = enum.auto()
    """It waits for something that may never come."""
    GO_ON = enum.auto()
    """It ends by itself when what it serves has ended."""


class Errand(Generic[T]):
    """
    One piece of work, from when it was asked for until `answer` was called, once.

    Args:
        answer: called on the trio thread; takes note and does not wait.
    """

    __slots__ = ("_answer", "_scope", "_work", "when_drained")

    def __init__(
        self, work: Work[T], answer: Callable[[Answer[T]], None], when_drained: WhenDrained
    ) -> None:
        self._work = work
        self._answer = answer
        self._scope = trio.CancelScope()
        self.when_drained = when_drained

    async def run(self) -> None:
        result: Answer[T] = outcome.Error(
            OutcomeUnknown("this was cut short; what it called may or may not be done")
        )
        try:
            with self._scope:
                try:
                    result = outcome.Value(await self._work())
                except Exception as error:
                    result = outcome.Error(error)
        finally:
            self._answer(result)

    def cancel(self) -> None:
        """Cancel it, on the trio thread."""
        self._scope.cancel()

    def refuse(self, error: Exception) -> None:
        self._answer(outcome.Error(error))


class Errands:
    """Takes errands until it is closed. Made by `open_errands`."""

    def __init__(self, nursery: trio.Nursery, refusal: Callable[[], Exception]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._nursery = nursery
        self._refusal = refusal
        self._begun: deque[tuple[Errand[Any], Context]] = deque()
        self._is_woken = False
        self._outboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Outbox] = WeakKeyDictionary()
        self._open: set[Errand[Any]] = set()
        self._ended = trio.lowlevel.ParkingLot()
        self._is_closed = False

    # From elsewhere.

    def run_from_thread(
        self,
        work: Work[T],
        when_drained: WhenDrained = WhenDrained.FINISH,
        *,
        timeout_s: float | None = None,
    ) -> T:
        """
        Run `work` on trio and return what it returns; blocks the calling thread.

        Args:
            timeout_s: cancels it after so long.

        Raises:
            TimeoutError: `timeout_s` was over before it was done.
            Exception: what it raised, or the refusal if the errands are closed.
            OutcomeUnknown: trio's side was stopped in the middle of it.
        """
        answers: SimpleQueue[Answer[T]] = SimpleQueue()
        errand = self.begin(work, answers.put, when_drained)
        try:
            answer = answers.get(timeout=timeout_s)
        except BaseException as error:
            self.cancel(errand)
            answer = answers.get()
            if not isinstance(error, Empty):
                raise
            if _was_cancelled(answer):
                raise TimeoutError(f"nothing came within {timeout_s:g} s") from None
        return answer.unwrap()

    async def run_from_asyncio(
        self, work: Work[T], when_drained: WhenDrained = WhenDrained.FINISH
    ) -> T:
        """
        Run `work` on trio and return what it returns; called on an asyncio loop.

        If the calling task is cancelled, `work` is, and has ended when
        `asyncio.CancelledError` goes on.

        Raises:
            As `run_from_thread`.
        """
        waiting: _Waiting[T] = _Waiting(self._outbox())
        errand = self.begin(work, waiting.answer, when_drained)
        try:
            await waiting.wait()
        except asyncio.CancelledError:
            self.cancel(errand)
            while waiting.result is None:
                with suppress(asyncio.CancelledError):
                    await waiting.wait()
            raise
        assert waiting.result is not None, "it was waited for"
        return waiting.result.unwrap()

    def begin(
        self, work: Work[T], answer: Callable[[Answer[T]], None], when_drained: WhenDrained
    ) -> Errand[T]:
        """
        Have `work` begun; `answer` is called on the trio thread with what came of it.

        Raises:
            Exception: the refusal, if trio is not running any more.
        """
        errand = Errand(work, answer, when_drained)
        self._begun.append((errand, copy_context()))
        if not self._is_woken:
            self._is_woken = True
            try:
                self._token.run_sync_soon(self._start_all)
            except trio.RunFinishedError:
                raise self._refusal() from None
        return errand

    def cancel(self, errand: Errand[Any]) -> None:
        """Cancel an errand; it is answered when it has ended."""
        self.send(errand.cancel)

    def send(self, call: Callable[[], None]) -> None:
        """Have a plain function called on the trio thread, soon; nothing comes back."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call)

    def _outbox(self) -> _Outbox:
        """That of the loop that runs here."""
        loop = asyncio.get_running_loop()
        outbox = self._outboxes.get(loop)
        if outbox is None:
            outbox = self._outboxes[loop] = _Outbox(loop)
        return outbox

    # On trio.

    async def drain(self, patience_s: float) -> None:
        """Take no more errands, and wait so long for those that are under way."""
        self._is_closed = True
        for errand in list(self._open):
            if errand.when_drained is WhenDrained.CANCEL:
                errand.cancel()
        with trio.move_on_after(patience_s):
            while any(one.when_drained is not WhenDrained.GO_ON for one in self._open):
                await self._ended.park()

    def close(self) -> None:
        """Take no more errands, and cancel those that are under way."""
        self._is_closed = True
        for errand in list(self._open):
            errand.cancel()

    def _start_all(self) -> None:
        # The flag first: whoever finds it set has put their errand where it is found below.
        self._is_woken = False
        while self._begun:
            errand, context = self._begun.popleft()
            if self._is_closed:
                errand.refuse(self._refusal())
            else:
                self._open.add(errand)
                context.run(self._nursery.start_soon, self._run, errand)

    async def _run(self, errand: Errand[Any]) -> None:
        try:
            await errand.run()
        finally:
            self._open.discard(errand)
            self._ended.unpark_all()


@asynccontextmanager
async def open_errands(refusal: Callable[[], Exception]) -> AsyncIterator[Errands]:
    """
    Take errands inside the block; what is under way at its end is cancelled and waited for.

    Args:
        refusal: makes the error for whoever comes too late.
    """
    with plain_errors() as body:
        async with trio.open_nursery() as nursery:
            errands = Errands(nursery, refusal)
            try:
                with body:
                    yield errands
            finally:
                errands.close()


def _was_cancelled(answer: Answer[Any]) -> bool:
    return isinstance(answer, outcome.Error) and isinstance(answer.error, OutcomeUnknown)


class _Outbox:
    """
    Answers on their way to an asyncio loop.

    Waking a loop costs more than most calls do, so what is answered at the same time goes together.
    """

    __slots__ = ("__weakref__", "_answers", "_is_woken", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self._answers: deque[Callable[[], None]] = deque()
        self._is_woken = False

    def put(self, tell: Callable[[], None]) -> None:
        """On trio: have `tell` called on the loop; if that is closed, nobody waits any more."""
        self._answers.append(tell)
        if not self._is_woken and (loop := self.loop()) is not None:
            self._is_woken = True
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._tell_all)

    def _tell_all(self) -> None:
        self._is_woken = False
        while self._answers:
            self._answers.popleft()()


class _Waiting(Generic[T]):
    """One task of asyncio, waiting for one answer."""

    __slots__ = ("_future", "_outbox", "result")

    def __init__(self, outbox: _Outbox) -> None:
        self.result: Answer[T] | None = None
        self._outbox = outbox
        self._future: asyncio.Future[None] | None = None

    def answer(self, result: Answer[T]) -> None:
        """On trio."""
        self._outbox.put(partial(self._settle, result))

    async def wait(self) -> None:
        """On asyncio; may be cancelled and called again."""
        if self.result is None:
            self._future = asyncio.get_running_loop().create_future()
            await self._future

    def _settle(self, result: Answer[T]) -> None:
        self.result = result
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
