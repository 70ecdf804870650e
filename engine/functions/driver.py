"""
Runs the coroutine of a query or mutation, step by step, outside trio's scheduler.

    drive ──send──▶ handler ──ctx call──▶ leave · engine work · enter ──▶ handler …
      ▲                                        │
      └──────────── CHECKPOINT ◀───────────────┘   now and then; `drive` lets trio run

A handler can await what its context gives it, and nothing else: what reaches
`drive` besides `CHECKPOINT` is refused by name.  So a run costs no task
switch, and the same input gives the same run.

An `Execution` is one such run.  Its slices are the times between `enter` and
`leave`: code of the application runs, the watchdog looks on, and the shims of
`time`, `random` and so on find the execution by `active()`.
"""

from __future__ import annotations

import random
import sys
import traceback
import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import outcome
import trio

from engine.errors import FunctionAborted, FunctionTimeout, NotAllowed
from engine.functions import refusals
from engine.functions.log_lines import Level, add_line
from engine.functions.passes import Passes
from engine.functions.slots import Releasable, Slot, TimeIsUp
from engine.functions.tracebacks import ENGINE
from engine.functions.watchdog import Watchdog
from engine.kernel.trace import tracer
from engine.model.limits import Limits

if TYPE_CHECKING:
    from engine.app.registered import Kind
    from engine.transaction.usage import Usage

trace = tracer(__name__)

E = TypeVar("E", bound=BaseException)
T = TypeVar("T")


class _Checkpoint:
    def __repr__(self) -> str:
        return "CHECKPOINT"


CHECKPOINT: Final = _Checkpoint()
"""What a call on a context yields, its slice left, when others should have their turn."""

CLOSE_ATTEMPTS_MAX: Final = 3
CLOSE_S_MIN: Final = 0.1
"""For the `finally` blocks of a handler that is closed, whatever it has used up."""

HELD_MAX: Final = 10_000
"""A kilobyte each, in a function that logs in a loop."""

_NOWHERE: Final = Slot()
_GONE: Final = Slot()
"""What remains of a closed execution marks this one, not a thread that drives others by then."""


class Execution:
    """
    One run of a query or mutation, the calls nested in it included.

    Args:
        path: the function, as messages name it.
        now_ns: the clock it sees from beginning to end, nanoseconds since 1970.
        seed: of its dice; the same seed gives the same numbers.
    """

    __slots__ = (
        "_random",
        "_slot",
        "engine_left_s",
        "held",
        "interrupted_at",
        "interruptions",
        "is_closed",
        "is_overdrawn",
        "kind",
        "left_at",
        "left_s",
        "limits",
        "log_lines",
        "now_ns",
        "observed_identity",
        "observed_random",
        "observed_time",
        "path",
        "seed",
        "spoiled_by",
        "watchdog",
    )

    watchdog: Watchdog

    def __init__(self, *, kind: Kind, path: str, now_ns: int, seed: int, limits: Limits) -> None:
        self.kind = kind
        self.path = path
        self.now_ns = now_ns
        self.limits = limits
        self.log_lines: list[str] = []
        self.held: list[Releasable] | None = None
        """What is released with the answer, if there is anything."""
        self.observed_identity = False
        self.observed_random = False
        self.observed_time = False
        self.left_s = limits.user_time_s_max
        self.engine_left_s = limits.system_time_s_max
        self.interruptions = 0
        self.interrupted_at = ""
        """Where a nested handler was; what goes on in its callers hides that."""
        self.is_closed = False
        self.is_overdrawn = False
        self.spoiled_by: Exception | None = None
        """What the engine could not do for it, whoever may have caught that."""
        self.left_at = 0.0
        self.seed = seed
        self._random: random.Random | None = None
        self._slot = _NOWHERE

    @property
    def random(self) -> random.Random:
        """The seeded dice."""
        self.observed_random = True
        if self._random is None:
            self._random = random.Random(self.seed)
        return self._random

    @property
    def user_time_s(self) -> float:
        """Seconds of the application's own code so far, the slice that is running left out."""
        left_s, allowed_s = self.left_s, self.limits.user_time_s_max
        return allowed_s - left_s if left_s < allowed_s else 0.0

    @property
    def engine_time_s(self) -> float:
        """Seconds that its calls took so far."""
        left_s, allowed_s = self.engine_left_s, self.limits.system_time_s_max
        return allowed_s - left_s if left_s < allowed_s else 0.0

    def note_times(self, usage: Usage) -> None:
        """Have it warn of the seconds that it took, if they are near what it may take."""
        for limit, left_s in (
            ("user_time_s_max", self.left_s),
            ("system_time_s_max", self.engine_left_s),
        ):
            allowed = getattr(self.limits, limit)
            usage.note(limit, allowed - left_s, allowed)

    @property
    def name(self) -> str:
        """As messages name it: `the mutation messages:send`."""
        return f"the {self.kind.value} {self.path}"

    def read_clock(self) -> int:
        """The frozen clock, for code that then depends on it; nanoseconds since 1970."""
        self.observed_time = True
        return self.now_ns

    def log(self, level: Level, *parts: Any) -> None:
        """Add a log line; beyond `log_lines_max` they are dropped, and one says so."""
        add_line(self.log_lines, self.limits, level, parts)

    def hold(self, one: Releasable, /) -> None:
        """Keep something until the answer is given; beyond `HELD_MAX` it is dropped."""
        if self.held is None:
            self.held = []
        if len(self.held) < HELD_MAX:
            self.held.append(one)

    def enter(self) -> None:
        """
        Engine work is over, code of the application goes on.

        The last thing that a call on a context does.

        Raises:
            TimeIsUp: the time of this execution is used up; let it through.
        """
        slot = self._slot
        now = perf_counter()
        self.engine_left_s -= now - self.left_at
        if self.is_overdrawn or self.engine_left_s <= 0:
            self._pay(now - self.left_at)
        slot.deadline = now + self.left_s
        slot.execution = self
        if self.watchdog.is_asleep:
            self.watchdog.wake()
        if self.left_s <= 0:
            self.interruptions += 1
            raise TimeIsUp

    def mark(self) -> None:
        """`enter`, for those who see to the limit themselves."""
        slot = self._slot
        slot.deadline = perf_counter() + self.left_s
        slot.execution = self
        if self.watchdog.is_asleep:
            self.watchdog.wake()

    def leave(self) -> None:
        """
        Code of the application pauses for engine work; nothing interrupts that.

        The first thing that a call on a context does, and outside its `try`.

        Raises:
            NotAllowed: the execution has ended, or another one is running.
        """
        slot = self._slot
        if slot.execution is not self or self.is_closed:
            raise self._misused()
        # Nothing from here to the call of `flush` lets the interpreter raise what was injected.
        with slot.lock:
            slot.execution = None
            if slot.is_disturbed:
                try:
                    slot.flush()
                except TimeIsUp:
                    slot.release()
        self.left_at = perf_counter()
        self.left_s = slot.deadline - self.left_at

    def overdraw(self) -> None:
        """
        A limit was exceeded: from here on calls take the application's own time.

        It has failed; if it goes on all the same, by calls that fail as well,
        that is not for the length of `system_time_s_max`.
        """
        self.is_overdrawn = True

    def spoil(self, error: Exception) -> None:
        """The engine could not do what was called: nothing is made of this run, caught or not."""
        self.spoiled_by = self.spoiled_by or error

    def nested(self, call: Callable[[], Any]) -> Generator[Any, Any, Any]:
        """
        Run a further handler in this execution, from between `leave` and `enter`.

        Yields what is for `drive`; returns what the handler returned, or the
        coroutine it returned did.  Afterwards the slice is left, come what may.
        """
        try:
            self.enter()
            result = call()
            if isinstance(result, Coroutine):
                result = yield from result.__await__()
        except TimeIsUp as error:
            self.interrupted_at = self.interrupted_at or _place(error)
            raise
        finally:
            slot = self._slot
            was_marked = slot.execution is self
            slot.execution = None
            with slot.lock:
                if slot.is_disturbed:
                    try:
                        slot.flush()
                    except TimeIsUp:
                        slot.release()
            if was_marked:
                self.left_at = perf_counter()
                self.left_s = slot.deadline - self.left_at
        return result

    def abandon(self) -> None:
        """
        It was closed.  An async generator may still stand in the middle of a call: before Python
        3.13 closing whoever awaits it does not close it, so it is when it is collected, some time.
        """
        self._slot = _GONE

    def lift_limit(self) -> None:
        """A debugger was attached: whoever sits at it may take their time."""
        self.left_s = self.engine_left_s = self._slot.deadline = inf
        self.watchdog.notice_tracer()

    def begin(self, watchdog: Watchdog, limits: Limits) -> Slot:
        """Bind to the thread that drives."""
        assert self._slot is _NOWHERE, "an execution is driven once"
        self.watchdog = watchdog
        self._slot = slot = watchdog.slot
        assert slot.execution is None, "a slice cannot be driven from within another"
        self.left_s = limits.user_time_s_max
        self.engine_left_s = limits.system_time_s_max
        if _is_traced():
            self.lift_limit()
        return slot

    def _pay(self, spent_s: float) -> None:
        """Take the time of calls from the application's own; if theirs is used up, all of it."""
        if self.engine_left_s <= 0:
            self.left_s = min(self.left_s, 0.0)
        else:
            self.left_s -= spent_s

    def _misused(self) -> NotAllowed:
        if self.is_closed:
            return NotAllowed(
                f"{self.name} has ended; its ctx cannot be used any more, nor kept for later"
            )
        return NotAllowed(
            f"the ctx of {self.name} was used outside of it; each function has its own ctx"
        )


_monitoring: Final[Any] = getattr(sys, "monitoring", None)
"""Where debuggers attach from Python 3.12 on."""


def _is_traced() -> bool:
    """Whether somebody steps through what this thread runs, or watches each line of it."""
    if sys.gettrace() is not None:
        return True
    return _monitoring is not None and _monitoring.get_tool(_monitoring.DEBUGGER_ID) is not None


_ENDED: Final = object()


class _Run:
    """A handler's coroutine, run slice by slice, and what came of it."""

    __slots__ = ("coroutine", "error", "execution", "passes", "refusal", "result", "slot")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        execution: Execution,
        slot: Slot,
        passes: Passes | None = None,
    ) -> None:
        self.coroutine = coroutine
        self.execution = execution
        self.slot = slot
        self.passes = passes
        self.result: Any = None
        self.error: BaseException | None = None
        self.refusal: NotAllowed | None = None

    def slice(self, resume: Callable[[Any], Any], given: Any, *, marks: bool = True) -> Any:
        """
        Let the handler run until it yields, or `_ENDED`.

        Afterwards the slice is left and nothing is waiting to be raised,
        whatever the handler did: the interpreter looks for injected exceptions
        at calls, loops and the beginning of functions, and there is none of
        these between the handler's end and the call of `flush`.
        """
        execution, slot = self.execution, self.slot
        began = perf_counter()
        try:
            if marks:
                execution.mark()
            yielded = resume(given)
        except StopIteration as end:
            self.result = end.value
            yielded = _ENDED
        except BaseException as error:
            self.error = error
            yielded = _ENDED
        was_marked = slot.execution is execution
        slot.execution = None
        with slot.lock:
            if slot.is_disturbed:
                try:
                    slot.flush()
                except TimeIsUp:
                    slot.release()
        now = perf_counter()
        if was_marked:
            execution.left_s = slot.deadline - now
        if self.passes is not None:
            self.passes.note(now - began)
        return yielded

    async def checkpoint(self) -> Any:
        """Let trio run others, which is no time of the call that asked for it; and go on."""
        began = perf_counter()
        try:
            if self.passes is None:
                await trio.lowlevel.checkpoint()
            else:
                await self.passes.go_on()
        except BaseException:
            self.close()
            raise
        self.execution.left_at += perf_counter() - began
        return self.slice(self.coroutine.send, None, marks=False)

    async def refuse(self, trap: object) -> Any:
        """
        Throw the refusal of a foreign await into the handler; returns what it yields next.

        What is awaited may already be registered with trio, and is taken back
        first.  A few things cannot be (a thread that is running); these are
        waited for, so that trio finds everything as it left it.
        """
        execution = self.execution
        if execution.left_s <= 0:
            return self.slice(self._throw_timeout, None)
        began = perf_counter()
        refusal = refusals.of_await(self.coroutine, execution)
        is_taken_back = refusals.take_back(trap, refusal)
        execution.left_s -= perf_counter() - began
        if is_taken_back:
            return self.slice(self.coroutine.throw, refusal)
        self.refusal = refusal
        try:
            answer = await _pass_on(trap)
        except BaseException:
            self.close()
            raise
        yielded = self.slice(self.coroutine.send, answer)
        if isinstance(answer, outcome.Error) and isinstance(answer.error, trio.Cancelled):
            self.close()
            raise answer.error
        return yielded

    def close(self) -> None:
        """
        Unwind the handler, for which nobody waits any more.

        Its `finally` blocks run, as a slice, but with a ctx that is closed.  A
        handler that goes on instead is stopped at its next line.
        """
        execution = self.execution
        execution.is_closed = True
        execution.left_s = max(execution.left_s, CLOSE_S_MIN)
        for _ in range(CLOSE_ATTEMPTS_MAX):
            self.slice(self._close, None)
            if getattr(self.coroutine, "cr_frame", None) is None:
                break
            execution.interruptions = 2
        else:
            trace.error("driver.unclosed", function=execution.path, error=repr(self.error))
        execution.abandon()

    def _throw_timeout(self, _: None) -> Any:
        self.execution.interruptions += 1
        return self.coroutine.throw(TimeIsUp())

    def _close(self, _: None) -> None:
        if self.execution.interruptions > 1:
            self.slot.trap()
        self.coroutine.close()


@types.coroutine
def _pass_on(trap: object) -> Generator[object, Any, Any]:
    return (yield trap)


@trio.lowlevel.enable_ki_protection
async def drive(
    coroutine: Coroutine[Any, Any, Any],
    execution: Execution,
    *,
    limits: Limits,
    watchdog: Watchdog,
    passes: Passes | None = None,
) -> Any:
    """
    Run a handler to its end and return what it returns.

    Ctrl-C is held back until trio's next checkpoint.  If the caller is
    cancelled, the handler is closed before `trio.Cancelled` goes on.

    Args:
        limits: `user_time_s_max` is for all slices of the execution together,
            `system_time_s_max` for all that is between them, but for the turns of others.
        passes: where it waits in line for its next turn, and what it takes is noted.

    Raises:
        FunctionTimeout: the application's code, or its calls on `ctx`, took longer than
            they may, whatever it then made of having been interrupted.
        FunctionAborted: the handler raised SystemExit, KeyboardInterrupt or
            another exception that is not an `Exception`.
        Exception: what the handler raised.
    """
    run = _Run(coroutine, execution, execution.begin(watchdog, limits), passes)
    yielded = run.slice(coroutine.send, None)
    while yielded is not _ENDED:
        if yielded is CHECKPOINT:
            yielded = await run.checkpoint()
        else:
            yielded = await run.refuse(yielded)
    execution.is_closed = True
    if run.error is None and run.refusal is None and execution.left_s > 0:
        return run.result
    raise _failure(run, limits)


@trio.lowlevel.enable_ki_protection
def last_slice(execution: Execution, work: Callable[[E], T], error: E) -> T | None:
    """
    What `work` makes of the error of an execution that has ended: code of the error's class, too.

    Returns:
        `None` if it took longer than a moment.
    """

    async def working() -> T:
        return work(error)

    slot = execution._slot
    if slot is _NOWHERE:
        return work(error)
    left_s = execution.left_s
    execution.left_s = max(left_s, CLOSE_S_MIN)
    run = _Run(working(), execution, slot)
    run.slice(run.coroutine.send, None)
    execution.left_s = left_s
    return run.result  # type: ignore[no-any-return]


def _failure(run: _Run, limits: Limits) -> BaseException:
    execution, error = run.execution, run.error
    if execution.left_s <= 0 or isinstance(error, TimeIsUp):
        if execution.engine_left_s <= 0:
            what = f"spent more than {limits.system_time_s_max:g} s in its calls on ctx"
            limit = "system_time_s_max"
        else:
            what = f"ran its own code for more than {limits.user_time_s_max:g} s"
            limit = "user_time_s_max"
        place = execution.interrupted_at or _place(error)
        timeout = FunctionTimeout(
            f"{execution.name} {what} ({limit}){place}; do less at a time, or use an action"
        )
        timeout.__cause__ = error if isinstance(error, Exception) else None
        return timeout
    if error is None:
        assert run.refusal is not None
        return run.refusal
    if isinstance(error, Exception | trio.Cancelled):
        return error
    aborted = last_slice(execution, partial(FunctionAborted, execution.name), error)
    if aborted is None:
        aborted = FunctionAborted(execution.name, BaseException(type(error).__name__))
    aborted.__cause__ = error
    return aborted


def _place(error: BaseException | None) -> str:
    """Where it was interrupted."""
    if not isinstance(error, TimeIsUp):
        return ""
    frames = [
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(ENGINE)
    ]
    if not frames:
        return ""
    code, line = frames[-1]
    return f" and was interrupted at {code.co_filename}:{line} in {code.co_name}"
