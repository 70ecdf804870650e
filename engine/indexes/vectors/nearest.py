"""
The best rows of several parts as of a timestamp.

An exact search looks at every row that counts, in two steps: the cosines in about, by one product
of a matrix, and then exactly those that may be among the best.
A search in about asks the graph of a part that has one instead, where that is cheaper.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import ceil
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.indexes.vectors.asked import Condition
from engine.indexes.vectors.graph import CANDIDATE_ROWS, WIDTH, Codes, Graph, codes_of
from engine.indexes.vectors.parts import Mask, Part
from engine.indexes.vectors.rows import Places, Row, about, scores, slack

BLOCK_NUMBERS: Final = 1 << 20
"""Numbers that are looked at between two chances to let others run: about a millisecond."""
_MOST: Final = 0.95
"""Where so many of the rows count, enough are among the candidates that a search holds anyway, and
only the first of these are asked for: it is telling them that takes time."""
_MORE: Final = 6
"""Candidates besides as many as are wanted: the order of a graph is of rounded rows."""

Found: TypeAlias = tuple[float, str]
"""A score and the id of the document; the greater pair comes first."""


class Sought(NamedTuple):
    """
    What is looked for.

    Args:
        fields: the filter fields of the index.
        hidden: ids of documents that do not count.
    """

    row: Row
    limit: int
    ts: int
    condition: Condition | None
    fields: Sequence[str]
    hidden: Collection[str] = ()


class Best:
    """The best that were found until now of what is sought."""

    __slots__ = ("_looked_at", "found", "sought")

    def __init__(self, sought: Sought) -> None:
        self.sought = sought
        self.found: list[Found] = []
        self._looked_at = 0
        """Numbers, since others had their turn."""

    @property
    def is_full(self) -> bool:
        return len(self.found) == self.sought.limit

    @property
    def reach(self) -> float:
        """The score that others need to be among them."""
        return self.found[-1][0] if self.is_full else -1.0

    def is_turn_over(self, rows: int) -> bool:
        """Whether others have their turn before so many rows more are looked at."""
        numbers = rows * len(self.sought.row)
        is_over = self._looked_at + numbers > BLOCK_NUMBERS
        self._looked_at = numbers if is_over else self._looked_at + numbers
        return is_over

    def offer(self, part: Part, places: Places) -> None:
        """Score rows exactly, and keep the best."""
        sought, hidden = self.sought, self.sought.hidden
        exact = scores(part.rows.take(places, axis=0), sought.row)
        wanted = sought.limit + len(hidden)
        if len(exact) > wanted + _MORE:
            enough = exact >= max(self.reach, float(np.partition(exact, -wanted)[-wanted]))
            exact, places = exact[enough], places[enough]
        pairs = zip(exact.tolist(), part.ids_at(places), strict=True)
        self.add([pair for pair in pairs if pair[1] not in hidden] if hidden else list(pairs))

    def add(self, offered: list[Found]) -> None:
        found = self.found + offered if self.found else offered
        found.sort(reverse=True)
        self.found = found[: self.sought.limit]


def exactly(parts: Sequence[Part], best: Best) -> Iterator[None]:
    """Offer all rows that count to `best`; yields where others may have their turn."""
    for part in parts:
        yield from _scan(part, None, best)


def nearly(parts: Sequence[Part], best: Best) -> Iterator[None]:
    """As `exactly`, of the rows that the graphs of parts find, where they are cheaper."""
    codes = codes_of(best.sought.row)
    for part in parts:
        # Without a condition a graph is told by its count how many rows there are, about: to look
        # at each takes longer than all else around it, and drives the graph from the caches.
        counting = None if best.sought.condition is None else _counting(part, best.sought)
        if part.graph is None or not _by_graph(part, part.graph, codes, counting, best):
            yield from _scan(part, counting, best)


def _counting(part: Part, sought: Sought) -> Mask:
    return part.counting(sought.ts, sought.condition, sought.fields)


def _by_graph(part: Part, graph: Graph, codes: Codes, counting: Mask | None, best: Best) -> bool:
    """
    Offer what the graph finds; whether it was cheaper, and it has found enough.

    Args:
        counting: which rows count; `None` for those that are there.
    """
    sought = best.sought
    total = len(part.keys)
    rows = total - part.gone if counting is None else int(np.count_nonzero(counting))
    if rows == 0:
        return False
    wanted = sought.limit + len(sought.hidden)
    candidates = max(WIDTH, 2 * wanted)
    if rows <= CANDIDATE_ROWS * candidates * total / rows:
        return False
    is_held = candidates == WIDTH and rows > _MOST * total
    asked = ceil((wanted + _MORE if is_held else candidates) * total / rows)
    places = graph.nearest(codes, asked)
    if counting is not None:
        places = places[counting[places]]
    elif not part.is_whole(sought.ts):
        places = places[part.there(sought.ts, places)]
    if len(places) < wanted:
        return False  # what meets the condition lies elsewhere
    best.offer(part, places[: wanted + _MORE])
    return True


def _scan(part: Part, counting: Mask | None, best: Best) -> Iterator[None]:
    sought = best.sought
    if counting is None and sought.condition is None and best.is_full:
        yield from _scan_for_better(part, best)
        return
    if counting is None:
        counting = _counting(part, sought)
    places = np.flatnonzero(counting)
    is_most = 2 * len(places) > len(part)
    step = _rows_at_once(sought)
    if is_most:
        for start in range(0, len(part), step):
            if best.is_turn_over(min(step, len(part) - start)):
                yield
            near = about(part.rows[start : start + step], sought.row)
            near[~counting[start : start + step]] = -np.inf
            best.offer(part, start + _candidates(near, best))
    else:
        for start in range(0, len(places), step):
            some = places[start : start + step]
            if best.is_turn_over(len(some)):
                yield
            best.offer(part, some[_candidates(about(part.rows[some], sought.row), best)])


def _scan_for_better(part: Part, best: Best) -> Iterator[None]:
    """As `_scan`, of all rows: few are as good as what was found, and only these may be gone."""
    sought = best.sought
    step = _rows_at_once(sought)
    off = slack(len(sought.row))
    for start in range(0, len(part), step):
        if best.is_turn_over(min(step, len(part) - start)):
            yield
        near = about(part.rows[start : start + step], sought.row)
        better = np.flatnonzero(near >= best.reach - off)
        if len(better):
            better = better[part.there(sought.ts, start + better)]
            best.offer(part, start + better[_candidates(near[better], best)])


def _rows_at_once(sought: Sought) -> int:
    return max(1, BLOCK_NUMBERS // len(sought.row))


def _candidates(near: NDArray[np.float32], best: Best) -> Places:
    """Which of these rows may be among the best, by their cosines in about."""
    sought = best.sought
    off = slack(len(sought.row))
    wanted = sought.limit + len(sought.hidden)
    reach = best.reach - off
    if wanted < len(near):
        kth = float(np.partition(near, -wanted)[-wanted])
        reach = max(reach, kth - 2 * off)
    return np.flatnonzero(near >= reach)
