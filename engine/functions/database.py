"""
`ctx.db`: what a function can do with documents.

Everything here turns user data into keys and plans at the edge; the
transaction below does the reading and writing.
"""

# ruff: noqa: A002 - an id is called `id`, a filter `filter`

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from engine.app.contexts import DatabaseReader, DatabaseWriter, Vars
from engine.app.documents import table_name_of
from engine.errors import IndexNotFound, InvalidId, InvalidValue, NotAllowed
from engine.functions import absences
from engine.functions.calls import Call, Calls, Steps
from engine.functions.crons import is_tick
from engine.functions.queries import PaginationState, QueryBuilder, TableQueryBuilder
from engine.indexes.catalog import TableInfo
from engine.indexes.vectors.asked import VectorSearch, asked
from engine.model.ids import decode_id, row_key_of
from engine.model.limits import VECTOR_RESULTS
from engine.model.values import UNDEFINED, Int64, Undefined, normalize
from engine.transaction.deletion import delete
from engine.transaction.fusion import CANDIDATES, fused
from engine.transaction.transaction import Reading, Transaction
from engine.transaction.vector_search import reading_of, search_vectors

T = TypeVar("T")


class DatabaseAccess:
    """
    What one execution needs to reach the database.

    Args:
        component: whose tables are meant by their names.
        pagination: the one page that the function may ask for, or `None` for any number of them.
    """

    __slots__ = ("calls", "component", "pagination", "slice_rows_max", "transaction")

    def __init__(
        self,
        transaction: Transaction,
        calls: Calls,
        component: str,
        pagination: PaginationState | None,
        slice_rows_max: int,
    ) -> None:
        self.transaction = transaction
        self.calls = calls
        self.component = component
        self.pagination = pagination
        self.slice_rows_max = slice_rows_max

    def with_pages(self) -> DatabaseAccess:
        """The same, for any number of pages."""
        return DatabaseAccess(
            self.transaction, self.calls, self.component, None, self.slice_rows_max
        )


@absences.lacking(absences.READER)
class Reader(DatabaseReader):
    """The database as a query sees it."""

    __slots__ = ("_access",)

    def __init__(self, access: DatabaseAccess) -> None:
        self._access = access

    def query(self, table: Any, /) -> TableQueryBuilder:
        name = user_table(table)
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

    def vector_search(
        self,
        table: Any,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: float = VECTOR_RESULTS,
        filter: Callable[[Any], object] | None = None,
    ) -> Call[list[Any]]:
        name = user_table(table)
        wanted = asked(index, vector, limit, filter)
        return self._access.calls.defer(lambda: self._vector_search(name, wanted))

    def hybrid_search(
        self,
        table: Any,
        /,
        *,
        search_index: str,
        search: Callable[[Any], object],
        vector_index: str,
        vector: Sequence[float],
        filter: Callable[[Any], object] | None = None,
        limit: float = VECTOR_RESULTS,
    ) -> Call[list[Any]]:
        texts = self.query(table).with_search_index(search_index, search)
        wanted = asked(vector_index, vector, limit, filter)
        return self._access.calls.defer(lambda: self._hybrid_search(table, texts, wanted))

    @property
    def system(self) -> SystemReader:
        return SystemReader(self._access)

    def _hybrid_search(
        self, table: Any, texts: QueryBuilder, wanted: VectorSearch
    ) -> Steps[list[Any]]:
        count = max(CANDIDATES, wanted.limit)
        by_text = yield from texts.read(count)
        by_vector = yield from self._vector_search(user_table(table), wanted._replace(limit=count))
        orders = [[found["_id"] for found in order] for order in (by_text, by_vector)]
        return [{"_id": one, "_score": score} for one, score in fused(orders, wanted.limit)]

    def _vector_search(self, table: str, wanted: VectorSearch) -> Steps[list[Any]]:
        access = self._access
        transaction = access.transaction
        found = transaction.table(access.component, table)
        reading: Reading | None = None
        if transaction.readings is not None:
            reading = reading_of(table, wanted)
            transaction.readings.append(reading)
        search = search_vectors(transaction, found, wanted, reading)
        return (yield from access.calls.breathing(search))

    def _count(self, table: Any) -> int:
        access = self._access
        found = access.transaction.table(access.component, user_table(table))
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

    Where documents refer to others, a delete runs as a nested function does.
    """

    __slots__ = ()

    @property
    def vars(self) -> OwnCommit:
        return OwnCommit(self._access)

    def insert(self, table: Any, doc: Mapping[str, Any], /) -> Call[Any]:
        return self._access.calls.run(self._insert, table, doc)

    def patch(self, table_or_id: Any, id_or_fields: Any, fields: Any = None, /) -> Call[None]:
        return self._access.calls.run(self._patch, table_or_id, id_or_fields, fields)

    def replace(self, table_or_id: Any, id_or_doc: Any, doc: Any = None, /) -> Call[None]:
        return self._access.calls.run(self._replace, table_or_id, id_or_doc, doc)

    def delete(self, table_or_id: Any, id: Any = None, /) -> Call[None]:
        calls = self._access.calls
        if self._takes_others_along():
            return calls.defer(lambda: self._delete_with_others(table_or_id, id))
        return calls.run(self._delete, table_or_id, id)

    def _insert(self, table: Any, doc: Mapping[str, Any]) -> str:
        access = self._access
        name = user_table(table)
        fields = self._canonical(doc, "insert", normalize)
        return access.transaction.insert(access.component, name, fields)

    def _patch(self, table_or_id: Any, id_or_fields: Any, fields: Any) -> None:
        if fields is None:
            key, fields = self._key(table_or_id, None), id_or_fields
        else:
            key = self._key(table_or_id, id_or_fields)
        given, removed = self._canonical(fields, "patch", changes_of)
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

    def _takes_others_along(self) -> bool:
        """Whether a delete may be about more than its own document."""
        schema = self._access.transaction.schema
        return schema is not None and bool(schema.referring)


class OwnCommit(Vars):
    """`db.vars`."""

    __slots__ = ("_access",)

    def __init__(self, access: DatabaseAccess) -> None:
        self._access = access

    @property
    def commit_ts(self) -> Int64:
        access = self._access
        return Int64(access.calls.now(access.transaction.reserve_ts))


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

    def vector_search(self, table: Any, index: str, /, **_options: Any) -> Call[list[Any]]:
        return self._access.calls.run(_refuse_search, table, index)

    def hybrid_search(
        self, table: Any, /, *, vector_index: str, **_options: Any
    ) -> Call[list[Any]]:
        return self._access.calls.run(_refuse_search, table, vector_index)

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
            owner=access.component,
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


def _refuse_search(table: Any, index: str) -> list[Any]:
    raise NotAllowed(
        f"{table!r} has no vector index {index!r} here: system tables have none; "
        "search others with ctx.db.vector_search"
    )


READABLE_SYSTEM_TABLES = ("_scheduled_functions",)


_ALWAYS = ("_id", "_creationTime", "name", "args", "scheduledTime", "state")
_SOMETIMES = ("completedTime", "attempts", "lastError", "returned")
"""What a job has told only once there is something to tell."""


def _presenter(component: str) -> Any:
    """Show a job as the documentation describes it, and only to the component that scheduled it."""

    def present(doc: dict[str, Any]) -> dict[str, Any] | None:
        if doc.get("component", "") != component or is_tick(doc):
            return None
        shown = {name: doc[name] for name in _ALWAYS}
        return shown | {name: doc[name] for name in _SOMETIMES if doc.get(name) is not None}

    return present


def table_name(table: Any) -> str:
    """The name of a table, given as such or as the class of its documents."""
    return table if isinstance(table, str) else table_name_of(table)


def user_table(table: Any) -> str:
    name = table_name(table)
    if name.startswith("_"):
        if name in READABLE_SYSTEM_TABLES:
            raise NotAllowed(f"{name!r} is a system table; read it with db.system.query({name!r})")
        raise NotAllowed(
            f"{name!r} is no table that functions have: names that begin with _ are the system's"
        )
    return name


_CODELESS: Final = frozenset((str, int, float, bool, type(None), bytes, Int64, Undefined))
"""Types of values that no class of the application can be."""


def changes_of(fields: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
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
