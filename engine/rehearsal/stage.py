"""
One test's engine: a node in memory on a clock that stands still unless the test moves it.

Scheduled functions and crons wait for the test too: they run in `advance`,
`finish_in_progress` and `finish_all`, at their time of the virtual clock.
While an action sleeps and nothing else goes on, the clock goes to where it
wakes up.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import count
from types import MappingProxyType
from typing import Any, Final, TypeVar

import outcome
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.app.contexts import MutationCtx
from engine.app.decorators import internal_mutation
from engine.app.environment import Variables
from engine.app.registry import Application
from engine.errors import UsageError
from engine.functions.due_jobs import Job
from engine.functions.results import Caller
from engine.functions.watchdog import Watchdog
from engine.host import Home, LocalCallee
from engine.interface import Target
from engine.kernel.runtime import VirtualRuntime
from engine.model.identity import Identity
from engine.model.limits import Limits
from engine.node import Node, running_node
from engine.rehearsal.http_stubs import Stubs, stubbing
from engine.store.memory_store import MemoryStore

T = TypeVar("T")

IDLE_S: Final = 0.005
"""Real time without anything happening, after which the virtual clock may go on."""
ROUNDS_MAX: Final = 500
"""Times that `finish_all` goes on to the next scheduled function."""
GENERATIONS_MAX: Final = 1_000
"""Of functions that schedule one another while the clock stands; however many are in each."""
CLOSING_RATE: Final = 100.0
"""Virtual seconds in a second while the engine closes, for the timeouts of that."""
LOOK_NS: Final = 1_000
RUN_PATH: Final = "_harness:run"

LIMITS: Final = Limits(action_time_s_max=math.inf)
"""An action in a thread is not to be timed out by a clock that jumps."""


class StillRuntime(VirtualRuntime):
    """
    A clock that stands still but for a microsecond whenever somebody looks.

    So documents that were made one after the other stay in that order.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_ns = 0

    def now_ns(self) -> int:
        self._last_ns = max(self.standing_ns(), self._last_ns + LOOK_NS)
        return self._last_ns

    def standing_ns(self) -> int:
        """Where the test has put it."""
        return super().now_ns()


class Stage:
    """All methods are for the engine's own trio thread."""

    def __init__(
        self, node: Node, home: Home, clock: MockClock, runtime: StillRuntime, stubs: Stubs
    ) -> None:
        self.node = node
        self.clock = clock
        self.stubs = stubs
        self._home = home
        self._runtime = runtime
        self._given: dict[int, tuple[Callable[[MutationCtx], Any], list[Any]]] = {}
        self._numbers = count()
        self._generations = _Generations()

    # Calls

    def callee(self, identity: Identity | None) -> LocalCallee:
        """Where calls of somebody go."""
        return _Callee(self.node, self._home, identity)

    async def in_time(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`, with the test's stubs; when it only sleeps, the clock goes on."""
        answer = await self._passing(work, math.inf)
        assert answer is not None, "without an end there is no giving up"
        return answer.unwrap()

    async def run(self, fn: Callable[[MutationCtx], Any], identity: Identity | None) -> Any:
        """Run any function as a mutation, and return whatever it returns."""
        number = next(self._numbers)
        returned: list[Any] = []
        self._given[number] = (fn, returned)
        try:
            target = Target("", RUN_PATH, {"number": number})
            answer = await self.callee(identity).mutation(target)
        finally:
            del self._given[number]
        if answer.error is not None:
            raise answer.error
        return returned[-1]

    async def deploy(self, application: Application) -> None:
        await self.node.push(self._with_run(application))

    async def set_variable(self, name: str, value: str) -> None:
        """What `env[name]` is from now on, in functions that run."""
        application = self.node.functions.deployment.application
        before = application.environment
        values = Variables({**before, name: value}, before.source, before.stand_in)
        digest = f"{application.digest} {name}={value}"
        await self.node.push(replace(application, environment=values, digest=digest))

    def seed(self, number: int) -> None:
        """Begin the dice anew: the same calls after this are given the same random numbers."""
        self._runtime.random.seed(number)

    def _with_run(self, application: Application) -> Application:
        @internal_mutation
        async def run(ctx: MutationCtx, number: int) -> None:
            fn, returned = self._given[number]
            result = fn(ctx)
            returned.append(await result if isinstance(result, Awaitable) else result)

        run.bind(*RUN_PATH.split(":"))
        functions = MappingProxyType({**application.functions, RUN_PATH: run})
        return replace(application, functions=functions)

    # Time

    async def advance(self, seconds: float) -> None:
        """
        Let time pass, and run what is due on the way; actions may be left sleeping.

        Raises:
            UsageError: as `finish_in_progress`.
        """
        with self._scheduling():
            await self._go_to(self._now_s() + seconds)

    async def finish_in_progress(self) -> None:
        """
        Run what is due now, and let as much time pass as that takes.

        Raises:
            UsageError: there seems to be no end to it.
        """
        with self._scheduling():
            await self._rest(math.inf)

    async def finish_all(self) -> None:
        """
        Run all scheduled functions, those that they schedule too, each at its time.

        Raises:
            UsageError: there seems to be no end to it.
        """
        with self._scheduling():
            for _ in range(ROUNDS_MAX):
                await self._rest(math.inf)
                due_ms = await self.node.scheduler.jobs.next_due_ms()
                if due_ms is None:
                    return
                await self._go_to(due_ms / 1000)
        raise UsageError(
            f"after {ROUNDS_MAX} rounds there are scheduled functions still; one that schedules "
            "itself has no end: use t.advance()"
        )

    async def now_ns(self) -> int:
        return self._runtime.standing_ns()

    async def go_on_at(self, now_ns: int) -> None:
        """
        Let the clock be where that of an earlier stage was; dice are to be seeded anew.

        The monotonic clock goes with it: a wall clock that leaps by more than an hour is not
        believed.
        """
        self.clock.jump(max(0, now_ns - self._runtime.standing_ns()) / 1e9)

    def begin_closing(self) -> None:
        """Let time run by itself, for the timeouts of whatever does not end."""
        self.clock.rate = CLOSING_RATE

    def _now_s(self) -> float:
        return self._runtime.standing_ns() / 1e9

    @contextmanager
    def _scheduling(self) -> Iterator[None]:
        scheduler = self.node.scheduler
        scheduler.resume()
        try:
            yield
        finally:
            scheduler.pause()

    async def _go_to(self, target_s: float) -> None:
        """Run everything that is due up to a time, step by step, and end at that time."""
        while await self._rest(target_s):
            due_ms = self.node.scheduler.next_due_ms
            if due_ms is None or due_ms / 1000 > target_s:
                break
            self._jump_to(due_ms / 1000)
        self._jump_to(target_s)
        await self._rest(target_s)

    def _jump_to(self, at_s: float) -> None:
        self.clock.jump(max(round(at_s * 1e9) - self._runtime.standing_ns(), 0) / 1e9)

    async def _rest(self, until_s: float) -> bool:
        """Wait until nothing runs that is due; False if only time beyond `until_s` would help."""
        self._generations = _Generations()
        answer = await self._passing(self._wait_resting, until_s)
        if answer is not None:
            answer.unwrap()
        return answer is not None

    async def _wait_resting(self) -> None:
        endless: list[str] = []

        def gives_up(job: Job) -> bool:
            if self._generations.has_begun(job, self._runtime.now_ns()) > GENERATIONS_MAX:
                endless.append(job.path)
            return bool(endless)

        await self.node.scheduler.wait_resting(gives_up)
        if endless:
            raise UsageError(
                f"scheduled functions have scheduled others {GENERATIONS_MAX:,} times while the "
                f"clock stood, and {endless[0]!r} goes on; one that schedules itself without a "
                "delay has no end"
            )

    async def _passing(
        self, work: Callable[[], Awaitable[T]], until_s: float
    ) -> outcome.Outcome[T] | None:
        """Do `work` while time passes; `None` if it waits for a time beyond `until_s`."""
        answer: outcome.Outcome[T] | None = None
        with stubbing(self.stubs):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_time, until_s, nursery.cancel_scope)
                try:
                    answer = outcome.Value(await work())
                except Exception as error:
                    answer = outcome.Error(error)
                nursery.cancel_scope.cancel()
        return answer

    async def _pass_time(self, until_s: float, waiting: trio.CancelScope) -> None:
        loops = self.node.functions.loops
        while True:
            await wait_all_tasks_blocked(IDLE_S)
            if loops.running_elsewhere:
                continue
            wait_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if wait_s <= 0 or wait_s == math.inf:
                continue
            if self._now_s() + wait_s > until_s:
                waiting.cancel()
                return
            self.clock.jump(wait_s)
            if until_s < math.inf:
                self._generations = _Generations()


class _Generations:
    """Counts how often scheduled functions have scheduled others, or themselves again."""

    def __init__(self) -> None:
        self._count = 0
        self._began_ms = math.inf
        self._members: set[bytes] = set()

    def has_begun(self, job: Job, now_ns: int) -> int:
        """
        The generation of a job that begins: the next one if it was scheduled, or has begun, since
        the last one began.
        """
        if not self._count or job.created_ms > self._began_ms or job.key in self._members:
            self._count += 1
            self._began_ms = now_ns / 1e6
            self._members.clear()
        self._members.add(job.key)
        return self._count


class _Callee(LocalCallee):
    """Calls with an administrator's rights, as a user if one is given."""

    def __init__(self, node: Node, home: Home, identity: Identity | None) -> None:
        super().__init__(node, home)
        self._identity = identity

    def _caller(self) -> Caller:
        return super()._caller()._replace(identity=self._identity)


@asynccontextmanager
async def open_stage(
    application: Application,
    clock: MockClock,
    environment: Mapping[str, str],
    store: MemoryStore | None = None,
) -> AsyncIterator[Stage]:
    """An engine with `application` deployed, and `environment` besides its own variables."""
    store = store or MemoryStore()
    runtime = StillRuntime()
    stubs = Stubs()
    watchdog = Watchdog(LIMITS)
    watchdog.start()
    opening = running_node(store, runtime=runtime, limits=LIMITS, watchdog=watchdog)
    try:
        # The stubs are there before the scheduler is, whose actions they answer too.
        with stubbing(stubs):
            async with opening as node:
                node.scheduler.pause()
                home = Home(":memory:", store, None, application)
                stage = Stage(node, home, clock, runtime, stubs)
                await stage.deploy(application)
                for name, value in environment.items():
                    await stage.set_variable(name, value)
                yield stage
    finally:
        watchdog.close()
        store.close()
