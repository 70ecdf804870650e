"""
Functions that run in the transaction of a write, right after it.

    @trigger(Message)
    async def count(ctx: TriggerCtx, change: Change[Message]) -> None: ...

A trigger sees each insert, change and delete of its table by a mutation, also
those that come of references; a write that changes nothing is none.  The call
that wrote ends when its triggers have, and if one raises, that call fails and
has written nothing.  What a trigger writes through `ctx.db` runs triggers too,
through `ctx.raw_db` it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from engine.app.annotations import where_of
from engine.app.contexts import TriggerCtx
from engine.app.documents import table_name_of
from engine.app.places import place_of_caller
from engine.app.registered import innermost
from engine.app.validators import check_identifier
from engine.errors import DeclarationError
from engine.model.ids import Id

D = TypeVar("D")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[D]):
    """One write of one document."""

    operation: Literal["insert", "update", "delete"]
    id: Id[D]
    old: D | None
    """The document before; None for an insert."""
    new: D | None
    """The document after; None for a delete."""


Handler: TypeAlias = Callable[[TriggerCtx, Change[D]], Coroutine[Any, Any, None] | None]


class Trigger(Generic[D]):
    """A handler and the table whose writes it follows."""

    def __init__(self, table: type[D] | str, handler: Handler[D]) -> None:
        if isinstance(table, str):
            check_identifier(table, "a table")
        self._table = table
        self.handler = handler
        self.where = f"{place_of_caller()}: {where_of(handler).rpartition(': ')[2]}"
        """
        File and line of the declaration and name of the handler, which another package may have
        made.
        """
        frame = innermost()
        self.module = frame.module if frame else handler.__module__
        self.path = f"{self.module.replace('.', '/')}:{getattr(handler, '__name__', handler)}"
        """As messages name it, like a function."""

    @property
    def table_name(self) -> str:
        """
        The table it follows.

        Raises:
            DeclarationError: its class is in no schema.
        """
        if isinstance(self._table, str):
            return self._table
        try:
            return table_name_of(self._table)
        except DeclarationError as error:
            raise DeclarationError(f"{self.where}: {error}") from None

    async def __call__(self, ctx: TriggerCtx, change: Change[D]) -> None:
        """Run the plain handler."""
        running = self.handler(ctx, change)
        if isawaitable(running):
            await running


def trigger(table: type[D] | str, /) -> Callable[[Handler[D]], Trigger[D]]:
    """
    Make a trigger of a handler.

    Args:
        table: whose writes it follows: the class of its documents, or its name.
    """

    def decorate(handler: Handler[D]) -> Trigger[D]:
        return Trigger(table, handler)

    return decorate
