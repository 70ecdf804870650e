"""
What a query or mutation awaits: calls on its context.

A call runs when it is made, so calls take effect in the order in which they
were written, whatever `gather` does with them later.  A call that may take
long (a scan, a nested function) runs when it is awaited, or when the next call
is made, whichever comes first.  A call whose result nobody awaits is an error
that names its line: what looks like a write must not vanish, nor its failure.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from random import Random
from sys import _getframe
from time import perf_counter
from types import CodeType, FrameType
from typing import Any, Final, Generic, Protocol, TypeVar

from engine.errors import LimitExceeded, NotAllowed, NotAwaited, SnapshotTooOld, StoreError
from engine.functions.driver import CHECKPOINT
from engine.transaction.transaction import TimestampTooEarly

T = TypeVar("T")
Steps = Generator[Any, Any, T]
"""Yields `CHECKPOINT` where the trio thread may do something else, and returns the result."""


class Marks(Protocol):
    """The driver's side of a call: engine work is not user time."""

    left_at: float
    """When the slice was left last, by `perf_counter`."""

    def leave(self) -> None: ...
    def enter(self) -> None: ...
    def overdraw(self) -> None: ...
    def spoil(self, error: Exception) -> None: ...


class Calls:
    """
    The calls of one function execution, nested ones excluded.

    Args:
        marks: left while the engine works, entered again for user code.
    """

    __slots__ = ("_deferred", "_is_closed", "_name", "marks", "slice", "unawaited")

    def __init__(self, name: str, marks: Marks, slice_: Slice) -> None:
        self._name = name
        self.marks = marks
        self.slice = slice_
        self.unawaited: set[Call[Any]] = set()
        self._deferred: list[DeferredCall[Any]] = []
        self._is_closed = False

    def run(self, work: Callable[..., T], *args: Any) -> Call[T]:
        """Do `work` now; its result or its error comes when the call is awaited."""
        marks = self.marks
        marks.leave()
        try:
            if self._is_closed:
                raise self._ended()
            if self._deferred:
                self._run_deferred()
            call: Call[T] = Call(self, _getframe(2))
            try:
                call.value = work(*args)
            except Exception as error:
                self.note(error)
                call.error = error
            self.unawaited.add(call)
            return call
        finally:
            marks.enter()

    def now(self, work: Callable[[], T]) -> T:
        """Do `work`, which takes no time and touches no document, for an attribute of a context."""
        self.marks.leave()
        try:
            if self._is_closed:
                raise self._ended()
            return work()
        finally:
            self.marks.enter()

    def defer(self, steps: Callable[[], Steps[T]]) -> Call[T]:
        """
        Do the steps when the call is awaited, or before the next one that is made.

        Args:
            steps: makes them at the call; if it raises, awaiting the call does.
        """
        self.marks.leave()
        try:
            if self._is_closed:
                raise self._ended()
            if self._deferred:
                self._run_deferred()
            call = DeferredCall(self, _getframe(2), _made(steps))
            self._deferred.append(call)
            self.unawaited.add(call)
            return call
        finally:
            self.marks.enter()

    def close(self) -> None:
        """
        The function has ended.

        Raises:
            NotAwaited: a call was made and not awaited.
        """
        self._is_closed = True
        for call in self.unawaited:
            raise NotAwaited(
                f"{self._name} made a call that was never awaited, at {call.place}; "
                "write `await` before it, in an `async def`"
            )

    def in_own_time(self, work: Callable[..., T], *args: Any) -> T:
        """Do `work`, which runs code of the application, in the middle of a call, as its slice."""
        self.marks.enter()
        try:
            return work(*args)
        finally:
            self.marks.leave()

    def note(self, error: Exception) -> None:
        """
        If a limit was exceeded, what is still called is on the application's own time.

        Not if its caller set the limit, in order to go on when it is reached.  And what the engine
        could not do ends the whole execution, whoever catches that.
        """
        if isinstance(error, LimitExceeded):
            if not error.is_callers:
                self.marks.overdraw()
        elif isinstance(error, _ENGINES_OWN):
            self.marks.spoil(error)

    def taken(self, call: DeferredCall[Any]) -> None:
        self._deferred.remove(call)

    def breathing(self, work: Generator[None, None, T]) -> Steps[T]:
        """Long work that yields where others may run: they do if it is time."""
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            yield from self.breathe()

    def breathe(self) -> Steps[None]:
        """In the middle of long work: let others run, if it is time."""
        if self.slice.is_over(perf_counter()):
            yield CHECKPOINT
            self.slice.restart()

    def _run_deferred(self) -> None:
        while self._deferred:
            self._deferred[0].run_now()

    def _ended(self) -> NotAllowed:
        return NotAllowed(
            f"{self._name} has ended; its ctx cannot be used any more, nor kept for later"
        )


class Slice:
    """
    How long the trio thread has been busy with one execution.

    Args:
        rows_max: calls and rows after which others get their turn.
        seconds_max: time after which they do.
    """

    __slots__ = ("_began", "_rows", "_rows_max", "_seconds_max")

    def __init__(self, *, rows_max: int, seconds_max: float) -> None:
        self._rows_max = rows_max
        self._seconds_max = seconds_max
        self._rows = 0
        self._began = perf_counter()

    def is_over(self, now: float) -> bool:
        """Whether it is time to let others run; `restart` when they have."""
        self._rows += 1
        return self._rows >= self._rows_max or now - self._began >= self._seconds_max

    def restart(self) -> None:
        """Others had their turn."""
        self._rows = 0
        self._began = perf_counter()


class SeededSlice(Slice):
    """Ends by the dice at any call, so that whatever can run in between will, by some seed."""

    __slots__ = ("_dice",)

    def __init__(self, dice: Random) -> None:
        super().__init__(rows_max=1, seconds_max=0.0)
        self._dice = dice

    def is_over(self, _now: float) -> bool:
        return self._dice.random() < 0.5


def _made(steps: Callable[[], Steps[T]]) -> Steps[T]:
    try:
        return steps()
    except Exception as error:
        return _failing(error)


def _failing(error: Exception) -> Steps[Any]:
    yield from ()
    raise error


_ENGINES_OWN: Final = (SnapshotTooOld, StoreError, TimestampTooEarly)
"""What a call raises that the application can do nothing about: nothing may be made of it."""
_PENDING: Final = object()


class Call(Coroutine[Any, Any, T], Generic[T]):
    """The result of a call on `ctx`, to be awaited once."""

    __slots__ = ("_at", "_calls", "_code", "error", "value")

    def __init__(self, calls: Calls, caller: FrameType) -> None:
        self._calls = calls
        self._code: CodeType = caller.f_code
        self._at = caller.f_lasti
        self.value: Any = None
        self.error: Exception | None = None

    @property
    def place(self) -> str:
        """File and line of the call."""
        spans = self._code.co_lines()
        line = next((line for start, end, line in spans if start <= self._at < end), None)
        return f"{self._code.co_filename}:{line or self._code.co_firstlineno}"

    def __await__(self) -> Generator[Any, Any, T]:
        calls = self._calls
        calls.unawaited.discard(self)
        if calls.slice.is_over(calls.marks.left_at):
            calls.marks.leave()
            yield CHECKPOINT
            calls.slice.restart()
            calls.marks.enter()
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[no-any-return]  # the caller's own type

    def send(self, _value: Any, /) -> Any:
        raise NotAllowed("a call on ctx is awaited, not sent to")

    def throw(self, *_: Any) -> Any:
        raise NotAllowed("a call on ctx is awaited, not thrown into")

    def close(self) -> None:
        """Nothing to clean up: the work is done."""


class DeferredCall(Call[T]):
    """A call whose work is a generator."""

    __slots__ = ("_steps",)

    def __init__(self, calls: Calls, caller: FrameType, steps: Steps[T]) -> None:
        super().__init__(calls, caller)
        self._steps: Steps[T] | None = steps
        self.value = _PENDING

    def __await__(self) -> Generator[Any, Any, T]:
        calls = self._calls
        calls.unawaited.discard(self)
        if self._steps is None:
            if self.error is not None:
                raise self.error
            return self.value  # type: ignore[no-any-return]
        calls.marks.leave()
        try:
            calls.taken(self)
            steps, self._steps = self._steps, None
            return (yield from steps)
        except (LimitExceeded, *_ENGINES_OWN) as error:
            calls.note(error)
            raise
        finally:
            calls.marks.enter()

    def run_now(self) -> None:
        """Run to the end without letting anybody else run."""
        self._calls.taken(self)
        steps, self._steps = self._steps, None
        assert steps is not None
        try:
            while True:
                if next(steps) is not CHECKPOINT:
                    steps.throw(NotAllowed("a query or mutation awaits only calls on its ctx"))
        except StopIteration as end:
            self.value = end.value
        except Exception as error:
            self._calls.note(error)
            self.error = error
