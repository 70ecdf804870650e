"""
A trio loop in a thread of its own, with an engine on it, for hosts that are not trio.

    thread = TrioThread(lambda: Engine.open("data", app="backend"))
    thread.start()
    engine, errands = thread.opened.result()
    ...                                        # errands.run_from_thread, run_from_asyncio
    thread.stop()
    thread.ended.result()

The loops of both sides are then each other's equals: a host that is busy does
not hold up commits, nor the engine the host.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Final, Generic, TypeVar

import outcome
import trio

from engine.errors import Stopped
from engine.functions.tracebacks import trimmed
from engine.interface import Results, State
from engine.kernel.errands import Errands, WhenDrained, open_errands
from engine.kernel.process import current_pid
from engine.kernel.trace import tracer

trace = tracer(__name__)

E = TypeVar("E")
R = TypeVar("R")
T = TypeVar("T")

DRAIN_S: Final = 10.0
"""For calls that are under way when the engine is closed."""
EXIT_S: Final = 15.0
"""For an engine that is still open when the interpreter exits, as in a notebook."""


class TrioThread(Generic[E]):
    """
    Args:
        opening: what opens the engine, called in the thread.
        clock: trio's, where it is not the system's.

    Attributes:
        opened: the engine and the errands that reach it; or why it could not be opened.
        ended: settled when the engine is closed; an error if it had failed while it ran.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractAsyncContextManager[E]],
        *,
        clock: trio.abc.Clock | None = None,
    ) -> None:
        self.opened: Future[tuple[E, Errands]] = Future()
        self.ended: Future[None] = Future()
        self.pid = current_pid()
        self._opening = opening
        self._clock = clock
        self._thread = threading.Thread(target=self._run, name="headrace", daemon=True)
        self._token: trio.lowlevel.TrioToken | None = None
        self._stopping = trio.Event()
        self._scope = trio.CancelScope()
        self._is_stopping = False

    def start(self) -> None:
        """Begin to open the engine."""
        for future in (self.opened, self.ended):
            future.set_running_or_notify_cancel()  # so that nobody who waits for it can cancel it
        atexit.register(self._exit)
        self._thread.start()

    def stop(self) -> None:
        """
        Close the engine: let calls that are under way finish, and take no new ones.

        If it is still being opened, that is given up.  Safe in any thread, and does not wait.
        """
        self._is_stopping = True
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop)

    def _run(self) -> None:
        try:
            trio.run(self._live, clock=self._clock)
        except BaseException as error:
            self._settle(error)
        else:
            self._settle(None)

    def _settle(self, error: BaseException | None) -> None:
        atexit.unregister(self._exit)
        if not self.opened.done():
            self.opened.set_exception(
                trimmed(error) if error else Stopped("it was closed before it was open")
            )
            self.ended.set_result(None)
        elif error is None:
            self.ended.set_result(None)
        else:
            trace.error("engine.failed", error=repr(error))
            self.ended.set_exception(error)

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        if self._is_stopping:
            return
        # The errands stand around the engine: connections go on while it drains.
        with self._scope:
            async with open_errands(self._refusal) as errands, self._opening() as engine:
                self.opened.set_result((engine, errands))
                await self._stopping.wait()
                await errands.drain(DRAIN_S)

    def _stop(self) -> None:
        self._stopping.set()
        if not self.opened.done():
            self._scope.cancel()

    def _refusal(self) -> Stopped:
        if self.ended.done() and (error := self.ended.exception()) is not None:
            return Stopped(f"the engine had failed ({error!r}); nothing was done")
        return Stopped("the engine was closed; nothing was done")

    def _exit(self) -> None:
        """The interpreter exits, and nobody has closed the engine."""
        if current_pid() == self.pid:
            self.stop()
            self._thread.join(EXIT_S)


class Feed(Generic[R]):
    """
    The results of a subscription, as a thread or an asyncio loop waits for them.

    A result that came just as somebody gave up waiting stays here for the next who asks.
    """

    def __init__(self, results: Results[R], errands: Errands) -> None:
        self._results = results
        self._errands = errands
        self._arrived: State[R] | None = None
        self._waiting: trio.CancelScope | None = None
        self.is_closed = False

    async def wait(self) -> None:
        """On trio: wait until there is something to take, or this is closed."""
        if self._arrived is None and not self.is_closed:
            with trio.CancelScope() as self._waiting:
                self._arrived = await self._results.next_state()
            self._waiting = None

    def take(self) -> State[R]:
        """
        What `wait` has waited for.

        Raises:
            Stopped: this was closed.
        """
        state, self._arrived = self._arrived, None
        if state is None:
            raise Stopped("these results were closed")
        return state

    def close(self) -> None:
        """Follow no longer; whoever waits is told.  Safe in any thread."""
        self._errands.send(self._close)

    def _close(self) -> None:
        self.is_closed = True
        if self._waiting is not None:
            self._waiting.cancel()
        self._results.close()


class Held(Generic[T]):
    """
    An async context manager, entered on trio and held open there until `leave`.

    Attributes:
        entered: what it gave; or why it could not be entered.
        ended: settled when it is left.
    """

    def __init__(
        self, errands: Errands, make: Callable[[], AbstractAsyncContextManager[T]]
    ) -> None:
        self.entered: Future[T] = Future()
        self.ended: Future[None] = Future()
        self._make = make
        self._leaving = trio.Event()
        self._errands = errands
        self._errand = errands.begin(self._hold, self._answer, WhenDrained.GO_ON)

    def leave(self) -> None:
        """Leave it, as at the end of its block.  Safe in any thread, and does not wait."""
        self._errands.send(self._leaving.set)

    def cancel(self) -> None:
        """Leave it at once, as when its block is cancelled."""
        self._errands.cancel(self._errand)

    async def _hold(self) -> None:
        async with self._make() as value:
            self.entered.set_result(value)
            await self._leaving.wait()

    def _answer(self, result: outcome.Outcome[None]) -> None:
        if isinstance(result, outcome.Error) and not self.entered.done():
            self.entered.set_exception(result.error)
        self.ended.set_result(None)


@contextmanager
def held(errands: Errands, make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What `make` returns, held open on trio for the block of a thread."""
    holding = Held(errands, make)
    try:
        yield holding.entered.result()
    except BaseException:
        holding.cancel()
        raise
    finally:
        holding.leave()
        holding.ended.result()
