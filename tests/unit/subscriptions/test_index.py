"""The index of read sets finds whom a commit touches, and nobody else."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.model.reads import ReadSet
from engine.subscriptions.index import SLICE_HOOKS, ReadIndex
from tests.unit.subscriptions.touch import (
    INDEXES,
    READS,
    Text,
    Touch,
    Word,
    moved,
    overlaps,
    reads_of,
    touches,
)

FIRST, SECOND = INDEXES


def found_by(index: ReadIndex[str], commit: Touch) -> list[str]:
    return sorted(index.touched_by(commit))


def test_a_row_that_leaves_a_range_touches_it_as_one_that_enters_does() -> None:
    index: ReadIndex[str] = ReadIndex()
    index.add(reads_of(ranges=[(FIRST, (b"b", b"d"))]), "b to d")

    answers = [
        found_by(index, moved(1, b"c", b"x")),
        found_by(index, moved(2, b"x", b"c")),
        found_by(index, moved(3, b"x", b"d")),
    ]

    assert answers == [["b to d"], ["b to d"], []]


def test_the_same_key_in_another_index_is_another_key() -> None:
    index: ReadIndex[str] = ReadIndex()
    index.add(reads_of(ranges=[(FIRST, (b"", None))]), "all of the first")

    assert found_by(index, moved(1, b"a", b"b", index=SECOND)) == []


def test_a_document_that_was_missing_is_a_point_like_any_other() -> None:
    index: ReadIndex[str] = ReadIndex()
    index.add(reads_of(points=[b"nobody"]), "asked for nobody")

    assert found_by(index, Touch(ts=1, rows=frozenset({b"nobody"}))) == ["asked for nobody"]
    assert found_by(index, Touch(ts=2, rows=frozenset({b"somebody"}))) == []


def test_what_is_removed_as_soon_as_it_is_found_is_found_by_one_key_alone() -> None:
    index: ReadIndex[str] = ReadIndex()
    for name in ("one", "two"):
        index.add(reads_of(points=[b"row"], ranges=[(FIRST, (b"", None))]), name)
    commit = Touch(ts=1, rows=frozenset({b"row"}), entries={FIRST: [b"%d" % n for n in range(99)]})

    found = []
    for name in index.touched_by(commit):
        index.remove(name)
        found.append(name)

    assert sorted(found) == ["one", "two"]


def test_a_range_that_many_have_read_is_looked_through_once() -> None:
    index: ReadIndex[str] = ReadIndex()
    names = [f"reader {number}" for number in range(20)]
    for name in names:
        index.add(reads_of(points=[b"row"], ranges=[(FIRST, (b"", None))]), name)
    commit = Touch(ts=1, rows=frozenset(), entries={FIRST: [b"%d" % n for n in range(99)]})

    found = []
    for name in index.touched_by(commit):
        index.leave(name)
        found.append(name)

    assert found == names
    assert (len(index), index.point_count, index.range_count) == (0, 1, 0)
    assert names == list(index.clean())
    assert index.point_count == 0


def test_who_has_left_is_not_found_and_takes_nothing_along_of_those_who_come() -> None:
    index: ReadIndex[str] = ReadIndex()
    reads = reads_of(points=[b"row"], ranges=[(FIRST, (b"", None))])
    commit = Touch(ts=1, rows=frozenset({b"row"}), entries={FIRST: [b"key"]})
    for name in ("one", "two"):
        index.add(reads, name)
    for name in index.touched_by(commit):
        index.leave(name)

    index.add(reads, "three")
    found = [found_by(index, commit), list(index.clean())]

    assert [["three", "three"], ["one", "two"]] == found
    assert ["three", "three"] == found_by(index, commit)


def test_readers_are_found_in_the_order_in_which_they_came() -> None:
    index: ReadIndex[str] = ReadIndex()
    names = [f"reader {number}" for number in range(20)]
    for name in (*names, "gone"):
        index.add(reads_of(points=[b"row"], ranges=[(FIRST, (b"", None))]), name)
    index.leave("gone")

    by_row = list(index.touched_by(Touch(ts=1, rows=frozenset({b"row"}))))
    by_range = list(index.touched_by(Touch(ts=2, rows=frozenset(), entries={FIRST: [b"key"]})))

    assert (names, names) == (by_row, by_range)


@given(st.lists(READS, max_size=12), st.sets(st.integers(0, 11)), touches(1))
def test_it_finds_what_comparing_every_key_with_every_interval_finds(
    read_sets: list[ReadSet], gone: set[int], commit: Touch
) -> None:
    index: ReadIndex[int] = ReadIndex()
    for item, reads in enumerate(read_sets):
        index.add(reads, item)
    for item in gone & set(range(len(read_sets))):
        (index.leave if item % 2 else index.remove)(item)

    found = set(index.touched_by(commit))

    expected = {
        item for item, reads in enumerate(read_sets) if item not in gone and overlaps(reads, commit)
    }
    assert expected == found


@given(st.lists(READS, max_size=12), st.randoms(use_true_random=False))
def test_it_is_empty_when_everybody_has_left(read_sets: list[ReadSet], dice: random.Random) -> None:
    index: ReadIndex[int] = ReadIndex()
    for item, reads in enumerate(read_sets):
        index.add(reads, item)
    leaving = list(index)
    dice.shuffle(leaving)

    for item in leaving:
        dice.choice((index.remove, index.leave))(item)
    for _ in index.clean():
        pass

    assert (len(index), index.point_count, index.range_count) == (0, 0, 0)
    assert index._points == {}
    assert index._ranges == {}


def test_what_a_long_text_has_is_looked_for_with_turns_of_others_between() -> None:
    words = [f"w{n}" for n in range(5 * SLICE_HOOKS)]
    index: ReadIndex[str] = ReadIndex()
    for word in (words[0], words[-1], "absent"):
        index.add(reads_of(searches=[Word(word)]), word)
    commit = Touch(ts=1, texts=(Text(tuple(words)),))

    assert [words[0], None, None, None, None, words[-1], None] == list(
        index.touched_in_slices(commit)
    )
