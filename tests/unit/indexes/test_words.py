"""What is a word."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.indexes.text import words as text_words
from engine.indexes.text.words import counted_in_steps, result_of, words_of
from tests import naive_search


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't panic, 42_times!", ["don", "t", "panic", "42", "times"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("cafe\u0301 na\u00efve", ["cafe\u0301", "na\u00efve"]),
        ("\u2764\ufe0f ok", ["ok"]),
        ("", []),
    ],
)
def test_a_word_is_a_run_of_letters_and_digits_with_their_marks(
    text: str, words: list[str]
) -> None:
    assert words == words_of(text)


TEXTS = st.text(st.sampled_from("aBz9 .,_\n\x1f\u00e9\u0130\u03a3\u4e2d\u3002"), max_size=80)


@given(TEXTS)
def test_words_are_those_of_the_naive_search(text: str) -> None:
    assert naive_search.words_of(text) == words_of(text)


@given(TEXTS | st.text(max_size=80), st.integers(1, 9))
def test_a_text_that_is_read_by_pieces_has_the_same_words(text: str, piece_chars: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_words, "PIECE_CHARS", piece_chars)
        counted = result_of(counted_in_steps(text))

    assert Counter(words_of(text)) == counted
