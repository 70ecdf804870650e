"""
What do components cost, beside libraries that do one of their tasks?

Each part is a module of its own beside this one, says what it does, and is given an equal share
of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from bench.harness import Bench, Result
from bench.macro import _aggregating, _limiting, _migrating, _pooling

PARTS: Final[dict[str, Callable[[Bench], Iterator[Result]]]] = {
    "limiter": _limiting.run,
    "migrations": _migrating.run,
    "aggregate": _aggregating.run,
    "workpool": _pooling.run,
}


def run(bench: Bench) -> Iterator[Result]:
    """One part after another, each in a directory of its own."""
    names = list(PARTS) if bench.part is None else [bench.part]
    for name in names:
        directory = bench.directory / name
        directory.mkdir()
        share = replace(bench, directory=directory, budget_s=bench.budget_s / len(names))
        yield from PARTS[name](share)
