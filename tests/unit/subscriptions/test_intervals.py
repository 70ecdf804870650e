"""An interval map finds what looking through a list would find."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.reads import Interval
from engine.subscriptions import intervals
from engine.subscriptions.intervals import Handle, IntervalMap
from tests.unit.subscriptions.touch import INTERVALS, KEYS

REMOVALS = st.integers(0, 200)
"""Remove the interval at this place among those that are left, round and round."""


def holds(interval: Interval, key: bytes) -> bool:
    lower, upper = interval
    return lower <= key and (upper is None or key < upper)


def test_an_interval_holds_its_lower_bound_and_not_its_upper() -> None:
    found: IntervalMap[str] = IntervalMap()
    found.add(b"b", b"d", "bd")

    answers = [found.stab(key) for key in (b"a\xff", b"b", b"c\xff\xff", b"d", b"d\x00")]

    assert answers == [[], ["bd"], ["bd"], [], []]


def test_an_interval_without_an_upper_bound_holds_every_key_from_its_lower_on() -> None:
    found: IntervalMap[str] = IntervalMap()
    found.add(b"b", None, "b-")

    answers = [found.stab(key) for key in (b"", b"a", b"b", b"\xff" * 600)]

    assert answers == [[], [], ["b-"], ["b-"]]


def test_the_same_interval_may_be_there_many_times() -> None:
    found: IntervalMap[str] = IntervalMap()
    handles = [found.add(b"a", b"b", "same") for _ in range(3)]

    found.remove(handles[1])

    assert found.stab(b"a") == ["same", "same"]
    assert len(found) == 2


def test_an_interval_that_ends_before_it_begins_is_never_found() -> None:
    found: IntervalMap[str] = IntervalMap()
    found.add(b"d", b"b", "backwards")
    found.add(b"c", b"c", "empty")

    answers = [found.stab(key) for key in (b"a", b"b", b"c", b"d", b"e")]

    assert answers == [[]] * 5


def test_removing_twice_is_a_mistake() -> None:
    found: IntervalMap[str] = IntervalMap()
    found.add(b"a", b"b", "stays")
    handle = found.add(b"a", b"b", "goes")
    found.remove(handle)

    with pytest.raises(AssertionError, match="removed once"):
        found.remove(handle)


@given(st.lists(INTERVALS | REMOVALS, max_size=120), st.lists(KEYS, min_size=1, max_size=20))
def test_it_finds_what_a_list_finds(script: list[Interval | int], keys: list[bytes]) -> None:
    with patch.object(intervals, "NODE_SPANS_MAX", 4):
        found: IntervalMap[int] = IntervalMap()
        listed: list[tuple[Interval, Handle[int]]] = []
        for at, step in enumerate(script):
            if not isinstance(step, int):
                listed.append((step, found.add(*step, at)))
            elif listed:
                found.remove(listed.pop(step % len(listed))[1])

    expected = [[handle.item for span, handle in listed if holds(span, key)] for key in keys]
    assert expected == [sorted(found.stab(key)) for key in keys]
    assert len(found) == len(listed)


@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_intervals_come_and_go(seed: int) -> None:
    dice = random.Random(seed)
    found: IntervalMap[int] = IntervalMap()
    listed: list[tuple[Interval, Handle[int]]] = []
    with patch.object(intervals, "NODE_SPANS_MAX", 4):
        for item in range(3_000):
            interval = an_interval(dice)
            listed.append((interval, found.add(*interval, item)))
            if dice.random() < 0.4:
                found.remove(listed.pop(dice.randrange(len(listed)))[1])

    keys = [dice.randrange(60_000).to_bytes(3, "big") for _ in range(100)]
    keys += [lower for (lower, _), _ in dice.sample(listed, 100)]
    for key in keys:
        expected = [handle.item for interval, handle in listed if holds(interval, key)]
        assert expected == sorted(found.stab(key))


def test_a_map_that_was_emptied_is_as_small_as_a_new_one() -> None:
    found: IntervalMap[int] = IntervalMap()
    handles = [found.add(at.to_bytes(2, "big"), None, at) for at in range(2_000)]
    random.Random(0).shuffle(handles)

    for handle in handles:
        found.remove(handle)

    assert len(found) == 0
    assert nodes_of(found._root) == 1
    assert found.stab(b"\xff") == []


def test_a_search_goes_down_only_where_something_is_found() -> None:
    found: IntervalMap[int] = IntervalMap()
    for at in range(0, 40_000, 4):
        found.add(at.to_bytes(2, "big"), (at + 2).to_bytes(2, "big"), at)
    found.add(b"", b"\x00", -1)

    with counting_searches() as searched:
        assert found.stab((20_003).to_bytes(2, "big")) == []
        assert found.stab((20_001).to_bytes(2, "big")) == [20_000]

    assert len(searched) <= 2 * depth_of(found._root)


def test_when_a_long_interval_has_gone_a_search_no_longer_goes_where_it_reached() -> None:
    found: IntervalMap[int] = IntervalMap()
    long_ones = []
    for at in range(10_000):
        found.add(at.to_bytes(2, "big"), at.to_bytes(2, "big") + b"\x00", at)
        if at % 10 == 0:
            long_ones.append(found.add(at.to_bytes(2, "big"), b"\xff", -at))
    for handle in long_ones:
        found.remove(handle)

    with counting_searches() as searched:
        assert found.stab(b"\xfe") == []

    assert len(searched) == 1


def an_interval(dice: random.Random) -> Interval:
    """One key alone, or a range that is short, long or without an end."""
    lower = dice.randrange(50_000)
    start = lower.to_bytes(3, "big")
    width = dice.choice((0, 0, 1, 10, 10, 10, 1_000, 40_000))
    if dice.random() < 0.01:
        return start, None
    return start, (lower + width).to_bytes(3, "big") if width else start + b"\x00"


def nodes_of(node: intervals._Node) -> int:
    if isinstance(node, intervals._Leaf):
        return 1
    return 1 + sum(map(nodes_of, node.children))


def depth_of(node: intervals._Node) -> int:
    return 1 if isinstance(node, intervals._Leaf) else 1 + depth_of(node.children[0])


@contextmanager
def counting_searches() -> Iterator[list[object]]:
    searched: list[object] = []
    leaf_find, branch_find = intervals._Leaf.find, intervals._Branch.find

    def find_leaf(node: intervals._Leaf, *args: object) -> None:
        searched.append(node)
        leaf_find(node, *args)  # type: ignore[arg-type]

    def find_branch(node: intervals._Branch, *args: object) -> None:
        searched.append(node)
        branch_find(node, *args)  # type: ignore[arg-type]

    with (
        patch.object(intervals._Leaf, "find", find_leaf),
        patch.object(intervals._Branch, "find", find_branch),
    ):
        yield searched
