"""
Constraints: what has to hold of documents beyond the types of their fields.

    reference    a field has the id of a document that is there, and it is said what becomes of
                 who refers to it when that one is deleted
    check        a predicate over a document, by name
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias, get_args

from engine.app.bounds import Bounded
from engine.app.validators import (
    AnyValue,
    IdOf,
    Null,
    Object,
    Optional,
    Record,
    Union,
    Validator,
    did_you_mean,
)
from engine.errors import DeclarationError, InvalidValue
from engine.model.codec import decode, encode
from engine.model.relations import OnDelete, Relation
from engine.model.text import brief

Predicate: TypeAlias = Callable[[Any], object]
"""Of a document, without the fields of the engine."""

ON_DELETE: Final[tuple[OnDelete, ...]] = get_args(OnDelete)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSpec:
    """A field that has the id of a document which is there."""

    where: str = field(compare=False)
    """File and line of the declaration."""
    field: str
    on_delete: OnDelete

    def refuse(self, why: str) -> NoReturn:
        raise DeclarationError(f"{self.where}: reference `{self.field}`: {why}")

    def resolve(
        self,
        name: str,
        documents: Validator,
        indexes: Mapping[str, str],
        tables: Collection[str],
    ) -> Relation:
        """
        The reference of table `name`, with what follows from its declaration.

        Args:
            indexes: the names of indexes that can be read, by the field that they begin with.
            tables: of the schema.

        Raises:
            DeclarationError: names file and line.
        """
        target, may_be_null = self._target(documents)
        if target not in tables:
            self.refuse(f"the schema has no table {target!r}; a reference stays within its schema")
        if self.field not in indexes:
            self.refuse(
                "it needs an index that begins with this field, or nobody would find what refers "
                f'to a document; write .index("by_{self._last}", ["{self.field}"])'
            )
        if self.on_delete == "set_null" and not may_be_null and not self._may_be_absent(documents):
            self.refuse(
                f"on_delete='set_null', but the field can be neither null nor absent; write "
                f'`| None`, as in v.nullable(v.id("{target}"))'
            )
        return Relation(
            table=name,
            field=self.field,
            target=target,
            on_delete=self.on_delete,
            index=indexes[self.field],
            may_be_null=may_be_null,
        )

    @property
    def _last(self) -> str:
        return self.field.rpartition(".")[2]

    def _target(self, documents: Validator) -> tuple[str, bool]:
        """The table that it refers to, and whether it may be null."""
        found = list(validators_at(documents, self.field.split(".")))
        if not found:
            known = documents.fields if isinstance(documents, Object) else ()
            self.refuse(f"no document has this field.{did_you_mean(self.field, known)}")
        if strange := next((one for one in found if not isinstance(one, IdOf | Null)), None):
            self.refuse(
                f"it may be {strange}; a field that refers has the id of one document or null, "
                "and who refers to several has a table with a document for each"
            )
        targets = {one.table_name for one in found if isinstance(one, IdOf)}
        if len(targets) != 1:
            listed = " and ".join(sorted(targets)) or "none"
            self.refuse(f"its ids are of one table, not of {listed}; write a field for each")
        return targets.pop(), any(isinstance(one, Null) for one in found)

    def _may_be_absent(self, documents: Validator) -> bool:
        around = validators_at(documents, self.field.split(".")[:-1])
        return any(
            isinstance(one, Object) and isinstance(one.fields.get(self._last), Optional)
            for one in around
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSpec:
    """A predicate that holds of all documents of a table."""

    name: str
    holds: Predicate

    def check(self, doc: dict[str, Any]) -> None:
        """
        Run the predicate, which is code of the application, on a copy of a document's own fields.

        Raises:
            InvalidValue: it does not hold, or raises; shows the fields.
        """
        own = {name: value for name, value in doc.items() if not name.startswith("_")}
        try:
            answer = self.holds(decode(encode(own)))
            is_held = bool(answer)
        except Exception as error:
            why = f"raised {brief(f'{type(error).__name__}: {error}')} for"
            raise InvalidValue(f"the check {self.name!r} {why} {brief(repr(own))}") from error
        if inspect.iscoroutine(answer):
            answer.close()
            raise InvalidValue(f"the check {self.name!r} awaits; it has to answer at once")
        if not is_held:
            raise InvalidValue(f"the check {self.name!r} does not hold for {brief(repr(own))}")


def with_checks(
    validate: Callable[[Any], None], checks: Sequence[CheckSpec]
) -> Callable[[Any], None]:
    """`validate`, and if it raises nothing, the checks in their order."""
    if not checks:
        return validate

    def check(doc: Any) -> None:
        validate(doc)
        for one in checks:
            one.check(doc)

    return check


def validators_at(validator: Validator, path: Sequence[str]) -> Iterable[Validator]:
    """What may stand at a path in what `validator` accepts."""
    match validator:
        case Optional(inner=inner) | Bounded(inner=inner):
            yield from validators_at(inner, path)
        case Union(members=members):
            for member in members:
                yield from validators_at(member, path)
        case AnyValue():
            yield validator
        case _ if not path:
            yield validator
        case Object(fields=fields) if path[0] in fields:
            yield from validators_at(fields[path[0]], path[1:])
        case Record(values=values):
            yield from validators_at(values, path[1:])
