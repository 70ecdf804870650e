"""The classes of an application's documents, and how a file beside its modules imports them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from engine.app.registry import Application
from engine.app.schema import Table
from engine.app.validators import Object, Union
from engine.codegen.documents import document_of, key_of
from engine.codegen.names import Names, is_name


class Classes:
    """
    Those that can be imported; each that is asked for will be.

    Args:
        names: of the file.
    """

    def __init__(self, application: Application, names: Names) -> None:
        self._modules = application.modules
        self._package = min(self._modules, key=len, default="")
        self._names = names
        self._imported: dict[type, tuple[str, str]] = {}
        """Module and name in the file."""
        tables = application.schema.tables if application.schema else {}
        self._tables: dict[str, tuple[type, ...]] = {
            name: table.documents for name, table in tables.items()
        }
        self._documents: dict[str, type] = {}
        for name in sorted(tables):
            for key, cls in _documents(name, tables[name]):
                self._documents.setdefault(key, cls)

    def of_document(self, validator: Object) -> str | None:
        """The class whose documents these are, if there is one."""
        cls = self._documents.get(key_of(validator))
        return None if cls is None else self._name(cls)

    def of_id(self, table_name: str) -> str | None:
        """The class of a table, if it is the only one."""
        classes = self._tables.get(table_name, ())
        return self._name(classes[0]) if len(classes) == 1 else None

    def has_several(self, table_name: str) -> bool:
        return len(self._tables.get(table_name, ())) > 1

    def imports(self) -> list[str]:
        """The lines that import what was asked for."""
        return sorted(
            f"from {module} import {cls.__name__} as {name}"
            for cls, (module, name) in self._imported.items()
        )

    def _name(self, cls: type) -> str | None:
        if cls not in self._imported:
            module = self._module(cls)
            if module is None:
                return None
            name = self._names.take(f"_{cls.__name__.lstrip('_')}")
            self._imported[cls] = module, name
        return self._imported[cls][1]

    def _module(self, cls: type) -> str | None:
        """Where `cls` is imported from, or None where no import statement can."""
        module = self._modules.get(cls.__module__) or sys.modules.get(cls.__module__)
        there: object = getattr(module, cls.__name__, None)
        steps = [*cls.__module__.split("."), cls.__name__]
        if there is not cls or not all(map(is_name, steps)):
            return None
        if cls.__module__ not in self._modules:
            return cls.__module__
        return f"..{cls.__module__.removeprefix(self._package).removeprefix('.')}"


def _documents(name: str, table: Table) -> Iterator[tuple[str, type]]:
    """What clients see of the documents of each class."""
    document = document_of(name, table.validator)
    members = document.members if isinstance(document, Union) else (document,)
    if len(members) == len(table.documents):
        for member, cls in zip(members, table.documents, strict=True):
            yield key_of(member), cls
