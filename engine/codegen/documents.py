"""Documents as validators have them: with the fields of the engine, and the paths into them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from engine.app.bounds import Bounded
from engine.app.schema import Table
from engine.app.validators import AnyValue, Object, Optional, Record, Union, Validator, v
from engine.model.limits import DOCUMENT_NESTING_MAX


def document_of(table_name: str, fields: Validator) -> Validator:
    """What is read from a table whose `validator` is `fields`."""
    match fields:
        case Object():
            system = {"_id": v.id(table_name), "_creationTime": v.number()}
            return Object({**system, **fields.fields})
        case Union(members=members):
            return Union(tuple(document_of(table_name, member) for member in members))
    return fields


def key_of(validator: Validator) -> str:
    """What is the same of validators that are the same to clients."""
    return json.dumps(validator.to_json(), sort_keys=True)


def indexes_of(table: Table) -> dict[str, tuple[str, ...]]:
    """The indexes that a query may name, each with its fields; staged ones it may not."""
    own = {one.name: (*one.fields, "_creationTime") for one in table.indexes if not one.staged}
    return {"by_id": ("_id",), "by_creation_time": ("_creationTime",), **own}


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """
    The paths that indexes and filters may name, as in `author.name`.

    Below those that are `open` there may be any name: in records, and in what may be anything;
    an empty one is the document itself.
    """

    known: tuple[str, ...]
    open: tuple[str, ...]


def field_paths(validator: Validator) -> Paths:
    """The paths into what `validator` accepts, in the order of its fields."""
    found = list(dict.fromkeys(_paths(validator, (), DOCUMENT_NESTING_MAX)))
    return Paths(
        known=tuple(path for path, is_open in found if not is_open),
        open=tuple(path for path, is_open in found if is_open),
    )


def _paths(validator: Validator, above: tuple[str, ...], room: int) -> Iterator[tuple[str, bool]]:
    match validator:
        case Optional(inner=inner) | Bounded(inner=inner):
            yield from _paths(inner, above, room)
        case Union(members=members):
            for member in members:
                yield from _paths(member, above, room)
        case AnyValue() | Record():
            yield ".".join(above), True
        case Object(fields=fields) if room:
            for name, one in fields.items():
                yield ".".join((*above, name)), False
                yield from _paths(one, (*above, name), room - 1)
