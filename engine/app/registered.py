"""
A registered function: a handler, and everything that the engine has to know to call it.

It belongs to the module during whose execution it was made, so a factory may
make it and importing it elsewhere publishes nothing.  The loader says which
module that is (`loading`), and gives it its path afterwards (`bind`).
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, NoReturn, TypeAlias

from engine.app.annotations import (
    Fields,
    Handler,
    Recipient,
    Signature,
    location_of,
    where_of,
)
from engine.app.places import place_in
from engine.app.structures import Annotation
from engine.app.validators import Validator, check_identifier
from engine.errors import DeclarationError
from engine.model.values import UNDEFINED

Loop: TypeAlias = Literal["trio", "asyncio", "thread"]


class Kind(enum.Enum):
    """What a function may do."""

    QUERY = "query"
    MUTATION = "mutation"
    ACTION = "action"


class Visibility(enum.Enum):
    """Who may call a function: any client, or only other functions and administrators."""

    PUBLIC = "public"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a decorator was told."""

    name: str | None = None
    args: Fields | Validator | None = None
    returns: Annotation = UNDEFINED
    record: bool = True
    loop: Loop | None = None


class RegisteredFunction:
    """
    What a decorator makes of a handler.

    Calling it calls the handler: the same transaction, no validation.  To run
    it as a function of its own, hand it to `ctx.run_query` and the like.
    """

    kind: Kind

    def __init__(
        self,
        handler: Handler,
        visibility: Visibility,
        options: Options,
        local: Mapping[str, Any] | None = None,
    ) -> None:
        if not inspect.isroutine(handler):
            raise DeclarationError(f"{handler!r} is no function; decorate a `def`")
        self.handler: Handler = handler
        frame = innermost()
        self.module: str = frame.module if frame else handler.__module__
        """The module during whose execution it was made."""
        # What another package has made for a module is placed at the line of that.
        name = frame.name if frame else ""
        self._place = None if name in ("", handler.__module__) else place_in(name)
        self.visibility = visibility
        self.options = options
        self.is_async = inspect.iscoroutinefunction(handler)
        self.record = options.record
        self.loop: Loop = self._choose_loop(options.loop)
        self.location = location_of(handler)
        self.name: str | None = options.name
        """In its module: `name=`, else the attribute it is bound to; None until it is loaded."""
        self.path: str | None = None
        """As in `messages:list`; None until its module is loaded."""
        self.component = ""
        """The mount it was loaded in; the application itself is ""."""
        self.__doc__ = handler.__doc__
        self.__module__ = handler.__module__
        self.__qualname__ = handler.__qualname__
        self._local = local
        if options.name is not None:
            self._check_name(options.name)
        if frame is not None:
            frame.functions.append(self)

    def _choose_loop(self, wished: Loop | None) -> Loop:
        usual: Loop = "trio" if self.is_async or self.kind is not Kind.ACTION else "thread"
        if wished is None or wished == usual or (self.is_async and wished == "asyncio"):
            return wished or usual
        raise DeclarationError(
            f'{self.where}: loop="{wished}": an `async def` runs on "trio" or "asyncio", '
            'a plain `def` in a "thread"'
        )

    @cached_property
    def signature(self) -> Signature:
        """
        Its arguments and its result, read when first asked for: names may be defined below it.

        Raises:
            DeclarationError: an annotation or parameter that cannot be; names file and line.
        """
        signature = Signature.of(
            self.handler,
            args=self.options.args,
            returns=self.options.returns,
            is_hidden=_is_registered,
            local=self._local,
            recipient=self._recipient,
        )
        self._local = None  # it was only kept for this
        return signature

    @property
    def _recipient(self) -> Recipient:
        """What it is, for its context."""
        match self.kind:
            case Kind.QUERY:
                return "a query"
            case Kind.MUTATION:
                return "a mutation"
            case Kind.ACTION:
                return "an action that is a plain `def`" if self.loop == "thread" else "an action"

    @property
    def is_public(self) -> bool:
        return self.visibility is Visibility.PUBLIC

    @property
    def where(self) -> str:
        """File and line of the declaration, and name of the handler."""
        where = where_of(self.handler)
        return where if self._place is None else f"{self._place}: {where.rpartition(': ')[2]}"

    def bind(self, module_path: str, attribute: str, component: str = "") -> None:
        """
        Say under which name the function is reached; the first name is its own.

        Args:
            module_path: as in `dir/messages`.
            attribute: what the module calls it; `name=` goes before.
            component: the mount that it is loaded in.

        Raises:
            DeclarationError: no function can have that name.
        """
        if self.path is None or self.component != component:
            self.name = self.options.name or self._check_name(attribute)
            self.path = f"{module_path}:{self.name}"
            self.component = component

    def _check_name(self, name: str) -> str:
        try:
            return check_identifier(name, "a function")
        except DeclarationError as error:
            raise DeclarationError(f"{self.where}: {error}") from None

    def __repr__(self) -> str:
        called = self.path or f"{self.module}:{self.name or self.handler.__name__}"
        return f"<{self.visibility.value} {self.kind.value} {called}>"

    def __getitem__(self, _item: object) -> NoReturn:
        name = self.handler.__name__
        raise DeclarationError(
            f"{self.where}: `{name}[...]` here means this {self.kind.value}, which hides the "
            f"builtin; give the function another name and publish it with "
            f'@{self.kind.value}(name="{name}")'
        )


def _is_registered(one: object) -> bool:
    return isinstance(one, RegisteredFunction)


@dataclass(slots=True)
class Loading:
    """A module that is being executed, and the functions made during that."""

    module: str
    name: str = ""
    functions: list[RegisteredFunction] = field(default_factory=list)


_stack: Final[ContextVar[tuple[Loading, ...]]] = ContextVar("modules being loaded", default=())


@contextmanager
def loading(module: str, name: str = "") -> Iterator[Loading]:
    """
    Around the execution of a module: functions made inside belong to it.

    Args:
        module: its path in the application, as in `dir/messages`.
        name: its `__name__`, by which its code is found in the stack.
    """
    frame = Loading(module, name)
    token = _stack.set((*_stack.get(), frame))
    try:
        yield frame
    finally:
        _stack.reset(token)


def innermost() -> Loading | None:
    """The module that is being executed right now."""
    stack = _stack.get()
    return stack[-1] if stack else None
