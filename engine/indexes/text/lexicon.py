"""
The words of a part that grows, each with a number of its own.

They are put in order when somebody asks for those that begin alike: new ones among the others once
there are many, and until then among those that were asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

NEW_MAX: Final = 512
"""New words that are looked through one by one: some 20 us, and to put them in order 0.3 ms."""


class Ordered(NamedTuple):
    """Words in order, and their numbers."""

    words: npt.NDArray[np.bytes_]
    numbers: npt.NDArray[np.uint32]


_NONE: Final = Ordered(np.zeros(0, np.bytes_), np.zeros(0, np.uint32))


class Lexicon:
    """A thread may ask for `all` while others ask for some, once no more are added."""

    __slots__ = ("_known", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._known: tuple[Ordered, list[str]] = _NONE, []
        """Those in order, and the new ones: replaced together, as a thread may look."""

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, word: str) -> int:
        """The number of a word, which is added if it is new."""
        number = self._numbers.get(word)
        if number is None:
            number = self._numbers[word] = len(self._numbers)
            self._known[1].append(word)
        return number

    def find(self, word: str) -> int | None:
        """The number of a word that there is."""
        return self._numbers.get(word)

    def all(self) -> Ordered:
        ordered, new = self._known
        return self._with(ordered, new)

    def beginning(self, prefix: str) -> Ordered:
        """All longer words that begin so."""
        ordered, new = self._known
        if len(new) > NEW_MAX:
            ordered, new = self._known = self._with(ordered, new), []
        longer = [word for word in new if word.startswith(prefix) and word != prefix]
        return self._with(_beginning(ordered, prefix.encode()), longer)

    def _with(self, ordered: Ordered, new: Collection[str]) -> Ordered:
        """Some words and others, in order."""
        if not new:
            return ordered
        more = np.array([word.encode() for word in new], np.bytes_)
        numbers = np.array([self._numbers[word] for word in new], np.uint32)
        words = np.concatenate((ordered.words, more))
        order = words.argsort(kind="stable")  # quick where most of it is in order
        return Ordered(words[order], np.concatenate((ordered.numbers, numbers))[order])


def _beginning(ordered: Ordered, key: bytes) -> Ordered:
    words, numbers = ordered
    if len(key) >= words.itemsize:  # it would be given a copy of them all
        return _NONE
    lower = int(words.searchsorted(key, "right"))
    if lower == len(words) or not words[lower].startswith(key):
        return _NONE
    upper = int(words.searchsorted(key + b"\xff"))  # no UTF-8 has that byte
    return Ordered(words[lower:upper], numbers[lower:upper])
