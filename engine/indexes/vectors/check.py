"""Is what a vector index has what its documents have?  A part of `verify`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from engine.indexes.vectors.entry import Entry, entry_of
from engine.indexes.vectors.index import VectorIndex
from engine.indexes.vectors.parts import Part


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
    if entry is None or all(_is_at(part, at, entry) for part, at in found):
        return None
    return f"{name} has another vector or filter value of {internal.hex()}"


def _is_at(part: Part, at: int, entry: Entry) -> bool:
    codes = [known.get(key) for known, key in zip(part.values, entry.filters, strict=True)]
    return bool((part.rows[at] == entry.row).all()) and part.codes[at].tolist() == codes
