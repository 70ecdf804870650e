"""Is what a vector index has what its documents have?  A part of `verify`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from engine.indexes.vectors.entry import Entry, entry_of
from engine.indexes.vectors.graph import Graph, codes_of
from engine.indexes.vectors.index import VectorIndex
from engine.indexes.vectors.parts import Part
from engine.indexes.vectors.rows import score, scores
from engine.model.ids import encode_id


def problems(
    index: VectorIndex, ts: int, documents: Iterable[tuple[bytes, dict[str, Any]]]
) -> Iterator[str | None]:
    """
    What is wrong as of `ts`, at most one problem a document; `None` where nothing is.

    Args:
        documents: all that the table has at `ts`, with their internal ids.
    """
    expected = 0
    for internal, doc in documents:
        entry = entry_of(index.info, doc)
        expected += entry is not None
        yield _problem(index, ts, internal, entry)
    found = sum(int(np.count_nonzero(part.counting(ts, None, ()))) for part in index.parts())
    if found != expected:
        yield f"the index {index.info.name!r} has {found} documents, and {expected} have vectors"
    for part in index.parts():
        if part.graph is not None:
            for problem in _problems_of_graph(part, part.graph):
                yield problem and f"a graph of the index {index.info.name!r} {problem}; rebuild it"


def _problem(index: VectorIndex, ts: int, internal: bytes, entry: Entry | None) -> str | None:
    name = f"the index {index.info.name!r}"
    found = [
        (part, int(at))
        for part in index.parts()
        for at in part.places_of(internal)
        if part.begins[at] <= ts < part.ends[at]
    ]
    if len(found) != (entry is not None):
        return f"{name} has the document {internal.hex()} {len(found)} times"
    doc_id = encode_id(index.info.table_number, internal)
    if entry is None or all(_is_at(part, at, doc_id, entry) for part, at in found):
        return None
    return f"{name} has another vector, filter value or id of {internal.hex()}"


def _is_at(part: Part, at: int, doc_id: str, entry: Entry) -> bool:
    codes = [known.get(key) for known, key in zip(part.values, entry.filters, strict=True)]
    is_same = bool((part.rows[at] == entry.row).all()) and part.codes[at].tolist() == codes
    return is_same and part.ids[at].decode() == doc_id


def _problems_of_graph(part: Part, graph: Graph) -> Iterator[str | None]:
    """Whether it has each row of its part once, as it is, and can be walked to them."""
    found = graph.places()
    places, times = np.unique(found[(found >= 0) & (found < len(part))], return_counts=True)
    if lost := len(part) - len(places):
        yield f"lacks {lost} of {len(part)} rows"
    if more := len(found) - len(places):
        yield f"has {more} rows twice, or of nothing"
    places = places[times == 1]
    for start in range(0, len(places), _ROWS_AT_ONCE):
        some = places[start : start + _ROWS_AT_ONCE]
        other = np.count_nonzero(~graph.has(some, part.rows[some]))
        yield f"has {other} rows otherwise than they are" if other else None
    asked = range(0, len(part), -(-len(part) // _ASKED_MAX))
    missed = 0
    for at in asked:
        missed += not _is_found(part, graph, at)
        yield None
    if missed > _MISSED_MAX * len(asked):
        yield f"does not lead to {missed} of {len(asked)} rows that were looked for"


def _is_found(part: Part, graph: Graph, at: int) -> bool:
    """Whether a row is found where it is looked for itself, or another that is as near."""
    row = part.rows[at]
    places = graph.nearest(codes_of(row), _NEAREST)
    found = scores(part.rows[places[places < len(part)]], row)
    return bool(found.max(initial=-1.0) >= score(row, row))


_ROWS_AT_ONCE: Final = 64
_ASKED_MAX: Final = 1_000
"""Of a part: all would take a minute where there are many, and a graph may miss some anyway."""
_MISSED_MAX: Final = 0.05
_NEAREST: Final = 16
