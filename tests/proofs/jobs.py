"""
Kill a real engine at every point between when a job is due and when it has ended.

A matrix: every place that a job of each kind goes past, from when it is planned until nothing of it
is left to be done.  In memory everything goes wrong at each; real processes are killed at one after
the other (`jobs_matrix.py`).  And a crowd: many jobs at a time, and kills at any moment
(`jobs_crowd.py`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from engine.kernel.trace import trace_to_stderr
from tests.proofs.jobs_crowd import crowded
from tests.proofs.jobs_matrix import FATES, Cell, cells, is_possible, killed, simulated, table
from tests.proofs.jobs_planted import PLANTED
from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = "What is scheduled happens once or at most once, never early, and is never forgotten."
ROUNDS = 110
"""Each is a kill, one in five of them in a crowd: with so many the matrix is complete."""

CROWD: Final = 5
DATABASE_ROUNDS: Final = 25
"""Then another one is begun."""
CROWD_PLANTED_ROUNDS: Final = 20
SHOWN_MAX: Final = 10


def prove(plan: Plan) -> Verdict:
    """Run the matrix and the crowd, or, planted, look whether each bug is caught."""
    trace_to_stderr(level="critical")
    if plan.planted:
        return _prove_planted(plan)
    fates, problems = _simulated()
    crowd_rounds = plan.rounds // CROWD
    hits, more = _killed(plan, plan.rounds - crowd_rounds)
    problems += more
    witness = crowded(plan.directory / "crowd", "none", crowd_rounds, plan.seed)
    problems += witness.problems
    missing = _missing(hits, plan.rounds - crowd_rounds)
    counts = witness.counts
    least = {"plans": 5 * crowd_rounds, "canceled": crowd_rounds // 2, "retried": crowd_rounds // 4}
    missing += too_few(counts, least)
    for text in [*table(hits), *problems[:SHOWN_MAX], *missing]:
        print(f"  {text}", flush=True)
    figure = (
        f"{hits.total()} kills at {len(hits)} of {len(cells())} places, {fates} fates in memory; "
        f"{witness.kills.total()} kills in a crowd: {counts['plans']:,} planned, "
        f"{counts['canceled']:,} canceled, {counts['retried']:,} tried again, "
        f"{counts['interrupted']:,} actions interrupted, {counts['ticks']:,} ticks; "
        f"{len(problems)} problems"
    )
    return Verdict(held=not problems and not missing, figure=figure)


def _simulated() -> tuple[int, list[str]]:
    """How many things went wrong in memory, and what is wrong with what was left."""
    befell = [(cell, fate) for cell in cells() for fate in FATES if is_possible(cell, fate)]
    return len(befell), [text for cell, fate in befell for text in simulated(cell, fate)]


def _killed(plan: Plan, rounds: int) -> tuple[Counter[Cell], list[str]]:
    """How often somebody was killed at each place, and what is wrong with what was left."""
    hits: Counter[Cell] = Counter()
    problems: list[str] = []
    chosen = _shuffled(plan.seed)
    for first in range(0, rounds, DATABASE_ROUNDS):
        some = list(islice(chosen, min(DATABASE_ROUNDS, rounds - first)))
        for one in killed(plan.directory / f"matrix-{first}", "none", some):
            hits[one.cell] += one.is_hit
            problems += one.problems
            if not one.is_hit:
                problems.append(f"{one.cell}: nobody came there")
        print(f"  {hits.total()} kills, {len(problems)} problems", flush=True)
        if problems:
            break
    return hits, problems


def _shuffled(seed: int) -> Iterator[Cell]:
    """All cells, and again, in some order."""
    chosen = cells()
    random.Random(seed).shuffle(chosen)
    return cycle(chosen)


def _missing(hits: Counter[Cell], rounds: int) -> list[str]:
    """Cells at which nobody was killed, if there were kills for all."""
    if rounds < len(cells()):
        return []
    return [f"{cell}: nobody was killed there" for cell in cells() if not hits[cell]]


def _prove_planted(plan: Plan) -> Verdict:
    caught = 0
    for bug, (kind, is_for_crowd) in PLANTED.items():
        texts = [_caught_in_matrix(plan.directory / bug, bug, kind)]
        if is_for_crowd:
            texts.append(_caught_in_crowd(plan.directory / f"{bug}-crowd", bug, plan.seed))
        print(f"  {bug}: {'; '.join(text or 'NOT CAUGHT' for text in texts)}", flush=True)
        caught += all(texts)
    figure = f"{caught} of {len(PLANTED)} planted bugs caught"
    return Verdict(held=caught == len(PLANTED), figure=figure)


def _caught_in_matrix(directory: Path, bug: str, kind: str) -> str:
    """The first problem with jobs of a kind; empty if there is none."""
    chosen = [cell for cell in cells() if cell.kind == kind]
    problems = (one.problems for one in killed(directory, bug, chosen))
    return next((first for first, *_ in filter(None, problems)), "")


def _caught_in_crowd(directory: Path, bug: str, seed: int) -> str:
    return next(iter(crowded(directory, bug, CROWD_PLANTED_ROUNDS, seed).problems), "")
