"""
The best documents of several parts, as of a timestamp.

    find      the postings of every word that is looked for, in the order of the words
    weigh     how many documents have each, over all parts
    choose    slots that may be among the best.  Rare words decide: what has only words that
              together count less than the worst of the best so far is not looked at (MaxScore;
              Turtle and Flood, "Query Evaluation: Strategies and Optimizations", 1995)
    score     those, word by word, in the order of the words

The scores are those of `scoring`, to the last bit.  Of equal ones the newer document is first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from engine.indexes.text.asked import TextSought
from engine.indexes.text.parts import (
    Floats,
    Mask,
    Part,
    Places,
    Postings,
    Strings,
    Whole,
    Words,
    ids_at,
)
from engine.indexes.text.scoring import K1, PREFIX_WEIGHT, B, idf

FEW: Final = 4_096
"""So many postings are scored as they are: to choose among them would take as long."""
ALIKE_MAX: Final = 8
"""So many words that begin as the last are weighed one by one; more of them as a whole."""
FIRST_SLOTS: Final = 8_192
"""Of a large part, which are scored before it is known what the best have to reach."""
_TABLE_MAX: Final = 4_096
"""Lengths up to here have their norms in a table, which stays in the processor's cache."""


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
    seen = [_Seen(part, ts, sought, hidden.get(at, ())) for at, part in enumerate(parts)]
    bounds = _weigh(seen, sought, totals)
    by_bound = sorted(range(len(bounds)), key=lambda at: -bounds[at])
    # A little more than they can add, as sums of floats are not exact.
    rest = [1.000001 * sum(bounds[at] for at in by_bound[n:]) for n in range(len(bounds) + 1)]
    best = _Best(wanted)
    # The small ones first: what they have says how much of the large ones need not be looked at.
    for part in sorted(seen, key=lambda one: one.size):
        for piece in part.pieces():
            needed = (n for n in range(len(bounds)) if best.is_full and rest[n] < best.worst)
            piece.offer(best, by_bound[: next(needed, len(bounds))])
            yield None
    yield best.ranked()


class _Best:
    """The best of what was offered."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._scores: list[Floats] = []
        self._created: list[Floats] = []
        self._ids: list[Strings] = []
        self.worst = 0.0
        """What scores less is not among them."""
        self.is_full = False

    def offer(self, part: Part, slots: Places, scores: Floats) -> None:
        if self.is_full:
            good = scores >= self.worst
            slots, scores = slots[good], scores[good]
            if not len(slots):
                return
        if len(slots) > self._wanted:
            good = scores >= _nth_best(scores, self._wanted)
            slots, scores = slots[good], scores[good]
        self._scores.append(scores)
        self._created.append(part.created[slots])
        self._ids.append(part.ids[slots])
        every = np.concatenate(self._scores)
        if len(every) >= self._wanted:
            self.is_full = True
            self.worst = _nth_best(every, self._wanted)

    def ranked(self) -> list[Found]:
        if not self._scores:
            return []
        scores, created = np.concatenate(self._scores), np.concatenate(self._created)
        ids = np.concatenate(self._ids)
        order = np.lexsort((ids, created, scores))[::-1][: self._wanted]
        named = ids_at(ids, order)
        return list(map(Found, scores[order].tolist(), created[order].tolist(), named))


def _nth_best(scores: Floats, n: int) -> float:
    at = len(scores) - n
    return float(np.partition(scores, at)[at])


class _Run:
    """Postings of one word in one part, or of many words one after the other."""

    __slots__ = ("counts", "factor", "is_block", "slots")

    def __init__(self, postings: Postings, *, is_block: bool = False) -> None:
        self.slots, self.counts = postings
        self.is_block = is_block
        self.factor: float | Floats = 0.0
        """What a word counts, times its idf: one number, or one for each posting."""

    def between(self, start: int, end: int) -> _Run:
        """Those of some slots."""
        if self.is_block:
            at: Any = np.flatnonzero((self.slots >= start) & (self.slots < end))
        else:
            at = slice(*np.searchsorted(self.slots, [start, end]))
        cut = _Run(Postings(self.slots[at], self.counts[at]), is_block=self.is_block)
        factor = self.factor
        return cut.with_factor(factor[at] if isinstance(factor, np.ndarray) else factor)

    def with_factor(self, factor: float | Floats) -> _Run:
        self.factor = factor
        return self


class _Seen:
    """A part as of a timestamp, for one search."""

    def __init__(self, part: Part, ts: int, sought: TextSought, hidden: Sequence[int]) -> None:
        self._part = part
        self.size = part.size
        self._present = part.present(ts)
        if hidden:
            present = np.ones(self.size, np.bool_) if self._present is None else self._present
            self._present = present.copy()
            self._present[list(hidden)] = False
        self._absent = None if self._present is None else np.flatnonzero(~self._present)
        self._filters = sought.filters
        self._narrowed = self._narrow()
        self.alike: Words = part.beginning(sought.prefix).after(sought.prefix.encode())
        self.runs: list[_Run] = []
        self._norms = _norms(np.arange(1), 1.0)
        self._average = 1.0

    def pieces(self) -> Iterator[_Seen]:
        """The part, or of a large one first a piece that is small."""
        is_wide = any(run.is_block and len(run.slots) > FIRST_SLOTS for run in self.runs)
        if self.size <= 2 * FIRST_SLOTS or self._narrowed is not None or is_wide:
            yield self  # all of it has to be looked at anyway
            return
        for start, end in ((0, FIRST_SLOTS), (FIRST_SLOTS, self.size)):
            piece = copy(self)
            piece.runs = [run.between(start, end) for run in self.runs]
            yield piece

    def _narrow(self) -> Places | None:
        """The slots that the filters leave, if these are few."""
        if not self._filters:
            return None
        there: Mask | None = self._present
        for at, value in self._filters:
            passes: Mask = self._part.filters[at] == np.uint64(value)
            there = passes if there is None else there & passes
        assert there is not None, "there is a filter"
        found = np.flatnonzero(there)
        return found if len(found) <= FEW else None

    # Weighing

    def count(self, slots: Whole) -> int:
        """How many of some slots are there."""
        absent = self._absent
        if absent is None or not len(absent):
            return len(slots)
        if len(absent) * 8 < len(slots):
            return len(slots) - int(np.count_nonzero(_are_in(slots, absent)))
        assert self._present is not None, "some are absent"
        return int(np.count_nonzero(self._present[slots]))

    def count_each(self) -> Places:
        """The same of every word that begins as the last."""
        offsets = self.alike.offsets
        if self._absent is None or not len(self._absent) or len(offsets) == 1:
            return np.diff(offsets)
        assert self._present is not None, "some are absent"
        there = np.concatenate([[0], np.cumsum(self._present[self.alike.postings.slots])])
        return np.diff(there[offsets])

    def postings(self, word: str) -> Postings:
        return self._part.postings(word)

    def use_average(self, average: float) -> None:
        self._average = average
        self._norms = _norms(np.arange(min(self._part.longest, _TABLE_MAX) + 1), average)

    # Scoring

    def offer(self, best: _Best, essential: Sequence[int]) -> None:
        """Offer what has one of the `essential` words, and all that may matter of it."""
        chosen = [self.runs[at] for at in essential if len(self.runs[at].slots)]
        if not chosen:
            return
        slots, scores = self._scored(chosen, best.worst)
        if len(slots):
            best.offer(self._part, slots, scores)

    def _scored(self, chosen: Sequence[_Run], worst: float) -> tuple[Places, Floats]:
        """Slots that have a word of the chosen runs and score `worst` or more; others may come."""
        runs = [run for run in self.runs if len(run.slots)]
        if self._narrowed is not None:
            scores = self._looked_up(self._narrowed, runs)
            found = scores > 0
            return self._narrowed[found], scores[found]
        if len(runs) == 1 and not runs[0].is_block:
            return self._only(runs[0], worst)
        size = sum(len(run.slots) for run in chosen)
        total = sum(len(run.slots) for run in runs)
        if len(chosen) == len(runs) or 8 * size * len(runs) > total:
            return self._all(runs, worst)
        slots = np.sort(np.concatenate([run.slots for run in chosen]).astype(np.int64))
        slots = slots[_firsts(slots)]
        good = self._let_through(slots)
        slots = slots if good is None else slots[good]
        return slots, self._looked_up(slots, runs)

    def _only(self, run: _Run, worst: float) -> tuple[Places, Floats]:
        """The slots of the one word that there is."""
        if worst and self._part.longest < len(self._norms) and run.counts.itemsize == 1:
            assert not isinstance(run.factor, np.ndarray), "it is one word"
            # Longer texts score less: how long one may be follows from how often it has the word.
            counts = np.arange(256)
            norms_max = run.factor * counts * (K1 + 1) / worst * 1.000001 - counts
            lengths_max = np.searchsorted(self._norms, norms_max, "right") - 1
            short = self._part.lengths[run.slots] <= lengths_max[run.counts]
            run = _Run(Postings(run.slots[short], run.counts[short])).with_factor(run.factor)
        slots, scores = run.slots.astype(np.int64), self._share(run)
        good = self._let_through(slots)
        return (slots, scores) if good is None else (slots[good], scores[good])

    def _all(self, runs: Sequence[_Run], worst: float) -> tuple[Places, Floats]:
        """Every slot with one of the words."""
        slots = np.concatenate([run.slots for run in runs])
        shares = np.concatenate([self._share(run) for run in runs])
        if len(slots) <= FEW:
            order = np.argsort(slots, kind="stable")  # the order of a sum is part of it
            rising = slots[order]
            firsts = _firsts(rising)
            found = rising[firsts].astype(np.int64)
            scores = _sums(np.cumsum(firsts) - 1, shares[order])
        else:
            every = _sums(slots, shares)
            found = np.flatnonzero(every >= worst if worst else every > 0)
            scores = every[found]
        good = self._let_through(found)
        return (found, scores) if good is None else (found[good], scores[good])

    def _looked_up(self, slots: Places, runs: Sequence[_Run]) -> Floats:
        """The scores of some slots, which rise; of one that has no word 0."""
        scores = np.zeros(len(slots))
        if not len(slots):
            return scores
        of_length = self._norm(slots)
        for run in runs:
            if run.is_block:
                place = np.full(self.size, -1, np.int64)
                place[slots] = np.arange(len(slots))
                to = place[run.slots]
                there = np.flatnonzero(to >= 0)
                shares = self._share(run, there)
                # One after the other, as everywhere.
                np.add.at(scores, to[there], shares)
                continue
            at = np.searchsorted(run.slots, slots)
            at[at == len(run.slots)] = 0
            has = run.slots[at] == slots
            counts = run.counts[at[has]]
            scores[has] += run.factor * counts * (K1 + 1) / (counts + of_length[has])
        return scores

    def _share(self, run: _Run, at: Places | None = None) -> Floats:
        """What each posting of a run adds to the score of its slot."""
        slots, counts, factor = run.slots, run.counts, run.factor
        if at is not None:
            slots, counts = slots[at], counts[at]
            factor = factor[at] if isinstance(factor, np.ndarray) else factor
        shares: Floats = factor * counts * (K1 + 1) / (counts + self._norm(slots))
        return shares

    def _norm(self, slots: Whole | Places) -> Floats:
        lengths = self._part.lengths[slots]
        if self._part.longest < len(self._norms):
            return self._norms[lengths]
        return _norms(lengths, self._average)

    def _let_through(self, slots: Whole | Places) -> Mask | None:
        """Which of some slots are there and pass the filters; `None` if all do."""
        good: Mask | None = None
        if self._present is not None:
            good = self._present[slots]
        for at, value in self._filters:
            passes: Mask = self._part.filters[at][slots] == np.uint64(value)
            good = passes if good is None else good & passes
        return good


def _firsts(rising: Whole | Places) -> Mask:
    """Of numbers that rise, which come for the first time; quicker than looking for them."""
    firsts = np.ones(len(rising), np.bool_)
    np.not_equal(rising[1:], rising[:-1], out=firsts[1:])
    return firsts


def _sums(places: Whole | Places, shares: Floats) -> Floats:
    """What has each place, added up one after the other."""
    return np.bincount(places, weights=shares).astype(np.float64, copy=False)


def _norms(lengths: Whole | Places, average: float) -> Floats:
    """As `scoring.norm`."""
    norms: Floats = K1 * (1 - B + B * lengths.astype(np.float64) / average)
    return norms


def _are_in(rising: Any, some: Any) -> Mask:
    """Which of some slots or words are among those that rise."""
    at = np.searchsorted(rising, some)
    at[at == len(rising)] = 0
    found: Mask = rising[at] == some
    return found


def _weigh(seen: Sequence[_Seen], sought: TextSought, totals: Totals) -> list[float]:
    """
    Give every part its runs, those of a word at the same place in each, in the order of the words.

    Returns:
        What each can add to a score at most.
    """
    for part in seen:
        part.use_average(totals.average)
    alike = _merged([part.alike.words for part in seen])
    if len(alike) <= ALIKE_MAX:
        words = sorted({*sought.words, *(word.decode() for word in alike.tolist())})
        return _weigh_words(seen, words, sought, totals)
    # The last word itself comes first of all that begin so, and is often in most documents.
    key = sought.prefix
    before = [word for word in sought.words if word <= key]
    behind = [word for word in sought.words if word > key and not word.startswith(key)]
    bounds = _weigh_words(seen, before, sought, totals)
    _weigh_block(seen, alike, sought, totals)
    return [*bounds, np.inf, *_weigh_words(seen, behind, sought, totals)]


def _merged(sorted_words: Sequence[Strings]) -> Strings:
    """All of the words in order, each once; most are in the longest part, which is in order."""
    longest = max(sorted_words, key=len)
    new = [words[~_are_in(longest, words)] for words in sorted_words if len(words)]
    others = np.unique(np.concatenate(new)) if new else longest
    if not len(longest) or not len(others):
        return longest
    return np.sort(np.concatenate([longest, others]), kind="stable")  # which only merges them


def _weigh_words(
    seen: Sequence[_Seen], words: Sequence[str], sought: TextSought, totals: Totals
) -> list[float]:
    bounds = []
    for word in words:
        runs = [_Run(part.postings(word)) for part in seen]
        found = sum(part.count(run.slots) for part, run in zip(seen, runs, strict=True))
        weight = sought.weight_of(word)
        assert weight is not None, "it is looked for"
        factor = weight * idf(totals.documents, found)
        for part, run in zip(seen, runs, strict=True):
            part.runs.append(run.with_factor(factor))
        bounds.append(factor * (K1 + 1) if found else 0.0)
    return bounds


def _weigh_block(seen: Sequence[_Seen], alike: Strings, sought: TextSought, totals: Totals) -> None:
    found = np.zeros(len(alike), np.int64)
    places = [np.searchsorted(alike, part.alike.words) for part in seen]
    for part, place in zip(seen, places, strict=True):
        found[place] += part.count_each()
    of_number = {n: PREFIX_WEIGHT * idf(totals.documents, n) for n in set(found.tolist())}
    factors = np.array([of_number[n] for n in found.tolist()])
    for word in sought.words:
        at = int(np.searchsorted(alike, word.encode()))
        if at < len(alike) and alike[at] == word.encode():
            factors[at] = idf(totals.documents, int(found[at]))
    for part, place in zip(seen, places, strict=True):
        run = _Run(part.alike.postings, is_block=True)
        each = np.repeat(factors[place], np.diff(part.alike.offsets))
        part.runs.append(run.with_factor(each))
