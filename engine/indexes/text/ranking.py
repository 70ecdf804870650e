"""
The best documents of several parts, as of a timestamp.

    find      the postings of every word that is looked for, in the order of the words
    weigh     how many documents have each, over all parts
    begin     score what has a word that few have, or is in the head of a frequent one (`runs.py`),
              those that may score most before the others
    go on     score whatever has a frequent word, where what the heads leave out may still be among
              the best: that is 1 search of four words in 100

The scores are those of `scoring`, to the last bit.  Of equal ones the newer document is first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from engine.indexes.text.asked import TextSought
from engine.indexes.text.parts import Floats, Kept, Mask, Part, Slots, ids_at
from engine.indexes.text.runs import (
    INEXACT,
    Bound,
    Run,
    bound_of,
    firsts_of,
    norms_of,
    places_in,
    summed,
)
from engine.indexes.text.weighing import Seen, weigh

FEW: Final = 4_096
"""So many postings of a word are scored as they are: to choose among them would take as long."""


class Found(NamedTuple):
    """A document and its place: the greatest is the best."""

    score: float
    created: float
    internal: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of all documents, whether or not they are found."""

    documents: int
    length: int

    @property
    def average(self) -> float:
        return self.length / max(1, self.documents)


Hidden: TypeAlias = Mapping[int, Sequence[int]]
"""By the place of a part: slots that are not there for whoever asks."""


def ranked(
    parts: Sequence[Part], ts: int, sought: TextSought, totals: Totals, wanted: int, hidden: Hidden
) -> Iterator[list[Found] | None]:
    """
    The `wanted` best documents, best first, as the last that is yielded; `None` until then, so that
    others get their turn.

    Args:
        hidden: slots that are there at `ts`, and not to be found.
    """
    if not totals.length:
        yield []  # and there is no average
        return
    # In one step: a part grows while others have their turn, and postings that it has then are
    # of slots that nobody has looked at.
    seen = [
        _Scored(part, ts, sought, hidden.get(at, ()), totals.average)
        for at, part in enumerate(parts)
        if part.size
    ]
    weigh(seen, sought, totals.documents)
    best = _Best(wanted)
    # The largest first: by what it has, little of the others need be looked at.
    seen.sort(key=lambda one: -one.part.size)
    for part in seen:
        if part.runs:
            part.begin(best)
            yield None
    for part in seen:
        if part.rest and (not best.is_full or part.rest >= best.worst):
            part.go_on(best)
            yield None
    yield best.ranked()


class _Best:
    """The best of what was offered."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._offered: list[tuple[Part, Slots, Floats]] = []
        self._scores: Floats = np.zeros(0)
        self.worst = 0.0
        """What scores less is not among them."""
        self.is_full = False

    def offer(self, part: Part, slots: Slots, scores: Floats) -> None:
        if self.is_full:
            good = scores >= self.worst
            slots, scores = slots[good], scores[good]
        elif len(slots) > self.wanted:
            good = scores >= nth_best(scores, self.wanted)
            slots, scores = slots[good], scores[good]
        if not len(slots):
            return
        self._offered.append((part, slots, scores))
        self._scores = np.concatenate((self._scores, scores))
        if len(self._scores) >= self.wanted:
            self.is_full = True
            self.worst = nth_best(self._scores, self.wanted)

    def ranked(self) -> list[Found]:
        if not self._offered:
            return []
        places = []
        for part, slots, scores in self._offered:
            good = scores >= self.worst
            slots = slots[good]
            places.append((part.ids.take(slots), part.created.take(slots), scores[good]))
        ids, created, scores = map(np.concatenate, zip(*places, strict=True))
        order = np.lexsort((ids, created, scores))[::-1][: self.wanted]
        named = ids_at(ids, order)
        return list(map(Found, scores[order].tolist(), created[order].tolist(), named))


def nth_best(scores: Floats, n: int) -> float:
    at = len(scores) - n
    return float(np.partition(scores, at)[at])


class _Scored(Seen):
    """A part of which the best are wanted."""

    def __init__(
        self, part: Part, ts: int, sought: TextSought, hidden: Sequence[int], average: float
    ) -> None:
        super().__init__(part, ts, sought, hidden)
        self._filters = sought.filters
        self._average = average
        self._bounds: dict[str, Bound] = {}
        """Of the runs that are long, by their names."""
        self._offered: list[Slots] = []
        self.rest = 0.0
        """What has not been looked at scores that at most."""

    def begin(self, best: _Best) -> None:
        """Offer what may be among the best, as far as few postings tell."""
        narrowed = self._narrowed()
        if narrowed is not None:
            self._offer(best, self._let_through(narrowed))
            return
        long = [run for run in self.runs if len(run.slots) > FEW and self.part.kept is not None]
        if not long:
            self._offer_all(best)
            return
        self._bounds = {run.name: bound_of(run, self.part, self._average) for run in long}
        bounds = self._bounds.values()
        short = [run for run in self.runs if run.name not in self._bounds]
        slots = [run.slots for run in short]
        if not best.is_full or sum(bound.top for bound in bounds) >= best.worst:
            slots += [bound.head.slots for bound in bounds]
            self.rest = sum(bound.rest for bound in bounds)
        if slots:
            self._offer_likely(best, self._let_through(_union(slots)), short)

    def _offer_likely(self, best: _Best, slots: Slots, short: Sequence[Run]) -> None:
        """Offer those of some slots that may be among the best."""
        most = np.zeros(len(slots))
        if short:
            found, added = self._sums(short)
            at = places_in(found, slots)
            most += np.where(at < 0, 0.0, added[at] * INEXACT)
        for bound in self._bounds.values():
            bound.add_to(most, slots)
        first = 2 * best.wanted
        if not best.is_full and len(slots) > first:
            are_first = most >= nth_best(most, first)
            self._offer(best, slots[are_first])
            slots, most = slots[~are_first], most[~are_first]
        self._offer(best, slots[most >= best.worst])

    def go_on(self, best: _Best) -> None:
        """Offer whatever else has a frequent word and may be among the best."""
        slots, added = self._sums([run for run in self.runs if run.name in self._bounds])
        reach = added >= best.worst / INEXACT
        slots, added = slots[reach], added[reach]
        for done in self._offered:
            is_new = places_in(done, slots) < 0
            slots, added = slots[is_new], added[is_new]
        good = self._good(slots)
        if good is not None:
            slots, added = slots[good], added[good]
        if len(slots) > best.wanted:
            slots = slots[added >= nth_best(added, best.wanted) / INEXACT]
        self._offer(best, slots)

    def _offer(self, best: _Best, slots: Slots) -> None:
        """Offer some slots that rise, with all that they score."""
        if not len(slots):
            return
        self._offered.append(slots)
        scores = np.zeros(len(slots))
        norms = norms_of(self.part, slots, self._average)
        for run in self.runs:
            bound = self._bounds.get(run.name)
            run.add_to(scores, slots, norms, None if bound is None else bound.head)
        has = scores > 0
        best.offer(self.part, slots[has], scores[has])

    def _offer_all(self, best: _Best) -> None:
        """Offer every slot with one of the words."""
        slots, scores = self._sums(self.runs)
        good = self._good(slots)
        if good is not None:
            slots, scores = slots[good], scores[good]
        best.offer(self.part, slots, scores)

    def _sums(self, runs: Sequence[Run]) -> tuple[Slots, Floats]:
        """The slots of some runs, rising, and what these add to each, one after the other."""
        several = [run.shares(norms_of(self.part, run.slots, self._average)) for run in runs]
        if len(runs) == 1:
            return runs[0].sums(several[0])
        slots, shares = np.concatenate([run.slots for run in runs]), np.concatenate(several)
        return summed(slots, shares)

    def _narrowed(self) -> Slots | None:
        """The slots that the filters leave, if these are few."""
        kept = self.part.kept
        if kept is None or not self._filters:
            return None
        fewest = min((self._having(kept, *one) for one in self._filters), key=len)
        return fewest if len(fewest) <= FEW else None

    def _having(self, kept: Kept, at: int, value: int) -> Slots:
        """The slots with a filter value, or more than a few of them."""
        found: Slots | None = kept.get((at, value))
        if found is None:
            passes = np.flatnonzero(self.part.filters[at] == np.uint64(value))
            found = passes[: FEW + 1].astype(np.uint32)
            kept.put((at, value), found, [found])
        return found

    def _let_through(self, slots: Slots) -> Slots:
        """Those of some slots that are there and pass the filters."""
        good = self._good(slots)
        return slots if good is None else slots[good]

    def _good(self, slots: Slots) -> Mask | None:
        """Which of some slots are there and pass the filters; `None` if all do."""
        good: Mask | None = None
        if self.present is not None:
            good = self.present.take(slots)
        for at, value in self._filters:
            passes: Mask = self.part.filters[at].take(slots) == np.uint64(value)
            good = passes if good is None else good & passes
        return good


def _union(several: Sequence[Slots]) -> Slots:
    """Slots that are in one of several, rising."""
    if len(several) == 1 and len(several[0]) <= 1:
        return several[0]
    rising = np.sort(np.concatenate(several))
    return rising[firsts_of(rising)]
