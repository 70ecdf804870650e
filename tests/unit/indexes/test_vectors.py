"""Vector indexes: rows, filters, and the best of them as of every timestamp."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import InvalidRange
from engine.indexes.catalog import IndexInfo, IndexKind
from engine.indexes.vectors.asked import Condition, Equal, condition_of, evaluate, value_key
from engine.indexes.vectors.graph import Graph
from engine.indexes.vectors.index import VectorIndex, entry_of
from engine.indexes.vectors.nearest import Best, Found, Sought, exactly, nearly
from engine.indexes.vectors.parts import Entry
from engine.indexes.vectors.rows import about, row_of, score, scores, slack, unit
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


def test_a_graph_finds_nearly_all_of_the_best_and_scores_them_exactly() -> None:
    rows = clustered(5_000, 24, seed=1)
    index = VectorIndex(INDEX_24)
    for number, row in enumerate(rows):
        kinds = [value_key(name) for name in (number % 2, number % 100)]
        index.change(number.to_bytes(16, "big"), Entry(row, tuple(kinds)), 1)
    fold = index.fold(1)
    assert fold is not None
    part = fold.run()
    assert part is not None
    index.adopt(fold, part)
    asked = clustered(40, 24, seed=2)
    shares: dict[str | None, list[float]] = {}

    for row in asked:
        for condition in CONDITIONS:
            sought = Sought(
                row=row,
                count=10,
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

    assert part.graph is not None
    assert np.mean(shares[None]) >= 0.98
    assert np.mean(shares["half"]) >= 0.98
    assert np.mean(shares["hundredth"]) == 1.0


def test_a_graph_comes_back_from_its_bytes() -> None:
    rows = clustered(300, 8, seed=3)
    graph = Graph.of(rows)
    assert graph is not None

    again = Graph.of_bytes(graph.to_bytes(), 8)

    assert graph.nearest(rows[7], 5).tolist() == again.nearest(rows[7], 5).tolist()
    assert Graph.of(rows, is_wanted=lambda: False) is None


# An index, as of every timestamp.

KEYS = [bytes([n]) * 15 + b"\0" for n in range(6)]
KINDS = ["a", "b", UNDEFINED]
docs = st.none() | st.fixed_dictionaries(
    {"v": st.lists(st.integers(-2, 2), min_size=2, max_size=3)},
    optional={"kind": st.sampled_from(["a", "b"]), "n": st.just({"m": 1})},
)
conditions = st.sampled_from(
    [
        None,
        lambda q: q.eq("kind", "a"),
        lambda q: q.or_(q.eq("kind", "a"), q.eq("n.m", 1)),
        lambda q: q.and_(q.eq("kind", UNDEFINED), q.eq("n.m", 1)),
    ]
)


class Model:
    """The documents at each timestamp, and the best of them by looking at all."""

    def __init__(self) -> None:
        self.states: list[dict[bytes, Entry]] = [{}]

    @property
    def ts(self) -> int:
        return len(self.states) - 1

    def change(self, key: bytes, entry: Entry | None) -> None:
        state = dict(self.states[-1])
        state.pop(key, None)
        if entry is not None:
            state[key] = entry
        self.states.append(state)

    def best(self, sought: Sought) -> list[Found]:
        def meets(entry: Entry) -> bool:
            def equal(one: Equal) -> bool:
                return entry.filters[sought.fields.index(one.field)] == one.key

            return sought.condition is None or evaluate(sought.condition, equal)

        found = [
            (score(entry.row, sought.row), key)
            for key, entry in self.states[sought.ts].items()
            if key not in sought.hidden and meets(entry)
        ]
        return sorted(found, reverse=True)[: sought.count]


def best_of(index: VectorIndex, sought: Sought) -> list[Found]:
    best = Best(sought)
    for _ in exactly(index.parts(), best):
        pass
    return best.found


def check(
    index: VectorIndex, model: Model, data: st.DataObject, oldest: int, condition: Condition | None
) -> None:
    row = unit(data.draw(st.lists(st.integers(-2, 2), min_size=3, max_size=3)))
    assert row is not None
    sought = Sought(
        row=row,
        count=data.draw(st.integers(1, 4)),
        ts=data.draw(st.integers(oldest, model.ts)),
        condition=condition,
        fields=index.fields,
        hidden=data.draw(st.sampled_from([(), {KEYS[0]}])),
    )

    assert model.best(sought) == best_of(index, sought)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_index_finds_at_each_timestamp_what_looking_at_all_documents_does(
    data: st.DataObject,
) -> None:
    index, model = VectorIndex(INDEX), Model()
    oldest = durable = 0
    folding = None
    for _ in range(data.draw(st.integers(1, 25))):
        step = data.draw(st.sampled_from(["change"] * 6 + ["fail", "fold", "adopt", "settle"]))
        if step == "change":
            key, doc = data.draw(st.sampled_from(KEYS)), data.draw(docs)
            entry = entry_of(INDEX, doc)
            model.change(key, entry)
            index.change(key, entry, model.ts)
        elif step == "fail":
            del model.states[durable + 1 :]
            index.take_back(durable)
        elif step == "settle":
            durable = data.draw(st.integers(durable, model.ts))
        elif step == "fold" and folding is None:
            oldest = data.draw(st.integers(oldest, durable))
            folding = index.fold(oldest)
        elif step == "adopt" and folding is not None:
            folded = folding.run()
            assert folded is not None
            index.adopt(folding, folded)
            folding = None
        built = data.draw(conditions)
        check(index, model, data, oldest, built and condition_of(built))
