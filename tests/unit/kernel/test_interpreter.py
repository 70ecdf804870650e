"""What engines set for the whole process is what it was once none of them is open."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from engine.kernel.interpreter import tuned


def settings() -> tuple[float, tuple[int, int, int]]:
    return round(sys.getswitchinterval(), 6), gc.get_threshold()


@pytest.fixture(autouse=True)
def before() -> Iterator[tuple[float, tuple[int, int, int]]]:
    were = settings()
    yield were
    assert settings() == were


def test_an_engine_sets_what_it_is_told_and_sets_it_back() -> None:
    with tuned(0.002, (5_000, 3, 7)):
        assert settings() == (0.002, (5_000, 3, 7))


def test_what_is_none_is_left_alone(before: tuple[float, tuple[int, int, int]]) -> None:
    with tuned(None, None):
        assert settings() == before


def test_the_last_of_several_sets_back_whichever_it_is(
    before: tuple[float, tuple[int, int, int]],
) -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(tuned(0.002, (5_000, 3, 7)))
    second.enter_context(tuned(0.002, (5_000, 3, 7)))

    first.close()
    while_one_is_open = settings()
    second.close()

    assert (while_one_is_open, settings()) == ((0.002, (5_000, 3, 7)), before)


def test_an_engine_that_fails_sets_back_too(before: tuple[float, tuple[int, int, int]]) -> None:
    with pytest.raises(LookupError), tuned(0.002, (5_000, 3, 7)):
        raise LookupError

    assert settings() == before
