"""
Postings in one part, of a word or of all words that begin alike, and what they add to scores.

Most of what has a frequent word is among the best of no search.  So of a part that does not change
a run has a head: the slots to which it adds most, and how much it adds to any other.  What it adds
moves with every document that is written, as words become more or less rare, and texts longer or
shorter on average; but it moves by no more than these do, so a head says at any time what is added
at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from engine.indexes.text.parts import Floats, Part, Places, Postings, Slots, Words
from engine.indexes.text.scoring import K1, B

HEAD_SLOTS: Final = 1_024
"""To make one of 100,000 postings takes some milliseconds, to go through it 0.1 ms."""
GROWTH_MAX: Final = 1.05
"""A head whose slots may be given so much more than they were is made anew."""
INEXACT: Final = 1.000001
"""A little more than anything can be, as sums of floats are not exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The slots to which a run adds most, by what was known when it was made."""

    slots: Slots
    """Rising."""
    added: Floats
    """What each was given."""
    top: float
    """The most of that."""
    rest: float
    """No other was given more."""
    factors: Floats
    """What each word counted, times its idf."""
    average: float
    """Of all lengths."""
    at: Places
    """Where in the run their postings are."""


class Bound(NamedTuple):
    """What a run adds to scores at most, as of a search."""

    head: Head
    growth: float
    """How many times as much as the head says."""

    @property
    def top(self) -> float:
        """To any slot."""
        return self.head.top * self.growth

    @property
    def rest(self) -> float:
        """To whatever is not in the head."""
        return self.head.rest * self.growth

    def add_to(self, most: Floats, slots: Slots) -> None:
        """Add to what some slots may score."""
        at = places_in(self.head.slots, slots)
        most += np.where(at < 0, self.head.rest, self.head.added[at]) * self.growth


class Word:
    """Postings of one word in a part."""

    __slots__ = ("counts", "factor", "name", "slots")

    def __init__(self, name: str, postings: Postings) -> None:
        self.name = name
        self.slots, self.counts = postings
        self.factor = 0.0
        """What the word counts, times its idf."""

    @property
    def factors(self) -> Floats:
        return np.array([self.factor])

    def shares(self, norms: Floats) -> Floats:
        """What each posting adds to the score of its slot."""
        return _shares(self.factor, self.counts, norms)

    def by_slot(self, shares: Floats) -> tuple[Slots, Floats]:
        """The slots that it has, rising, and what all postings of each add."""
        return self.slots, shares

    def add_to(self, scores: Floats, slots: Slots, norms: Floats, _head: Head | None) -> None:
        """Add to the scores of some slots, which rise."""
        at = places_in(self.slots, slots)
        has = np.flatnonzero(at >= 0)
        scores[has] += _shares(self.factor, self.counts[at[has]], norms[has])


class Alike:
    """Postings of all words in a part that begin as the last one, one word after the other."""

    __slots__ = ("_offsets", "counts", "factors", "name", "slots")

    def __init__(self, name: str, words: Words, factors: Floats) -> None:
        self.name = name
        self.slots, self.counts = words.postings
        self._offsets = words.offsets
        self.factors = factors
        """As `Word.factor`, of each."""

    def shares(self, norms: Floats) -> Floats:
        return _shares(np.repeat(self.factors, np.diff(self._offsets)), self.counts, norms)

    def by_slot(self, shares: Floats) -> tuple[Slots, Floats]:
        added = np.bincount(self.slots, shares).astype(np.float64, copy=False)
        slots = np.flatnonzero(added).astype(np.uint32)
        return slots, added[slots]

    def add_to(self, scores: Floats, slots: Slots, norms: Floats, head: Head | None) -> None:
        """
        As `Word.add_to`.

        Args:
            head: of the run, if it has one: where the postings are of most that is asked for.
        """
        if head is None or (places_in(head.slots, slots) < 0).any():
            at = _postings_of(slots, self.slots)
        else:
            at = head.at
        to = places_in(slots, self.slots[at])
        there = np.flatnonzero(to >= 0)
        to, at = to[there], at[there]
        factors = self.factors[self._offsets.searchsorted(at, "right") - 1]
        # One after the other, as everywhere.
        np.add.at(scores, to, _shares(factors, self.counts[at], norms[to]))


Run = Word | Alike


def bound_of(run: Run, part: Part, average: float) -> Bound:
    """What a run of a part that does not change adds at most; its head is kept with the part."""
    kept = part.kept
    assert kept is not None, "it does not change"
    factors = run.factors
    head: Head | None = kept.get(run.name)
    if head is not None and (growth := _growth(head, factors, average)) <= GROWTH_MAX:
        return Bound(head, growth)
    slots, added = run.by_slot(run.shares(norms_of(part, run.slots, average)))
    at = max(0, len(added) - HEAD_SLOTS)
    order = np.argpartition(added, at)
    chosen = np.sort(order[at:])
    head = Head(
        slots=slots[chosen],
        added=added[chosen],
        top=float(added.max()),
        rest=float(added[order[:at]].max(initial=0.0)),
        factors=factors,
        average=average,
        at=_postings_of(slots[chosen], run.slots),
    )
    kept.put(run.name, head)
    return Bound(head, INEXACT)


def _growth(head: Head, factors: Floats, average: float) -> float:
    """
    How many times as much is added now as when the head was made, at most.

    A longer average makes `norm` smaller, by no more than it has grown itself.
    """
    rarer = float((factors / head.factors).max())
    return rarer * max(1.0, average / head.average) * INEXACT


def norms_of(part: Part, slots: Slots, average: float) -> Floats:
    """As `scoring.norm`."""
    lengths = part.lengths.take(slots).astype(np.float64)
    norms: Floats = K1 * (1 - B + B * lengths / average)
    return norms


def places_in(rising: Any, some: Any) -> Places:
    """Where each of some slots or words is among those that rise; -1 if it is not."""
    if not len(rising):
        return np.full(len(some), -1)
    at: Places = rising.searchsorted(some)
    at[at == len(rising)] = 0
    at[rising[at] != some] = -1
    return at


def _postings_of(rising: Slots, slots: Slots) -> Places:
    """Where any of some slots, which rise, are among others in any order."""
    is_among = np.zeros(int(rising[-1]) + 2, np.bool_)
    is_among[rising] = True
    return np.flatnonzero(is_among.take(slots, mode="clip"))


def _shares(factor: float | Floats, counts: Any, norms: Floats) -> Floats:
    shares: Floats = factor * counts * (K1 + 1) / (counts + norms)
    return shares
