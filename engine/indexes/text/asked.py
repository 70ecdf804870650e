"""What is looked for in a text index, and whether a document has it: a read, as others see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.indexes.text.scoring import PREFIX_WEIGHT
from engine.indexes.text.words import TextEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSought:
    """
    Documents with one of the words, or one that begins as the last, and with all filter values.

    Two searches of one function are two of these: a document that one of them would find is in
    what was read, whatever the other asks for.
    """

    words: tuple[str, ...]
    """In the order of their bytes, each once."""
    prefix: str
    """The last word, as it was given."""
    filters: tuple[tuple[int, int], ...] = ()
    """Places of filter fields in the index, and hashes of the values that they must have."""

    @property
    def hooks(self) -> list[str]:
        return [*self.words, self.prefix + "*"]

    def holds(self, entry: TextEntry, /) -> bool:
        """Whether a document with this entry is found."""
        # No any() and all(), which take three times as long: a commit asks thousands.
        for at, value in self.filters:
            if entry.filters[at] != value:
                return False
        words = entry.words
        for word in self.words:
            if word in words:
                return True
        for word in words:  # noqa: SIM110
            if word.startswith(self.prefix):
                return True
        return False

    def is_alike(self, word: str) -> bool:
        """Whether a word is longer than the last one, and begins so."""
        return word != self.prefix and word.startswith(self.prefix)

    def weight_of(self, word: str) -> float:
        """What one of the words counts: 1, of which one that is alike has a part for that."""
        return 1.0 - PREFIX_WEIGHT if self.is_alike(word) else 1.0

    def weights(self, found: Iterable[str]) -> list[tuple[str, float]]:
        """What each counts of some words that a document has, in the order of `scoring`."""
        in_order = sorted(found)
        words = [(word, self.weight_of(word)) for word in in_order if word in self.words]
        return words + [(word, PREFIX_WEIGHT) for word in in_order if self.is_alike(word)]


def sought(words: list[str], filters: tuple[tuple[int, int], ...]) -> TextSought:
    """
    Args:
        words: at least one, as the text has them.
    """
    return TextSought(words=tuple(sorted(set(words))), prefix=words[-1], filters=filters)
