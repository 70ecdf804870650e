"""The words of a tail are found in order by what they begin with, whenever each of them came."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.indexes.text import lexicon
from engine.indexes.text.lexicon import Lexicon, Ordered

WORDS = st.text("aAé\U0001f40d", min_size=1, max_size=4)


def spelled(ordered: Ordered) -> list[tuple[str, int]]:
    words = [word.decode() for word in ordered.words.tolist()]
    return list(zip(words, ordered.numbers.tolist(), strict=True))


@pytest.mark.parametrize("new_max", [0, 2, 512])
@given(st.lists(WORDS, max_size=30), st.lists(WORDS, min_size=1, max_size=5))
def test_it_finds_what_going_through_all_words_finds(
    new_max: int, words: list[str], prefixes: list[str]
) -> None:
    known = Lexicon()
    numbers: dict[str, int] = {}
    with patch.object(lexicon, "NEW_MAX", new_max):
        for at, word in enumerate(words):
            numbers.setdefault(word, len(numbers))
            assert numbers[word] == known.number(word)
            prefix = prefixes[at % len(prefixes)]
            longer = [one for one in numbers if one.startswith(prefix) and one != prefix]
            expected = [(one, numbers[one]) for one in sorted(longer)]

            assert expected == spelled(known.beginning(prefix))

    assert sorted(numbers.items()) == spelled(known.all())
    assert (len(numbers), None) == (len(known), known.find("other"))
