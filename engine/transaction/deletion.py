"""
Deleting a document to which others may refer.

    doomed    it, what refers to it with `cascade`, and so on
    refuse    if another document refers to one of these with `restrict`
    clear     fields of others that refer to these with `set_null`
    remove    those that refer before those that they refer to

What becomes of a document does not depend on the order in which documents are found, because one
that goes itself is in nobody's way.  All of it is a sub-transaction: it happens, or nothing does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from engine.errors import IndexNotFound, SchemaViolation
from engine.indexes.catalog import IndexInfo
from engine.model.ids import id_of, row_key_of
from engine.model.keys import encode_key, past
from engine.model.relations import OnDelete, Relation, named
from engine.transaction.transaction import Doc, Transaction

SLICE_ROWS: Final = 100
"""Read before others may have their turn."""


def delete(transaction: Transaction, key: bytes) -> Iterator[None]:
    """
    Delete a document, and see to those that refer to it.

    Yields now and then, where others may have their turn.

    Raises:
        DocumentNotFound: there is no such document (any more).
        SchemaViolation: one that refers to it is in the way; names it.
        LimitExceeded: these are too many. In any case nothing was written.
    """
    deletion = Deletion(transaction, key)
    if not deletion.is_referred_to(key):
        transaction.delete(key)
        return
    transaction.begin_child()
    try:
        yield from deletion.run()
    except BaseException:
        transaction.drop_child()
        raise
    transaction.merge_child()


class Deletion:
    """
    Args:
        key: of the document that is to be deleted.
    """

    def __init__(self, transaction: Transaction, key: bytes) -> None:
        self._transaction = transaction
        self._key = key
        self._doomed: dict[bytes, None] = {key: None}
        """In the order in which they were found: what refers comes after what it refers to."""

    def is_referred_to(self, key: bytes) -> bool:
        """Whether documents may refer to this one."""
        return bool(self._relations(key))

    def run(self) -> Iterator[None]:
        """As `delete`, in the sub-transaction of the caller."""
        yield from self._doom()
        yield from self._refuse()
        yield from self._clear()
        for key in reversed(self._doomed):
            self._transaction.delete(key)
            yield

    def _doom(self) -> Iterator[None]:
        unseen = deque(self._doomed)
        while unseen:
            for _, docs in self._referring(unseen.popleft(), "cascade"):
                found = [key for doc in docs if (key := _key_of(doc)) not in self._doomed]
                self._doomed.update(dict.fromkeys(found))
                unseen += found
                yield

    def _refuse(self) -> Iterator[None]:
        for key in self._doomed:
            for relation, docs in self._referring(key, "restrict"):
                for doc in docs:
                    if _key_of(doc) not in self._doomed:
                        raise SchemaViolation(self._in_the_way(relation, doc, key))
                yield

    def _clear(self) -> Iterator[None]:
        fields: dict[bytes, list[Relation]] = {}
        for key in self._doomed:
            for relation, docs in self._referring(key, "set_null"):
                for doc in docs:
                    if (referring := _key_of(doc)) not in self._doomed:
                        fields.setdefault(referring, []).append(relation)
                yield
        for key, relations in fields.items():
            self._clear_fields(key, relations)
            yield

    def _clear_fields(self, key: bytes, relations: list[Relation]) -> None:
        def cleared(doc: Doc) -> Doc:
            for relation in relations:
                doc = relation.cleared(doc)
            return doc

        try:
            self._transaction.rewrite(key, cleared)
        except SchemaViolation as error:
            named_fields = ", ".join(f"`{one.field}`" for one in relations)
            raise SchemaViolation(
                f"{self._what()} would take {named_fields} from {id_of(key)} of "
                f"{relations[0].table!r}, and then {error}"
            ) from error.__cause__

    # Who refers.

    def _referring(self, key: bytes, on_delete: OnDelete) -> Iterator[tuple[Relation, list[Doc]]]:
        """The documents that refer to one, in slices; at least an empty one for each reference."""
        for relation in self._relations(key):
            if relation.on_delete == on_delete and (index := self._index(relation)):
                for docs in self._slices(index, key):
                    yield relation, docs

    def _slices(self, index: IndexInfo, key: bytes) -> Iterator[list[Doc]]:
        lower = encode_key([id_of(key)])
        upper = past(lower)
        # Not counted as a range: there are as many as documents that go, and those are bounded.
        # The first row alone is often enough to know that it is in the way.
        rows_max, is_exhausted = 1, False
        while not is_exhausted:
            read = self._transaction.read_slice(
                index, lower, upper, reverse=False, rows_max=rows_max
            )
            yield read.docs
            rows_max, is_exhausted = SLICE_ROWS, read.is_exhausted
            lower = lower if read.end is None else read.end + b"\0"

    def _relations(self, key: bytes) -> list[Relation]:
        schema, table = self._transaction.schema, self._transaction.table_with(key)
        assert schema is not None, "who deletes documents has a schema of them"
        return list(schema.referring.get((table.component, table.name), ()))

    def _index(self, relation: Relation) -> IndexInfo | None:
        """The index of a reference; `None` if there are no documents yet that could refer."""
        component = self._transaction.table_with(self._key).component
        table = self._transaction.table(component, relation.table)
        if table is None:
            return None
        if (index := table.indexes.get(relation.index)) is None:
            raise IndexNotFound(
                f"{relation.table!r} has no index {relation.index!r} any more, by which is found "
                f"who refers with `{relation.field}`; run it again"
            )
        return index

    # What is said.

    def _what(self) -> str:
        table = self._transaction.table_with(self._key)
        return f"deleting {id_of(self._key)} of {table.name!r}"

    def _in_the_way(self, relation: Relation, doc: Doc, key: bytes) -> str:
        through = "" if key == self._key else f" (it goes with {id_of(self._key)})"
        return (
            f"cannot delete {id_of(key)} of {relation.target!r}{through}: "
            f"{named(relation.table, doc)} refers to it with `{relation.field}`, "
            "on_delete='restrict'"
        )


def _key_of(doc: Doc) -> bytes:
    return row_key_of(doc["_id"])
