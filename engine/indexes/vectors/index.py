"""
One vector index: all its parts, kept up with what is staged.

    stage ──▶ tail ──fold──▶ part, part, part ──▶ one part
               └── a failed batch: what it wrote goes, and what it ended stays

Everything that changes it happens on the engine's own thread.  Searches and folds read what they
have captured, also in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.indexes.catalog import IndexInfo
from engine.indexes.vectors.asked import value_keys
from engine.indexes.vectors.graph import ROWS_MIN, Graph
from engine.indexes.vectors.parts import FOREVER, Entry, Part, Tail, Times, joined, key_at
from engine.indexes.vectors.rows import row_of
from engine.model.values import get_path

PARTS_MAX: Final = 4
"""Parts of about one size: where there are more they become one."""


def entry_of(index: IndexInfo, doc: dict[str, Any] | None) -> Entry | None:
    """What `index` has of a document; `None` of one that has no vector of its length."""
    if doc is None:
        return None
    options = index.options
    row = row_of(get_path(doc, options["vector_field"]), int(options["dimensions"]))
    return None if row is None else Entry(row, value_keys(doc, options["filter_fields"]))


@dataclass(frozen=True, slots=True)
class Fold:
    """
    Parts that are to become one.

    Args:
        ts: no view is older, so rows that ended before it are left out.
        ends: those of the parts' rows, when they were captured.
        rows: of the tail, if that is the last of the parts.
    """

    parts: Sequence[Part]
    ts: int
    ends: Sequence[Times]
    rows: int

    def run(self, is_wanted: Callable[[], bool] = lambda: True) -> Part | None:
        """
        The one part; to be called in a thread, others run meanwhile.

        Returns:
            `None` if it was not wanted any more.
        """
        part = joined(self.parts, self.ts)
        if len(part) >= ROWS_MIN:
            part.graph = Graph.of(part.rows, is_wanted)
            if part.graph is None:
                return None
        return part


class VectorIndex:
    """
    Args:
        info: the index as it is declared.
    """

    def __init__(self, info: IndexInfo) -> None:
        self.info = info
        self.dimensions = int(info.options["dimensions"])
        self.fields: tuple[str, ...] = tuple(info.options["filter_fields"])
        self.folded: list[Part] = []
        """Oldest first; each has a row of a document once."""
        self.tail = Tail(self.dimensions, len(self.fields))

    def parts(self) -> list[Part]:
        """All of them as they are now, for one search."""
        return [*self.folded, self.tail.part()] if self.tail.count else list(self.folded)

    def change(self, key: bytes, entry: Entry | None, ts: int) -> None:
        """From `ts` on a document has this entry, or none."""
        if not self.tail.end(key, ts):
            for part in reversed(self.folded):
                if part.end(key, ts):
                    break
        if entry is not None:
            self.tail.add(key, entry, ts)

    def take_back(self, ts: int) -> None:
        """Forget whatever was changed after `ts`: a batch has failed."""
        self.tail.take_back(ts)
        for part in self.folded:
            part.take_back(ts)

    def fold(self, ts: int) -> Fold | None:
        """
        What is to be folded next, if there is something.

        Args:
            ts: no view is older.
        """
        rows = self.tail.written_upto(ts)
        if not rows:
            return None
        parts = [*self.folded[self._first_to_fold(rows) :], self.tail.part(0, rows)]
        return Fold(parts, ts, [part.ends.copy() for part in parts], rows)

    def _first_to_fold(self, rows: int) -> int:
        """Parts that are not much larger than what is newer go with it, so that there are few."""
        first = len(self.folded)
        while first and len(self.folded[first - 1]) < PARTS_MAX * rows:
            first -= 1
            rows += len(self.folded[first])
        return first

    def adopt(self, fold: Fold, folded: Part) -> None:
        """Put what a fold has made in the place of what it was made of."""
        first = len(self.folded) - (len(fold.parts) - 1)
        now = [*self.folded[first:], self.tail.part(0, fold.rows)]
        for part, ends in zip(now, fold.ends, strict=True):
            for at in np.flatnonzero((part.ends != ends) & (ends > fold.ts)).tolist():
                place = folded.place_of(key_at(part.keys, at))
                assert place is not None, "a row that was there is in the fold"
                folded.ends[place] = part.ends[at]
        self.folded[first:] = [folded] if len(folded) else []
        self.tail = self.tail.without(fold.rows)

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return self.tail.size_bytes + sum(part.size_bytes for part in self.folded)

    def live(self) -> int:
        """How many documents it has."""
        return sum(int((part.ends == FOREVER).sum()) for part in self.parts())
