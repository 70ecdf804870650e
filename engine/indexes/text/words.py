"""
From texts to words, and what a text index has of a document.

A word is a run of letters and digits, as Unicode has them, with the marks that stand on them, in
lower case.  One that takes `SEARCH_TERM_BYTES_MAX` bytes or more before that is nobody's to look
for.  There are no stems, no stop words and no dictionary.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from itertools import groupby
from typing import Any, Final, NamedTuple
from unicodedata import category

from engine.indexes.catalog import IndexInfo
from engine.model.keys import encode_key
from engine.model.limits import SEARCH_TERM_BYTES_MAX
from engine.model.values import get_path

_RUN: Final = re.compile(r"[^\W_]+")
"""Exactly the characters of which `str.isalnum` is true."""
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
    def hooks(self) -> list[str]:
        """Its words, and all that they begin with, of which the end is marked."""
        ends = [word[:end] + "*" for word in self.words for end in range(1, len(word) + 1)]
        return [*self.words, *dict.fromkeys(ends)]


def words_of(text: str) -> list[str]:
    """The words of a text, in its order; very long ones are left out."""
    if text.isascii():
        return [word for word in _RUN.findall(text.lower()) if len(word) < SEARCH_TERM_BYTES_MAX]
    return [
        word.lower()
        for word in _run_with_marks().findall(text)
        if len(word.encode()) < SEARCH_TERM_BYTES_MAX
    ]


@cache
def _run_with_marks() -> re.Pattern[str]:
    """`_RUN`, and marks in it: signs of vowels in Hindi are no letters to `str.isalnum`."""
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
    text = get_path(doc, index.options["search_field"])
    words = Counter(words_of(text)) if isinstance(text, str) else {}
    filters = tuple(value_hash(get_path(doc, name)) for name in index.options["filter_fields"])
    return TextEntry(words, filters)
