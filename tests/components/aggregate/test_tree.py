"""The tree alone, on nodes in memory: every size, lazy and eager, against a sorted list."""

from __future__ import annotations

import math
import random
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.aggregate.bounds import Bounds, cuts
from components.aggregate.growth import Exists, GrowingTree, Missing, check_size
from components.aggregate.node import Node, Total
from components.aggregate.order import after, before
from components.aggregate.walk import Walk, from_root, look
from engine.model.values import normalize
from tests.components.aggregate.model import BOUNDS, IDS, KEYS, SUMMANDS, Model

T = TypeVar("T")

SIZES = st.integers(2, 9).map(lambda half: 2 * half)
WRITES = st.lists(st.tuples(st.booleans(), KEYS, IDS, SUMMANDS), max_size=100)
NUMBERS = st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=200)


class MemoryNodes:
    """Nodes of which a changed one has to be kept, or is as it was."""

    def __init__(self) -> None:
        self.kept = {"1": Node("1", [], [], [])}
        self.dirty: dict[str, Node] = {}
        self.written: list[str] = []
        self.read: set[str] = set()
        self._next = 2

    async def get(self, node_id: str) -> Node:
        self.read.add(node_id)
        if node_id not in self.dirty:
            self.dirty[node_id] = copy_of(self.kept[node_id])
        return self.dirty[node_id]

    async def add(self, items: list[Any], subtrees: list[str], totals: list[Total] | None) -> Node:
        node = Node(str(self._next), items, subtrees, totals)
        self._next += 1
        self.kept[node.id] = copy_of(node)
        self.dirty[node.id] = node
        self.written.append(node.id)
        return node

    def changed(self, node: Node) -> None:
        assert self.dirty[node.id] is node, "a node that was removed"
        self.written.append(node.id)

    async def remove(self, node: Node) -> None:
        del self.kept[node.id], self.dirty[node.id]
        self.written = [one for one in self.written if one != node.id]

    def flush(self) -> None:
        for node_id in self.written:
            self.kept[node_id] = self.dirty[node_id]
        self.dirty, self.written, self.read = {}, [], set()


def copy_of(node: Node) -> Node:
    totals = None if node.totals is None else list(node.totals)
    return Node(node.id, [list(item) for item in node.items], list(node.subtrees), totals)


def done(running: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nothing."""
    try:
        running.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waited")


async def always() -> bool:
    return True


class Subject:
    """A tree of its own, and the list that it should be."""

    def __init__(self, size_max: int, *, is_lazy: bool) -> None:
        self.nodes = MemoryNodes()
        self.model = Model()
        self.built: Any = {"size_max": size_max, "is_lazy": is_lazy}
        self.tree = GrowingTree(self.nodes, "1", **self.built)

    def put(self, key: Any, item_id: str, summand: Any) -> None:
        try:
            done(self.tree.insert([key, item_id, summand]))
        except Exists:
            assert self.model.has(key, item_id)
            assert self.nodes.written == []
        else:
            assert not self.model.has(key, item_id)
            self.model.put(key, item_id, summand)
        self._check()

    def take(self, key: Any, item_id: str) -> None:
        try:
            done(self.tree.delete(key, item_id))
        except Missing:
            assert not self.model.has(key, item_id)
            assert self.nodes.written == []
        else:
            self.model.take(key, item_id)
        self._check()

    def total(self, bounds: Bounds | None = None) -> Total:
        return done(self.tree.total(*cuts(bounds)))

    def _check(self) -> None:
        self.nodes.flush()
        assert self.model.count() == self.look()["count"]
        assert Total(self.model.count(), self.model.sum()) == self.total()
        self.nodes.flush()

    def look(self) -> Walk:
        """Look at the whole tree, a node at a time."""
        walk = from_root(self.tree.root)
        while walk["left"]:
            walk = done(look(self.nodes, walk, is_enough=always, **self.built))
        return walk


def subject_of(writes: list[Any], size_max: int, *, is_lazy: bool) -> Subject:
    subject = Subject(size_max, is_lazy=is_lazy)
    for puts, key, item_id, summand in writes:
        if puts:
            subject.put(normalize(key), item_id, summand)
        else:
            subject.take(normalize(key), item_id)
    return subject


@given(WRITES, SIZES, st.booleans(), st.lists(BOUNDS, max_size=20))
def test_a_tree_is_a_sorted_list(
    writes: list[Any], size_max: int, is_lazy: bool, bounds: list[Any]
) -> None:
    subject = subject_of(writes, size_max, is_lazy=is_lazy)
    tree, model = subject.tree, subject.model

    for one in map(normalize, bounds):
        within = [[item["key"], item["id"], item["sumValue"]] for item in model.within(one)]
        edges = cuts(one)
        assert Total(model.count(one), model.sum(one)) == subject.total(one)
        for offset in range(-len(within) - 1, len(within) + 1):
            expected = within[offset] if -len(within) <= offset < len(within) else len(within)
            assert repr(expected) == repr(done(tree.at(offset, *edges)))
        backwards = done(tree.items(*edges, limit=1000, is_reverse=True))
        assert repr(within[::-1]) == repr(backwards)
        assert repr(within[:2]) == repr(done(tree.items(*edges, limit=2, is_reverse=False)))


@given(NUMBERS, SIZES, st.booleans())
def test_numbers_that_come_and_go_leave_the_tree_in_shape(
    writes: list[Any], size_max: int, is_lazy: bool
) -> None:
    subject = Subject(size_max, is_lazy=is_lazy)

    for puts, number in writes:
        if puts:
            subject.put(number, "", number)
        else:
            subject.take(number, "")

    places = sorted(item["key"] for item in subject.model.within())
    for rank, number in enumerate(places):
        assert rank == done(subject.tree.total(None, before(number))).size
        assert len(places) - rank - 1 == done(subject.tree.total(after(number), None)).size


@pytest.mark.parametrize("is_lazy", [True, False])
def test_a_tree_that_has_grown_shrinks_to_nothing(is_lazy: bool) -> None:
    subject = Subject(4, is_lazy=is_lazy)
    numbers = list(range(200))
    for number in numbers:
        subject.put(number, "", number)
    random.Random(3).shuffle(numbers)
    for number in numbers:
        subject.take(number, "")

    assert [subject.tree.root] == list(subject.nodes.kept)


def test_the_golden_insertions_and_deletions() -> None:
    subject = Subject(4, is_lazy=False)
    for number in (1, 4, 3, 2, 5, 6, 7, 10, 0, -1, 9, 8):
        subject.put(number, "", number)
    ranks = {n: done(subject.tree.total(None, before(n))).size for n in (-1, 5, 10)}
    assert {-1: 0, 5: 6, 10: 11} == ranks

    subject.take(3, "")
    for number in (-1, 6, 7, 0):
        subject.take(number, "")
    assert [1, 2, 4, 5, 8, 9, 10] == [item["key"] for item in subject.model.within()]


@pytest.mark.parametrize(
    ("lower", "upper", "count"),
    [(-1, 10, 10), (None, None, 10), (4, 6, 1), (0.5, 8.5, 8), (6, 9, 2), (9, 0, 0)],
)
def test_the_golden_ranges(lower: float | None, upper: float | None, count: int) -> None:
    subject = Subject(4, is_lazy=False)
    for number in range(10):
        subject.put(number, "", 0)

    low = None if lower is None else after(lower)
    high = None if upper is None else before(upper)
    assert count == done(subject.tree.total(low, high)).size


def test_the_golden_sums() -> None:
    subject = Subject(4, is_lazy=False)
    expected = 0
    for key, summand in {1: 1, 4: 2, 3: 3, 2: 4, 5: 5, 6: 6}.items():
        subject.put(key, "", summand)
        expected += summand
        assert expected == subject.total().sum
    for key in (3, 2, 1, 5, 4):
        subject.take(key, "")

    assert Total(1, 6) == subject.total()


def test_sums_of_integers_are_exact_beyond_what_floats_hold() -> None:
    subject = Subject(4, is_lazy=True)
    for number in range(100):
        subject.put(number, "", 2**53 - number)

    assert sum(2**53 - number for number in range(100)) == subject.total().sum


def test_what_was_rounded_leaves_nothing_behind() -> None:
    subject = Subject(4, is_lazy=False)
    dice = random.Random(7)
    for number in range(50):
        done(subject.tree.insert([number, "", 1]))
    for number in range(100, 300):
        done(subject.tree.insert([number, "", dice.uniform(-1e300, 1e300)]))
    for number in range(100, 300):
        done(subject.tree.delete(number, ""))

    assert Total(50, 50) == subject.total()
    assert isinstance(subject.total().sum, int)


def test_floats_add_up_as_exactly_as_fsum_does_in_one_node() -> None:
    subject = Subject(16, is_lazy=False)
    for number in range(10):
        done(subject.tree.insert([number, "", 0.1]))

    assert math.fsum([0.1] * 10) == subject.total().sum


@pytest.mark.parametrize("is_lazy", [True, False])
def test_a_write_and_a_count_touch_a_path_and_not_the_tree(is_lazy: bool) -> None:
    subject = Subject(16, is_lazy=is_lazy)
    numbers = list(range(10_000))
    random.Random(5).shuffle(numbers)
    writes, roots, reads = 0, 0, []
    for number in numbers:
        done(subject.tree.insert([number, "", 1]))
        writes += len(set(subject.nodes.written))
        roots += subject.tree.root in subject.nodes.written
        subject.nodes.flush()
    dice = random.Random(6)
    for _ in range(200):
        low, high = sorted(dice.sample(numbers, 2))
        assert high - low - 1 == done(subject.tree.total(after(low), before(high))).size
        reads.append(len(subject.nodes.read))
        subject.nodes.flush()

    assert writes / len(numbers) < (3.5 if is_lazy else 4.5)
    assert roots < 0.02 * len(numbers) if is_lazy else roots > 0.98 * len(numbers)
    assert max(reads) <= (26 if is_lazy else 9)


@pytest.mark.parametrize("size", [2, 3, 5, 7, 514, -4])
def test_a_node_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="must be even and at least 4"):
        check_size(size)


@given(st.lists(st.integers(0, 100), unique=True, min_size=1, max_size=60), SIZES)
def test_a_count_between_bounds_reads_nothing_that_a_write_elsewhere_changes(
    numbers: list[int], size_max: int
) -> None:
    """The promise of a lazy root: what is far apart shares no node that is written."""
    subject = Subject(size_max, is_lazy=True)
    for number in sorted(numbers):
        subject.put(number, "", 0)
    root = subject.nodes.kept[subject.tree.root]
    if not root.subtrees:
        return
    first = root.items[0][0]
    subject.nodes.flush()
    done(subject.tree.total(None, before(first)))
    read = set(subject.nodes.read) - {root.id}
    subject.nodes.flush()

    done(subject.tree.insert([1_000, "", 0]))

    split = set(subject.nodes.written) & {root.id}
    assert split or not read & set(subject.nodes.written)
    assert all(a < b for a, b in pairwise([item["key"] for item in subject.model.within()]))


# Damage.


def grown(is_lazy: bool = False) -> Subject:
    """Three levels: a root, nodes with leaves below, and leaves."""
    subject = Subject(4, is_lazy=is_lazy)
    for number in range(40):
        subject.put(number, "", 1)
    return subject


def inner_and_leaf(subject: Subject) -> tuple[Node, Node]:
    kept = subject.nodes.kept
    inner = kept[kept[subject.tree.root].subtrees[1]]
    return inner, kept[inner.subtrees[0]]


def lose_an_item(inner: Node, leaf: Node) -> None:
    del leaf.items[-1]


def swap_items(inner: Node, leaf: Node) -> None:
    leaf.items.reverse()


def change_a_summand(inner: Node, leaf: Node) -> None:
    leaf.items[0][2] = 2


def miscount(inner: Node, leaf: Node) -> None:
    assert inner.totals
    inner.totals[-1] = Total(inner.totals[-1].size + 1, inner.totals[-1].sum)


def lose_a_subtree(inner: Node, leaf: Node) -> None:
    del inner.subtrees[-1]


def forget_totals(inner: Node, leaf: Node) -> None:
    inner.totals = None


def move_beyond_its_neighbour(inner: Node, leaf: Node) -> None:
    leaf.items[-1][0] = inner.items[0][0] + 0.5


def be_too_shallow(inner: Node, leaf: Node) -> None:
    inner.subtrees, inner.totals = [], []


@pytest.mark.parametrize("is_lazy", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lose_an_item,
        swap_items,
        change_a_summand,
        miscount,
        lose_a_subtree,
        forget_totals,
        move_beyond_its_neighbour,
        be_too_shallow,
    ],
)
def test_whatever_is_damaged_is_found(damage: Any, is_lazy: bool) -> None:
    subject = grown(is_lazy)
    assert 3 == subject.look()["height"]
    subject.nodes.flush()

    damage(*inner_and_leaf(subject))

    with pytest.raises(AssertionError):
        subject.look()
