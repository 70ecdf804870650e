"""
The schema: which tables there are, what their documents look like, how they are found.

    schema = Schema(
        channels=Table(Channel).index("by_name", ["name"], unique=True),
        messages=Table({"body": v.string(), "channel": v.id("channels")}),
    )

A schema is optional; tables that it does not mention take any document.  What
it says of a table is checked with each write, and by a push for the documents
that are there already.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

from engine.app.bounds import Bounded
from engine.app.constraints import (
    ON_DELETE,
    CheckSpec,
    Predicate,
    ReferenceSpec,
    validators_at,
    with_checks,
)
from engine.app.documents import bind_document
from engine.app.places import place_of_caller
from engine.app.rules import CONSTRAINED, rule_of
from engine.app.shapes import Scope, Unsupported, is_document, shape_of
from engine.app.structures import is_typed_dict
from engine.app.validators import (
    AnyValue,
    Array,
    IdOf,
    Json,
    Literal,
    Number,
    Object,
    String,
    Tables,
    Union,
    Validator,
    check_identifier,
    did_you_mean,
    v,
)
from engine.errors import DeclarationError, InvalidValue
from engine.model.limits import (
    FILTER_FIELDS_MAX,
    INDEX_FIELDS_MAX,
    TABLE_INDEXES_MAX,
    TABLES_MAX,
    VECTOR_DIMENSIONS_MAX,
    VECTOR_DIMENSIONS_MIN,
)
from engine.model.relations import OnDelete, Relation
from engine.model.values import Value

Fields: TypeAlias = Any
"""A class of documents, a union of such, a dict of validators, or a validator."""

SYSTEM_FIELDS: Final = frozenset({"_id", "_creationTime"})
_NO_SUCH: Final = "search and vector indexes have fields of documents only"
_RESERVED_NAMES: Final = ("by_id", "by_creation_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSpec:
    """An index over fields, in order; `_creationTime` follows them, unsaid."""

    name: str
    fields: tuple[str, ...]
    unique: bool = False
    """Whether two documents may not have the same values; absent fields never collide."""
    staged: bool = False
    """Built and kept, but not to be queried yet."""

    def to_json(self) -> Json:
        return {
            "indexDescriptor": self.name,
            "fields": list(self.fields),
            "unique": self.unique,
            "staged": self.staged,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchIndexSpec:
    """An index over the words of one field."""

    name: str
    search_field: str
    filter_fields: tuple[str, ...] = ()
    staged: bool = False

    def to_json(self) -> Json:
        return {
            "indexDescriptor": self.name,
            "searchField": self.search_field,
            "filterFields": list(self.filter_fields),
            "staged": self.staged,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorIndexSpec:
    """An index over a field that is a list of `dimensions` numbers."""

    name: str
    vector_field: str
    dimensions: int
    filter_fields: tuple[str, ...] = ()
    staged: bool = False

    def to_json(self) -> Json:
        return {
            "indexDescriptor": self.name,
            "vectorField": self.vector_field,
            "dimensions": self.dimensions,
            "filterFields": list(self.filter_fields),
            "staged": self.staged,
        }


class Table:
    """
    One table: the class or the validators of its documents, its indexes and its constraints.

    Args:
        fields: a `TypedDict` that derives from `Document`, or a dict of validators; also a
            validator (of an object, a union of objects, or any).
    """

    def __init__(self, fields: Fields, /) -> None:
        self._fields = fields
        self._declared_in(sys._getframe(1))
        self.documents: tuple[type, ...] = tuple(_classes_in(fields))
        self.indexes: tuple[IndexSpec, ...] = ()
        self.search_indexes: tuple[SearchIndexSpec, ...] = ()
        self.vector_indexes: tuple[VectorIndexSpec, ...] = ()
        self.references: tuple[ReferenceSpec, ...] = ()
        self.checks: tuple[CheckSpec, ...] = ()

    def _declared_in(self, frame: types.FrameType) -> None:
        self._scope = Scope.of_frame(frame)
        self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        """File and line of the declaration."""

    @property
    def document(self) -> type | None:
        """The class of its documents, if it was declared with one."""
        return self.documents[0] if self.documents else None

    def index(
        self, name: str, fields: Sequence[str], /, *, unique: bool = False, staged: bool = False
    ) -> Table:
        """
        Add an index.

        Args:
            name: what `with_index` calls it.
            fields: paths, as in `["channel", "author.name"]`; order matters.
            unique: whether two documents with the same values are refused at commit.
            staged: whether it is only built and kept for now, behind the push, and not to be
                queried; a push without this enables it.

        Returns:
            This table.

        Raises:
            DeclarationError: the index cannot be.
        """
        self._check_name(name)
        self._check_fields(name, fields, INDEX_FIELDS_MAX - 1)
        self._refuse_twin(name, [one.name for one in self.indexes if one.fields == tuple(fields)])
        spec = IndexSpec(name=name, fields=tuple(fields), unique=unique, staged=staged)
        self.indexes += (spec,)
        return self

    def search_index(
        self,
        name: str,
        /,
        *,
        search_field: str,
        filter_fields: Sequence[str] = (),
        staged: bool = False,
    ) -> Table:
        """
        Add a full-text index.

        Args:
            name: what `with_search_index` calls it.
            search_field: the field whose words are found.
            filter_fields: fields that a search may require to be equal.
            staged: whether it is only built for now.

        Returns:
            This table.

        Raises:
            DeclarationError: the index cannot be.
        """
        self._check_name(name)
        self._check_fields(name, [search_field], 1, of_engine=_NO_SUCH)
        self._check_fields(name, filter_fields, FILTER_FIELDS_MAX, at_least=0, of_engine=_NO_SUCH)
        for one in self.search_indexes:
            if one.search_field == search_field:
                raise self._error(
                    f"index {name!r}: `{search_field}` is searched by {one.name!r} already, and a "
                    "field has one search index; give that one the filter fields of both"
                )
        spec = SearchIndexSpec(
            name=name,
            search_field=search_field,
            filter_fields=tuple(filter_fields),
            staged=staged,
        )
        self.search_indexes += (spec,)
        return self

    def vector_index(
        self,
        name: str,
        /,
        *,
        vector_field: str,
        dimensions: int,
        filter_fields: Sequence[str] = (),
        staged: bool = False,
    ) -> Table:
        """
        Add an index of vectors.

        Args:
            name: what a vector search calls it.
            vector_field: a field that is a list of numbers.
            dimensions: how many, 2 to 4096.
            filter_fields: fields that a search may require to be equal.
            staged: whether it is only built for now.

        Returns:
            This table.

        Raises:
            DeclarationError: the index cannot be.
        """
        self._check_name(name)
        self._check_fields(name, [vector_field], 1, of_engine=_NO_SUCH)
        self._check_fields(name, filter_fields, FILTER_FIELDS_MAX, at_least=0, of_engine=_NO_SUCH)
        if type(dimensions) is not int:
            raise self._error(
                f"index {name!r}: dimensions are a whole number, as in 384, not {dimensions!r}"
            )
        if not VECTOR_DIMENSIONS_MIN <= dimensions <= VECTOR_DIMENSIONS_MAX:
            raise self._error(
                f"index {name!r} of {dimensions} dimensions; there may be "
                f"{VECTOR_DIMENSIONS_MIN} to {VECTOR_DIMENSIONS_MAX}"
            )
        for one in self.vector_indexes:
            if one.vector_field == vector_field:
                raise self._error(
                    f"index {name!r}: `{vector_field}` is in {one.name!r} already, and a field has "
                    "one vector index, of one number of dimensions; give that one the filter "
                    "fields of both, or put other vectors into another field"
                )
        spec = VectorIndexSpec(
            name=name,
            vector_field=vector_field,
            dimensions=dimensions,
            filter_fields=tuple(filter_fields),
            staged=staged,
        )
        self.vector_indexes += (spec,)
        return self

    def reference(self, field: str, /, *, on_delete: OnDelete = "restrict") -> Table:
        """
        Have a field refer to documents that are there.

        A write whose id leads to no document is refused.  The field's type says which table
        it refers to, as in `Id[Channel]`, and some index of this table has to begin with it.

        Args:
            field: a path, as in `"channel"` or `"author.user"`.
            on_delete: what deleting the other document does: it is refused ("restrict"), deletes
                this one too ("cascade"), or makes the field null, or absent where it cannot be
                null ("set_null").

        Returns:
            This table.

        Raises:
            DeclarationError: the reference cannot be; what needs the whole schema is checked
                when that is declared.
        """
        spec = ReferenceSpec(field=field, on_delete=on_delete, where=place_of_caller())
        if on_delete not in ON_DELETE:
            spec.refuse(f"on_delete is one of {', '.join(map(repr, ON_DELETE))}, not {on_delete!r}")
        if any(one.field == field for one in self.references):
            spec.refuse("it is declared twice")
        for step in field.split("."):
            check_identifier(step, "a field that refers")
        self.references += (spec,)
        return self

    def check(self, name: str, holds: Predicate, /) -> Table:
        """
        Have a predicate hold of all documents.

        Args:
            name: what errors call it.
            holds: a plain function of a document, without `_id` and `_creationTime`. It depends
                on nothing else, since it is asked when a document is written, and of those that
                are there when code changes.

        Returns:
            This table.

        Raises:
            DeclarationError: the name is taken, or `holds` is no plain function.
        """
        where = place_of_caller()
        check_identifier(name, "a check")
        if any(one.name == name for one in self.checks):
            raise DeclarationError(f"{where}: two checks are called {name!r}")
        if not callable(holds) or inspect.iscoroutinefunction(holds):
            raise DeclarationError(
                f"{where}: check {name!r} is {holds!r}; write a plain function of a document, "
                "as in lambda doc: doc['amount'] > 0"
            )
        self.checks += (CheckSpec(name=name, holds=holds),)
        return self

    # What documents must be.

    @cached_property
    def validator(self) -> Validator:
        """
        Of the documents without `_id` and `_creationTime`.

        Raises:
            DeclarationError: a field cannot be; names file and line.
        """
        fields = self._fields
        try:
            if isinstance(fields, Mapping):
                fields = v.object(fields)
            validator = shape_of(fields, self._scope).validator
        except (Unsupported, InvalidValue, DeclarationError) as refused:
            raise self._error(str(refused)) from None
        return self._without_system_fields(validator)

    def _without_system_fields(self, validator: Validator) -> Validator:
        match validator:
            case AnyValue():
                return validator
            case Object(fields=fields):
                own = {n: one for n, one in fields.items() if n not in SYSTEM_FIELDS}
                if reserved := next((n for n in own if n.startswith("_")), None):
                    raise self._error(f"field {reserved!r}: a leading underscore is the engine's")
                return Object(own)
            case Union(members=members) if members:
                return Union(tuple(map(self._without_system_fields, members)))
        raise self._error(f"documents cannot be {validator}; write a class, an object or v.any()")

    def compile(self, tables: Tables) -> Callable[[Value], None]:
        """
        A check of documents, which may have `_id` and `_creationTime` already.

        The function raises `InvalidValue`, with path, value and validator, or the check.
        """
        return with_checks(_with_system_fields(self.validator).compile(tables), self.checks)

    @property
    def runs_code(self) -> bool:
        """Whether checking a document runs code of the application."""
        return bool(self.checks) or any(
            isinstance(part, Bounded) and part.runs_code for part in self.validator.walk()
        )

    def relations(self, name: str, tables: Collection[str]) -> list[Relation]:
        """
        Its references, as `name` among `tables`.

        Raises:
            DeclarationError: one that cannot be; names file and line.
        """
        indexes = {one.fields[0]: one.name for one in self.indexes[::-1] if not one.staged}
        return [one.resolve(name, self.validator, indexes, tables) for one in self.references]

    def rule(self) -> Json:
        """What its documents meet, as stored schemas have it."""
        rule = rule_of(self.validator)
        if not (self.references or self.checks):
            return rule
        return {
            "type": CONSTRAINED,
            "value": rule,
            "references": [one.field for one in self.references],
            "checks": [one.name for one in self.checks],
        }

    def to_json(self, name: str) -> Json:
        """The table as stored schemas have it; equal tables have equal JSON."""
        return {
            "tableName": name,
            "indexes": [one.to_json() for one in self.indexes],
            "searchIndexes": [one.to_json() for one in self.search_indexes],
            "vectorIndexes": [one.to_json() for one in self.vector_indexes],
            "documentType": self.validator.to_json(),
        }

    def verify(self) -> None:
        """
        Check what can only be checked when all tables have their names, but for its references.

        Raises:
            DeclarationError: an index of a field that no document can have, or an id of a
                class that is in no schema.
        """
        for part in self.validator.walk():
            if type(part) is IdOf:
                try:
                    part.table_name  # noqa: B018 - asks for the table
                except DeclarationError as error:
                    raise self._error(str(error)) from None
        for name, path in self._indexed_fields():
            self._check_possible(name, path)
        for searched in self.search_indexes:
            path = searched.search_field
            if not any(map(_is_text, validators_at(self.validator, path.split(".")))):
                raise self._error(
                    f"index {searched.name!r}: `{path}` is never a text; write str, or search "
                    "another field"
                )
        for one in self.vector_indexes:
            found = list(validators_at(self.validator, one.vector_field.split(".")))
            if not any(_is_vector(validator) for validator in found):
                raise self._error(
                    f"index {one.name!r}: `{one.vector_field}` is no list of numbers; "
                    "write list[float]"
                )

    def _indexed_fields(self) -> Iterator[tuple[str, str]]:
        for one in self.indexes:
            yield from ((one.name, path) for path in one.fields)
        for searched in self.search_indexes:
            yield searched.name, searched.search_field
            yield from ((searched.name, path) for path in searched.filter_fields)
        for vector in self.vector_indexes:
            yield vector.name, vector.vector_field
            yield from ((vector.name, path) for path in vector.filter_fields)

    def _check_possible(self, name: str, path: str) -> None:
        if not any(True for _ in validators_at(self.validator, path.split("."))):
            known = self.validator.fields if isinstance(self.validator, Object) else ()
            raise self._error(
                f"index {name!r}: no document has a field `{path}`.{did_you_mean(path, known)}"
            )

    # What indexes must be.

    def _check_name(self, name: str) -> None:
        check_identifier(name, "an index")
        taken = {one.name for one in self.indexes}
        taken |= {one.name for one in self.search_indexes}
        taken |= {one.name for one in self.vector_indexes}
        if name in _RESERVED_NAMES or name.startswith("_"):
            raise self._error(
                f"index {name!r}: that name is the engine's; every table has by_id "
                "and by_creation_time"
            )
        if name in taken:
            raise self._error(f"two indexes are called {name!r}")
        if len(taken) >= TABLE_INDEXES_MAX:
            raise self._error(f"index {name!r} is one too many: {TABLE_INDEXES_MAX} are allowed")

    def _check_fields(
        self,
        name: str,
        fields: Sequence[str],
        at_most: int,
        *,
        at_least: int = 1,
        of_engine: str = "each index ends with _creationTime by itself",
    ) -> None:
        if isinstance(fields, str):
            raise self._error(f"index {name!r}: fields are a list; write [{fields!r}]")
        if not at_least <= len(fields) <= at_most:
            raise self._error(
                f"index {name!r} has {len(fields)} fields, not {at_least} to {at_most}"
            )
        for path in fields:
            if path.startswith("_"):
                raise self._error(f"index {name!r}: `{path}` is the engine's; {of_engine}")
            for step in path.split("."):
                check_identifier(step, "an indexed field")
        if len(set(fields)) < len(fields):
            raise self._error(f"index {name!r} names a field twice")

    def _refuse_twin(self, name: str, twins: Sequence[str]) -> None:
        if twins:
            raise self._error(f"index {name!r} is over the same fields as {twins[0]!r}")

    def _error(self, why: str) -> DeclarationError:
        return DeclarationError(f"{self.where}: {why}")


class Schema:
    """
    All tables of an application or component.

    Raises:
        DeclarationError: a table, field or index that cannot be; names file and line.
    """

    def __init__(self, **tables: Table) -> None:
        self._build(tables)

    def _build(
        self, tables: Mapping[str, Table], *, validates: bool = True, is_strict: bool = False
    ) -> None:
        self.tables: Mapping[str, Table] = types.MappingProxyType(dict(tables))
        self.where = place_of_caller()
        """File and line of the declaration."""
        self.validates = validates
        """Whether writes are checked; without it, only indexes are taken from the schema."""
        self.is_strict = is_strict
        """Whether there are no other tables to write to."""
        if len(tables) > TABLES_MAX:
            raise DeclarationError(f"{len(tables)} tables; at most {TABLES_MAX} are allowed")
        self._names: dict[type, str] = {}
        for name, table in tables.items():
            self._add(name, table)
        for name, table in tables.items():
            try:
                table.verify()
                table.relations(name, tables)
            except DeclarationError as error:
                raise DeclarationError(f"table {name!r}: {error}") from None

    def _add(self, name: str, table: Table) -> None:
        if not isinstance(table, Table):
            raise DeclarationError(f"table {name!r} is {table!r}; write {name}=Table(...)")
        check_identifier(name, "a table")
        if name.startswith("_"):
            raise DeclarationError(f"table {name!r}: a leading underscore is the engine's")
        for document in table.documents:
            if (other := self._names.get(document)) is not None:
                raise DeclarationError(
                    f"{document.__qualname__} is the class of two tables, {other!r} and {name!r}; "
                    "derive a class from it for one of them"
                )
            self._names[document] = name
            bind_document(document, name)

    @staticmethod
    def of(
        tables: Mapping[str, Table],
        /,
        *,
        schema_validation: bool = True,
        strict_tables: bool = False,
    ) -> Schema:
        """
        A schema of tables by name.

        Args:
            schema_validation: without it only indexes are used, and nothing is checked.
            strict_tables: refuse to write to a table that is not among these, as a misspelled
                one is.
        """
        schema = Schema.__new__(Schema)
        schema._build(tables, validates=schema_validation, is_strict=strict_tables)
        return schema

    def table_name_of(self, document: type) -> str | None:
        """The table that was declared with this class."""
        return self._names.get(document)

    def to_json(self) -> Json:
        """The schema as it is stored; equal schemas have equal JSON."""
        return {
            "tables": [self.tables[name].to_json(name) for name in sorted(self.tables)],
            "schemaValidation": self.validates,
        }


def define_table(fields: Fields, /) -> Table:
    """`Table`, by the name that Convex has for it."""
    table = Table(fields)
    table._declared_in(sys._getframe(1))
    return table


def define_schema(
    tables: Mapping[str, Table],
    /,
    *,
    schema_validation: bool = True,
    strict_table_name_types: bool = True,  # noqa: ARG001 - it is about types in TypeScript
    strict_tables: bool = False,
) -> Schema:
    """
    `Schema`, by the name that Convex has for it, from a dict of tables.

    Tables that it does not mention may be written to, whatever `strict_table_name_types` says;
    `strict_tables` refuses that.
    """
    return Schema.of(tables, schema_validation=schema_validation, strict_tables=strict_tables)


def _classes_in(fields: Fields) -> Iterator[type]:
    """The classes that a table is declared with: one, several in a union, or none."""
    origin: Fields = typing.get_origin(fields)
    if is_typed_dict(fields):
        yield fields
    elif origin in (types.UnionType, typing.Union):
        for one in typing.get_args(fields):
            yield from _classes_in(one)
    elif is_document(fields):
        raise DeclarationError(
            f"Table({fields.__qualname__}): documents are dicts, so their class is a TypedDict; "
            f"write class {fields.__name__}(Document)"
        )


def _with_system_fields(validator: Validator) -> Validator:
    match validator:
        case Object():
            return replace(validator, system=SYSTEM_FIELDS)
        case Union(members=members):
            return Union(tuple(map(_with_system_fields, members)))
    return validator


def _is_text(validator: Validator) -> bool:
    match validator:
        case AnyValue() | String() | IdOf() | Literal(value=str()):
            return True
    return False


def _is_vector(validator: Validator) -> bool:
    match validator:
        case AnyValue() | Array(element=Number() | AnyValue()):
            return True
    return False
