"""
Relations: which field of which table's documents holds the id of a document that has to be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from engine.model.values import get_path

OnDelete: TypeAlias = Literal["restrict", "cascade", "set_null"]
"""What becomes of a document that refers to one which is deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A reference of a schema, resolved; both tables are of one component."""

    table: str
    """Whose documents refer."""
    field: str
    """As in `author.user`."""
    target: str
    """The table whose documents are referred to."""
    on_delete: OnDelete
    index: str
    """One of `table` that begins with the field."""
    may_be_null: bool = True
    """Otherwise the field goes where it would become null."""

    def id_in(self, doc: dict[str, Any]) -> str | None:
        """The id that a document holds, which is one of `target`, if it holds any."""
        value = get_path(doc, self.field)
        return value if isinstance(value, str) else None

    def dangles(self, doc: dict[str, Any], target: str) -> str:
        """What is wrong with a document that refers to one which is not there."""
        return (
            f"{named(self.table, doc)} refers with `{self.field}` to {target} of {self.target!r}, "
            "which is not there"
        )

    def cleared(self, doc: dict[str, Any]) -> dict[str, Any]:
        """A document like `doc` that refers to nothing with this field."""
        return self._cleared(doc, self.field.split("."))

    def _cleared(self, value: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
        name, *below = path
        if below:
            return {**value, name: self._cleared(value[name], below)}
        if self.may_be_null:
            return {**value, name: None}
        return {one: kept for one, kept in value.items() if one != name}


def named(table: str, doc: dict[str, Any]) -> str:
    """A document as messages name it; one that is to be inserted has no id yet."""
    doc_id = doc.get("_id")
    return f"a document of {table!r}" if doc_id is None else f"the document {doc_id} of {table!r}"
