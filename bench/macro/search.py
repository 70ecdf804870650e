"""
How many text searches a second, of 117,000 glosses, and how long does one take while others write?

Each search is for 1, 2 or 4 words that come in the glosses as often as they do, and returns the 20
best documents as dicts; ours are queries of a function, none of which comes from the cache, and
find also what begins as the last word.  Some are narrowed to one of four parts of speech.  In the
same run the libraries that are installed do the same: bare, with nothing committed or followed.
Then documents are written beside 200 searches a second, and the engine is opened again.  What each
takes of memory is measured in processes of their own (`_search_memory.py`).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import trio

from bench.glosses import PARTS, glosses
from bench.harness import HERE, Bench, Param, Result, percentile, progress, punctual
from bench.macro._search_peers import WANTED, Docs, filled, installed
from bench.people import data_file
from engine.app.contexts import MutationCtx, QueryCtx, Search
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import Document
from engine.errors import Overloaded
from engine.host import Engine
from engine.indexes.text.words import words_of

QUICK_DOCS: Final = 20_000
AT_ONCE: Final = 1_000
"""Documents that one mutation adds."""
WORDS: Final = (1, 2, 4)
WRITTEN_PER_S: Final = (0, 100, 500)
ASKED_PER_S: Final = 200
WRITTEN_AT_ONCE: Final = 10
OURS: Final = "headrace"
FILLED: Final = "filled"
REOPENED: Final = "reopened"


class Note(Document):
    part: str
    text: str


schema = Schema(
    notes=Table(Note).search_index("by_text", search_field="text", filter_fields=["part"])
)


@mutation
async def add(ctx: MutationCtx, notes: list[list[str]]) -> None:
    for part, text in notes:
        await ctx.db.insert("notes", {"part": part, "text": text})


@query
async def look(
    ctx: QueryCtx,
    text: str,
    part: str | None,
    asked_before: int,  # noqa: ARG001  (a key of the cache)
) -> list[Any]:
    """`asked_before` is another number each time: frequent words would come from the cache."""

    def asked(s: Search) -> Search:
        found = s.search("text", text)
        return found if part is None else found.eq("part", part)

    return await ctx.db.query("notes").with_search_index("by_text", asked).take(WANTED)


def run(bench: Bench) -> Iterator[Result]:
    """Measure ours, then the peers."""
    docs = glosses(QUICK_DOCS if bench.quick else None)
    results: list[Result] = []
    seconds = bench.budget_s / 20
    trio.run(_measure_ours, bench, docs, seconds, results)
    yield from results
    yield from _memory(bench, len(docs))
    for peer in filled(bench.directory, docs):
        yield Result(
            name="fill",
            params={"documents": len(docs)},
            metric="rate",
            value=len(docs) / peer.seconds,
            unit="1/s",
            peer=peer.name,
        )
        for words in WORDS:
            for part in (False, True) if peer.filters else (False,):
                questions = Questions(docs, words, part, bench.seed)
                latencies = _asked(peer.search, questions, seconds)
                yield from _figures(words, part, latencies, peer.name)


class Questions:
    """Texts of some words each, drawn from the glosses, and a part of speech if wanted."""

    def __init__(self, docs: Docs, words: int, part: bool, seed: int) -> None:
        self._dice = random.Random(seed * 10 + words)
        self._docs = docs
        self._words = words
        self._part = part

    def __next__(self) -> tuple[str, str | None]:
        words: list[str] = []
        while len(words) < self._words:
            found = words_of(self._dice.choice(self._docs)[1])
            words += [self._dice.choice(found)] if found else []
        return " ".join(words), self._dice.choice(PARTS) if self._part else None


def _asked(
    search: Callable[[str, str | None], Any], questions: Questions, seconds: float
) -> list[float]:
    latencies = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        question = next(questions)
        began = time.perf_counter()
        search(*question)
        latencies.append(time.perf_counter() - began)
    return latencies


async def _measure_ours(bench: Bench, docs: Docs, seconds: float, results: list[Result]) -> None:
    directory = bench.directory / "ours"
    async with Engine.open(directory, app=[add, look, schema]) as engine:
        progress("filling")
        began = time.perf_counter()
        for first in range(0, len(docs), AT_ONCE):
            some = [list(one) for one in docs[first : first + AT_ONCE]]
            await engine.mutation(add, notes=some)
        took = time.perf_counter() - began
        await trio.sleep(1.0)  # what there is to fold is folded
        results += _sizes(directory, len(docs), took)
        for words in WORDS:
            for part in (False, True):
                progress(f"searches of {words} words{' of a part' if part else ''}")
                questions = Questions(docs, words, part, bench.seed)
                latencies = await _asked_ours(engine, questions, seconds)
                results += _figures(words, part, latencies, None)
        for written in WRITTEN_PER_S[1:3] if bench.quick else WRITTEN_PER_S:
            progress(f"searches while {written} documents a second are written")
            results += await _beside_writes(engine, docs, written, 2 * seconds, bench.seed)
        results.append(await _until_found(engine))
    began = time.perf_counter()
    async with Engine.open(directory, app=[add, look, schema]) as engine:
        assert await _look(engine, "the", None)
        took = time.perf_counter() - began
    results.append(_result("reopen", {"documents": len(docs)}, "time", took * 1e3, "ms"))


_asked_before = count()


async def _look(engine: Engine, text: str, part: str | None) -> list[Any]:
    found: list[Any] = await engine.query(
        look, text=text, part=part, asked_before=next(_asked_before)
    )
    return found


async def _asked_ours(engine: Engine, questions: Questions, seconds: float) -> list[float]:
    latencies = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        text, part = next(questions)
        began = time.perf_counter()
        await _look(engine, text, part)
        latencies.append(time.perf_counter() - began)
    return latencies


async def _beside_writes(
    engine: Engine, docs: Docs, written_per_s: int, seconds: float, seed: int
) -> list[Result]:
    """Searches that arrive whatever becomes of those before, and documents likewise."""
    questions, dice = Questions(docs, 2, False, seed + 1), random.Random(seed)
    latencies: list[float] = []
    written = 0
    end = trio.current_time() + seconds

    async def ask(due: float) -> None:
        text, part = next(questions)
        await _look(engine, text, part)
        latencies.append(trio.current_time() - due)

    async def write(_due: float) -> None:
        nonlocal written
        notes = [list(dice.choice(docs)) for _ in range(WRITTEN_AT_ONCE)]
        with suppress(Overloaded):  # what was written is counted, and said
            await engine.mutation(add, notes=notes)
            written += WRITTEN_AT_ONCE

    def is_over() -> bool:
        return trio.current_time() > end

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(punctual, ASKED_PER_S, ask, is_over=is_over))
        if written_per_s:
            per_s = written_per_s / WRITTEN_AT_ONCE
            nursery.start_soon(partial(punctual, per_s, write, is_over=is_over))
    params: dict[str, Param] = {
        "words": 2,
        "asked_per_s": ASKED_PER_S,
        "written_per_s": written_per_s,
    }
    return [
        _result("beside_writes", params, "written", written / seconds, "1/s"),
        _result("beside_writes", params, "p50", percentile(latencies, 0.5) * 1e3, "ms"),
        _result("beside_writes", params, "p99", percentile(latencies, 0.99) * 1e3, "ms"),
    ]


async def _until_found(engine: Engine) -> Result:
    """From when a write is answered to when a search finds it: is the first one enough?"""
    late = 0
    for number in range(100):
        await engine.mutation(add, notes=[["noun", f"zyzzyva{number}"]])
        found = await _look(engine, f"zyzzyva{number}", None)
        late += len(found) != 1
    assert late == 0, f"{late} of 100 were not found at once"
    return _result("until_found", {"writes": 100}, "late", late, "searches")


def _sizes(directory: Path, documents: int, took: float) -> list[Result]:
    """The rate of filling, and what the index takes."""
    params: dict[str, Param] = {"documents": documents, "at_once": AT_ONCE}
    in_files = sum(path.stat().st_size for path in (directory / "indexes").glob("*/*"))
    return [
        _result("fill", params, "rate", documents / took, "1/s"),
        _result("fill", params, "index_files", in_files / 1e6, "MB"),
        _result("fill", params, "data_file", data_file(directory).stat().st_size / 1e6, "MB"),
    ]


def _memory(bench: Bench, documents: int) -> Iterator[Result]:
    """What each takes when it was filled, and when it was opened again, after some searches."""
    for name, label in ((OURS, None), *((peer.name, label) for label, peer in installed())):
        folder = bench.directory / f"memory-{name}"
        folder.mkdir()
        for state in (FILLED, REOPENED):
            progress(f"memory of {name}, {state}")
            arguments = map(str, (name, folder, documents, bench.seed, state))
            command = [sys.executable, "-m", "bench.macro._search_memory", *arguments]
            told = subprocess.check_output(command, cwd=HERE.parent)
            for metric, value, unit in json.loads(told):
                params: dict[str, Param] = {"documents": documents, "state": state}
                yield _result("memory", params, metric, value, unit, label)


def _figures(words: int, part: bool, latencies: Sequence[float], peer: str | None) -> list[Result]:
    params: dict[str, Param] = {"words": words, "filtered": part}
    rate = len(latencies) / sum(latencies)
    return [
        _result("searches", params, "rate", rate, "1/s", peer),
        _result("searches", params, "p50", percentile(latencies, 0.5) * 1e3, "ms", peer),
        _result("searches", params, "p99", percentile(latencies, 0.99) * 1e3, "ms", peer),
    ]


def _result(
    name: str,
    params: dict[str, Param],
    metric: str,
    value: float,
    unit: str,
    peer: str | None = None,
) -> Result:
    return Result(name=name, params=params, metric=metric, value=value, unit=unit, peer=peer)
