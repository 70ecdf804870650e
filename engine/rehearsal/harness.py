"""
What tests are given: an application on an engine of its own, to be called from any kind of test.

The engine has a trio loop in a thread of its own, so that its clock is not the
test's, and a test may run on trio, on asyncio or on neither.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from typing import Any, Final, Generic, ParamSpec, Self, TypeAlias, TypeVar, overload

import trio
from trio.testing import MockClock

from engine.app.contexts import (
    MutationCtx,
    Result,
)
from engine.app.references import (
    ActionReference,
    MutationReference,
    QueryReference,
    Reference,
)
from engine.app.registry import Application
from engine.errors import OutcomeUnknown, Stopped
from engine.functions.loader import Loadable, load
from engine.interface import Answer, AsyncInterface, Failed, Results, State, Target, target_of
from engine.kernel.errands import Errands, WhenDrained
from engine.model.identity import Identity
from engine.model.values import UNDEFINED, Value
from engine.rehearsal.http_stubs import Stub
from engine.rehearsal.stage import Stage, open_stage
from engine.store.memory_store import MemoryStore
from engine.trio_thread import Feed, TrioThread

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Work: TypeAlias = Callable[[], Awaitable[T]]

ISSUER: Final = "https://users.test"
"""Of identities for which a test names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a test's engine is: its stage, and the way there."""

    stage: Stage
    errands: Errands

    async def carry(self, work: Work[T], when_drained: WhenDrained = WhenDrained.FINISH) -> T:
        """Do `work` on the engine's thread, for a test on trio or asyncio."""
        if not trio.lowlevel.in_trio_task():
            return await self.errands.run_from_asyncio(work, when_drained)
        wait = partial(self.errands.run_from_thread, work, when_drained)
        return await trio.to_thread.run_sync(wait, abandon_on_cancel=True)

    def wait(self, work: Work[T]) -> T:
        """The same for a test that is a plain function."""
        return self.errands.run_from_thread(work)


@contextmanager
def open_place(
    app: Application | Loadable,
    environment: Mapping[str, str] | None = None,
    store: MemoryStore | None = None,
) -> Iterator[Place]:
    """
    An engine of its own for `app`, in memory, until the end of the block.

    Args:
        store: what an engine before it has left.

    Raises:
        DeclarationError: it cannot be loaded.
    """
    application = app if isinstance(app, Application) else load(app)
    clock = MockClock()
    thread: TrioThread[Stage] = TrioThread(
        partial(open_stage, application, clock, environment or {}, store), clock=clock
    )
    thread.start()
    stage, errands = thread.opened.result()
    try:
        yield Place(stage=stage, errands=errands)
    finally:
        errands.send(stage.begin_closing)
        thread.stop()
        thread.ended.result()


class Harness(AsyncInterface):
    """
    The application under test, for tests that are `async def`.

        async def test_sending(t: Harness) -> None:
            channel = await t.run(seed)
            await t.with_identity(name="Ada").mutation(send, channel=channel, body="hello")
            await t.finish_all_scheduled_functions()

    Its clock stands still, at the beginning of 2026, until the test lets time
    pass; its dice have a seed; its actions reach stubs instead of the network.
    """

    def __init__(self, place: Place, identity: Identity | None = None) -> None:
        super().__init__(_Callee(place, identity))
        self._place = place
        self._identity = identity

    def with_identity(self, **claims: Any) -> Harness:
        """
        The same engine, called by a user.

        Args:
            claims: of the user's token. `issuer`, `subject` and `tokenIdentifier` are made up
                if they are not among them; the same claims are the same user.
        """
        return Harness(self._place, identity_of(claims))

    async def run(self, fn: Callable[[MutationCtx], Coroutine[Any, Any, R]], /) -> R:
        """
        Run a function of the test's own as a mutation, to put something there or to look.

        Raises:
            Exception: what it raised; then nothing was written.
        """
        found: R = await self._place.carry(partial(self._place.stage.run, fn, self._identity))
        return found

    def http(
        self,
        method: str,
        url: str,
        /,
        *,
        json: Any = UNDEFINED,
        text: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """
        Answer requests that actions make with httpx; any other request fails.

        Args:
            url: `*` stands for any text, "https://en.wikipedia.org/*".
            json: the body, or `text`.
        """
        stub = Stub(
            method=method, url=url, json=json, text=text, status=status, headers=headers or {}
        )
        self._place.stage.stubs.add(stub)

    async def set_env(self, name: str, value: str) -> None:
        """What functions read as `env[name]` from now on."""
        await self._place.carry(partial(self._place.stage.set_variable, name, value))

    async def seed(self, number: int) -> None:
        """Begin the dice anew: after this, the same calls throw the same numbers."""
        self._place.stage.seed(number)

    @property
    def now_ns(self) -> int:
        """The engine's clock, nanoseconds since 1970."""
        return self._place.wait(self._place.stage.now_ns)

    async def advance(self, duration: timedelta | float) -> None:
        """
        Let time pass, and run the functions and crons that are due on the way.

        Args:
            duration: a `timedelta`, or milliseconds.

        Raises:
            UsageError: functions that schedule themselves without a delay seem to have no end.
        """
        await self._place.carry(partial(self._place.stage.advance, seconds_of(duration)))

    async def finish_in_progress_scheduled_functions(self) -> None:
        """
        Run the scheduled functions that are due now, and wait for their end.

        Raises:
            UsageError: as `advance`.
        """
        await self._place.carry(self._place.stage.finish_in_progress)

    async def finish_all_scheduled_functions(self) -> None:
        """
        Run all scheduled functions, and those that they schedule, each at its time.

        The clock is afterwards at the time of the last one. Crons do not end: they run as far
        as the time passes, and no further.

        Raises:
            UsageError: there seems to be no end to it, after 500 times, or without any delay 1,000.
        """
        await self._place.carry(self._place.stage.finish_all)


class BlockingHarness:
    """The application under test, for tests that are plain functions; as `Harness`, blocking."""

    def __init__(self, place: Place, identity: Identity | None = None) -> None:
        self._place = place
        self._identity = identity
        self._callee = place.stage.callee(identity)

    def with_identity(self, **claims: Any) -> BlockingHarness:
        """As `Harness.with_identity`."""
        return BlockingHarness(self._place, identity_of(claims))

    def run(self, fn: Callable[[MutationCtx], Coroutine[Any, Any, R]], /) -> R:
        """As `Harness.run`."""
        found: R = self._place.wait(partial(self._place.stage.run, fn, self._identity))
        return found

    @overload
    def query(self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def query(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    def query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a query on the newest state."""
        return self._value(partial(self._callee.query, target_of(fn, args, kwargs), None))

    @overload
    def mutation(self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def mutation(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    def mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation."""
        return self._value(partial(self._callee.mutation, target_of(fn, args, kwargs)))

    @overload
    def action(self, fn: ActionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def action(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    def action(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run an action; while it sleeps, the clock goes on."""
        work = partial(self._callee.action, target_of(fn, args, kwargs))
        return self._value(partial(self._place.stage.in_time, work))

    @overload
    def subscribe(
        self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> BlockingResults[R]: ...
    @overload
    def subscribe(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> BlockingResults[Result]: ...
    def subscribe(self, fn: Any, /, *args: Any, **kwargs: Any) -> BlockingResults[Any]:
        """Follow a query: a context manager and an iterator of its results."""
        results = self._place.wait(partial(self._callee.follow, target_of(fn, args, kwargs)))
        return BlockingResults(results, self._place)

    def http(
        self,
        method: str,
        url: str,
        /,
        *,
        json: Any = UNDEFINED,
        text: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """As `Harness.http`."""
        Harness(self._place).http(method, url, json=json, text=text, status=status, headers=headers)

    def set_env(self, name: str, value: str) -> None:
        """As `Harness.set_env`."""
        self._place.wait(partial(self._place.stage.set_variable, name, value))

    def seed(self, number: int) -> None:
        """As `Harness.seed`."""
        self._place.stage.seed(number)

    @property
    def now_ns(self) -> int:
        """The engine's clock, nanoseconds since 1970."""
        return self._place.wait(self._place.stage.now_ns)

    def advance(self, duration: timedelta | float) -> None:
        """As `Harness.advance`."""
        self._place.wait(partial(self._place.stage.advance, seconds_of(duration)))

    def finish_in_progress_scheduled_functions(self) -> None:
        """As `Harness.finish_in_progress_scheduled_functions`."""
        self._place.wait(self._place.stage.finish_in_progress)

    def finish_all_scheduled_functions(self) -> None:
        """As `Harness.finish_all_scheduled_functions`."""
        self._place.wait(self._place.stage.finish_all)

    def _value(self, work: Work[Answer]) -> Any:
        answer = self._place.wait(work)
        if answer.error is not None:
            raise answer.error
        return answer.value


class BlockingResults(Generic[R]):
    """The results of a subscribed query, for a test that is a plain function."""

    def __init__(self, results: Results[R], place: Place) -> None:
        self._feed = Feed(results, place.errands)
        self._place = place

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        self._place.wait(self._feed.wait)
        state = self._feed.take()
        if isinstance(state, Failed):
            raise state.error
        return state.value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.close()


class _Callee:
    """Takes the calls of a test to its engine."""

    def __init__(self, place: Place, identity: Identity | None) -> None:
        self._place = place
        self._there = place.stage.callee(identity)

    @property
    def now_ts(self) -> int:
        return self._there.now_ts

    def refuse_if_forked(self) -> None:
        self._there.refuse_if_forked()

    async def query(self, target: Target, ts: int | None) -> Answer:
        return await self._place.carry(partial(self._there.query, target, ts))

    async def mutation(self, target: Target) -> Answer:
        return await self._place.carry(partial(self._there.mutation, target))

    async def action(self, target: Target) -> Answer:
        work = partial(self._there.action, target)
        return await self._place.carry(partial(self._place.stage.in_time, work))

    async def follow(self, target: Target) -> Results[Any]:
        return _Results(await self._place.carry(partial(self._there.follow, target)), self._place)


class _Results(Results[Any]):
    """The results of a subscribed query, for a test on trio or asyncio."""

    def __init__(self, results: Results[Any], place: Place) -> None:
        self._feed = Feed(results, place.errands)
        self._place = place

    async def next_state(self) -> State[Any]:
        try:
            await self._place.carry(self._feed.wait, WhenDrained.CANCEL)
        except OutcomeUnknown:
            raise Stopped("the engine of this test was closed") from None
        return self._feed.take()

    def close(self) -> None:
        self._feed.close()


def identity_of(claims: Mapping[str, Any]) -> Identity:
    """A user with these claims; what is missing is made up, the same for the same claims."""
    given = dict(claims)
    known = json.dumps(given, sort_keys=True, default=str).encode()
    issuer = str(given.pop("issuer", ISSUER))
    made_up = int.from_bytes(blake2b(known, digest_size=6).digest(), "big")
    subject = str(given.pop("subject", made_up))
    token_identifier = str(given.pop("tokenIdentifier", f"{issuer}|{subject}"))
    return Identity(issuer=issuer, subject=subject, token_identifier=token_identifier, claims=given)


def seconds_of(duration: timedelta | float) -> float:
    """A `timedelta`, or milliseconds, as seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else duration / 1000
