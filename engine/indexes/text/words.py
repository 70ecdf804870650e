"""
From texts to words, and what a text index has of a document.

A word is a run of letters and digits, as Unicode has them, with the marks that stand on them, in
lower case.  One that takes `SEARCH_TERM_BYTES_MAX` bytes or more before that is nobody's to look
for.  There are no stems, no stop words and no dictionary.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from functools import cache
from hashlib import blake2b
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeVar, cast
from unicodedata import category

from engine.indexes.catalog import IndexInfo
from engine.model.keys import encode_key
from engine.model.limits import SEARCH_TERM_BYTES_MAX
from engine.model.values import get_path

T = TypeVar("T")

PIECE_CHARS: Final = 1 << 15
"""Of a text that is read in steps: two milliseconds, where nearly every word is a new one."""
_ASCII: Final = "".join(chr(at).lower() if chr(at).isalnum() else " " for at in range(128))
"""What each character of ASCII is to words: read so, a text takes a third of the time."""
_GAP: Final = re.compile(r"[\0-/:-@\[-`{-\x7f\u3000-\u3002]")
"""Some of what is in no word, neither as a letter nor as a mark."""
_MARKS: Final = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))
"""Where marks are that combine with a letter: accents, signs of vowels, choices of a variant."""
_HASH_BYTES: Final = 8


class TextEntry(NamedTuple):
    """What a text index has of a document."""

    words: Mapping[str, int]
    """How often it has each."""
    filters: tuple[int, ...]
    """`value_hash` of each filter field, in the order in which the index declares them."""

    @property
    def length(self) -> int:
        return sum(self.words.values())

    @property
    def hooks(self) -> Iterator[str]:
        """Its words, and all that they begin with, of which the end is marked."""
        yield from self.words
        for word in self.words:
            for end in range(1, len(word) + 1):
                yield word[:end] + "*"


def words_of(text: str) -> list[str]:
    """The words of a text, in its order; very long ones are left out."""
    if text.isascii():
        words = text.translate(_ASCII).split()
        return [word for word in words if len(word) < SEARCH_TERM_BYTES_MAX]
    return [
        word.lower()
        for word in _run_with_marks().findall(text)
        if len(word.encode()) < SEARCH_TERM_BYTES_MAX
    ]


def counted_in_steps(text: Any) -> Generator[None, None, Counter[str]]:
    """How often a text has each of its words, a piece at a time; what is no text has none."""
    words: Counter[str] = Counter()
    if isinstance(text, str):
        for at, piece in enumerate(_pieces(text)):
            if at:
                yield
            words.update(words_of(piece))
    return words


def _pieces(text: str) -> Iterator[str]:
    """A text from its beginning to its end, cut where no word is."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        gap = _GAP.search(text, start + PIECE_CHARS)
        if gap is None:
            break
        yield text[start : gap.start()]
        start = gap.start()
    yield text[start:]


@cache
def _run_with_marks() -> re.Pattern[str]:
    """
    All of which `str.isalnum` is true, and marks in it: signs of vowels in Hindi are no letters.
    """
    marks = (at for some in _MARKS for at in some if category(chr(at)).startswith("M"))
    beside = groupby(enumerate(marks), lambda one: one[1] - one[0])
    ranges = [[chr(at) for _number, at in some] for _gap, some in beside]
    any_mark = "".join(f"{some[0]}-{some[-1]}" for some in ranges)
    return re.compile(rf"[^\W_]+(?:[{any_mark}]+[^\W_]*)*")


def value_hash(value: Any) -> int:
    """
    What filters compare: equal values have one, and of others two in 2**64 may share it.

    Whoever finds a document by it looks at the document as well.
    """
    return int.from_bytes(blake2b(encode_key([value]), digest_size=_HASH_BYTES).digest(), "big")


def entry_of(index: IndexInfo, doc: Mapping[str, Any]) -> TextEntry:
    """What `index` has of a document; no words where the field is missing or no text."""
    return result_of(entry_in_steps(index, doc))


def result_of(steps: Generator[None, None, T]) -> T:
    """What steps come to, taken all at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


def entry_in_steps(index: IndexInfo, doc: Mapping[str, Any]) -> Generator[None, None, TextEntry]:
    """As `entry_of`, of a long text in steps of some two milliseconds."""
    words = yield from counted_in_steps(get_path(doc, index.options["search_field"]))
    return TextEntry(words, filters_of(index, doc))


def filters_of(index: IndexInfo, doc: Mapping[str, Any]) -> tuple[int, ...]:
    """As `TextEntry.filters`."""
    return tuple(value_hash(get_path(doc, name)) for name in index.options["filter_fields"])
