"""What a vector index has of a document, and what a search of it has read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.indexes.catalog import IndexInfo
from engine.indexes.vectors.asked import Condition, Equal, evaluate, value_keys
from engine.indexes.vectors.rows import Row, row_of, score
from engine.model.values import get_path


class Entry:
    """
    A document's row and filter values.

    Args:
        filters: the keys of the values of its filter fields, in the order of the declaration.
    """

    __slots__ = ("filters", "row")

    hooks: Final = ()
    """Whoever searches vectors is asked about each."""

    def __init__(self, row: Row, filters: tuple[bytes, ...]) -> None:
        self.row = row
        self.filters = filters

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Entry)
            and self.filters == other.filters
            and bool((self.row == other.row).all())
        )

    def __hash__(self) -> int:
        return hash((self.row.tobytes(), self.filters))

    def meets(self, condition: Condition | None, fields: Sequence[str]) -> bool:
        """Whether a condition holds of its values."""

        def equal(one: Equal) -> bool:
            return self.filters[fields.index(one.field)] == one.key

        return condition is None or evaluate(condition, equal)


def entry_of(index: IndexInfo, doc: dict[str, Any] | None) -> Entry | None:
    """What `index` has of a document; `None` of one that has no vector of its length."""
    if doc is None:
        return None
    options = index.options
    row = row_of(get_path(doc, options["vector_field"]), int(options["dimensions"]))
    return None if row is None else Entry(row, value_keys(doc, options["filter_fields"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """
    Documents that reach a score under a condition: what a search has read.

    A commit changes what it found if a document reaches it, or did before: the one that was the
    last of them gives the score.
    """

    row: bytes
    """Of what was looked for."""
    reach: float
    condition: Condition | None
    fields: tuple[str, ...]
    """The filter fields of the index."""

    @property
    def hooks(self) -> None:
        return None

    def holds(self, content: object, /) -> bool:
        """Whether a document of which the index has this is, or would be, among those found."""
        return (
            isinstance(content, Entry)
            and content.meets(self.condition, self.fields)
            and score(content.row, np.frombuffer(self.row, np.float32)) >= self.reach
        )
