"""
Which table a class of documents belongs to.

`Id[Message]` and `db.query(Message)` name a table by its class, and the schema
says which table that is.  The answer is kept here, apart from the schema, so
that an annotation can be read before there is one.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from engine.errors import DeclarationError, InvalidValue

_names: WeakKeyDictionary[type[Any], str] = WeakKeyDictionary()


def bind_document(document: type, table_name: str) -> None:
    """Say that documents of class `document` are in `table_name`; the last word counts."""
    _names[document] = table_name


def find_table_name(document: type) -> str | None:
    """The table of a class, or None if no schema mentions it."""
    return _names.get(document)


def table_name_of(document: type) -> str:
    """
    The table that a schema made of this class.

    Raises:
        DeclarationError: no schema mentions the class.
        InvalidValue: it is no class.
    """
    if not isinstance(document, type):
        raise InvalidValue(
            f"a table is given by its name or by the class of its documents, not by {document!r}"
        )
    name = _names.get(document)
    if name is None:
        raise DeclarationError(
            f"{document.__qualname__} is the class of no table; add a line to the schema: "
            f"Schema({document.__name__.lower()}s=Table({document.__name__}))"
        )
    return name
