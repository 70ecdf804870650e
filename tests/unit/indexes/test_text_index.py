"""A text index against every document looked at: whatever came, went and was compacted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.indexes.catalog import IndexInfo, IndexKind
from engine.indexes.text import lexicon, parts, ranking, runs
from engine.indexes.text.asked import sought
from engine.indexes.text.index import OwnTexts, TextIndex
from engine.indexes.text.parts import compacted, frozen
from engine.indexes.text.words import value_hash, words_of
from engine.model.values import UNDEFINED
from tests import naive_search

INFO = IndexInfo(
    index_id=1001,
    name="by_text",
    table_number=10_001,
    fields=(),
    kind=IndexKind.SEARCH,
    options={"search_field": "text", "filter_fields": ["tag"]},
)
WORDS = ["fox", "foxes", "foxglove", "brown", "bread", "a", "Ünder", "nothing"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
DOCS = st.fixed_dictionaries(
    {"text": TEXTS | st.none()}, optional={"tag": st.sampled_from(["x", "y"])}
)
PUTS = st.tuples(st.just("put"), st.integers(0, 11), DOCS | st.none())
STEPS = st.lists(
    PUTS
    | PUTS
    | st.tuples(st.just("roll_back"), st.integers(0, 3), st.none())
    | st.tuples(st.sampled_from(["freeze", "compact", "forget"]), st.just(0), st.none()),
    max_size=40,
)
QUESTIONS = st.tuples(
    st.lists(st.sampled_from([*WORDS, "fo", "b", "absent", "?"]), min_size=1, max_size=4).map(
        " ".join
    ),
    st.none() | st.sampled_from(["x", "y", naive_search.MISSING]),
    st.integers(1, 12),
)


@dataclass
class History:
    """An index, and the documents as of each timestamp that a view may have."""

    index: TextIndex = field(default_factory=lambda: TextIndex(INFO))
    states: dict[int, dict[bytes, dict[str, Any]]] = field(default_factory=lambda: {1: {}})
    ts: int = 1

    def put(self, number: int, doc: dict[str, Any] | None) -> None:
        internal = number_id(number)
        after = dict(self.states[self.ts])
        after.pop(internal, None)
        self.ts += 2
        if doc is not None:
            created = float(number // 3)  # some are equally old
            after[internal] = {**doc, "_id": internal.hex(), "_creationTime": created}
        self.index.put(self.ts, internal, after.get(internal))
        self.states[self.ts] = after

    def roll_back(self, back: int) -> None:
        kept = sorted(self.states)[: max(1, len(self.states) - back)]
        self.index.roll_back(kept[-1])
        self.states = {ts: self.states[ts] for ts in kept}
        self.ts += 10  # timestamps are not given again; views go on from the last that is left
        self.states[self.ts] = self.states[kept[-1]]

    def compact(self) -> None:
        parts = self.index.to_compact(self.ts)
        if parts:
            made = compacted([frozen(part) for part in parts], self.index.floor_ts)
            self.index.replace(parts, made.segment(parts))

    def forget(self) -> None:
        floor = sorted(self.states)[len(self.states) // 2]
        self.index.forget(floor)
        self.states = {ts: docs for ts, docs in self.states.items() if ts >= floor}

    def play(self, steps: list[tuple[str, int, Any]]) -> None:
        for verb, number, doc in steps:
            if verb == "put":
                self.put(number, doc)
            elif verb == "roll_back":
                self.roll_back(number)
            elif verb == "freeze":
                self.index.freeze()
            else:
                getattr(self, verb)()


def number_id(number: int) -> bytes:
    """Ids of which some end with zeros, which arrays of strings do not tell."""
    return bytes([1, number]) + bytes(14)


def asked(
    index: TextIndex, docs: int, ts: int, question: tuple[str, Any, int], *own: OwnTexts
) -> list[tuple[float, str]]:
    return asked_among(index, docs, ts, question, None, *own)


def asked_among(
    index: TextIndex,
    docs: int,
    ts: int,
    question: tuple[str, Any, int],
    among: list[bytes] | None,
    *own: OwnTexts,
) -> list[tuple[float, str]]:
    text, tag, wanted = question
    words = words_of(text)
    if not words:
        return []
    filters = () if tag is None else ((0, value_hash(undefined_if_missing(tag))),)
    steps = index.search(
        ts, sought(words, filters), documents=docs, wanted=wanted, own=own, among=among
    )
    *_, found = steps
    assert found is not None
    return [(one.score, one.internal.hex()) for one in found]


def undefined_if_missing(tag: Any) -> Any:
    return UNDEFINED if tag is naive_search.MISSING else tag


def expected(docs: Iterator[Any] | Any, question: tuple[str, Any, int]) -> list[tuple[float, str]]:
    text, tag, wanted = question
    filters = {} if tag is None else {"tag": tag}
    return naive_search.search(list(docs), "text", text, filters)[:wanted]


@given(STEPS, QUESTIONS)
@pytest.mark.parametrize(("few", "head"), [(0, 1), (0, 2), (1, 4), (4096, 1024)])
def test_a_search_finds_what_looking_at_every_document_finds_at_every_timestamp(
    few: int, head: int, steps: list[tuple[str, int, Any]], question: tuple[str, Any, int]
) -> None:
    history = History()
    history.play(steps)
    with (
        patch.object(ranking, "FEW", few),
        patch.object(runs, "HEAD_SLOTS", head),
        patch.object(parts, "FEW_WORDS", few),
        patch.object(lexicon, "NEW_MAX", few),
    ):
        for ts, docs in history.states.items():
            found = asked(history.index, len(docs), ts, question)

            assert expected(docs.values(), question) == found


@given(STEPS, st.lists(st.lists(PUTS, max_size=4), max_size=3), QUESTIONS)
def test_what_a_transaction_has_written_itself_lies_over_the_index(
    steps: list[tuple[str, int, Any]],
    layers: list[list[tuple[str, int, Any]]],
    question: tuple[str, Any, int],
) -> None:
    history = History()
    history.play(steps)
    for ts, before in history.states.items():
        docs = dict(before)
        own = [OwnTexts(INFO) for _ in layers]
        for texts, writes in zip(own, layers, strict=True):
            for _, number, doc in writes:
                internal = number_id(number)
                docs.pop(internal, None)
                if doc is not None:
                    created = float(number // 3)
                    docs[internal] = {**doc, "_id": internal.hex(), "_creationTime": created}
                texts.put(internal, docs.get(internal))

        found = asked(history.index, len(docs), ts, question, *own)

        assert expected(docs.values(), question) == found


@pytest.mark.parametrize("seed", range(8))
def test_of_some_documents_those_are_found_that_are_found_of_all_with_the_same_scores(
    seed: int,
) -> None:
    dice = Random(seed)

    def some_doc() -> dict[str, Any]:
        return {"text": " ".join(dice.choices(WORDS, k=3)), "tag": dice.choice("xy")}

    history, own = History(), OwnTexts(INFO)
    for step in range(40):
        history.put(dice.randrange(12), some_doc() if dice.randrange(4) else None)
        if step % 9 == 0:
            history.index.freeze()
            history.compact()
    docs = dict(history.states[history.ts])
    for number in dice.sample(range(12), 3):
        internal = number_id(number)
        docs[internal] = {**some_doc(), "_id": internal.hex(), "_creationTime": 1.0}
        own.put(internal, docs[internal])
    for text, tag in (("fox bread", None), ("fo", "x"), ("a brown b", "y")):
        among = dice.sample([number_id(number) for number in range(12)], 7)
        question = (text, tag, 99)

        found = asked_among(history.index, len(docs), history.ts, question, among, own)

        ids = {one.hex() for one in among}
        assert [one for one in expected(docs.values(), question) if one[1] in ids] == found


@given(STEPS, st.lists(TEXTS.filter(bool), min_size=2, max_size=9), QUESTIONS)
def test_what_is_written_amid_a_search_is_not_in_it(
    before: list[tuple[str, int, Any]], amid: list[str], question: tuple[str, Any, int]
) -> None:
    history = History()
    history.play(before)
    history.put(0, {"text": "fox bread"})
    text, tag, wanted = question
    docs, ts = history.states[history.ts], history.ts
    words = words_of(text) or ["none"]
    filters = () if tag is None else ((0, value_hash(undefined_if_missing(tag))),)
    steps = history.index.search(ts, sought(words, filters), documents=len(docs), wanted=wanted)
    found = next(steps)
    for number, written in enumerate(amid):
        history.put(number, {"text": written})
        found = next(steps, found)
    *_, found = (found, *steps)

    assert found is not None
    assert expected(docs.values(), (" ".join(words), tag, wanted)) == [
        (one.score, one.internal.hex()) for one in found
    ]


def test_what_ends_while_a_part_is_compacted_has_ended_in_its_place() -> None:
    history = History()
    for number in range(6):
        history.put(number, {"text": "fox"})
    history.index.freeze()
    parts = history.index.to_compact(history.ts)
    frozens = [frozen(part) for part in parts]
    history.put(2, None)
    history.put(3, {"text": "bread"})

    made = compacted(frozens, history.index.floor_ts)
    history.index.replace(parts, made.segment(parts))

    for ts, docs in history.states.items():
        assert expected(docs.values(), ("fox", None, 9)) == asked(
            history.index, len(docs), ts, ("fox", None, 9)
        )


def test_a_prefix_of_many_words_counts_each_by_how_rare_it_is() -> None:
    history = History()
    dice = np.random.default_rng(7)
    for number in range(250):
        texts = [f"w{dice.integers(200):03}" for _ in range(5)] + ["w001"] * (number % 3)
        history.put(number, {"text": " ".join(texts), "tag": "xy"[number % 2]})
        if number % 60 == 0:
            history.index.freeze()
            history.compact()
    docs = history.states[history.ts]
    for question in (("w", None, 30), ("w001 w", "x", 200), ("w003 other w001 w", None, 20)):
        assert expected(docs.values(), question) == asked(
            history.index, len(docs), history.ts, question
        )


def test_what_a_prefix_found_is_not_what_it_finds_later() -> None:
    history = History()
    found = []
    for number, text in enumerate(["foxes", "foxglove fox", "bread", "foxes foxes"]):
        history.put(number, {"text": text})
        docs = history.states[history.ts]
        question = ("fox", None, 9)
        found.append(asked(history.index, len(docs), history.ts, question))
        assert expected(docs.values(), question) == found[-1]
    history.put(0, None)
    docs = history.states[history.ts]

    assert expected(docs.values(), ("fox", None, 9)) == asked(
        history.index, 3, history.ts, ("fox", None, 9)
    )
    assert [1, 2, 2, 3] == [len(one) for one in found]


@pytest.mark.parametrize("count", [3_000, 60_000])
def test_the_words_of_a_prefix_are_gathered_once_for_all_who_search_a_state(count: int) -> None:
    history = History()
    for number in range(100):
        history.put(number, {"text": f"a{number} w{number}"})
    history.put(100, {"text": " ".join(f"w{number}" for number in range(count))})
    docs = history.states[history.ts]
    tail = history.index.tail

    with patch.object(tail, "_as_words", wraps=tail._as_words) as gathered:
        found = [
            asked(history.index, len(docs), history.ts, (f"a{number} w", None, 9))
            for number in range(100)
        ]

    assert gathered.call_count == 1
    assert all(len(one) == 9 for one in found)
    assert expected(docs.values(), ("a7 w", None, 9)) == found[7]
    assert tail.size_bytes < 2 * tail._own_bytes + (2 << 20)


def test_many_words_that_begin_alike_are_weighed_with_turns_of_others_between() -> None:
    history = History()
    history.put(0, {"text": " ".join(f"w{number}" for number in range(40))})
    history.put(1, {"text": "w1 other"})
    docs = history.states[history.ts]
    question = ("other w", None, 9)

    with patch.object(ranking, "MANY_ALIKE", 39):
        steps = list(
            history.index.search(history.ts, sought(["other", "w"], ()), documents=2, wanted=9)
        )
        found = asked(history.index, 2, history.ts, question)

    assert [None, None, None] == steps[:-1]
    assert expected(docs.values(), question) == found


@pytest.mark.parametrize(("together", "turns"), [(1, 6), (25, 3), (16_384, 1)])
def test_parts_of_few_postings_are_scored_so_many_at_a_time(together: int, turns: int) -> None:
    history = History()
    for number in range(60):
        history.put(number, {"text": "fox " * (number % 7 + 1) + "foxes", "tag": "xy"[number % 2]})
        if number % 10 == 9:
            history.index.freeze()
    docs = history.states[history.ts]

    with patch.object(ranking, "TOGETHER", together):
        steps = list(history.index.search(history.ts, sought(["fox"], ()), documents=60, wanted=9))
        found = [
            asked(history.index, 60, history.ts, question)
            for question in (("fox", None, 9), ("foxes", "x", 40))
        ]

    assert [None] * turns == steps[:-1]
    assert [expected(docs.values(), one) for one in (("fox", None, 9), ("foxes", "x", 40))] == found


QUESTIONS_OF_HEADS = (
    *("a00", "a", "a01 b", "b03 a02", "a00 a01 c", "c11 a00 a01 a02"),
    *("a00 a", "a11 a", "a06 a", "a10 a09 a", "b01 b07 b", "c03 c09 a03 c"),
)


@pytest.mark.parametrize("seed", range(12))
def test_heads_of_frequent_words_leave_out_nobody_who_is_among_the_best(seed: int) -> None:
    history, dice = History(), Random(seed)
    words = [f"{first}{n:02}" for first in "abc" for n in range(12)]

    def write(count: int, longest: int, power: float = 3) -> None:
        for _ in range(count):
            # The first words are in most documents, the last ones in few.
            many = range(dice.randint(1, longest))
            chosen = [words[int(36 * dice.random() ** power)] for _ in many]
            doc = {"text": " ".join(chosen), "tag": dice.choice("xy")}
            history.put(dice.randrange(250), doc if dice.random() < 0.8 else None)
        history.index.freeze()

    def compare() -> None:
        docs = list(history.states[history.ts].values())
        for text in QUESTIONS_OF_HEADS:
            question = (text, dice.choice([None, "x"]), dice.choice([1, 3, 3, 30]))
            assert expected(docs, question) == asked(
                history.index, len(docs), history.ts, question
            ), question

    with (
        patch.object(ranking, "FEW", 12),
        patch.object(runs, "HEAD_SLOTS", 12),
        patch.object(runs, "GROWTH_MAX", 100.0),  # so that heads are not made anew
        patch.object(ranking, "SCORED_AT_ONCE", 128 * (seed % 2)),
        patch.object(ranking, "TOGETHER", 1 + 16_384 * (seed % 3)),
    ):
        write(300, 8)
        history.compact()
        compare()
        write(40, 40)  # longer ones than there were
        compare()
        history.compact()
        write(120, 3, power=0.3)  # of which few have the words that were in most
        compare()
