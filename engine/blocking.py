"""
The engine for threads: the same methods, each of which blocks until it is answered.

    with blocking.open("data", app="backend") as engine:
        engine.mutation(send, channel=channel, body="hello")     # from any thread, many at once
        with engine.subscribe(list_page, channel, options) as results:
            for page in results: ...

For a Flask view, a script, a worker.  The engine runs on trio in a thread of
its own; what threads ask at the same time is served at the same time, and
their mutations are written to disk together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import trio

from engine import host, remote
from engine.app.contexts import (
    Committed,
    Result,
)
from engine.app.references import (
    ActionReference,
    MutationReference,
    QueryReference,
    Reference,
)
from engine.errors import OutcomeUnknown, Stopped, UsageError
from engine.functions.loader import Loadable
from engine.host import AppSource
from engine.interface import Answer, Callee, Failed, State, Target, as_of_among, target_of
from engine.interface import Results as AsyncResults
from engine.kernel.errands import Errands, WhenDrained, Work
from engine.model.limits import Limits
from engine.model.timestamps import Moment, ts_of
from engine.model.values import Value
from engine.server.listener import ListenConfig
from engine.server.server import ServerConfig
from engine.trio_thread import Feed, TrioThread, held

__all__ = ["AsOf", "Engine", "RemoteEngine", "Results", "connect", "open"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


def open(  # noqa: A001 - as in `blocking.open`
    data: str | Path,
    /,
    *,
    app: AppSource | None,
    url: str | None = None,
    server: ServerConfig | None = None,
    limits: Limits | None = None,
) -> Engine:
    """
    Open the database in the directory `data` and deploy `app` on it; close it with `close`.

    Args:
        data: a directory, made if it is not there, or ":memory:".
        app: a folder, a `.py` file, a module or its dotted name, or a list of functions.
            `None` deploys nothing: there are no functions until `push`.
        url: where clients reach the engine, if they do; told to whom the directory is refused.
        server: how clients are answered: the administrator's key, what they may know; see
            `Engine.listen`.

    Raises:
        StoreLocked: another process has it open; names its pid and URL.
        StoreDamaged: it is not what an engine wrote, or is of a newer format.
        DeclarationError: the application cannot be loaded.
        PushRefused: the documents that are there do not fit its schema.
        UsageError: this thread runs an asyncio or trio loop, which would be blocked.
    """
    opening = partial(host.Engine.open, data, app=app, url=url, server=server, limits=limits)
    return Engine(TrioThread(opening))


def connect(
    url: str, /, *, admin_key: str | None = None, app: Loadable | None = None
) -> RemoteEngine:
    """
    Call an engine that runs elsewhere; see `engine.Engine.connect`.

    Raises:
        Unreachable: nobody answers there, or not an engine.
        Unauthenticated: the key is not the right one.
        DeclarationError: `app` cannot be loaded.
        UsageError: this thread runs an asyncio or trio loop, which would be blocked.
    """
    opening = partial(remote.connect, url, admin_key=admin_key, app=app)
    return RemoteEngine(TrioThread(opening))


class _Threaded:
    """
    Calls functions of an engine, from any thread.

    Whatever a function raised is raised here, as the very object where the
    engine runs in this process, with a note that names function and request.
    """

    def __init__(self, thread: TrioThread[Any]) -> None:
        _refuse_on_a_loop()
        self._thread = thread
        thread.start()
        try:
            engine, self._errands = thread.opened.result()
        except BaseException:
            thread.stop()
            raise
        self._callee: Callee = engine.callee

    def close(self) -> None:
        """
        Close it: calls that are under way finish, subscriptions end, and nothing new is taken.

        Raises:
            Exception: what had made the engine fail while it ran, if anything had.
        """
        self._thread.stop()
        self._thread.ended.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def now_ts(self) -> int:
        """The newest timestamp that queries are known to read, in nanoseconds."""
        return self._callee.now_ts

    @overload
    def query(self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def query(
        self,
        fn: Reference | str,
        args: Mapping[str, Value] = ...,
        /,
        *,
        as_of: Moment | None = ...,
    ) -> Result: ...
    def query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run a query on the newest state.

        Args:
            as_of: on the state as it was then; see `at`, which type checkers also know for function
                objects. Of a function that has a parameter of this name it is the argument.

        Raises:
            Exception: what the function raised.
            UsageError: there is no such query, or it does not take these arguments.
        """
        ts, kwargs = as_of_among(fn, kwargs)
        return self._query(target_of(fn, args, kwargs), ts)

    def at(self, ts: Moment, /) -> AsOf:
        """
        The database as it was, for queries; as `engine.Engine.at`.

        Args:
            ts: nanoseconds since 1970, as in `now_ts` and `Committed.ts`, or an aware `datetime`.

        Raises:
            InvalidValue: it is neither.
        """
        return AsOf(self._query, ts_of(ts))

    @overload
    def mutation(self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def mutation(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    def mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run a mutation; what it wrote is durable when this returns.

        Raises:
            Exception: what the function raised; then nothing was written.
            Overloaded: there was no room; nothing was done.
            OutcomeUnknown: the engine failed meanwhile; it may or may not be done.
        """
        answer = self._run(partial(self._callee.mutation, target_of(fn, args, kwargs)))
        if answer.error is not None:
            raise answer.error
        return answer.value

    @overload
    def commit(
        self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Committed[R]: ...
    @overload
    def commit(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Committed[Result]: ...
    def commit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Committed[Any]:
        """As `mutation`; returns its `value` and the `ts` of its commit."""
        answer = self._run(partial(self._callee.mutation, target_of(fn, args, kwargs)))
        if answer.error is not None:
            raise answer.error
        return Committed(value=answer.value, ts=answer.ts)

    @overload
    def action(self, fn: ActionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def action(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    def action(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run an action, once; what it called stays done, whatever becomes of it.

        Raises:
            Exception: what the function raised.
            FunctionTimeout: it took longer than `action_time_s_max`.
            Overloaded: too many ran, for too long; nothing was done.
        """
        answer = self._run(partial(self._callee.action, target_of(fn, args, kwargs)))
        if answer.error is not None:
            raise answer.error
        return answer.value

    @overload
    def subscribe(
        self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Results[R]: ...
    @overload
    def subscribe(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Results[Result]: ...
    def subscribe(self, fn: Any, /, *args: Any, **kwargs: Any) -> Results[Any]:
        """
        Follow a query: its result, and each new one when data that it read has changed.

            with engine.subscribe(list_page, channel, options) as results:
                for page in results: ...                  # raises when the query fails
                for state in results.states(): ...        # Ok(value, ts) | Failed(error, ts)
        """
        followed = self._run(partial(self._callee.follow, target_of(fn, args, kwargs)))
        return Results(followed, self._errands)

    def _query(self, target: Target, ts: int | None) -> Any:
        answer: Answer = self._run(partial(self._callee.query, target, ts))
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _run(self, work: Work[T]) -> T:
        _refuse_on_a_loop()
        self._callee.refuse_if_forked()
        return self._errands.run_from_thread(work)


class AsOf:
    """
    The database as it was at `ts`. Made by `at`.

    It can be asked for as long as the log goes back so far, and always says the same.
    """

    __slots__ = ("_ask", "ts")

    def __init__(self, ask: Callable[[Target, int], Any], ts: int) -> None:
        self._ask = ask
        self.ts = ts

    @overload
    def query(self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def query(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    def query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a query of now on the state of then; as `engine.AsOf.query`."""
        return self._ask(target_of(fn, args, kwargs), self.ts)


class Engine(_Threaded):
    """One running engine. Made by `blocking.open`."""

    def push(self, app: AppSource, /) -> list[str]:
        """As `engine.Engine.push`."""
        engine, _ = self._thread.opened.result()
        lines: list[str] = self._run(partial(engine.push, app))
        return lines

    @contextmanager
    def listen(self, config: ListenConfig | None = None) -> Iterator[tuple[str, ...]]:
        """
        As `engine.Engine.listen`: serve clients inside the block, which is given the URLs.

        Raises:
            OSError: an address cannot be had.
        """
        engine, errands = self._thread.opened.result()
        with held(errands, lambda: engine.listen(config)) as urls:
            yield urls


class RemoteEngine(_Threaded):
    """An engine that runs elsewhere. Made by `blocking.connect`."""


class Results(Generic[R_co]):
    """
    The results of a subscribed query, as they change; for one thread.

    A result is given when it differs from the last one given.  Whoever is slow
    gets the newest one, not each in between.  `close`, in any thread, ends the
    loop over them.
    """

    def __init__(self, results: AsyncResults[R_co], errands: Errands) -> None:
        self._feed = Feed(results, errands)
        self._errands = errands

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R_co:
        """
        Wait for the next result.

        Raises:
            Exception: what the query raised; asking again waits for it to change.
        """
        try:
            state = self.next_state()
        except Stopped:
            if self._feed.is_closed:
                raise StopIteration from None
            raise
        if isinstance(state, Failed):
            raise state.error
        return state.value

    def states(self) -> Iterator[State[R_co]]:
        """Each new result or failure with its timestamp; a failure does not end it."""
        while True:
            try:
                state = self.next_state()
            except Stopped:
                if self._feed.is_closed:
                    return
                raise
            yield state

    def next_state(self, *, timeout_s: float | None = None) -> State[R_co]:
        """
        Wait for the next result or failure.

        Args:
            timeout_s: give up after so long; `None` is never.

        Raises:
            TimeoutError: nothing new came in that time.
            Stopped: this was closed, or the engine was.
        """
        _refuse_on_a_loop()
        try:
            self._errands.run_from_thread(self._feed.wait, WhenDrained.CANCEL, timeout_s=timeout_s)
        except OutcomeUnknown:
            raise Stopped("the engine was closed") from None
        return self._feed.take()

    def close(self) -> None:
        """Follow no longer."""
        self._feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refuse_on_a_loop() -> None:
    """Whoever blocks a loop makes everything on it wait, the answer perhaps included."""
    if trio.lowlevel.in_trio_run():
        raise UsageError("engine.blocking would block this trio loop; use engine.Engine here")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("engine.blocking would block this asyncio loop; use engine.aio here")
