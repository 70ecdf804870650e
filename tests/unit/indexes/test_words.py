"""What is a word."""

from __future__ import annotations

import pytest

from engine.indexes.text.words import words_of


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
