"""
What a program does with an engine: the same methods whether it runs here or elsewhere.

    await engine.query(list_page, channel, options)     # a function, its arguments as in a call
    await engine.mutation("messages:send", {"body": "x"}) # a string or reference, and one mapping
    async with engine.subscribe(list_page, channel, options) as results:
        async for page in results: ...

An engine is called with an administrator's rights: internal functions and
those of components can be called too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar, overload

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
from engine.app.registered import RegisteredFunction
from engine.functions.targets import call_target
from engine.model.timestamps import Moment, ts_of
from engine.model.values import Value

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[R_co]):
    """A result of a subscribed query, and the timestamp (nanoseconds) at which it holds."""

    value: R_co
    ts: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A run of a subscribed query that failed, and when; the next one may not."""

    error: Exception
    ts: int


State: TypeAlias = Ok[R_co] | Failed


class Target(NamedTuple):
    """A function and the arguments it is called with, as they travel."""

    component: str
    path: str
    args: Mapping[str, Value]


class Answer(NamedTuple):
    """
    What a call came to: `error`, if there is one, is to be raised.

    `ts` is that of a mutation's commit, and 0 for everything else.
    """

    value: Any = None
    ts: int = 0
    error: Exception | None = None


def as_of_among(fn: Any, kwargs: dict[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """
    The ts that `as_of=` among the arguments says, if it does, and the other arguments.

    A function that has a parameter of that name gets it.
    """
    if "as_of" not in kwargs or (
        isinstance(fn, RegisteredFunction)
        and any(parameter.name == "as_of" for parameter in fn.signature.parameters)
    ):
        return None, kwargs
    as_of = kwargs["as_of"]
    others = {name: value for name, value in kwargs.items() if name != "as_of"}
    return None if as_of is None else ts_of(as_of), others


def target_of(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Target:
    """
    What is called: a registered function and its arguments, or a path and one mapping.

    Raises:
        UsageError: neither.
    """
    component, path, raw = call_target(fn, args, kwargs, "")
    return Target(component, path, raw)


class Results(ABC, Generic[R_co]):
    """
    The results of a subscribed query, as they change; for one task.

    A result is given when it differs from the last one given.  Whoever is slow
    gets the newest one, not each in between.
    """

    __slots__ = ()

    def __aiter__(self) -> Results[R_co]:
        return self

    async def __anext__(self) -> R_co:
        """
        Wait for the next result.

        Raises:
            Exception: what the query raised; asking again waits for it to change.
        """
        state = await self.next_state()
        if isinstance(state, Failed):
            raise state.error
        return state.value

    def states(self) -> States[R_co]:
        """Each new result or failure with its timestamp; a failure does not end it."""
        return States(self)

    @abstractmethod
    async def next_state(self) -> State[R_co]:
        """Wait for the next result or failure."""

    @abstractmethod
    def close(self) -> None:
        """Follow no longer; whoever waits is left waiting."""


class States(Generic[R_co]):
    """An iterator over `Ok` and `Failed`; made by `Results.states`."""

    __slots__ = ("_results",)

    def __init__(self, results: Results[R_co]) -> None:
        self._results = results

    def __aiter__(self) -> States[R_co]:
        return self

    async def __anext__(self) -> State[R_co]:
        return await self._results.next_state()


class Callee(Protocol):
    """Where calls go: an engine in this process, or the way to one elsewhere."""

    @property
    def now_ts(self) -> int: ...

    def refuse_if_forked(self) -> None:
        """
        Raises:
            EngineError: this process is a child of the one that the engine was opened in.
        """
        ...

    async def query(self, target: Target, ts: int | None) -> Answer: ...

    async def mutation(self, target: Target) -> Answer: ...

    async def action(self, target: Target) -> Answer: ...

    async def follow(self, target: Target) -> Results[Any]: ...


class AsOf:
    """
    The database as it was at `ts`. Made by `at`.

    It can be asked for as long as the log goes back so far, and always says the same.
    """

    __slots__ = ("_callee", "ts")

    def __init__(self, callee: Callee, ts: int) -> None:
        self._callee = callee
        self.ts = ts

    @overload
    async def query(self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def query(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    async def query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run a query of now on the state of then.

        Raises:
            OutOfRetention: `ts` lies in the future, or further back than the log is kept, or more
                was changed since than `past_disk_bytes_max`.
            FunctionTimeout: more was committed since than can be taken back in time; ask again.
            Overloaded: others who ask for the past have kept it waiting for `past_patience_s`.
            Exception: what the function raised.
        """
        answer = await self._callee.query(target_of(fn, args, kwargs), self.ts)
        if answer.error is not None:
            raise answer.error
        return answer.value


class AsyncInterface:
    """
    Calls functions of an engine, from trio or asyncio.

    Whatever a function raised is raised here, as the very object where the
    engine runs in this process, with a note that names function and request.
    """

    def __init__(self, callee: Callee) -> None:
        self.callee = callee

    @property
    def now_ts(self) -> int:
        """The newest timestamp that queries are known to read, in nanoseconds."""
        return self.callee.now_ts

    @overload
    async def query(self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def query(
        self,
        fn: Reference | str,
        args: Mapping[str, Value] = ...,
        /,
        *,
        as_of: Moment | None = ...,
    ) -> Result: ...
    async def query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
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
        answer = await self.callee.query(target_of(fn, args, kwargs), ts)
        if answer.error is not None:
            raise answer.error
        return answer.value

    def at(self, ts: Moment, /) -> AsOf:
        """
        The database as it was, for queries: whatever was committed up to `ts` is seen, and nothing
        later.

            await engine.at(committed.ts).query(list_page, channel, options)

        The code and its schema are those of now, so a document of then may lack what the code takes
        for granted. Indexes are those of now, and those of then whose names none has now; text
        search is refused. The first query at a `ts` goes through all commits since; what they took
        away is kept in memory for those that follow, and on the disk. `engine.at` itself asks
        nothing, and keeps nothing from being trimmed.

        Args:
            ts: nanoseconds since 1970, as in `now_ts` and `Committed.ts`, or an aware `datetime`.

        Raises:
            InvalidValue: it is neither.
        """
        return AsOf(self.callee, ts_of(ts))

    @overload
    async def mutation(
        self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def mutation(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    async def mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run a mutation; what it wrote is durable when this returns.

        Raises:
            Exception: what the function raised; then nothing was written.
            Overloaded: there was no room; nothing was done.
            OutcomeUnknown: the engine failed meanwhile; it may or may not be done.
        """
        answer = await self.callee.mutation(target_of(fn, args, kwargs))
        if answer.error is not None:
            raise answer.error
        return answer.value

    @overload
    async def commit(
        self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Committed[R]: ...
    @overload
    async def commit(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Committed[Result]: ...
    async def commit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Committed[Any]:
        """As `mutation`; returns its `value` and the `ts` of its commit."""
        answer = await self.callee.mutation(target_of(fn, args, kwargs))
        if answer.error is not None:
            raise answer.error
        return Committed(value=answer.value, ts=answer.ts)

    @overload
    async def action(
        self, fn: ActionReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def action(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    async def action(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run an action, once; what it called stays done, whatever becomes of it.

        Raises:
            Exception: what the function raised.
            FunctionTimeout: it took longer than `action_time_s_max`.
            Overloaded: too many ran, for too long; nothing was done.
        """
        answer = await self.callee.action(target_of(fn, args, kwargs))
        if answer.error is not None:
            raise answer.error
        return answer.value

    @overload
    def subscribe(
        self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[Results[R]]: ...
    @overload
    def subscribe(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> AbstractAsyncContextManager[Results[Result]]: ...
    def subscribe(
        self, fn: Any, /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[Results[Any]]:
        """
        Follow a query: its result, and each new one when data that it read has changed.

            async with engine.subscribe(list_page, channel, options) as results:
                async for page in results: ...                  # raises when the query fails
                async for state in results.states(): ...        # Ok(value, ts) | Failed(error, ts)
        """
        return self._subscribed(target_of(fn, args, kwargs))

    @asynccontextmanager
    async def _subscribed(self, target: Target) -> AsyncIterator[Results[Any]]:
        results = await self.callee.follow(target)
        try:
            yield results
        finally:
            results.close()
