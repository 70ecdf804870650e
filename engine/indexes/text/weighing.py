"""
What each word counts that is looked for: the rarer it is, over all parts, as of a timestamp.

Many words may begin as the last one, so these are counted by arrays, in which a word has the same
number in every part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from engine.indexes.text.asked import TextSought
from engine.indexes.text.parts import Floats, Kept, Mask, Part, Places, Slots, Strings, Words
from engine.indexes.text.runs import Alike, Run, Word, places_in
from engine.indexes.text.scoring import PREFIX_WEIGHT, idf, idfs


class Seen:
    """
    A part as of a timestamp, for one search.

    Args:
        hidden: slots that are there, and not to be found.
    """

    def __init__(self, part: Part, ts: int, sought: TextSought, hidden: Sequence[int]) -> None:
        self.part = part
        self.present: Mask | None = part.present(ts)
        """Which slots are there; `None` if all are."""
        if hidden:
            present = np.ones(part.size, np.bool_) if self.present is None else self.present
            self.present = present.copy()
            self.present[list(hidden)] = False
        self.alike: Words = part.beginning(sought.prefix)
        self.runs: list[Run] = []
        """Of all words that it has, in the order in which `scoring` adds them up."""

    def count(self, slots: Slots) -> int:
        """How many of some slots are there."""
        if self.present is None:
            return len(slots)
        return int(np.count_nonzero(self.present.take(slots)))

    def count_each(self) -> Places:
        """The same of every word that begins as the last."""
        offsets = self.alike.offsets
        if self.present is None:
            return offsets[1:] - offsets[:-1]
        there = np.zeros(offsets[-1] + 1, np.int64)
        self.present.take(self.alike.postings.slots).cumsum(out=there[1:])
        found = there[offsets]
        return found[1:] - found[:-1]


def weigh_words(seen: Sequence[Seen], sought: TextSought, documents: int) -> None:
    """Give every part the runs of the words that it has, each with what it counts."""
    for word in sought.words:
        _weigh_word(seen, word, sought.weight_of(word), documents)


def _weigh_word(seen: Sequence[Seen], word: str, weight: float, documents: int) -> None:
    found, runs = 0, []
    for part in seen:
        postings = part.part.postings(word)
        if len(postings.slots):
            run = Word(word, postings)
            part.runs.append(run)
            runs.append(run)
            found += part.count(run.slots)
    factor = weight * idf(documents, found)
    for run in runs:
        run.factor = factor


def weigh_alike(seen: Sequence[Seen], prefix: str, documents: int) -> None:
    """Then the run of all that begin as the last; parts may have grown since they were seen."""
    seen = [part for part in seen if len(part.alike.words)]
    if not seen:
        return
    places, count = _numbered(seen, prefix)
    found = np.zeros(count, np.int64)
    for part, place in zip(seen, places, strict=True):
        found[place] += part.count_each()
    factors = PREFIX_WEIGHT * _idfs(documents, found)
    for part, place in zip(seen, places, strict=True):
        part.runs.append(Alike(prefix + "*", part.alike, factors[place]))


def _idfs(documents: int, found: Places) -> Floats:
    """`idf` of several words: few numbers are those of many."""
    numbers = np.bincount(found).nonzero()[0]
    by_number = np.zeros(int(numbers[-1]) + 1)
    by_number[numbers] = idfs(documents, numbers.tolist())
    return by_number[found]


class _Vocabulary(NamedTuple):
    """Words that begin alike, each with a number."""

    longest: Strings
    """Of the part that has most of them: from 0 on, in order."""
    others: Strings
    """After these, in order."""

    @property
    def size(self) -> int:
        return len(self.longest) + len(self.others)

    def find(self, words: Strings) -> Places:
        """The numbers of some words; -1 of those that are not among these."""
        places = _places_in(self.longest, words)
        if len(self.others):
            unknown = (places < 0).nonzero()[0]
            at = places_in(self.others, words[unknown])
            places[unknown] = np.where(at < 0, -1, len(self.longest) + at)
        return places


def _places_in(words: Strings, some: Strings) -> Places:
    """As `places_in`, of words that rise in both: the fewer are looked for among the more."""
    if len(some) <= len(words):
        return places_in(words, some)
    at = places_in(some, words)
    there = (at >= 0).nonzero()[0]
    places = np.full(len(some), -1)
    places[at[there]] = there
    return places


_NONE: Final = np.zeros(0, np.bytes_)


def _numbered(seen: Sequence[Seen], prefix: str) -> tuple[list[Places], int]:
    """Numbers of the words that begin alike, for each part; and how many words there are."""
    # What is found out of parts that do not change is kept: most of the words are theirs.
    lasting = [(kept, part.alike.words) for part in seen if (kept := part.part.kept) is not None]
    vocabulary, kept_places = _kept(lasting, prefix)
    places = iter(kept_places)
    found = [
        vocabulary.find(part.alike.words) if part.part.kept is None else next(places)
        for part in seen
    ]
    new = [
        (part.alike.words[is_new], place, is_new)
        for part, place in zip(seen, found, strict=True)
        if part.part.kept is None and (is_new := place < 0).any()
    ]
    if not new:
        return found, vocabulary.size
    if len(new) == 1:  # in order, and each once
        others, place, is_new = new[0]
        place[is_new] = vocabulary.size + np.arange(len(others))
    else:
        others = np.unique(np.concatenate([words for words, _, _ in new]))
        for words, place, is_new in new:
            place[is_new] = vocabulary.size + others.searchsorted(words)
    return found, vocabulary.size + len(others)


def _kept(lasting: Sequence[tuple[Kept, Strings]], prefix: str) -> tuple[_Vocabulary, list[Places]]:
    """The words of parts that do not change, and their numbers in each; kept by the first."""
    if not lasting:
        return _Vocabulary(_NONE, _NONE), []
    first = lasting[0][0]
    key = (prefix, *(kept.number for kept, _ in lasting))
    found: tuple[_Vocabulary, list[Places]] | None = first.get(key)
    if found is None:
        several = [words for _, words in lasting]
        longest = max(several, key=len)
        new = [words[places_in(longest, words) < 0] for words in several]
        vocabulary = _Vocabulary(longest, np.unique(np.concatenate(new)))
        found = vocabulary, [vocabulary.find(words) for words in several]
        first.put(key, found, [vocabulary.others, *found[1]])
    return found
