"""
`convex/_generated/` of a front end: api.js, api.d.ts and dataModel.d.ts.

The hooks of `convex/react` and the other clients for JavaScript check calls by
these types.  Only public functions are there, as others can be called by no
client.  A number is `number` whether the annotation says `int` or `float`, an
`Int64` is `bigint`, bytes are an `ArrayBuffer`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from engine.app.bounds import Bounded
from engine.app.registered import RegisteredFunction
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import (
    AnyValue,
    Array,
    BigInt,
    Boolean,
    Bytes,
    IdOf,
    Literal,
    Null,
    Number,
    Object,
    Optional,
    OwnId,
    Record,
    String,
    Union,
    Validator,
    v,
)
from engine.codegen.documents import document_of, field_paths, indexes_of, key_of
from engine.codegen.files import TYPESCRIPT
from engine.codegen.tree import Node, tree_of
from engine.model.limits import VALUE_NESTING_MAX
from engine.model.values import Int64, Value

IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
SYSTEM_TABLES: Final = frozenset({"_scheduled_functions", "_storage"})
"""The tables of the engine for which the clients' library has types."""
INDENT: Final = "  "


def files_of(application: Application) -> dict[str, str]:
    """The text of each file, by its name."""
    public = tree_of(each for each in application.functions.values() if each.is_public)
    return {
        "api.d.ts": _api_types(public, _Types(application.schema, documents=True)),
        "api.js": _file(
            "The functions of this application, by their paths.",
            ['import { anyApi } from "convex/server";', "", "export const api = anyApi;"],
        ),
        "dataModel.d.ts": _data_model(application.schema),
    }


def _file(about: str, lines: Iterable[str]) -> str:
    return "\n".join([*TYPESCRIPT.lines(about), "", *lines, ""])


# Functions.


def _api_types(public: Node, types: _Types) -> str:
    lines = ["export declare const api: " + "\n".join(_module(public, types)) + ";"]
    return _file(
        "The public functions of this application: their arguments and their results.",
        [
            *_imports("convex/server", ["FunctionReference"], lines),
            *_imports("convex/values", ["GenericId"], lines),
            *_imports("./dataModel", ["Doc", "Id"], lines),
            "",
            *lines,
        ],
    )


def _imports(module: str, names: Iterable[str], lines: Iterable[str]) -> Iterator[str]:
    """An import of those of `names` that `lines` have."""
    words = set(re.findall(r"\w+", "\n".join(lines)))
    if needed := [name for name in names if name in words]:
        yield f'import type {{ {", ".join(needed)} }} from "{module}";'


def _module(node: Node, types: _Types) -> list[str]:
    if not node.names:
        return ["{}"]
    lines = ["{"]
    for name in node.names:
        lines += _indented(f"{_property(name)}: ", _member(node, name, types))
    return [*lines, "}"]


def _indented(before: str, lines: list[str]) -> list[str]:
    """A member of an object type."""
    first, *rest = lines
    shown = [f"{before}{first}", *rest]
    shown[-1] += ";"
    return [INDENT + line for line in shown]


def _member(node: Node, name: str, types: _Types) -> list[str]:
    lines = _reference(node.functions[name], types) if name in node.functions else []
    if (below := node.below.get(name)) is None:
        return lines
    module = _module(below, types)
    return [*lines[:-1], f"{lines[-1]} & {module[0]}", *module[1:]] if lines else module


def _reference(function: RegisteredFunction, types: _Types) -> list[str]:
    signature = function.signature
    returns = signature.returns.validator if signature.returns else v.any()
    return [
        "FunctionReference<",
        f'{INDENT}"{function.kind.value}",',
        f'{INDENT}"public",',
        f"{INDENT}{types.of(signature.validator)},",
        f"{INDENT}{types.of(returns)}",
        ">",
    ]


# Tables.


def _data_model(schema: Schema | None) -> str:
    lines = list(_open_model() if schema is None else _closed_model(schema))
    from_server = ["AnyDataModel", "DocumentByName", "SystemTableNames"]
    return _file(
        "The tables of this application: their documents, ids and indexes.",
        [
            *_imports("convex/server", from_server, lines),
            *_imports("convex/values", ["GenericId"], lines),
            "",
            *lines,
        ],
    )


def _open_model() -> Iterator[str]:
    """Without a schema a table may have any name, and any document."""
    yield "export type DataModel = AnyDataModel;"
    yield "export type TableNames = string;"
    yield "export type Doc<TableName extends TableNames> = any;"
    yield "export type Id<TableName extends TableNames> = GenericId<TableName>;"


def _closed_model(schema: Schema) -> Iterator[str]:
    types = _Types(schema, documents=False)
    names = sorted(schema.tables)
    yield f"export type TableNames = {_choice(map(_text, names))};"
    yield ""
    yield "export type Doc<TableName extends TableNames> = DocumentByName<DataModel, TableName>;"
    yield ""
    yield "export type Id<TableName extends TableNames | SystemTableNames> = GenericId<TableName>;"
    yield ""
    yield "export type DataModel = {"
    for name in names:
        yield from _indented(f"{_property(name)}: ", _table(name, schema.tables[name], types))
    yield "};"


def _table(name: str, table: Table, types: _Types) -> list[str]:
    document = document_of(name, table.validator)
    paths = field_paths(document)
    known = [_text(path) for path in paths.known]
    opened = [f"`{path}.${{string}}`" if path else "string" for path in paths.open]
    system = "string" if paths.open == ("",) else ""
    return [
        "{",
        f"{INDENT}document: {types.of(document)};",
        f"{INDENT}fieldPaths: {system or _choice([*known, *opened])};",
        *_members("indexes", {name: _tuple(fields) for name, fields in indexes_of(table).items()}),
        *_members("searchIndexes", dict(_searches(table))),
        *_members("vectorIndexes", dict(_vectors(table))),
        "}",
    ]


def _members(name: str, members: Mapping[str, str]) -> list[str]:
    if not members:
        return [f"{INDENT}{name}: {{}};"]
    lines = [f"{INDENT}{_property(each)}: {text};" for each, text in members.items()]
    return [INDENT + line for line in (f"{name}: {{", *lines, "};")]


def _searches(table: Table) -> Iterator[tuple[str, str]]:
    for one in table.search_indexes:
        if not one.staged:
            filters = _choice(map(_text, one.filter_fields))
            yield one.name, f"{{ searchField: {_text(one.search_field)}; filterFields: {filters} }}"


def _vectors(table: Table) -> Iterator[tuple[str, str]]:
    for one in table.vector_indexes:
        if not one.staged:
            filters = _choice(map(_text, one.filter_fields))
            yield (
                one.name,
                f"{{ vectorField: {_text(one.vector_field)}; dimensions: {one.dimensions}; "
                f"filterFields: {filters} }}",
            )


# Types.


class _Types:
    """
    What validators are in TypeScript.

    Args:
        schema: its tables have names that ids may have; without one every name will do.
        documents: whether documents of a table are written as such, and not field by field.
    """

    def __init__(self, schema: Schema | None, *, documents: bool) -> None:
        tables = schema.tables if schema else {}
        self._names = None if schema is None else {*tables, *SYSTEM_TABLES}
        self._documents: dict[str, str] = {}
        for name in sorted(tables) if documents else ():
            document = document_of(name, tables[name].validator)
            if isinstance(document, (Object, Union)):
                self._documents.setdefault(key_of(document), name)

    def of(self, validator: Validator, depth: int = 0) -> str:
        """The type; of what no value nests as deep as, any."""
        if depth > VALUE_NESTING_MAX:
            return "any"
        match validator:
            case Optional(inner=inner) | Bounded(inner=inner):
                return self.of(inner, depth)
            case Object() | Union() if name := self._documents.get(key_of(validator)):
                return f"Doc<{_text(name)}>"
            case Object(fields=fields):
                return _object(self._field(name, one, depth) for name, one in fields.items())
            case Union(members=members):
                return _choice(self.of(member, depth) for member in members)
            case Array(element=element):
                return f"Array<{self.of(element, depth + 1)}>"
            case Record(keys=keys, values=values):
                return f"Record<{self.of(keys, depth + 1)}, {self.of(values, depth + 1)}>"
        return self._plain(validator)

    def _field(self, name: str, one: Validator, depth: int) -> str:
        return f"{_property(name)}{'?' if one.is_optional else ''}: {self.of(one, depth + 1)}"

    def _plain(self, validator: Validator) -> str:
        match validator:
            case Null():
                return "null"
            case Boolean():
                return "boolean"
            case Number():
                return "number"
            case BigInt():
                return "bigint"
            case Bytes():
                return "ArrayBuffer"
            case Literal(value=value):
                return _literal(value)
            case IdOf() if validator.kind == "id":
                name = validator.table_name
                is_known = self._names is None or name in self._names
                return f"{'Id' if is_known else 'GenericId'}<{_text(name)}>"
            case String() | OwnId():
                return "string"
        assert isinstance(validator, AnyValue), f"{validator} is a kind of validator of its own"
        return "any"


def _literal(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Int64():
            return f"{int(value)}n"
        case float() if not math.isfinite(value):
            return "number"
    return json.dumps(value)


def _object(fields: Iterable[str]) -> str:
    return f"{{ {'; '.join(fields)} }}" if (fields := list(fields)) else "Record<string, never>"


def _choice(types: Iterable[str]) -> str:
    """One of them; of none, nothing is one."""
    return " | ".join(dict.fromkeys(types)) or "never"


def _tuple(fields: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, fields))}]"


def _property(name: str) -> str:
    """A name as the key of an object type has it."""
    return name if IDENTIFIER.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    return json.dumps(text)
