"""
Which tables and indexes there are: a value that every commit may replace by another.

The engine's own tables have fixed numbers and indexes, so that the catalog's
rows can be read before there is a catalog.  Everything else is a row of
`_tables` or `_index`, and `Catalog.folded` is how a write of such a row becomes
the next catalog.  A catalog is never changed: the durable snapshot has one,
the staged head has another, and a failed batch just forgets the head's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from engine.model.commits import RowWrite
from engine.model.ids import row_key
from engine.model.limits import USER_TABLE_NUMBER_MIN

TABLES: Final = 513
INDEXES: Final = 514
SCHEMAS: Final = 515
SESSION_REQUESTS: Final = 516
SCHEDULED_FUNCTIONS: Final = 517
CRONS: Final = 518
KEYED_REQUESTS: Final = 519
DEPLOYMENTS: Final = 520
SETTINGS: Final = 521

SYSTEM_INDEX_ID_MIN: Final = 1
USER_INDEX_ID_MIN: Final = 1001
OF_EVERY_TABLE: Final = ("by_id", "by_creation_time")
_BY_ID: Final = 0x8000_0000
_BY_CREATION_TIME: Final = 0x4000_0000
OF_THEN: Final = 0x2000_0000
"""Ids of indexes that are no more, within one annex: those that they had may be others' since."""
_COUNT: Final = 0xC000_0000

DEPLOYMENT_KEY: Final = row_key(DEPLOYMENTS, b"current".ljust(16, b"\0"))
"""The row that a push writes; whatever depends on the code has read it."""

_CATALOG_ROWS: Final = TABLES.to_bytes(4, "big")[:3]
"""What the keys of system rows begin with."""
assert INDEXES.to_bytes(4, "big")[:3] == _CATALOG_ROWS

DROPPING: Final = "dropping"
"""State of a table, in its row, from the commit that hides it."""
DROPPED: Final = "dropped"
"""And when nothing of it is left but the row, so that nobody gets its number: ids have it."""

Path = tuple[str, ...]


class IndexState(enum.Enum):
    BACKFILLING = "backfilling"
    """Of a push that has not switched: kept up by writes, but older documents may be missing."""
    STAGING = "staging"
    """Of a push that has: older documents are added beside what is served."""
    STAGED = "staged"
    """Complete and kept up, but not to be queried yet."""
    ENABLED = "enabled"
    DROPPING = "dropping"
    """Neither kept up nor queried; its entries are being removed."""


IN_PART: Final = frozenset({IndexState.BACKFILLING, IndexState.STAGING})
"""States of an index in which documents may be missing."""
_NAMED: Final = frozenset({IndexState.ENABLED, IndexState.STAGED, IndexState.STAGING})
"""States of which a table has no two indexes of one name."""


class IndexKind(enum.Enum):
    BY_ID = "by_id"
    RANGE = "range"
    SEARCH = "search"
    VECTOR = "vector"
    COUNT = "count"
    """No index: the one key that is touched when a row is added or removed."""


SEARCHED: Final = frozenset({IndexKind.SEARCH, IndexKind.VECTOR})
"""Kinds that have no entries in the store: they are kept in memory, and in files of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """One index: its fields end with `_creationTime`, and every key with the document's id."""

    index_id: int
    name: str
    table_number: int
    fields: tuple[Path, ...]
    kind: IndexKind = IndexKind.RANGE
    state: IndexState = IndexState.ENABLED
    unique: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """What a search or vector index is declared with."""
    row: bytes | None = None
    """Key of its `_index` row; `None` for those that every table has."""
    is_of_then: bool = False
    """Of a state of the past, and none any more: an annex has all of its entries, or nobody."""
    prefix: bytes = field(init=False, repr=False, compare=False)
    field_names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", self.index_id.to_bytes(4, "big"))
        object.__setattr__(self, "field_names", tuple(".".join(path) for path in self.fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    number: int
    name: str
    component: str
    indexes: Mapping[str, IndexInfo]
    maintained: tuple[tuple[IndexInfo, bytes, tuple[str, ...] | None], ...]
    """Indexes with entries: index, prefix, and top-level fields (`None` if one is nested)."""
    by_prefix: Mapping[bytes, IndexInfo]
    """All its indexes and its count, by the prefix of their keys."""
    is_system: bool
    row: bytes | None = None
    is_dropping: bool = False
    """Nobody finds it any more; its documents are being removed."""

    @property
    def row_prefix(self) -> bytes:
        return self.number.to_bytes(4, "big")

    @property
    def label(self) -> str:
        """What operators call it: a component's tables by its path too."""
        return f"{self.component}/{self.name}" if self.component else self.name

    def names(self, kind: IndexKind) -> list[str]:
        """Its indexes of a kind, without those that come or go."""
        return [i.name for name, i in self.indexes.items() if i.kind is kind and i.name == name]


def by_id_prefix(table_number: int) -> bytes:
    """Prefix of a table's `by_id`, which is the rows themselves and has no entries."""
    return (_BY_ID | table_number).to_bytes(4, "big")


def make_table(
    number: int,
    name: str,
    component: str,
    indexes: Iterable[IndexInfo] = (),
    row: bytes | None = None,
    *,
    by_creation_time: Path | None = (),
    is_dropping: bool = False,
) -> TableInfo:
    """
    A table with the indexes that every table has, and `indexes`.

    Args:
        by_creation_time: what lies together in the index of that name; `None` for none.
    """
    all_indexes = {
        "by_id": IndexInfo(
            index_id=_BY_ID | number,
            name="by_id",
            table_number=number,
            fields=(("_id",),),
            kind=IndexKind.BY_ID,
        )
    }
    if by_creation_time is not None:
        all_indexes["by_creation_time"] = IndexInfo(
            index_id=_BY_CREATION_TIME | number,
            name="by_creation_time",
            table_number=number,
            fields=tuple((field,) for field in (*by_creation_time, "_creationTime")),
        )
    all_indexes.update({_slot(index): index for index in indexes})
    return TableInfo(
        number=number,
        name=name,
        component=component,
        indexes=all_indexes,
        maintained=tuple(
            (index, index.prefix, _top_level(index.fields))
            for index in all_indexes.values()
            if index.kind is IndexKind.RANGE and index.state is not IndexState.DROPPING
        ),
        by_prefix={index.prefix: index for index in (*all_indexes.values(), _count_of(number))},
        is_system=number < USER_TABLE_NUMBER_MIN,
        row=row,
        is_dropping=is_dropping,
    )


def count_prefix(table_number: int) -> bytes:
    """Prefix of the key that stands for the number of a table's rows."""
    return (_COUNT | table_number).to_bytes(4, "big")


def _count_of(number: int) -> IndexInfo:
    return IndexInfo(
        index_id=_COUNT | number,
        name="count",
        table_number=number,
        fields=(),
        kind=IndexKind.COUNT,
    )


def _slot(index: IndexInfo) -> str:
    """Its name, unless it comes or goes: then it may stand beside one of the same name."""
    if index.state in _NAMED:
        return index.name
    return f"{index.name} ({index.state.value} {index.index_id})"


def _top_level(fields: tuple[Path, ...]) -> tuple[str, ...] | None:
    if any(len(path) > 1 for path in fields):
        return None
    return tuple(path[0] for path in fields)


def _system_index(index_id: int, number: int, name: str, *fields: str) -> IndexInfo:
    paths = (*((f,) for f in fields), ("_creationTime",))
    return IndexInfo(index_id=index_id, name=name, table_number=number, fields=paths)


BY_TABLE_NAME: Final = _system_index(1, TABLES, "by_name", "component", "name")
BY_INDEX_TABLE: Final = _system_index(2, INDEXES, "by_table", "table")
JOBS_BY_DUE: Final = _system_index(3, SCHEDULED_FUNCTIONS, "by_due", "component", "due")
CRONS_BY_NAME: Final = _system_index(4, CRONS, "by_name", "component", "cron")
SCHEMAS_BY_COMPONENT: Final = _system_index(5, SCHEMAS, "by_component", "component")

_SYSTEM_TABLES: Final = (
    make_table(TABLES, "_tables", "", [BY_TABLE_NAME]),
    make_table(INDEXES, "_index", "", [BY_INDEX_TABLE]),
    make_table(SCHEMAS, "_schemas", "", [SCHEMAS_BY_COMPONENT]),
    make_table(SESSION_REQUESTS, "_session_requests", "", by_creation_time=None),
    make_table(
        SCHEDULED_FUNCTIONS,
        "_scheduled_functions",
        "",
        [JOBS_BY_DUE],
        by_creation_time=("component",),  # each reads its own, and depends on no others
    ),
    make_table(CRONS, "_crons", "", [CRONS_BY_NAME]),
    make_table(KEYED_REQUESTS, "_keyed_requests", "", by_creation_time=None),
    make_table(DEPLOYMENTS, "_deployments", "", by_creation_time=None),
    make_table(SETTINGS, "_settings", "", by_creation_time=None),
)

SYSTEM_TABLES: Final = len(_SYSTEM_TABLES)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Tables by number and by (component, name)."""

    by_number: Mapping[int, TableInfo]
    by_name: Mapping[tuple[str, str], TableInfo]
    next_table_number: int = USER_TABLE_NUMBER_MIN
    next_index_id: int = USER_INDEX_ID_MIN
    has_unique_index: bool = False
    """Whether any table has one, or had; without, no transaction need look."""

    @staticmethod
    def of_system() -> Catalog:
        """The catalog of an empty database."""
        tables = {table.number: table for table in _SYSTEM_TABLES}
        return Catalog(tables, {("", t.name): t for t in tables.values()})

    @property
    def user_tables(self) -> list[TableInfo]:
        """Those of applications; not those that are being dropped."""
        return [t for t in self.by_number.values() if not (t.is_system or t.is_dropping)]

    def table(self, component: str, name: str) -> TableInfo | None:
        return self.by_name.get((component, name))

    def folded(self, writes: Iterable[RowWrite]) -> Catalog:
        """The catalog after `writes`; itself if none of them is about tables or indexes."""
        catalog = self
        for write in writes:
            if write.key.startswith(_CATALOG_ROWS):
                number = write.table_number
                catalog = catalog._with_row(number, write)
        return catalog

    def _with_row(self, number: int, write: RowWrite) -> Catalog:
        if number == TABLES:
            return self._with_table_row(write)
        return self._with_index_row(write) if number == INDEXES else self

    def _with_table_row(self, write: RowWrite) -> Catalog:
        doc = write.after_doc
        if doc is None:
            return self._without_table(write.key)
        number = int(doc["number"])
        if doc["state"] == DROPPED:
            gone = self._without_table(write.key)
            return replace(gone, next_table_number=max(self.next_table_number, number + 1))
        existing = self.by_number.get(number)
        declared = existing.indexes.values() if existing else ()
        table = make_table(
            number,
            doc["name"],
            doc["component"],
            declared,
            write.key,
            is_dropping=doc["state"] == DROPPING,
        )
        return replace(
            self._with_table(table), next_table_number=max(self.next_table_number, number + 1)
        )

    def _with_index_row(self, write: RowWrite) -> Catalog:
        doc = write.after_doc or write.before_doc
        assert doc is not None, "a row write has at least one image"
        table = self.by_number.get(int(doc["table"]))
        if table is None:
            return self
        kept = [index for index in table.indexes.values() if index.row != write.key]
        if write.after_doc is not None:
            index = index_of_row(write.key, write.after_doc)
            if index in table.indexes.values():
                return self  # the row says how far it is filled, which is nobody else's business
            kept.append(index)
        changed = make_table(
            table.number,
            table.name,
            table.component,
            kept,
            table.row,
            is_dropping=table.is_dropping,
        )
        next_id = max(self.next_index_id, int(doc["indexId"]) + 1)
        return replace(self._with_table(changed), next_index_id=next_id)

    def _with_table(self, table: TableInfo) -> Catalog:
        if table.is_dropping:
            by_name = {k: t for k, t in self.by_name.items() if t.row != table.row}
        else:
            by_name = {**self.by_name, (table.component, table.name): table}
        return replace(
            self,
            by_number={**self.by_number, table.number: table},
            by_name=by_name,
            has_unique_index=self.has_unique_index
            or any(index.unique for index in table.indexes.values()),
        )

    @staticmethod
    def of_rows(rows: Iterable[tuple[bytes, bytes]]) -> Catalog:
        """The catalog that rows of `_tables` and then of `_index`, with their keys, describe."""
        writes = (RowWrite(key, None, image) for key, image in rows)
        return Catalog.of_system().folded(writes)

    def _without_table(self, row: bytes) -> Catalog:
        return replace(
            self,
            by_number={n: t for n, t in self.by_number.items() if t.row != row},
            by_name={k: t for k, t in self.by_name.items() if t.row != row},
        )


def index_of_row(key: bytes, doc: Mapping[str, Any]) -> IndexInfo:
    """The index that a row of `_index` describes."""
    return IndexInfo(
        index_id=int(doc["indexId"]),
        name=doc["name"],
        table_number=int(doc["table"]),
        fields=tuple(tuple(path.split(".")) for path in doc["fields"]),
        kind=IndexKind(doc["kind"]),
        state=IndexState(doc["state"]),
        unique=doc["unique"],
        options=doc["options"],
        row=key,
    )
