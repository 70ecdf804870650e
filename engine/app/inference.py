"""
What documents look like: the validators that accept all that were seen, and a schema to paste.

    seen = Seen()
    for document in documents:
        seen.add(document)
    print(snippet([Inferred(name="messages", seen=seen)], tables))

A field that some lack is optional, one of several types is a union.  Text that is always the id of
a document is an id, and an object with too many names is a record.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from engine.app.schema import SYSTEM_FIELDS, IndexSpec, SearchIndexSpec, Table
from engine.app.validators import Object, Validator, v
from engine.errors import DeclarationError, InvalidId
from engine.model.ids import decode_id
from engine.model.values import Int64, Value

NAMES_MAX: Final = 64
"""Of one object; with more of them they are data, and the object is a record."""
DOCUMENT_NAMES_MAX: Final = 1_000
"""Of the documents of a table, which cannot be records: with more of them they are anything."""

TableName: TypeAlias = Callable[[int], str | None]
"""The name of a table by its number, if the component has such a table."""

_PLAIN: Final[Mapping[type, Validator]] = {
    type(None): v.null(),
    bool: v.boolean(),
    int: v.number(),
    float: v.number(),
    Int64: v.int64(),
    bytes: v.bytes(),
}


class Seen:
    """The values that were seen at one place."""

    def __init__(self, names_max: int = NAMES_MAX) -> None:
        self._names_max = names_max
        self._plain: dict[Validator, None] = {}
        self._numbers: set[int] | None = None
        """Of the tables whose ids all text was; empty if some was none."""
        self._items: Seen | None = None
        self._objects = 0
        self._fields: dict[str, tuple[Seen, int]] = {}
        """With the number of objects that had it."""
        self._record: tuple[Seen, Seen] | None = None
        """Names and values, once there were too many names."""

    def add(self, value: Value) -> None:
        """Take in one more value, which is canonical."""
        if isinstance(value, str):
            self._add_text(value)
        elif isinstance(value, list):
            self._items = self._items or Seen()
            for item in value:
                self._items.add(item)
        elif isinstance(value, dict):
            self._add_object(value)
        else:
            self._plain[_PLAIN[type(value)]] = None

    def validator(self, table_name: TableName) -> Validator:
        """What accepts all of it; anything, if nothing was seen."""
        members = list(self._members(table_name))
        match members:
            case []:
                return v.any()
            case [one]:
                return one
        return v.any() if v.any() in members else v.union(*members)

    def _add_text(self, text: str) -> None:
        number = _table_number(text)
        if number is None:
            self._numbers = set()
        elif self._numbers is None:
            self._numbers = {number}
        elif self._numbers:
            self._numbers.add(number)

    def _add_object(self, fields: Mapping[str, Value]) -> None:
        self._objects += 1
        if self._record is None:
            for name, value in fields.items():
                seen, count = self._fields.get(name) or (Seen(), 0)
                seen.add(value)
                self._fields[name] = seen, count + 1
            if len(self._fields) > self._names_max:
                self._give_up_names()
            return
        names, values = self._record
        for name, value in fields.items():
            names.add(name)
            values.add(value)

    def _give_up_names(self) -> None:
        names, values = Seen(), Seen()
        for name, (seen, _) in self._fields.items():
            names.add(name)
            values._merge(seen)
        self._fields = {}
        self._record = names, values

    def _merge(self, other: Seen) -> None:
        self._plain |= other._plain
        if other._numbers is not None:
            mine = self._numbers
            is_text = mine == set() or other._numbers == set()
            self._numbers = set() if is_text else other._numbers | (mine or set())
        if other._items is not None:
            self._items = self._items or Seen()
            self._items._merge(other._items)
        self._merge_objects(other)

    def _merge_objects(self, other: Seen) -> None:
        self._objects += other._objects
        if other._record is not None and self._record is None:
            self._give_up_names()
        for name, (seen, count) in other._fields.items():
            if self._record is None:
                mine, mine_count = self._fields.get(name) or (Seen(), 0)
                mine._merge(seen)
                self._fields[name] = mine, mine_count + count
            else:
                self._record[0].add(name)
                self._record[1]._merge(seen)
        if self._record is not None and other._record is not None:
            self._record[0]._merge(other._record[0])
            self._record[1]._merge(other._record[1])
        elif len(self._fields) > self._names_max:
            self._give_up_names()

    def _members(self, table_name: TableName) -> Iterator[Validator]:
        yield from self._plain
        if self._numbers is not None:
            names = [table_name(number) for number in sorted(self._numbers)]
            known = [name for name in names if name is not None]
            if known and len(known) == len(names):
                yield from map(v.id, known)
            else:
                yield v.string()
        if self._items is not None:
            yield v.array(self._items.validator(table_name))
        if self._record is not None:
            keys, values = (seen.validator(table_name) for seen in self._record)
            yield v.record(keys, values)
        elif self._objects:
            yield v.object(dict(self._named(table_name)))

    def _named(self, table_name: TableName) -> Iterator[tuple[str, Validator]]:
        for name, (seen, count) in self._fields.items():
            inner = seen.validator(table_name)
            yield name, inner if count == self._objects else v.optional(inner)


def _table_number(text: str) -> int | None:
    try:
        return decode_id(text)[0]
    except InvalidId:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """A table, what its documents look like, and the indexes that it has."""

    name: str
    seen: Seen
    indexes: tuple[IndexSpec, ...] = ()
    search_indexes: tuple[SearchIndexSpec, ...] = ()
    left_out: tuple[str, ...] = ()
    """What the deployed schema says of the table and no document shows, as in `.check("paid")`."""


def seen_documents() -> Seen:
    """For the documents of a table, which `document_fields` are of."""
    return Seen(DOCUMENT_NAMES_MAX)


def document_fields(document: Mapping[str, Value]) -> dict[str, Value]:
    """What a schema says of a document: all but what the engine puts there."""
    return {name: value for name, value in document.items() if name not in SYSTEM_FIELDS}


def snippet(tables: Iterable[Inferred], table_name: TableName) -> str:
    """A schema of these tables, as Python."""
    tables = list(tables)
    declared = {table.name: _declaration(table, table_name) for table in tables}
    lines = ["from headrace import Schema, Table, v", ""]
    lines += [
        f"# left out of {one.name}: {', '.join(one.left_out)}" for one in tables if one.left_out
    ]
    if any(map(keyword.iskeyword, declared)):
        entries = [f"        {name!r}: {text}," for name, text in declared.items()]
        lines += ["schema = Schema.of(", "    {", *entries, "    }", ")"]
    else:
        lines += ["schema = Schema(", *(f"    {n}={text}," for n, text in declared.items()), ")"]
    return "\n".join(lines) + "\n"


def _declaration(table: Inferred, table_name: TableName) -> str:
    validator = _with_indexed(table, table.seen.validator(table_name))
    text = "Table(v.any())"
    if isinstance(validator, Object):
        fields = "".join(
            f"            {json.dumps(name)}: {one},\n" for name, one in validator.fields.items()
        )
        text = f"Table(\n        {{\n{fields}        }}\n    )"
    for one in table.indexes:
        options = ", unique=True" if one.unique else ""
        options += ", staged=True" if one.staged else ""
        text += f".index({_quoted(one.name)}, {_quoted(*one.fields, is_list=True)}{options})"
    for searched in table.search_indexes:
        text += f".search_index({_quoted(searched.name)}"
        text += f", search_field={_quoted(searched.search_field)}"
        text += f", filter_fields={_quoted(*searched.filter_fields, is_list=True)}"
        text += ", staged=True)" if searched.staged else ")"
    return text


def _quoted(*names: str, is_list: bool = False) -> str:
    text = ", ".join(map(json.dumps, names))
    return f"[{text}]" if is_list else text


def _with_indexed(table: Inferred, validator: Validator) -> Validator:
    """`validator`, in which every indexed field may be, as no index is of others."""
    if not isinstance(validator, Object):
        return v.any()
    paths = [path for one in table.indexes for path in one.fields]
    for searched in table.search_indexes:
        paths += [searched.search_field, *searched.filter_fields]
    impossible = {path.split(".")[0] for path in paths if not _may_have(validator, path)}
    return validator.extend({name: v.optional(v.any()) for name in sorted(impossible)})


def _may_have(validator: Object, path: str) -> bool:
    try:
        Table(validator).index("an_index", [path]).verify()
    except DeclarationError:
        return False
    return True
