"""Is what a text index has what its documents have?  A part of `verify`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from engine.indexes.text.index import TextIndex
from engine.indexes.text.parts import Part
from engine.indexes.text.words import TextEntry, entry_of
from engine.model.ids import INTERNAL_BYTES


def problems(
    index: TextIndex, ts: int, documents: Iterable[tuple[bytes, dict[str, Any]]]
) -> Iterator[str | None]:
    """
    What is wrong as of `ts`, at most one problem a document; `None` where nothing is.

    Args:
        documents: all that the table has at `ts`, with their internal ids.
    """
    expected = 0
    for internal, doc in documents:
        entry = entry_of(index.info, doc)
        expected += bool(entry.words)
        yield _problem(index, ts, internal, entry, float(doc["_creationTime"]))
    found = sum(_present_count(part, ts) for part in index.parts)
    if found != expected:
        yield f"the index {index.info.name!r} has {found} documents, and {expected} have words"


def _problem(
    index: TextIndex, ts: int, internal: bytes, entry: TextEntry, created: float
) -> str | None:
    key = np.array([internal], f"S{INTERNAL_BYTES}")
    found = [(part, slot) for part in index.parts for slot in part.slots_of(key, ts)]
    name = f"the index {index.info.name!r}"
    if len(found) != bool(entry.words):
        return f"{name} has the document {internal.hex()} {len(found)} times"
    for part, slot in found:
        has = (int(part.lengths[slot]), float(part.created[slot]))
        filters = tuple(part.filters[:, slot].tolist())
        if (*has, filters) != (entry.length, created, entry.filters):
            return f"{name} has another length, time or filter value of {internal.hex()}"
        wrong = [word for word, n in entry.words.items() if _count(part, word, slot) != n]
        if wrong:
            return f"{name} has the word {wrong[0]!r} of {internal.hex()} otherwise than it is"
    return None


def _count(part: Part, word: str, slot: int) -> int:
    slots, counts = part.postings(word)
    at = int(np.searchsorted(slots, slot))
    return int(counts[at]) if at < len(slots) and slots[at] == slot else 0


def _present_count(part: Part, ts: int) -> int:
    present = part.present(ts)
    return part.size if present is None else int(np.count_nonzero(present))
