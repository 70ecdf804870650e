"""
What a push does to tables and indexes, as rows of `_tables` and `_index`.

    prepare      tables and indexes that are missing are added, which nobody reads yet
    switch       the catalog becomes that of the schemas
    take back    what was prepared goes, when its push has failed, or was cut off and another comes

An index that was prepared is `backfilling`, and a table says so in its row: whatever finds them
knows that no push has switched to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from engine.app.schema import Schema, Table
from engine.indexes.catalog import (
    IN_PART,
    INDEXES,
    IndexInfo,
    IndexKind,
    IndexState,
    TableInfo,
)
from engine.transaction.transaction import Transaction

PREPARED: Final = "prepared"
"""State of a table that was added by a push which has not switched."""
NO_SCHEMAS: Final[Mapping[str, Schema]] = {}


def prepare(schemas: Mapping[str, Schema], turn: Transaction) -> None:
    """Add the tables and indexes that are not there, and take back what nobody wants any more."""
    take_back(schemas, turn)
    for component, schema in schemas.items():
        for name, declared in schema.tables.items():
            table = turn.catalog.table(component, name)
            if table is None:
                table = turn.create_table(component, name, state=PREPARED)
            for wanted in declared_indexes(declared, table):
                _add_index(turn, table, wanted)


def take_back(schemas: Mapping[str, Schema], turn: Transaction) -> None:
    """Remove what was prepared and is not wanted by `schemas`."""
    for table, wanted in _tables(schemas, turn):
        if wanted is None and _remove_if_empty(turn, table):
            continue
        for index in table.indexes.values():
            if index.state is IndexState.BACKFILLING and not _is_declared(index, wanted or {}):
                _set_state(turn, index, IndexState.DROPPING)


def switch(schemas: Mapping[str, Schema], turn: Transaction) -> list[str]:
    """Make tables and indexes those of the schemas; a line for each that changes."""
    added: list[str] = []
    lines: list[str] = []
    for table, wanted in _tables(schemas, turn):
        if wanted is not None and _activate(turn, table):
            added.append(f"added table {table.label}")
        if table.component in schemas:
            lines += _switch_indexes(turn, table, wanted or {})
    return added + lines


def to_fill(schemas: Mapping[str, Schema], turn: Transaction) -> list[bytes]:
    """Rows of the indexes that have to be complete before queries may read them."""
    return [
        index.row
        for table, wanted in _tables(schemas, turn)
        for index in table.indexes.values()
        if index.row is not None
        and index.state in IN_PART
        and _is_declared(index, wanted or {}, IndexState.ENABLED)
    ]


def to_check_unique(schemas: Mapping[str, Schema], turn: Transaction) -> list[IndexInfo]:
    """Unique indexes that writes are not held to yet, and will be."""
    return [
        index
        for table, wanted in _tables(schemas, turn)
        for index in table.indexes.values()
        if index.unique
        and index.state not in (IndexState.ENABLED, IndexState.DROPPING)
        and _is_declared(index, wanted or {}, IndexState.ENABLED)
    ]


def declared_indexes(declared: Table, table: TableInfo) -> Iterator[IndexInfo]:
    """The indexes of a table's declaration, as the catalog would have them."""
    for spec in declared.indexes:
        paths = tuple(tuple(name.split(".")) for name in spec.fields)
        yield IndexInfo(
            index_id=0,
            name=spec.name,
            table_number=table.number,
            fields=(*paths, ("_creationTime",)),
            unique=spec.unique,
            state=IndexState.STAGED if spec.staged else IndexState.ENABLED,
        )
    for searched in declared.search_indexes:
        yield IndexInfo(
            index_id=0,
            name=searched.name,
            table_number=table.number,
            fields=(),
            kind=IndexKind.SEARCH,
            state=IndexState.STAGED if searched.staged else IndexState.ENABLED,
            options={
                "search_field": searched.search_field,
                "filter_fields": list(searched.filter_fields),
            },
        )
    for vectors in declared.vector_indexes:
        yield IndexInfo(
            index_id=0,
            name=vectors.name,
            table_number=table.number,
            fields=(),
            kind=IndexKind.VECTOR,
            state=IndexState.STAGED if vectors.staged else IndexState.ENABLED,
            options={
                "vector_field": vectors.vector_field,
                "dimensions": vectors.dimensions,
                "filter_fields": list(vectors.filter_fields),
            },
        )


Wanted = Mapping[str, IndexInfo]
"""The indexes that a table is to have, by name."""


def _tables(
    schemas: Mapping[str, Schema], turn: Transaction
) -> Iterator[tuple[TableInfo, Wanted | None]]:
    """The tables of applications, each with its declared indexes, or None if no schema has it."""
    for table in turn.catalog.user_tables:
        schema = schemas.get(table.component)
        declared = schema.tables.get(table.name) if schema else None
        indexes = declared_indexes(declared, table) if declared else ()
        yield table, None if declared is None else {index.name: index for index in indexes}


def _is_declared(index: IndexInfo, wanted: Wanted, state: IndexState | None = None) -> bool:
    """Whether an index is one of those that are wanted, in that state if one is given."""
    target = wanted.get(index.name)
    if target is None or not _same_definition(index, target):
        return False
    return state in (None, target.state)


def _same_definition(a: IndexInfo, b: IndexInfo) -> bool:
    return _definition(a) == _definition(b)


def _definition(index: IndexInfo) -> tuple[Any, ...]:
    return index.kind, index.fields, index.unique, dict(index.options)


def _add_index(turn: Transaction, table: TableInfo, wanted: IndexInfo) -> None:
    for index in turn.catalog.by_number[table.number].indexes.values():
        is_same = index.name == wanted.name and _same_definition(index, wanted)
        if is_same and index.state is not IndexState.DROPPING:
            return
    turn.insert_row(
        turn.catalog.by_number[INDEXES],
        {
            "indexId": turn.catalog.next_index_id,
            "name": wanted.name,
            "table": table.number,
            "fields": list(wanted.field_names),
            "kind": wanted.kind.value,
            "state": IndexState.BACKFILLING.value,
            "unique": wanted.unique,
            "options": dict(wanted.options),
        },
    )


def _switch_indexes(turn: Transaction, table: TableInfo, wanted: Wanted) -> Iterator[str]:
    indexes = [i for i in table.indexes.values() if i.row and i.state is not IndexState.DROPPING]
    gone = [index for index in indexes if not _is_declared(index, wanted)]
    for index in gone:
        _set_state(turn, index, IndexState.DROPPING)
    replaced = {index.name for index in gone} & wanted.keys()
    for index in indexes:
        what = f"index {table.label}.{index.name}"
        if index in gone:
            if index.name not in wanted:
                yield f"dropped {what}"
            continue
        target = wanted[index.name].state
        state = _next_state(index.state, target)
        if state is index.state:
            continue
        _set_state(turn, index, state)
        if index.state is not IndexState.BACKFILLING:
            yield f"{target.value} {what}"
        else:
            note = "" if state is IndexState.ENABLED else ", staged"
            yield f"{'replaced' if index.name in replaced else 'added'} {what}{note}"


def _next_state(state: IndexState, target: IndexState) -> IndexState:
    """What a switch makes of an index that is enabled or staged from then on."""
    if target is IndexState.STAGED and state in IN_PART:
        return IndexState.STAGING
    return target


def _activate(turn: Transaction, table: TableInfo) -> bool:
    """Whether it was prepared; from now on it is a table as any other."""
    assert table.row is not None, "a table of the catalog has a row"
    row = turn.get(table.row)
    if row is None or row["state"] != PREPARED:
        return False
    turn.put_row(table.row, {**row, "state": "active"})
    return True


def _remove_if_empty(turn: Transaction, table: TableInfo) -> bool:
    """Remove a table that was prepared, unless somebody has put a document into it."""
    assert table.row is not None, "a table of the catalog has a row"
    if turn.count(table):
        return False
    row = turn.get(table.row)
    if row is None or row["state"] != PREPARED:
        return False
    for index in table.indexes.values():
        if index.row is not None:
            turn.put_row(index.row, None)
    turn.put_row(table.row, None)
    return True


def _set_state(turn: Transaction, index: IndexInfo, state: IndexState) -> None:
    assert index.row is not None, "those that every table has stay as they are"
    row = turn.get(index.row)
    assert row is not None, "an index of the catalog has a row"
    turn.put_row(index.row, {**row, "state": state.value})
