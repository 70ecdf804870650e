"""
Functions that run in the transaction of a write, right after it.

    @trigger(Message)
    async def count(ctx: TriggerCtx, change: Change[Message]) -> None: ...

A trigger sees each insert, change and delete of its table; if it raises, the
write fails with it.  What it writes through `ctx.db` runs triggers too,
through `ctx.raw_db` it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from engine.app.annotations import where_of
from engine.app.contexts import TriggerCtx
from engine.app.documents import table_name_of
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


class Trigger(Generic[D]):
    """A handler and the table whose writes it follows."""

    def __init__(
        self,
        table: type[D] | str,
        handler: Callable[[TriggerCtx, Change[D]], Coroutine[Any, Any, None]],
    ) -> None:
        if isinstance(table, str):
            check_identifier(table, "a table")
        self._table = table
        self.handler = handler
        self.where = where_of(handler)
        """File, line and name of the handler."""
        frame = innermost()
        self.module = frame.module if frame else handler.__module__

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

    def __call__(self, ctx: TriggerCtx, change: Change[D]) -> Coroutine[Any, Any, None]:
        """Run the plain handler."""
        return self.handler(ctx, change)


def trigger(
    table: type[D] | str, /
) -> Callable[[Callable[[TriggerCtx, Change[D]], Coroutine[Any, Any, None]]], Trigger[D]]:
    """
    Make a trigger of a handler.

    Args:
        table: whose writes it follows: the class of its documents, or its name.
    """

    def decorate(
        handler: Callable[[TriggerCtx, Change[D]], Coroutine[Any, Any, None]],
    ) -> Trigger[D]:
        return Trigger(table, handler)

    return decorate
