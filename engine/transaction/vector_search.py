"""
Vector search: documents whose vectors lie in about the same direction, best first.

The score is the cosine, from -1 to 1; of equal scores the later id comes first.  Documents whose
field is no list of exactly as many numbers as the index has dimensions are none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import cache
from types import ModuleType
from typing import Any, Final, TypeAlias

from engine.errors import IndexNotFound, InvalidRange, InvalidValue, NotAllowed, UsageError
from engine.indexes.catalog import IndexInfo, IndexKind, TableInfo
from engine.indexes.entries import refuse_unreadable
from engine.indexes.vectors.asked import VectorSearch, leaves
from engine.transaction.transaction import Reading, Transaction
from engine.transaction.view import View

Hit: TypeAlias = dict[str, Any]
"""`_id` and `_score` of a document."""

_KIND: Final = IndexKind.VECTOR.value


def vector_index(table: TableInfo, wanted: VectorSearch) -> IndexInfo:
    """
    The index that a search names, if it fits.

    Raises:
        IndexNotFound: the table has no such vector index, or it is not to be read yet.
        InvalidValue: the vector is of another length.
        InvalidRange: a filter is on another field.
    """
    name = wanted.index_name
    index = table.indexes.get(name)
    if index is None or index.kind is not IndexKind.VECTOR:
        declared = table.names(IndexKind.VECTOR)
        raise IndexNotFound(
            f"the table {table.name!r} has no vector index {name!r}; it has {declared or 'none'}. "
            f"One is declared with .vector_index({name!r}, vector_field=..., dimensions=...) in "
            "the schema."
        )
    refuse_unreadable(table, index)
    dimensions = int(index.options["dimensions"])
    if len(wanted.vector) != dimensions:
        raise InvalidValue(
            f"the vector has {len(wanted.vector)} numbers, and the index {name!r} is of "
            f"{dimensions} dimensions"
        )
    fields = index.options["filter_fields"]
    for leaf in () if wanted.condition is None else leaves(wanted.condition):
        if leaf.field not in fields:
            raise InvalidRange(
                f"{leaf.field!r} is no filter field of {name!r}; it has {list(fields)}"
            )
    return index


def reading_of(table: str, wanted: VectorSearch) -> Reading:
    """Where it is noted what a search of `table` read."""
    return Reading(
        table=table, index=wanted.index_name, range=wanted.text, order="score", filters=0
    )


def search_vectors(
    transaction: Transaction,
    table: TableInfo | None,
    wanted: VectorSearch,
    reading: Reading | None = None,
) -> Generator[None, None, list[Hit]]:
    """
    The best documents as this transaction sees them, own writes included; exact.

    Yields now and then, so that others may have their turn.

    Args:
        reading: where it is noted what was read and found.

    Raises:
        NotAllowed: in the past.
        IndexNotFound, InvalidValue, InvalidRange: as `vector_index`.
        UsageError: what searches vectors is not installed.
    """
    if transaction.view.is_as_of:
        raise NotAllowed(
            f"the vector index {wanted.index_name!r} cannot be used as of a ts: vectors are "
            "searched in the newest state only"
        )
    if table is None:
        return []
    index = vector_index(table, wanted)
    transaction.usage.count_range()
    began = transaction.view.clock()
    found = yield from _numeric().best_of(transaction, table, index, wanted, reading)
    transaction.view.count_search(_KIND, began)
    if reading is not None:
        reading.returned = len(found)
    return _hits(found)


def search_newest(
    view: View, component: str, name: str, wanted: VectorSearch, begin: Callable[[], Transaction]
) -> Generator[None, None, list[Hit]]:
    """
    As `search_vectors`, for somebody who writes nothing and depends on nothing: nearly the best.

    Args:
        view: the newest state.
        begin: a transaction that reads it, where every document has to be looked at.

    Raises:
        IndexNotFound, InvalidValue, InvalidRange: as `vector_index`.
        UsageError: what searches vectors is not installed.
    """
    table = view.catalog.table(component, name)
    if table is None:
        return []
    index = vector_index(table, wanted)
    began = view.clock()
    found = yield from _numeric().nearly_best_of(view, index, wanted)
    if found is None:
        found = yield from _numeric().best_of(begin(), table, index, wanted)
    view.count_search(_KIND, began)
    return _hits(found)


def _hits(found: Sequence[tuple[float, str]]) -> list[Hit]:
    return [{"_id": one, "_score": score} for score, one in found]


@cache
def _numeric() -> ModuleType:
    """
    What needs numpy.

    Raises:
        UsageError: it is not installed.
    """
    try:
        from engine.transaction import nearest
    except ImportError:
        raise UsageError(
            "vectors are searched by numpy and usearch, which are missing: "
            "pip install 'headrace[vectors]'"
        ) from None
    return nearest
