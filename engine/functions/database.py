"""
`ctx.db`: what a function can do with documents.

Everything here turns user data into keys and plans at the edge; the
transaction below does the reading and writing.
"""

# ruff: noqa: A002 - an id is called `id`

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from engine.app.contexts import DatabaseReader, DatabaseWriter
from engine.app.documents import table_name_of
from engine.app.triggers import Change, Trigger
from engine.errors import IndexNotFound, InvalidId, InvalidValue, NotAllowed, UsageError
from engine.functions import absences
from engine.functions.calls import Call, Calls, Steps
from engine.functions.crons import is_tick
from engine.functions.deployment import NO_TRIGGERS, Triggers
from engine.functions.queries import PaginationState, TableQueryBuilder
from engine.indexes.catalog import TableInfo
from engine.model.codec import decode
from engine.model.commits import RowWrite
from engine.model.ids import Id, decode_id, id_of, row_key_of
from engine.model.values import UNDEFINED, Int64, Undefined, normalize
from engine.transaction.deletion import delete
from engine.transaction.transaction import Transaction

T = TypeVar("T")

Fire: TypeAlias = Callable[[Trigger[Any], Change[Any]], Steps[None]]
"""Runs a trigger."""


class DatabaseAccess:
    """
    What one execution needs to reach the database.

    Args:
        component: whose tables are meant by their names.
        triggers: what follows writes.
        fire: runs one of them.
    """

    __slots__ = (
        "calls",
        "component",
        "fire",
        "pagination",
        "slice_rows_max",
        "transaction",
        "triggers",
    )

    def __init__(
        self,
        transaction: Transaction,
        calls: Calls,
        component: str,
        pagination: PaginationState,
        slice_rows_max: int,
        triggers: Triggers = NO_TRIGGERS,
        fire: Fire | None = None,
    ) -> None:
        self.transaction = transaction
        self.calls = calls
        self.component = component
        self.pagination = pagination
        self.slice_rows_max = slice_rows_max
        self.triggers = triggers
        self.fire = fire


@absences.lacking(absences.READER)
class Reader(DatabaseReader):
    """The database as a query sees it."""

    __slots__ = ("_access",)

    def __init__(self, access: DatabaseAccess) -> None:
        self._access = access

    def query(self, table: Any, /) -> TableQueryBuilder:
        name = _user_table(table)
        access = self._access
        return TableQueryBuilder(
            access.transaction,
            access.calls,
            component=access.component,
            table=name,
            pagination=access.pagination,
            slice_rows_max=access.slice_rows_max,
        )

    def get(self, table_or_id: Any, id: Any = None, /) -> Call[Any]:
        return self._access.calls.run(self._get, table_or_id, id)

    def normalize_id(self, table: Any, id: str, /) -> Call[Any]:
        return self._access.calls.run(self._normalize_id, table, id)

    def count(self, table: Any, /) -> Call[int]:
        return self._access.calls.run(self._count, table)

    @property
    def system(self) -> SystemReader:
        return SystemReader(self._access)

    def _count(self, table: Any) -> int:
        access = self._access
        found = access.transaction.table(access.component, _user_table(table))
        return 0 if found is None else access.transaction.count(found)

    def _get(self, table_or_id: Any, id: Any) -> Any:
        key = self._key(table_or_id, id)
        return self._access.transaction.get(key)

    def _normalize_id(self, table: Any, id: str) -> str | None:
        access, name = self._access, table_name(table)
        if name.startswith("_"):
            return _normalized_of_system(access, name, id)
        return _normalized(access.transaction.table(access.component, name), id)

    def _key(self, table_or_id: Any, id: Any) -> bytes:
        """The row key of `(id)` or `(table, id)`, if it is in a table of the component's own."""
        access = self._access
        doc_id = table_or_id if id is None else id
        key = row_key_of(doc_id)
        table = access.transaction.table_of(access.component, key)
        if table.is_system:
            raise InvalidId(f"{doc_id!r} is an id of {table.name}; read it with db.system.get")
        if id is not None and table.name != table_name(table_or_id):
            wanted = table_name(table_or_id)
            raise InvalidId(f"{doc_id!r} is an id of {table.name!r}, not of {wanted!r}")
        return key


class Writer(Reader, DatabaseWriter):
    """
    The database as a mutation sees it.

    A write that others follow, documents that refer or triggers, runs as a nested function does.
    """

    __slots__ = ()

    def insert(self, table: Any, doc: Mapping[str, Any], /) -> Call[Any]:
        return self._run(
            self._is_followed(table),
            lambda: _step(self._insert, table, self._copied(doc, "insert")),
            self._insert,
            table,
            doc,
        )

    def patch(self, table_or_id: Any, id_or_fields: Any, fields: Any = None, /) -> Call[None]:
        return self._change(self._patch, "patch", table_or_id, id_or_fields, fields)

    def replace(self, table_or_id: Any, id_or_doc: Any, doc: Any = None, /) -> Call[None]:
        return self._change(self._replace, "replace", table_or_id, id_or_doc, doc)

    def delete(self, table_or_id: Any, id: Any = None, /) -> Call[None]:
        schema = self._access.transaction.schema
        is_referred_to = schema is not None and bool(schema.referring)
        return self._run(
            is_referred_to or self._is_followed_with(table_or_id if id is None else id),
            lambda: self._delete_with_others(table_or_id, id),
            self._delete,
            table_or_id,
            id,
        )

    def _change(
        self,
        work: Callable[..., None],
        verb: str,
        table_or_id: Any,
        id_or_fields: Any,
        fields: Any,
    ) -> Call[None]:
        return self._run(
            self._is_followed_with(table_or_id if fields is None else id_or_fields),
            lambda: self._changed(work, verb, table_or_id, id_or_fields, fields),
            work,
            table_or_id,
            id_or_fields,
            fields,
            depth=4,
        )

    def _run(
        self,
        is_followed: bool,
        steps: Callable[[], Steps[T]],
        work: Callable[..., T],
        *args: Any,
        depth: int = 3,
    ) -> Call[T]:
        """
        A write: `work` at once, or `steps` and what follows them.

        Args:
            depth: as of `Calls.run`.
        """
        calls = self._access.calls
        if is_followed:
            return calls.defer(lambda: self._followed(steps()), depth=depth)
        return calls.run(work, *args, depth=depth)

    def _insert(self, table: Any, doc: Mapping[str, Any]) -> str:
        access = self._access
        name = _user_table(table)
        fields = self._canonical(doc, "insert", normalize)
        return access.transaction.insert(access.component, name, fields)

    def _patch(self, table_or_id: Any, id_or_fields: Any, fields: Any) -> None:
        if fields is None:
            key, fields = self._key(table_or_id, None), id_or_fields
        else:
            key = self._key(table_or_id, id_or_fields)
        given, removed = self._canonical(fields, "patch", _changes)
        self._access.transaction.patch(key, given, removed)

    def _replace(self, table_or_id: Any, id_or_doc: Any, doc: Any) -> None:
        if doc is None:
            key, doc = self._key(table_or_id, None), id_or_doc
        else:
            key = self._key(table_or_id, id_or_doc)
        self._access.transaction.replace(key, self._canonical(doc, "replace", normalize))

    def _canonical(self, fields: Any, verb: str, make: Callable[[Any], T]) -> T:
        """What `make` makes of fields; where they hold classes of the application, in its time."""
        if type(fields) is dict and _CODELESS.issuperset(map(type, fields.values())):
            return make(fields)
        _check_mapping(fields, verb)
        return self._access.calls.in_own_time(make, fields)

    def _delete(self, table_or_id: Any, id: Any) -> None:
        self._access.transaction.delete(self._key(table_or_id, id))

    def _delete_with_others(self, table_or_id: Any, id: Any) -> Steps[None]:
        access = self._access
        for _ in delete(access.transaction, self._key(table_or_id, id)):
            yield from access.calls.breathe()

    # Writes that triggers follow.

    def _is_followed(self, table: Any) -> bool:
        access = self._access
        try:
            return bool(access.triggers) and table_name(table) in access.triggers
        except UsageError:
            return False  # the write says what is wrong

    def _is_followed_with(self, id: Any) -> bool:
        """Whether triggers follow the table of a document."""
        access = self._access
        if not access.triggers:
            return False
        try:
            number, _ = decode_id(id)
        except InvalidId:
            return False
        table = access.transaction.catalog.by_number.get(number)
        return table is not None and table.name in access.triggers

    def _changed(
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
        """Fields as they are at the call, for what runs later."""
        if verb != "patch":
            return self._canonical(fields, verb, normalize)
        given, removed = self._canonical(fields, verb, _changes)
        return {**given, **dict.fromkeys(removed, UNDEFINED)}

    def _followed(self, steps: Steps[T]) -> Steps[T]:
        """
        A write, and the triggers of all that it wrote: both, or nothing.

        They run when it is done, not on its way, so none sees, or writes to, half a cascade.
        """
        access = self._access
        if access.fire is None:
            return (yield from steps)
        transaction = access.transaction
        transaction.begin_child()
        try:
            value = yield from steps
            for step in transaction.child_steps():
                for one in access.triggers.get(transaction.table_with(step.key).name, ()):
                    yield from access.fire(one, _change_of(step))
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


@absences.lacking(absences.SYSTEM)
class SystemReader(DatabaseReader):
    """`db.system`: the engine's own tables, read-only."""

    __slots__ = ("_access",)

    def __init__(self, access: DatabaseAccess) -> None:
        self._access = access

    def get(self, table_or_id: Any, id: Any = None, /) -> Call[Any]:
        return self._access.calls.run(self._get, table_or_id, id)

    def normalize_id(self, table: Any, id: str, /) -> Call[Any]:
        return self._access.calls.run(_normalized_of_system, self._access, table, id)

    def count(self, table: Any, /) -> Call[int]:
        return self._access.calls.run(_refuse_count, table)

    @property
    def system(self) -> SystemReader:
        return self

    def query(self, table: Any, /) -> TableQueryBuilder:
        if table not in READABLE_SYSTEM_TABLES:
            raise IndexNotFound(
                f"there is no system table {table!r}; there are {', '.join(READABLE_SYSTEM_TABLES)}"
            )
        access = self._access
        return TableQueryBuilder(
            access.transaction,
            access.calls,
            component="",
            table=table,
            pagination=access.pagination,
            slice_rows_max=access.slice_rows_max,
            present=_presenter(access.component),
        )

    def _get(self, table_or_id: Any, id: Any) -> Any:
        access = self._access
        doc_id = table_or_id if id is None else id
        key = row_key_of(doc_id)
        table = access.transaction.table_of("", key)
        if table.name not in READABLE_SYSTEM_TABLES:
            raise InvalidId(f"{doc_id!r} is not an id of a system table that functions may read")
        if id is not None and table.name != table_or_id:
            raise InvalidId(f"{doc_id!r} is an id of {table.name!r}, not of {table_or_id!r}")
        doc = access.transaction.get(key)
        return None if doc is None else _presenter(access.component)(doc)


def _normalized_of_system(access: DatabaseAccess, table: Any, id: Any) -> str | None:
    if table not in READABLE_SYSTEM_TABLES:
        return None
    return _normalized(access.transaction.catalog.table("", table), id)


def _normalized(table: TableInfo | None, id: Any) -> str | None:
    """`id` if it is one of `table`."""
    try:
        number, _ = decode_id(id)
    except InvalidId:
        return None
    return str(id) if table is not None and table.number == number else None


def _refuse_count(table: Any) -> int:
    raise NotAllowed(f"{table!r} is a system table; its rows are not counted")


READABLE_SYSTEM_TABLES = ("_scheduled_functions",)


def _presenter(component: str) -> Any:
    """Show a job as the documentation describes it, and only to the component that scheduled it."""

    def present(doc: dict[str, Any]) -> dict[str, Any] | None:
        if doc.get("component", "") != component or is_tick(doc):
            return None
        return {
            name: doc[name]
            for name in ("_id", "_creationTime", "name", "args", "scheduledTime", "state")
            + (("completedTime",) if doc.get("completedTime") is not None else ())
        }

    return present


def table_name(table: Any) -> str:
    """The name of a table, given as such or as the class of its documents."""
    return table if isinstance(table, str) else table_name_of(table)


def _user_table(table: Any) -> str:
    name = table_name(table)
    if name.startswith("_"):
        raise NotAllowed(f"{name!r} is a system table; read it with db.system.query({name!r})")
    return name


_CODELESS: Final = frozenset((str, int, float, bool, type(None), bytes, Int64, Undefined))
"""Types of values that no class of the application can be."""


def _changes(fields: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
    """What a patch sets, canonical, and what it takes away."""
    given = normalize(fields)
    return given, () if len(given) == len(fields) else _removed(fields)


def _removed(fields: Mapping[str, Any]) -> list[str]:
    names = [name for name, value in fields.items() if value is UNDEFINED]
    for name in names:
        if isinstance(name, str) and name.startswith("_"):
            raise InvalidValue(f"{name} is a system field; it cannot be removed")
    return names


def _check_mapping(doc: Any, verb: str) -> None:
    if type(doc) is not dict and not isinstance(doc, Mapping):
        raise InvalidValue(f"{verb} takes a dictionary of fields, not {type(doc).__name__}")
