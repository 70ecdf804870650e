"""Vector indexes: rows, filters, and the best of them as of every timestamp."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import InvalidRange
from engine.indexes.catalog import IndexInfo, IndexKind
from engine.indexes.live import Checkpoint, Leisure
from engine.indexes.vectors import nearest as vector_search
from engine.indexes.vectors.asked import Condition, condition_of, evaluate, value_key
from engine.indexes.vectors.entry import Entry, Reached, entry_of
from engine.indexes.vectors.graph import Graph, codes_of
from engine.indexes.vectors.index import VectorIndex
from engine.indexes.vectors.nearest import Best, Found, Sought, exactly, nearly
from engine.indexes.vectors.rows import Row, about, row_of, score, scores, slack, unit
from engine.model.ids import encode_id
from engine.model.values import UNDEFINED

DIMENSIONS = 3
INDEX = IndexInfo(
    index_id=1,
    name="by_vector",
    table_number=10_001,
    fields=(),
    kind=IndexKind.VECTOR,
    options={"vector_field": "v", "dimensions": DIMENSIONS, "filter_fields": ["kind", "n.m"]},
)

INDEX_24 = replace(
    INDEX, options={"vector_field": "v", "dimensions": 24, "filter_fields": ["half", "hundredth"]}
)
CONDITIONS: dict[str | None, Condition | None] = {
    None: None,
    "half": condition_of(lambda q: q.eq("half", 1)),
    "hundredth": condition_of(lambda q: q.eq("hundredth", 7)),
}

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
tame = st.floats(-1, 1, width=32)


# Rows.


@given(st.lists(numbers, min_size=2, max_size=40))
def test_a_row_has_length_1_whatever_the_size_of_its_numbers(given: list[float]) -> None:
    row = unit(given)

    assert row is not None
    length = math.sqrt(sum(float(x) ** 2 for x in row))
    assert length == pytest.approx(1.0 if any(given) else 0.0, abs=1e-6)


@pytest.mark.parametrize(
    "value",
    [
        [1.0, 2.0],
        [1.0, 2.0, 3.0, 4.0],
        [1.0, 2.0, "3"],
        [1.0, 2.0, True],
        [1.0, 2.0, math.nan],
        [1.0, 2.0, math.inf],
        (1.0, 2.0, 3.0),
        "abc",
        UNDEFINED,
        None,
    ],
    ids=range(10),
)
def test_what_is_no_list_of_so_many_finite_numbers_has_no_row(value: Any) -> None:
    assert row_of(value, DIMENSIONS) is None


@settings(max_examples=50)
@given(st.integers(2, 400), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_a_score_depends_on_nothing_but_its_two_rows(
    dimensions: int, count: int, seed: int
) -> None:
    dice = np.random.default_rng(seed)
    rows = np.array([unit(list(dice.normal(size=dimensions))) for _ in range(count)])
    row = unit(list(dice.normal(size=dimensions)))
    assert row is not None

    together = scores(rows, row)

    assert [score(one, row) for one in rows] == together.tolist()
    assert [score(row, one) for one in rows] == together.tolist()
    assert scores(rows[::-1].copy(), row).tolist() == together[::-1].tolist()


@settings(max_examples=50)
@given(st.integers(2, 400), st.integers(0, 2**32 - 1))
def test_what_is_looked_at_in_about_is_off_by_no_more_than_is_said(
    dimensions: int, seed: int
) -> None:
    dice = np.random.default_rng(seed)
    rows = np.array([unit(list(dice.normal(size=dimensions))) for _ in range(20)])

    exact = [sum(map(Fraction, map(float, r * rows[0].astype(np.float64)))) for r in rows]

    for near, true in zip(about(rows, rows[0]).tolist(), exact, strict=True):
        assert abs(near - true) <= slack(dimensions)


def test_nothing_is_like_nothing() -> None:
    zero, one = unit([0, 0, 0]), unit([1, 2, 3])
    assert zero is not None
    assert one is not None

    assert [0.0, 0.0] == [score(zero, one), score(zero, zero)]
    assert 1.0 - 1e-6 <= score(one, one) <= 1.0


# Conditions.


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda q: q.eq("a", 1), [1, 2]),
        (lambda q: q.or_(q.eq("a", 1), q.eq("b", 2)), [1, 2, 4]),
        (lambda q: q.and_(q.eq("a", 1), q.eq("b", 2)), [2]),
        (lambda q: q.eq("a", 1) & q.eq("b", 2), [2]),
        (lambda q: (q.eq("a", 1) & q.eq("b", 1)) | q.eq("a", UNDEFINED), [1, 3]),
        (lambda q: q.eq("b", 1.0), [1]),
        (lambda q: q.or_(q.eq("a", 7)), []),
    ],
    ids=range(7),
)
def test_conditions_are_made_of_comparisons(
    build: Callable[[Any], Any], expected: list[int]
) -> None:
    docs: dict[int, dict[str, Any]] = {
        1: {"a": 1, "b": 1},
        2: {"a": 1, "b": 2},
        3: {},
        4: {"a": "1", "b": 2},
    }
    condition = condition_of(build)

    def meets(doc: dict[str, Any]) -> bool:
        return evaluate(
            condition, lambda equal: value_key(doc.get(equal.field, UNDEFINED)) == equal.key
        )

    assert expected == [n for n, doc in docs.items() if meets(doc)]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda q: q.eq("a", 1) and q.eq("b", 2), "write & and |"),
        (lambda _q: True, "is made of q.eq"),
        (lambda q: q.or_(q.eq("a", 1), True), "is made of q.eq"),
        (lambda q: q.eq("a", 1) & (1 > 0), "is made of q.eq"),
        (lambda q: q.or_(), "at least one"),
    ],
    ids=range(5),
)
def test_what_is_no_condition_is_refused(build: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(InvalidRange, match=said):
        condition_of(build)


# A graph.


def clustered(count: int, dimensions: int, seed: int) -> NDArray[np.float32]:
    """Vectors that lie in heaps, as those of models do."""
    dice = np.random.default_rng(seed)
    heaps = dice.normal(size=(40, dimensions))
    rows = heaps[dice.integers(40, size=count)] + 0.6 * dice.normal(size=(count, dimensions))
    return np.array([unit(row.tolist()) for row in rows])


def fold_all(index: VectorIndex, durable_ts: int) -> None:
    while (run := index.fold(durable_ts)) is not None:
        run()()


def test_a_graph_finds_nearly_all_of_the_best_and_scores_them_exactly() -> None:
    rows = clustered(5_200, 24, seed=1)
    index = VectorIndex(INDEX_24, tail_rows_max=100)
    for number, row in enumerate(rows):
        kinds = [value_key(name) for name in (number % 2, number % 100)]
        index.change(1, number.to_bytes(16, "big"), Entry(row, tuple(kinds)))
        if number == 4_100:
            fold_all(index, 1)
    fold_all(index, 1)
    asked = clustered(100, 24, seed=2)
    shares: dict[str | None, list[float]] = {}

    for row in asked:
        for condition in CONDITIONS:
            sought = Sought(
                row=row,
                limit=10,
                ts=1,
                condition=CONDITIONS[condition],
                fields=index.fields,
            )
            near, exact = Best(sought), Best(sought)
            for _ in nearly(index.parts(), near):
                pass
            for _ in exactly(index.parts(), exact):
                pass
            assert near.found == sorted(near.found, reverse=True)
            common = set(near.found) & set(exact.found)
            shares.setdefault(condition, []).append(len(common) / 10)

    (part,) = index.folded
    assert part.graph is not None
    assert np.mean(shares[None]) >= 0.95
    assert np.mean(shares["half"]) >= 0.95
    assert np.mean(shares["hundredth"]) == 1.0


def nearest(graph: Graph, row: Row, count: int) -> list[int]:
    found: list[int] = graph.nearest(codes_of(row), count).tolist()
    return found


def test_a_graph_comes_back_from_its_bytes() -> None:
    rows = clustered(300, 8, seed=3)
    graph = Graph.of(rows)

    again = Graph.over(np.frombuffer(graph.to_bytes(), np.uint8), graph.largest, 8)

    assert nearest(graph, rows[7], 5) == nearest(again, rows[7], 5)


def test_a_graph_that_is_read_where_it_lies_is_gone_on_from_in_a_copy() -> None:
    rows = clustered(300, 8, seed=3)
    graph = Graph.of(rows[:200])
    data = np.frombuffer(graph.to_bytes(), np.uint8)

    longer = Graph.of(rows, Graph.over(data, graph.largest, 8))
    as_long = Graph.of(rows, longer)

    assert as_long.places().tolist() == longer.places().tolist()
    assert list(range(300)) == longer.places().tolist()
    assert longer.has(longer.places(), rows).all()
    assert data.tobytes() == graph.to_bytes()


def test_a_graph_is_laid_anew_where_its_numbers_were_too_small_for_what_comes() -> None:
    small = np.full((40, 64), 0.125, np.float32)
    large = np.eye(8, 64, dtype=np.float32)
    graph = Graph.of(small)

    longer = Graph.of(np.concatenate([small, large]), graph)

    assert (0.125, 1.0) == (graph.largest, longer.largest)
    assert [40 + n for n in range(8)] == [nearest(longer, row, 1)[0] for row in large]


def test_a_fold_copies_in_proportion_to_what_is_new() -> None:
    index = VectorIndex(INDEX, tail_rows_max=10)
    rows = clustered(2_000, DIMENSIONS, seed=5)
    made = 0

    for number, row in enumerate(rows, 1):
        index.change(1, number.to_bytes(16, "big"), Entry(row, (b"a", b"b")))
        if index.is_due:
            before = {id(part) for part in index.folded}
            fold_all(index, 1)
            made += sum(len(part) for part in index.folded if id(part) not in before)
            sizes = [len(part) for part in index.folded]
            assert sum(sizes) == number
            assert all(size > 4 * sum(sizes[at:]) for at, size in enumerate(sizes, 1))

    assert made < 10 * len(rows)


def test_what_is_new_is_written_and_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    index = VectorIndex(INDEX, tail_rows_max=10)
    rows = clustered(110, DIMENSIONS, seed=7)
    for number, row in enumerate(rows[:100]):
        index.change(1, number.to_bytes(16, "big"), Entry(row, (b"a", b"b")))
    fold_all(index, 1)
    index.checkpoint(1).write(tmp_path)()
    (old,) = index.folded
    written = (tmp_path / old.file).stat().st_mtime_ns
    for number, row in enumerate(rows[100:], 100):
        index.change(2, number.to_bytes(16, "big"), Entry(row, (b"a", b"b")))
    fold_all(index, 2)

    checkpoint = index.checkpoint(2)
    checkpoint.write(tmp_path)()

    again = VectorIndex.read(INDEX, 2, checkpoint.manifest, tmp_path)
    assert [old.file, index.folded[1].file] == checkpoint.names
    assert [100, 10] == [len(part) for part in again.folded]
    assert written == (tmp_path / old.file).stat().st_mtime_ns


def test_parts_that_wear_away_do_not_stay_beside_each_other() -> None:
    index = VectorIndex(INDEX, tail_rows_max=10, part_rows_max=100)
    rows = clustered(100, DIMENSIONS, seed=6)
    most = 0

    for number in range(5_000):
        # One in twenty is never written again.
        key = (number if number % 20 == 0 else 10_000 + number % 150).to_bytes(16, "big")
        index.change(number + 1, key, Entry(rows[number % 100], (b"a", b"b")))
        index.forget(number)
        if index.is_due:
            fold_all(index, number + 1)
            most = max(most, len(index.folded))

    assert 250 + 150 == index.count()
    assert most <= 10


def test_at_rest_an_index_becomes_one_part() -> None:
    index = VectorIndex(INDEX, tail_rows_max=100)
    rows = clustered(500, DIMENSIONS, seed=4)
    for number, row in enumerate(rows):
        index.change(1, number.to_bytes(16, "big"), Entry(row, (b"a", b"b")))
        if number in (450, 455, 460):
            index.freeze()
            fold_all(index, 1)
    assert [451, 10] == [len(part) for part in index.folded]

    index.freeze(Leisure.REST)
    fold_all(index, 1)

    assert [500] == [len(part) for part in index.folded]
    assert (index.tail.count, index.is_due) == (0, False)


def test_in_a_pause_parts_take_what_is_a_sixteenth_of_them() -> None:
    index = VectorIndex(INDEX, tail_rows_max=100)
    rows = clustered(900, DIMENSIONS, seed=4)
    told = []
    for number, row in enumerate(rows, 1):
        index.change(1, number.to_bytes(16, "big"), Entry(row, (b"a", b"b")))
        if number in (800, 815, 849):
            index.freeze()
            fold_all(index, 1)
        if number in (815, 849, 850):
            told.append(index.is_loose)
    # 50 and more are a sixteenth of 800, of which parts have no 800th.
    assert [False, False, True] == told

    index.freeze(Leisure.PAUSE)
    fold_all(index, 1)
    assert [900] == [len(part) for part in index.folded]
    index.change(1, b"x" * 16, Entry(rows[0], (b"a", b"b")))
    index.freeze()
    fold_all(index, 1)

    assert [900, 1] == [len(part) for part in index.folded]
    assert not index.is_loose


def test_however_writers_pause_a_row_is_copied_a_bounded_number_of_times() -> None:
    rows = clustered(1, DIMENSIONS, seed=5)
    for burst in (1, 3, 10, 25, 60):
        index, made = VectorIndex(INDEX, tail_rows_max=10), 0
        for number in range(1, 1 + 3_000):
            before = set(map(id, index.folded))
            index.change(1, number.to_bytes(16, "big"), Entry(rows[0], (b"a", b"b")))
            if index.is_due:
                fold_all(index, 1)
            if number % burst == 0 and index.is_loose:
                index.freeze(Leisure.PAUSE)
                fold_all(index, 1)
            made += sum(len(part) for part in index.folded if id(part) not in before)

        assert not index.is_loose or number % burst
        assert made < 30 * number


@pytest.mark.parametrize("condition", [None, "half"])
def test_others_have_their_turn_after_so_many_numbers_of_all_parts_and_not_before(
    condition: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_search, "BLOCK_NUMBERS", 24 * 50)
    index = VectorIndex(INDEX_24, tail_rows_max=30)  # blocks of so many rows
    rows = clustered(210, 24, seed=3)
    for number, row in enumerate(rows):
        kinds = (value_key(int(number % 6 == 0)), value_key(0))
        index.change(1, number.to_bytes(16, "big"), Entry(row, kinds))
    assert 7 == len(index.parts())

    for search in (exactly, nearly):
        for parts in (index.parts(), index.parts()[:1]):
            sought = Sought(rows[0], 10, 1, CONDITIONS[condition], index.fields)
            best = Best(sought)
            turns = len(list(search(parts, best)))
            # Twice 30 rows are more than 50; those of a filter, five of each part, are 35 in all.
            assert turns == (6 if condition is None and len(parts) == 7 else 0)


# An index, as of every timestamp.

KEYS = [bytes([n]) * 15 + b"\0" for n in range(6)]
FIELDS = ("kind", "n.m")
docs = st.none() | st.fixed_dictionaries(
    {"v": st.lists(st.integers(-2, 2), min_size=2, max_size=3)},
    optional={"kind": st.sampled_from(["a", "b"]), "n": st.just({"m": 1})},
)
CONDITIONS_MADE: list[Callable[[Any], Any] | None] = [
    None,
    lambda q: q.eq("kind", "a"),
    lambda q: q.or_(q.eq("kind", "a"), q.eq("n.m", 1)),
    lambda q: q.and_(q.eq("kind", "b"), q.eq("n.m", UNDEFINED)),
]


class Model:
    """The documents at each timestamp, and the best of them by looking at all."""

    def __init__(self) -> None:
        self.states: list[dict[bytes, Entry]] = [{}]
        self.written = [b""]
        """The key that each commit wrote."""

    @property
    def ts(self) -> int:
        return len(self.states) - 1

    def change(self, key: bytes, entry: Entry | None) -> None:
        state = dict(self.states[-1])
        state.pop(key, None)
        if entry is not None:
            state[key] = entry
        del self.written[len(self.states) :]
        self.states.append(state)
        self.written.append(key)

    def best(self, sought: Sought) -> list[Found]:
        found = [
            (score(entry.row, sought.row), id_of(key))
            for key, entry in self.states[sought.ts].items()
            if id_of(key) not in sought.hidden and entry.meets(sought.condition, sought.fields)
        ]
        return sorted(found, reverse=True)[: sought.limit]


def id_of(key: bytes) -> str:
    return encode_id(INDEX.table_number, key)


def best_of(index: VectorIndex, sought: Sought) -> list[Found]:
    best = Best(sought)
    for _ in exactly(index.parts(), best):
        pass
    return best.found


class History:
    """
    Changes, failed batches and folds of an index in which every part is small, beside the model.

    Folds begin and end apart from each other, as in a thread.

    Args:
        folder: for its files.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.folder = folder
        self.dice = Random(seed)
        self.index, self.model = VectorIndex(INDEX, tail_rows_max=2, part_rows_max=5), Model()
        self.durable = 0
        self.run: Callable[[], Callable[[], None]] | None = None
        self.install: Callable[[], None] | None = None
        self.done: Counter[str] = Counter()
        self.kept: Checkpoint | None = None

    def live(self, steps: int) -> None:
        for _ in range(steps):
            step = self.dice.choices(
                [
                    self.change,
                    self.settle,
                    self.fail,
                    self.fold,
                    self.make,
                    self.put_in_place,
                    self.checkpoint,
                    self.reopen,
                ],
                [20, 8, 2, 6, 6, 6, 2, 1],
            )[0]
            step()
            self.check()

    def change(self) -> None:
        key, entry = self.dice.choice(KEYS), None
        if self.dice.random() < 0.8:
            doc: dict[str, Any] = {"v": self.numbers(), "kind": self.dice.choice(["a", "b"])}
            if self.dice.random() < 0.5:
                doc["n"] = {"m": 1}
            entry = entry_of(INDEX, doc)
        self.model.change(key, entry)
        self.index.change(self.model.ts, key, entry)

    def settle(self) -> None:
        self.durable = self.model.ts
        self.index.forget(self.dice.randint(self.index.floor_ts, self.durable))

    def fail(self) -> None:
        self.done["failed"] += self.model.ts > self.durable
        del self.model.states[self.durable + 1 :]
        self.index.roll_back(self.durable)

    def checkpoint(self) -> None:
        checkpoint = self.index.checkpoint(self.durable)
        assert checkpoint.ts <= self.durable
        checkpoint.write(self.folder)()
        self.kept = checkpoint

    def reopen(self) -> None:
        """Go on from the last checkpoint, and from what is durable; nobody has an older view."""
        if self.kept is None:
            return
        ts, manifest = self.kept.ts, self.kept.manifest
        self.index = VectorIndex.read(INDEX, ts, manifest, self.folder)
        self.index._tail_rows_max, self.index._part_rows_max = 2, 5
        del self.model.states[self.durable + 1 :]
        for key in dict.fromkeys(self.model.written[ts + 1 : self.durable + 1]):
            self.index.change(self.durable, key, self.model.states[-1].get(key))
        self.index.forget(self.durable)
        self.index.freeze()
        fold_all(self.index, self.durable)
        self.run = self.install = None
        self.done["reopened"] += 1

    def fold(self) -> None:
        if self.run is None and self.install is None:
            self.run = self.index.fold(self.durable)

    def make(self) -> None:
        if (run := self.run) is not None:
            self.run, self.install = None, run()

    def put_in_place(self) -> None:
        if self.install is not None:
            self.install()
            self.install = None
            self.done["folds"] += 1
            self.done["several parts"] += len(self.index.folded) > 1

    def check(self) -> None:
        row = unit(self.numbers())
        assert row is not None
        build = self.dice.choice(CONDITIONS_MADE)
        sought = Sought(
            row=row,
            limit=self.dice.randint(1, 4),
            ts=self.dice.randint(self.index.floor_ts, self.model.ts),
            condition=build and condition_of(build),
            fields=FIELDS,
            hidden=self.dice.choice([(), {id_of(KEYS[0])}]),
        )

        assert self.model.best(sought) == best_of(self.index, sought)

    def numbers(self) -> list[int]:
        return [self.dice.randint(-2, 2) for _ in range(DIMENSIONS)]


def test_an_index_finds_at_each_timestamp_what_looking_at_all_documents_does(
    tmp_path: Path,
) -> None:
    done: Counter[str] = Counter()
    for seed in range(60):
        history = History(seed, tmp_path)
        history.live(100)
        done += history.done

    assert done["folds"] > 100
    assert done["several parts"] > 30
    assert done["reopened"] > 40
    assert done["failed"] > 40


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_a_search_has_read_is_touched_by_whatever_changes_what_it_finds(
    data: st.DataObject,
) -> None:
    model = Model()
    for key in KEYS:
        model.change(key, entry_of(INDEX, data.draw(docs)))
    row = unit(data.draw(st.lists(st.integers(-2, 2), min_size=3, max_size=3)))
    assert row is not None
    build = data.draw(st.sampled_from(CONDITIONS_MADE))
    condition = build and condition_of(build)
    sought = Sought(
        row=row, limit=data.draw(st.integers(1, 4)), ts=6, condition=condition, fields=FIELDS
    )
    found = model.best(sought)
    reach = found[-1][0] if len(found) == sought.limit else -1.0
    read = Reached(row=row.tobytes(), reach=reach, condition=condition, fields=FIELDS)
    changed, entry = data.draw(st.sampled_from(KEYS)), entry_of(INDEX, data.draw(docs))
    before = model.states[-1].get(changed)

    model.change(changed, entry)

    if found != model.best(sought._replace(ts=model.ts)):
        assert read.holds(before) or read.holds(entry)
    if entry is not None and not entry.meets(condition, FIELDS):
        assert not read.holds(entry)
