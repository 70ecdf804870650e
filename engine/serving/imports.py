"""
Documents that come with an import, and the place of their table.

They may bring `_id` and `_creationTime`, so that what one directory shows another can take, and
ids that documents hold of each other stay what they are.  An id says the number of its table.
Where the table has another number it gets that one, as long as it is empty; an empty table that
has the number has to go out of its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine.errors import InvalidId, InvalidValue, UsageError
from engine.indexes.catalog import DEPLOYMENT_KEY, TableInfo
from engine.model.ids import decode_id, id_of, row_key
from engine.model.json_values import Json, from_wire
from engine.model.limits import CREATION_TIME_MAX, TABLE_NUMBER_IMPORTED_MAX, USER_TABLE_NUMBER_MIN
from engine.model.values import Int64
from engine.transaction.transaction import Transaction

SYSTEM_FIELDS: Final = ("_id", "_creationTime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A document of a file: its own fields, and what it brings of the system's."""

    fields: dict[str, Any]
    table_number: int | None = None
    internal: bytes | None = None
    creation_time: float | None = None


def read(document: Json) -> Imported:
    """
    Raises:
        UsageError: no document can be like that.
    """
    fields = from_wire(document)
    if not isinstance(fields, dict):
        raise UsageError(f"a document is a JSON object, not {document!r}")
    own = {name: value for name, value in fields.items() if name not in SYSTEM_FIELDS}
    number, internal = decode_id(fields["_id"]) if "_id" in fields else (None, None)
    if number is not None and not (USER_TABLE_NUMBER_MIN <= number <= TABLE_NUMBER_IMPORTED_MAX):
        raise InvalidId(f"{fields['_id']!r} is the id of no table of an application")
    return Imported(
        fields=own,
        table_number=number,
        internal=internal,
        creation_time=_creation_time(fields) if "_creationTime" in fields else None,
    )


def _creation_time(fields: dict[str, Any]) -> float:
    value = fields["_creationTime"]
    is_number = isinstance(value, int | float) and not isinstance(value, bool | Int64)
    if not is_number or not 0 < value < CREATION_TIME_MAX:
        raise InvalidValue(
            f"_creationTime is {value!r}; it has to be milliseconds since 1970, more than 0"
        )
    return float(value) if not float(value).is_integer() else int(value)


# The number of the table.


def place_table(
    turn: Transaction, component: str, name: str, documents: Sequence[Imported]
) -> None:
    """
    See to it that the table has the number which the ids of `documents` say.

    Raises:
        InvalidId: it has documents already, or another table with documents has the number.
    """
    number = next((one.table_number for one in documents if one.table_number is not None), None)
    table = turn.catalog.table(component, name)
    if number is None or (table is not None and table.number == number):
        return
    if table is not None and turn.count(table):
        raise InvalidId(
            f"the ids are of another table than {name!r}, which has documents already; import "
            "into an empty table, or take _id out of the file"
        )
    _make_room(turn, name, number)
    if table is None:
        turn.create_table(component, name, number)
    else:
        _renumber(turn, table, number)


def _make_room(turn: Transaction, name: str, number: int) -> None:
    other = turn.catalog.by_number.get(number)
    if other is None:
        return
    if other.is_dropping:
        raise InvalidId(f"the ids are of {other.name!r}, which is being dropped; try again soon")
    if turn.count(other):
        raise InvalidId(
            f"the ids are those of a table that here is {other.name!r}, not {name!r}; import into "
            "a directory of its own, or take _id out of the file"
        )
    _renumber(turn, other, turn.catalog.next_table_number)


def _renumber(turn: Transaction, table: TableInfo, number: int) -> None:
    """Give an empty table another number; whatever was read of it before does not hold any more."""
    assert table.row is not None, "a table of an application has a row"
    old = turn.get(table.row)
    assert old is not None, "a table of the catalog has a row"
    turn.put_row(table.row, None)
    turn.create_table(table.component, table.name, number)
    for index in table.indexes.values():
        if index.row is not None:
            _move_index(turn, index.row, number)
    deployed = turn.get(DEPLOYMENT_KEY)
    if deployed is not None:
        turn.put_row(DEPLOYMENT_KEY, {**deployed, "tables": deployed.get("tables", 0) + 1})


def _move_index(turn: Transaction, row: bytes, number: int) -> None:
    doc = turn.get(row)
    assert doc is not None, "an index of the catalog has a row"
    turn.put_row(row, {**doc, "table": number})


# The documents.


def insert(turn: Transaction, component: str, name: str, document: Imported) -> str:
    """
    Add a document to the table, and return its id.

    Raises:
        InvalidId: its id is of another table, or there is a document of that id.
        UsageError: no document of the table can be like that.
    """
    if document.internal is None and document.creation_time is None:
        return turn.insert(component, name, dict(document.fields))
    table = turn.table(component, name) or turn.create_table(component, name)
    if document.internal is not None and document.table_number is not None:
        key = row_key(document.table_number, document.internal)
        if document.table_number != table.number:
            raise InvalidId(f"{id_of(key)!r} is an id of another table than {name!r}")
        if turn.get(key) is not None:
            raise InvalidId(f"there is a document {id_of(key)!r} already")
    fields = dict(document.fields)  # the transaction's own; this one may run again
    return turn.restore(table, fields, document.internal, document.creation_time)
