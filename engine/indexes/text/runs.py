"""
Postings in one part, of a word or of all words that begin alike, and what they add to scores.

Most of what has a frequent word is among the best of no search.  So of a part that does not change
a run has a head: the slots to which it adds most, and how much it adds to any other.  What it adds
moves with every document that is written, as words become more or less rare, and texts longer or
shorter on average; but it moves by no more than these do, so a head says at any time what is added
at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.indexes.text.parts import Floats, Mask, Part, Places, Postings, Slots, Whole, Words
from engine.indexes.text.scoring import K1, B

HEAD_SLOTS: Final = 1_024
"""To make one of 100,000 postings takes some milliseconds, to go through it 0.1 ms."""
GROWTH_MAX: Final = 1.05
"""A head whose slots may be given so much more than they were is made anew."""
INEXACT: Final = 1.000001
"""A little more than anything can be, as sums of floats are not exact."""


class BySlot(NamedTuple):
    """The postings of many words in the order of their slots, and those of a slot as they were."""

    slots: Slots
    at: Slots
    """Where each was."""

    def find(self, slots: Slots) -> tuple[Places, Places]:
        """
        The postings of some slots, which rise.

        Returns:
            Where they are in the run; and which of the slots each has.
        """
        starts = self.slots.searchsorted(slots)
        counts = self.slots.searchsorted(slots, "right") - starts
        to = np.repeat(np.arange(len(slots)), counts)
        first = counts.cumsum() - counts
        return self.at[np.arange(len(to)) + (starts - first)[to]], to


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The slots to which a run adds most, by what was known when it was made."""

    slots: Slots
    """Rising."""
    added: Floats
    """What each was given."""
    order: npt.NDArray[np.uint16]
    """Their places, of which most was given to first."""
    top: float
    """The most of that."""
    rest: float
    """No other was given more."""
    factors: Floats
    """What each word counted, times its idf."""
    average: float
    """Of all lengths."""
    by_slot: BySlot | None
    """Of many words."""

    @property
    def arrays(self) -> Sequence[npt.NDArray[Any]]:
        return [self.slots, self.added, self.order, self.factors, *(self.by_slot or ())]


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

    def first(self, count: int, good: Good) -> Slots:
        """Of the slots that are good, those to which most is added."""
        head, order = self.head, self.head.order
        if (mask := good(head.slots)) is not None:
            order = order[mask.take(order)]
        return head.slots.take(order[:count])

    def reaching(self, least: float) -> Slots:
        """The slots in the head to which so much may be added."""
        if self.top < least:
            return self.head.slots[:0]
        return self.head.slots[self.head.added >= least / self.growth]

    def add_to(self, most: Floats, slots: Slots) -> None:
        """Add to what some slots may score."""
        at = places_in(self.head.slots, slots)
        most += np.where(at < 0, self.head.rest, self.head.added[at]) * self.growth


class Few(NamedTuple):
    """What short runs add to scores, all together."""

    slots: Slots
    """Rising, and no others."""
    added: Floats

    @property
    def top(self) -> float:
        return float(self.added.max()) * INEXACT

    def first(self, count: int, good: Good) -> Slots:
        """As `Bound.first`."""
        slots, added = self
        if (mask := good(slots)) is not None:
            slots, added = slots[mask], added[mask]
        if len(slots) <= count:
            return slots
        return slots[added >= nth_best(added, count)]

    def reaching(self, least: float) -> Slots:
        """As `Bound.reaching`."""
        return self.slots[self.added >= least / INEXACT]

    def add_to(self, most: Floats, slots: Slots) -> None:
        """As `Bound.add_to`."""
        at = places_in(self.slots, slots)
        most += np.where(at < 0, 0.0, self.added[at] * INEXACT)


Source: TypeAlias = Bound | Few
Good: TypeAlias = "Callable[[Slots], Mask | None]"
"""Which of some slots may be found; `None` if all may."""


def nth_best(scores: Floats, n: int) -> float:
    at = len(scores) - n
    # As np.partition, which takes as long again to get there.
    in_part = scores.copy()
    in_part.partition(at)
    return float(in_part[at])


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

    @property
    def widths(self) -> Places:
        return np.array([len(self.slots)])

    def shares(self, norms: Floats) -> Floats:
        """What each posting adds to the score of its slot."""
        return _shares(self.factor, self.counts, norms)

    def sums(self, shares: Floats, _size: int) -> tuple[Slots, Floats]:
        """The slots that it has, rising, and what all postings of each add."""
        return self.slots, shares

    def sorted_by_slot(self) -> BySlot | None:
        return None

    def add_to(self, scores: Floats, slots: Slots, norms: Floats, _head: Head | None) -> None:
        """Add to the scores of some slots, which rise."""
        at = places_in(self.slots, slots)
        has = (at >= 0).nonzero()[0]
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

    @property
    def widths(self) -> Places:
        """How many postings each word has."""
        return self._offsets[1:] - self._offsets[:-1]

    def shares(self, norms: Floats) -> Floats:
        return _shares(self.factors.repeat(self.widths), self.counts, norms)

    def sums(self, shares: Floats, size: int) -> tuple[Slots, Floats]:
        return summed(self.slots, shares, size)

    def sorted_by_slot(self) -> BySlot | None:
        at = np.argsort(self.slots, kind="stable").astype(np.uint32)
        return BySlot(self.slots[at], at)

    def add_to(self, scores: Floats, slots: Slots, norms: Floats, head: Head | None) -> None:
        """
        As `Word.add_to`.

        Args:
            head: of the run, if it has one.
        """
        if head is None or head.by_slot is None:
            at, to = _found(slots, self.slots)
        else:
            at, to = head.by_slot.find(slots)
        if len(at) * _SPREAD_IN > len(self.counts):  # a long text has many of these
            factors = self.factors.repeat(self.widths)[at]
        else:
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
    slots, added = run.sums(run.shares(norms_of(part, run.slots, average)), part.size)
    at = max(0, len(added) - HEAD_SLOTS)
    order = np.argpartition(added, at)
    chosen = np.sort(order[at:])
    of_chosen = added[chosen]
    head = Head(
        slots=slots[chosen],
        added=of_chosen,
        order=np.argsort(of_chosen)[::-1].astype(np.uint16),
        top=float(added.max()),
        rest=float(added[order[:at]].max(initial=0.0)),
        factors=factors,
        average=average,
        by_slot=run.sorted_by_slot(),
    )
    kept.put(run.name, head, head.arrays)
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
    return norms(part.lengths.take(slots), average)


def norms(lengths: Whole, average: float) -> Floats:
    """As `scoring.norm`."""
    of_lengths: Floats = K1 * (1 - B + B * lengths.astype(np.float64) / average)
    return of_lengths


def shares_of(runs: Sequence[Run], counts: Whole, norms: Floats) -> Floats:
    """As `Run.shares`, of several one after the other."""
    if len(runs) == 1:
        return runs[0].shares(norms)
    factors = np.concatenate([run.factors for run in runs])
    widths = np.concatenate([run.widths for run in runs])
    return _shares(factors.repeat(widths), counts, norms)


def summed(slots: Slots, shares: Floats, size: int) -> tuple[Slots, Floats]:
    """
    Slots, rising, and what each is given, added up one after the other.

    Args:
        size: they are below that.
    """
    if len(slots) * _SORTED_IN > size:
        every = np.bincount(slots, shares).astype(np.float64, copy=False)
        found = every.nonzero()[0].astype(np.uint32)
        return found, every[found]
    order = slots.argsort(kind="stable")
    rising = slots[order]
    firsts = firsts_of(rising)
    sums = np.bincount(firsts.cumsum() - 1, shares[order])
    return rising[firsts], sums.astype(np.float64, copy=False)


_SPREAD_IN: Final = 16
"""One in so many postings is found by its offset in more time than all have their factors in."""
_SORTED_IN: Final = 16
"""One in so many slots is found by sorting in less time than a place for every slot takes."""


def firsts_of(rising: Slots) -> Mask:
    """Of numbers that rise, which come for the first time; quicker than looking for them."""
    firsts = np.empty(len(rising), np.bool_)
    firsts[:1] = True
    np.not_equal(rising[1:], rising[:-1], out=firsts[1:])
    return firsts


def places_in(rising: Any, some: Any) -> Places:
    """Where each of some slots or words is among those that rise; -1 if it is not."""
    if not len(rising):
        return np.full(len(some), -1)
    at: Places = rising.searchsorted(some)
    at[at == len(rising)] = 0
    at[rising[at] != some] = -1
    return at


def _found(rising: Slots, slots: Slots) -> tuple[Places, Places]:
    """Where any of some slots, which rise, are among others in any order, and which each is."""
    is_among = np.zeros(int(rising[-1]) + 2, np.bool_)
    is_among[rising] = True
    at = is_among.take(slots, mode="clip").nonzero()[0]
    return at, rising.searchsorted(slots[at])


def _shares(factor: float | Floats, counts: Any, norms: Floats) -> Floats:
    shares: Floats = factor * counts * (K1 + 1) / (counts + norms)
    return shares
