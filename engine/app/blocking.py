"""
What an action is given that is a plain `def` and runs in a thread: calls return their results.

    @action
    def charge(ctx: BlockingActionCtx, order: Id[Order]) -> str:
        found = ctx.run_query(get_order, order)
        reply = requests.post(URL, json={"amount": found["amount"]})
        return ctx.run_mutation(mark_paid, order, reply.json()["receipt"])
"""

# ruff: noqa: A002 - an id is called `id`, a filter `filter`

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any, ClassVar, ParamSpec, TypeVar, overload
from uuid import UUID

from engine.app.annotations import Recipient
from engine.app.contexts import (
    Committed,
    Delay,
    Expression,
    Result,
    VectorFilter,
)
from engine.app.crons import Retry
from engine.app.references import (
    ActionReference,
    MutationReference,
    QueryReference,
    Reference,
)
from engine.app.types import FunctionMetadata, UserIdentity, VectorHit
from engine.model.ids import Id
from engine.model.limits import VECTOR_RESULTS
from engine.model.values import Value

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")


class BlockingAuth(ABC):
    """Who is calling."""

    __slots__ = ()

    @abstractmethod
    def get_user_identity(self) -> UserIdentity | None:
        """The caller's verified identity, or None without one, and in components."""


class BlockingFunctionMeta(ABC):
    """What functions are; see `FunctionMeta`."""

    __slots__ = ()

    @abstractmethod
    def get_function_metadata(
        self,
        fn: QueryReference[..., Any]
        | MutationReference[..., Any]
        | ActionReference[..., Any]
        | Reference
        | str
        | None = None,
        /,
    ) -> FunctionMetadata:
        """Which function this is, or, if one is given that may be called from here, that one."""


class BlockingScheduler(ABC):
    """Functions to be run later; see `Scheduler`."""

    __slots__ = ()

    @abstractmethod
    def with_retry(
        self,
        retry: Retry,
        /,
        *,
        on_complete: MutationReference[..., Any] | Reference | str | None = None,
        context: Value = None,
    ) -> BlockingScheduler:
        """See `Scheduler.with_retry`."""

    @overload
    def run_after(
        self,
        delay: Delay,
        fn: MutationReference[P, Any] | ActionReference[P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Id[Any]: ...
    @overload
    def run_after(
        self, delay: Delay, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Id[Any]: ...
    @abstractmethod
    def run_after(self, delay: Delay, fn: Any, /, *args: Any, **kwargs: Any) -> Id[Any]:
        """
        Run a function `delay` milliseconds (or a `timedelta`) from now.

        Returns:
            The id of the job, which is durable by then.
        """

    @overload
    def run_at(
        self,
        when: float | datetime,
        fn: MutationReference[P, Any] | ActionReference[P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Id[Any]: ...
    @overload
    def run_at(
        self, when: float | datetime, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Id[Any]: ...
    @abstractmethod
    def run_at(self, when: float | datetime, fn: Any, /, *args: Any, **kwargs: Any) -> Id[Any]:
        """Run a function at a time: milliseconds since 1970, or an aware `datetime`."""

    @abstractmethod
    def cancel(self, id: Id[Any], /) -> None:
        """Do not run a job that has not begun."""


class BlockingActionCtx(ABC):
    """
    What an action that is a plain `def` is given.

    It runs in a worker thread, so it may block, and every call here blocks
    until it is answered.  It is good for one run: a thread that the action
    leaves behind cannot use it any more.
    """

    __slots__ = ()
    _recipient: ClassVar[Recipient] = "an action that is a plain `def`"

    @property
    @abstractmethod
    def auth(self) -> BlockingAuth:
        """Who is calling."""

    @property
    @abstractmethod
    def meta(self) -> BlockingFunctionMeta:
        """What this run may know of itself."""

    @property
    @abstractmethod
    def scheduler(self) -> BlockingScheduler:
        """Functions to be run later; scheduled at once, whatever becomes of this action."""

    @property
    @abstractmethod
    def now(self) -> datetime:
        """The time, aware and in UTC."""

    @property
    @abstractmethod
    def now_ms(self) -> float:
        """The same in milliseconds since 1970."""

    @property
    @abstractmethod
    def random(self) -> Random:
        """Dice."""

    @abstractmethod
    def uuid4(self) -> UUID:
        """A random UUID."""

    @overload
    def vector_search(
        self,
        table: type[D],
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = ...,
        filter: Callable[[VectorFilter], Expression] | None = ...,
    ) -> list[VectorHit[D]]: ...
    @overload
    def vector_search(
        self,
        table: str,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = ...,
        filter: Callable[[VectorFilter], Expression] | None = ...,
    ) -> list[VectorHit[Any]]: ...
    @abstractmethod
    def vector_search(
        self,
        table: type[Any] | str,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = VECTOR_RESULTS,
        filter: Callable[[VectorFilter], Expression] | None = None,
    ) -> list[VectorHit[Any]]:
        """See `ActionCtx.vector_search`."""

    @overload
    def run_query(self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run_query(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    @abstractmethod
    def run_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a query on the newest state, and return its result."""

    @overload
    def run_mutation(
        self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    def run_mutation(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    @abstractmethod
    def run_mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation as a transaction of its own; it is durable when this returns."""

    @overload
    def commit(
        self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Committed[R]: ...
    @overload
    def commit(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Committed[Result]: ...
    @abstractmethod
    def commit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Committed[Any]:
        """`run_mutation`, returning also the timestamp of the commit."""

    @overload
    def run_action(self, fn: ActionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run_action(self, fn: Reference | str, args: Mapping[str, Value] = ..., /) -> Result: ...
    @abstractmethod
    def run_action(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run an action with validated arguments, and return its result."""

    @abstractmethod
    def create_function_handle(
        self,
        fn: QueryReference[..., Any]
        | MutationReference[..., Any]
        | ActionReference[..., Any]
        | Reference
        | str,
        /,
    ) -> str:
        """See `ActionCtx.create_function_handle`."""
