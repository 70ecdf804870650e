"""
`@query @mutation @action`, and the same with `internal_`: they make functions that can be called.

    @query
    async def since(ctx: QueryCtx, channel: Id[Channel], after: float) -> list[Message]: ...

    @mutation(name="send", args={"body": v.string()}, returns=v.null())
    async def send_message(ctx, body): ...

The annotations say what arguments are accepted; see `annotations`.  A public
function can be called by anybody who reaches the server: check in it who asks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, overload

from engine.app.annotations import Fields, Handler
from engine.app.blocking import BlockingActionCtx
from engine.app.contexts import (
    ActionCtx,
    ActionFunction,
    MutationCtx,
    MutationFunction,
    QueryCtx,
    QueryFunction,
)
from engine.app.registered import Loop, Options, RegisteredFunction, Visibility
from engine.app.shapes import Scope
from engine.app.structures import Annotation
from engine.app.validators import Validator
from engine.model.values import UNDEFINED

P = ParamSpec("P")
R = TypeVar("R")


class QueryDecorator(Protocol):
    """What `query(...)` with options gives: the decorator itself."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[QueryCtx, P], Coroutine[Any, Any, R]], /
    ) -> QueryFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[QueryCtx, P], R], /) -> QueryFunction[P, R]: ...


class MutationDecorator(Protocol):
    """What `mutation(...)` with options gives: the decorator itself."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[MutationCtx, P], Coroutine[Any, Any, R]], /
    ) -> MutationFunction[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[MutationCtx, P], R], /
    ) -> MutationFunction[P, R]: ...


class ActionDecorator(Protocol):
    """What `action(...)` with options gives: the decorator itself."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[ActionCtx, P], Coroutine[Any, Any, R]], /
    ) -> ActionFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[ActionCtx, P], R], /) -> ActionFunction[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[BlockingActionCtx, P], R], /
    ) -> ActionFunction[P, R]: ...


# The overloads stand in this order, coroutines first: in the other one a checker takes the
# coroutine for the result, or gives up and says Any.


class _Query:
    """Makes a query of a handler: `@query`, or `@query(name=..., args=..., returns=...)`."""

    def __init__(self, visibility: Visibility) -> None:
        self._visibility = visibility

    @overload
    def __call__(
        self, fn: Callable[Concatenate[QueryCtx, P], Coroutine[Any, Any, R]], /
    ) -> QueryFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[QueryCtx, P], R], /) -> QueryFunction[P, R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        args: Fields | Validator | None = None,
        returns: Annotation = UNDEFINED,
    ) -> QueryDecorator: ...
    def __call__(
        self,
        fn: Handler | None = None,
        /,
        *,
        name: str | None = None,
        args: Fields | Validator | None = None,
        returns: Annotation = UNDEFINED,
    ) -> Any:
        """
        Register a query.

        Args:
            name: what clients call it, instead of its name in Python.
            args: validators by wire name, instead of those of the annotations.
            returns: a validator of the result, instead of the annotation.

        Raises:
            DeclarationError: it cannot be registered; names file and line.
        """
        options = Options(name=name, args=args, returns=returns)
        return _register(QueryFunction, self._visibility, options, fn, sys._getframe(1))


class _Mutation:
    """Makes a mutation of a handler: `@mutation`, or `@mutation(name=..., ...)`."""

    def __init__(self, visibility: Visibility) -> None:
        self._visibility = visibility

    @overload
    def __call__(
        self, fn: Callable[Concatenate[MutationCtx, P], Coroutine[Any, Any, R]], /
    ) -> MutationFunction[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[MutationCtx, P], R], /
    ) -> MutationFunction[P, R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        args: Fields | Validator | None = None,
        returns: Annotation = UNDEFINED,
        record: bool = True,
    ) -> MutationDecorator: ...
    def __call__(
        self,
        fn: Handler | None = None,
        /,
        *,
        name: str | None = None,
        args: Fields | Validator | None = None,
        returns: Annotation = UNDEFINED,
        record: bool = True,
    ) -> Any:
        """
        Register a mutation.

        Args:
            name: what clients call it, instead of its name in Python.
            args: validators by wire name, instead of those of the annotations.
            returns: a validator of the result, instead of the annotation.
            record: whether the log keeps the arguments, so that it can be run again.

        Raises:
            DeclarationError: it cannot be registered; names file and line.
        """
        options = Options(name=name, args=args, returns=returns, record=record)
        return _register(MutationFunction, self._visibility, options, fn, sys._getframe(1))


class _Action:
    """Makes an action of a handler: `@action`, or `@action(name=..., loop=..., ...)`."""

    def __init__(self, visibility: Visibility) -> None:
        self._visibility = visibility

    @overload
    def __call__(
        self, fn: Callable[Concatenate[ActionCtx, P], Coroutine[Any, Any, R]], /
    ) -> ActionFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[ActionCtx, P], R], /) -> ActionFunction[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[BlockingActionCtx, P], R], /
    ) -> ActionFunction[P, R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        args: Fields | Validator | None = None,
        returns: Annotation = UNDEFINED,
        loop: Loop | None = None,
    ) -> ActionDecorator: ...
    def __call__(
        self,
        fn: Handler | None = None,
        /,
        *,
        name: str | None = None,
        args: Fields | Validator | None = None,
        returns: Annotation = UNDEFINED,
        loop: Loop | None = None,
    ) -> Any:
        """
        Register an action.

        Args:
            name: what clients call it, instead of its name in Python.
            args: validators by wire name, instead of those of the annotations.
            returns: a validator of the result, instead of the annotation.
            loop: "asyncio" runs an `async def` on an asyncio loop instead of trio; a
                plain `def` always runs in a thread, with a `BlockingActionCtx`.

        Raises:
            DeclarationError: it cannot be registered; names file and line.
        """
        options = Options(name=name, args=args, returns=returns, loop=loop)
        return _register(ActionFunction, self._visibility, options, fn, sys._getframe(1))


def _register(
    make: Callable[..., RegisteredFunction],
    visibility: Visibility,
    options: Options,
    handler: Handler | None,
    caller: FrameType,
) -> object:
    """The registered function, or a decorator that makes it."""
    local = Scope.of_frame(caller).local
    if handler is not None:
        return make(handler, visibility, options, local)

    def decorate(handler: Handler) -> RegisteredFunction:
        return make(handler, visibility, options, local)

    return decorate


query: Final = _Query(Visibility.PUBLIC)
internal_query: Final = _Query(Visibility.INTERNAL)
mutation: Final = _Mutation(Visibility.PUBLIC)
internal_mutation: Final = _Mutation(Visibility.INTERNAL)
action: Final = _Action(Visibility.PUBLIC)
internal_action: Final = _Action(Visibility.INTERNAL)
