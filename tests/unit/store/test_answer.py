"""An answer as bytes, however they arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.store.answer import Answer, Fate, pack, unpack

answers = st.builds(
    Answer,
    fate=st.sampled_from(Fate),
    message=st.text(st.characters(exclude_categories=["Cs"])),
    flushes=st.integers(0, 255),
)


@given(answers)
def test_an_answer_comes_back_and_no_part_of_it_before(answer: Answer) -> None:
    data = pack(answer)

    assert answer == unpack(data)
    assert [None] * len(data) == [unpack(data[:end]) for end in range(len(data))]


def test_a_message_that_is_no_text_still_arrives() -> None:
    answer = unpack(pack(Answer(fate=Fate.UNKNOWN, message="\udcff!")))

    assert Answer(fate=Fate.UNKNOWN, message="?!") == answer
