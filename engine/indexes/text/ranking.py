"""
The best documents of several parts, as of a timestamp.

    find      the postings of every word that is looked for, in the order of the words
    weigh     how many documents have each, over all parts
    begin     where a word is frequent: score what is first in the head of one (`runs.py`), then
              what else is in a head, or has a word that few have, and may be among the best
    offer     where none is: score all that has a word, of several small parts at once
    go on     score whatever has a frequent word, where what the heads leave out may still be among
              the best: that is 1 search of four words in 100

The scores are those of `scoring`, to the last bit.  Of equal ones the newer document is first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from engine.indexes.text.asked import TextSought
from engine.indexes.text.parts import Floats, Kept, Mask, Part, Slots, Strings, all_ids
from engine.indexes.text.runs import (
    INEXACT,
    Alike,
    Bound,
    Few,
    Run,
    Source,
    bound_of,
    firsts_of,
    norms,
    norms_of,
    nth_best,
    places_in,
    shares_of,
    summed,
)
from engine.indexes.text.weighing import Seen, weigh_alike, weigh_words

SCORED_AT_ONCE: Final = 128
"""So many slots are scored in less time than it takes to see which may be among the best."""
TOGETHER: Final = 16_384
"""So many postings are scored before others get their turn: about a millisecond."""
MANY_ALIKE: Final = 16_384
"""Of so many words that begin as the last, as long texts have, weighing is a step of its own."""
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
    parts: Sequence[Part],
    ts: int,
    sought: TextSought,
    totals: Totals,
    wanted: int,
    hidden: Hidden,
    among: Strings | None = None,
) -> Iterator[list[Found] | None]:
    """
    The `wanted` best documents, best first, as the last that is yielded; `None` until then, so that
    others get their turn.

    Args:
        hidden: slots that are there at `ts`, and not to be found.
        among: ids of the documents to look at, if not at all.
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
    weigh_words(seen, sought, totals.documents)
    takes_long = sum(len(one.alike.words) for one in seen) > MANY_ALIKE
    yield from itertools.repeat(None, takes_long)
    weigh_alike(seen, sought.prefix, totals.documents)
    yield from itertools.repeat(None, takes_long)
    best = _Best(wanted)
    if among is not None:
        for part in seen:
            part.offer_those(best, part.part.slots_of(among, ts))
        yield best.ranked()
        return
    # The largest first: by what it has, little of the others need be looked at.
    seen.sort(key=lambda one: -one.part.size)
    for part in seen:
        if part.has_many:
            part.begin(best)
            yield None
    for some in _together([part for part in seen if part.runs and not part.has_many]):
        _offer_all(some, best)
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
        self._note(scores)

    def _note(self, scores: Floats) -> None:
        self._scores = np.concatenate((self._scores, scores))
        if len(self._scores) >= self.wanted:
            self.is_full = True
            self.worst = nth_best(self._scores, self.wanted)

    def offer_several(self, parts: Sequence[Part], slots: Slots, scores: Floats) -> None:
        """
        As `offer`, of several parts at once.

        Args:
            slots: rising, those of a part after all of the parts before it.
        """
        if self.is_full or len(slots) > self.wanted:
            good = scores >= (self.worst if self.is_full else nth_best(scores, self.wanted))
            slots, scores = slots[good], scores[good]
        first = start = 0
        for part in parts:
            end = int(slots.searchsorted(first + part.size))
            if end > start:
                self._offered.append((part, slots[start:end] - first, scores[start:end]))
            first, start = first + part.size, end
        self._note(scores)

    def ranked(self) -> list[Found]:
        if not self._offered:
            return []
        places = []
        for part, slots, scores in self._offered:
            good = scores >= self.worst
            slots = slots[good]
            places.append((part.ids.take(slots), part.created.take(slots), scores[good]))
        ids, created, scores = map(np.concatenate, zip(*places, strict=True))
        found = map(Found, scores.tolist(), created.tolist(), all_ids(ids))
        return sorted(found, reverse=True)[: self.wanted]


class _Scored(Seen):
    """A part of which the best are wanted."""

    def __init__(
        self, part: Part, ts: int, sought: TextSought, hidden: Sequence[int], average: float
    ) -> None:
        super().__init__(part, ts, sought, hidden)
        self._filters = sought.filters
        self.average = average
        self._bounds: dict[str, Bound] = {}
        """Of the runs that are long, by their names."""
        self._offered: list[Slots] = []
        self.rest = 0.0
        """What has not been looked at scores that at most."""

    @property
    def has_many(self) -> bool:
        """Whether its postings are so many that heads tell which of them to look at."""
        return self.part.kept is not None and any(len(run.slots) > FEW for run in self.runs)

    def offer_those(self, best: _Best, slots: Sequence[int]) -> None:
        """Offer some slots, whatever is on others."""
        self._offer(best, self._let_through(np.array(sorted(slots), np.uint32)))

    def begin(self, best: _Best) -> None:
        """Offer what may be among the best, as far as few postings tell."""
        narrowed = self._narrowed()
        if narrowed is not None:
            self._offer(best, self._let_through(narrowed))
            return
        long = [run for run in self.runs if len(run.slots) > FEW]
        self._bounds = {run.name: bound_of(run, self.part, self.average) for run in long}
        self.rest = sum(bound.rest for bound in self._bounds.values())
        short = [run for run in self.runs if run.name not in self._bounds]
        sources: list[Source] = [*self._bounds.values()]
        if short:
            sources.append(Few(*self._sums(short)))
        if not best.is_full:
            # Those that one run gives most tell what the others have to reach.
            tops = [source.first(2 * best.wanted, self.good) for source in sources]
            self._offer(best, _union(tops))
        self._offer_likely(best, sources)

    def _offer_likely(self, best: _Best, sources: Sequence[Source]) -> None:
        """Offer what else the heads and the short runs have that may be among the best."""
        top = sum(source.top for source in sources)
        several = [source.reaching(best.worst - (top - source.top)) for source in sources]
        slots = self._new(_union(several))
        if len(slots) > SCORED_AT_ONCE:
            most = np.zeros(len(slots))
            for source in sources:
                source.add_to(most, slots)
            slots = slots[most >= best.worst]
        self._offer(best, self._let_through(slots))

    @property
    def lets_all_through(self) -> bool:
        """Whether all of its slots are there, and no filter is to be passed."""
        return self.present is None and not self._filters

    def _new(self, slots: Slots) -> Slots:
        """Those of some slots that were not offered yet."""
        for done in self._offered:
            slots = slots[places_in(done, slots) < 0]
        return slots

    def go_on(self, best: _Best) -> None:
        """Offer whatever else has a frequent word and may be among the best."""
        slots, added = self._sums([run for run in self.runs if run.name in self._bounds])
        reach = added >= best.worst / INEXACT
        slots, added = slots[reach], added[reach]
        for done in self._offered:
            is_new = places_in(done, slots) < 0
            slots, added = slots[is_new], added[is_new]
        good = self.good(slots)
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
        norms = norms_of(self.part, slots, self.average)
        for run in self.runs:
            bound = self._bounds.get(run.name)
            run.add_to(scores, slots, norms, None if bound is None else bound.head)
        has = scores > 0
        best.offer(self.part, slots[has], scores[has])

    def _sums(self, runs: Sequence[Run]) -> tuple[Slots, Floats]:
        """The slots of some runs, rising, and what these add to each, one after the other."""
        several = [run.shares(norms_of(self.part, run.slots, self.average)) for run in runs]
        if len(runs) == 1:
            return runs[0].sums(several[0], self.part.size)
        slots, shares = np.concatenate([run.slots for run in runs]), np.concatenate(several)
        return summed(slots, shares, self.part.size)

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
        good = self.good(slots)
        return slots if good is None else slots[good]

    def good(self, slots: Slots) -> Mask | None:
        """Which of some slots are there and pass the filters; `None` if all do."""
        good: Mask | None = None
        if self.present is not None:
            good = self.present.take(slots)
        for at, value in self._filters:
            passes: Mask = self.part.filters[at].take(slots) == np.uint64(value)
            good = passes if good is None else good & passes
        return good


def _together(parts: Sequence[_Scored]) -> Iterator[list[_Scored]]:
    """Parts of few postings, some at a time."""
    some: list[_Scored] = []
    count = 0
    for part in parts:
        some.append(part)
        count += sum(len(run.slots) for run in part.runs)
        if count >= TOGETHER:
            yield some
            some, count = [], 0
    if some:
        yield some


def _offer_all(several: Sequence[_Scored], best: _Best) -> None:
    """Offer every slot with one of the words, of all these parts at once."""
    firsts = [0, *itertools.accumulate(one.part.size for one in several)]
    runs = [run for one in several for run in one.runs]
    own = zip(several, firsts, strict=False)
    found = np.concatenate([run.slots + first for one, first in own for run in one.runs])
    lengths = [one.part.lengths.take(run.slots) for one in several for run in one.runs]
    of_lengths = norms(np.concatenate(lengths), several[0].average)
    scores = shares_of(runs, np.concatenate([run.counts for run in runs]), of_lengths)
    if any(len(one.runs) > 1 or isinstance(one.runs[0], Alike) for one in several):
        found, scores = summed(found, scores, firsts[-1])
    good = _good_of(several, firsts, found)
    if good is not None:
        found, scores = found[good], scores[good]
    best.offer_several([one.part for one in several], found, scores)


def _good_of(several: Sequence[_Scored], firsts: Sequence[int], found: Slots) -> Mask | None:
    """As `_Scored.good`, of slots of several parts: those of each after all of the ones before."""
    if all(one.lets_all_through for one in several):
        return None
    good = np.ones(len(found), np.bool_)
    ends = found.searchsorted(firsts).tolist()
    for one, first, start, end in zip(several, firsts, ends, ends[1:], strict=False):
        if (mask := one.good(found[start:end] - first)) is not None:
            good[start:end] = mask
    return good


def _union(several: Sequence[Slots]) -> Slots:
    """Slots that are in one of several, rising."""
    rising = np.concatenate(several)
    rising.sort()
    return rising[firsts_of(rising)]
