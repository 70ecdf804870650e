"""
The database of a mutation whose component has triggers.

A write that they follow runs as a nested function does: what it is given is copied at the call, and
its triggers have run before the next one.  Either all of it is done or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from engine.app.triggers import Change, Trigger
from engine.errors import InvalidId, UsageError
from engine.functions.calls import Call, Steps
from engine.functions.database import DatabaseAccess, Writer, changes_of, table_name
from engine.functions.deployment import Triggers
from engine.model.codec import decode
from engine.model.commits import RowWrite
from engine.model.ids import Id, decode_id, id_of
from engine.model.values import UNDEFINED, normalize

T = TypeVar("T")

Fire: TypeAlias = Callable[[Trigger[Any], Change[Any]], Steps[None]]
"""Runs a trigger."""


class FollowedWriter(Writer):
    """
    Args:
        triggers: what follows writes; there are some.
        fire: runs one of them.
    """

    __slots__ = ("_fire", "_triggers")

    def __init__(self, access: DatabaseAccess, triggers: Triggers, fire: Fire) -> None:
        super().__init__(access)
        self._triggers = triggers
        self._fire = fire

    def insert(self, table: Any, doc: Mapping[str, Any], /) -> Call[Any]:
        calls = self._access.calls
        if self._is_followed(table):
            return calls.defer(lambda: self._followed(self._insertion(table, doc)))
        return calls.run(self._insert, table, doc)

    def patch(self, table_or_id: Any, id_or_fields: Any, fields: Any = None, /) -> Call[None]:
        calls, given = self._access.calls, (table_or_id, id_or_fields, fields)
        if self._is_followed_in(table_or_id if fields is None else id_or_fields):
            return calls.defer(lambda: self._followed(self._change(self._patch, "patch", *given)))
        return calls.run(self._patch, *given)

    def replace(self, table_or_id: Any, id_or_doc: Any, doc: Any = None, /) -> Call[None]:
        calls, given = self._access.calls, (table_or_id, id_or_doc, doc)
        if self._is_followed_in(table_or_id if doc is None else id_or_doc):
            return calls.defer(
                lambda: self._followed(self._change(self._replace, "replace", *given))
            )
        return calls.run(self._replace, *given)

    def delete(self, table_or_id: Any, doc_id: Any = None, /) -> Call[None]:
        calls = self._access.calls
        if self._takes_others_along() or self._is_followed_in(
            table_or_id if doc_id is None else doc_id
        ):
            return calls.defer(
                lambda: self._followed(self._delete_with_others(table_or_id, doc_id))
            )
        return calls.run(self._delete, table_or_id, doc_id)

    # Which writes triggers follow.

    def _is_followed(self, table: Any) -> bool:
        try:
            return table_name(table) in self._triggers
        except UsageError:
            return False  # the write says what is wrong

    def _is_followed_in(self, doc_id: Any) -> bool:
        """Whether triggers follow the table of a document."""
        try:
            number, _ = decode_id(doc_id)
        except InvalidId:
            return False
        table = self._access.transaction.catalog.by_number.get(number)
        return table is not None and table.name in self._triggers

    # Such writes, with what they are given as it is at the call.

    def _insertion(self, table: Any, doc: Mapping[str, Any]) -> Steps[str]:
        return _step(self._insert, table, self._canonical(doc, "insert", normalize))

    def _change(
        self,
        work: Callable[..., None],
        verb: str,
        table_or_id: Any,
        id_or_fields: Any,
        fields: Any,
    ) -> Steps[None]:
        if fields is None:
            return _step(work, table_or_id, self._copied(id_or_fields, verb), None)
        return _step(work, table_or_id, id_or_fields, self._copied(fields, verb))

    def _copied(self, fields: Any, verb: str) -> dict[str, Any]:
        if verb != "patch":
            return self._canonical(fields, verb, normalize)
        given, removed = self._canonical(fields, verb, changes_of)
        return {**given, **dict.fromkeys(removed, UNDEFINED)}

    def _followed(self, steps: Steps[T]) -> Steps[T]:
        """
        A write, and the triggers of all that it wrote: both, or nothing.

        They run when it is done, not on its way, so none sees, or writes to, half a cascade.
        """
        transaction = self._access.transaction
        transaction.begin_child()
        try:
            value = yield from steps
            for step in transaction.child_steps():
                for one in self._triggers.get(transaction.table_with(step.key).name, ()):
                    yield from self._fire(one, _change_of(step))
        except BaseException:
            transaction.drop_child()
            raise
        transaction.merge_child()
        return value


def _step(work: Callable[..., T], *args: Any) -> Steps[T]:
    yield from ()
    return work(*args)


def _change_of(step: RowWrite) -> Change[Any]:
    """What one trigger is told, in documents of its own."""
    old = None if step.before is None else decode(step.before)
    new = None if step.after is None else decode(step.after)
    return Change(
        operation="insert" if old is None else "delete" if new is None else "update",
        id=Id(id_of(step.key)),
        old=old,
        new=new,
    )
