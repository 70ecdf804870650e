"""
A whole engine lives several times in one `trio.run`, by a seed, and everything goes wrong.

Random clients over the sync protocol, over HTTP and in the process; power cuts, refused batches,
batches of unknown fate, slow disks, clocks that jump, callers and connections that are lost;
pushes, trimming and restarts among them.  What everybody was told is compared with the log, and the
log with what the calls in it mean in plain Python (`tests/simulation`).  Each seed runs twice, and
must take the same steps both times.

A seed that fails is written to the directory of the run, ready for `tests/simulation/cases.json`,
whose cases every run of the tests plays.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from engine.kernel.trace import trace_to_stderr
from tests.proofs.proof import Plan, Verdict, too_few
from tests.simulation.planted import Plant
from tests.simulation.planted_in_whole import PLANTED
from tests.simulation.whole import Tale, simulated

PROMISE = "Whatever goes wrong around a whole engine, it keeps its promises, and a seed repeats it."
ROUNDS = 150
"""Each is one seed, twice: some 250 calls and 10 lives."""

PLANTED_SEEDS = 40
SHOWN_MAX = 3
"""Problems of one seed that are printed."""
FAILED = "cases.json"
ENGINE = Path(__file__).parents[2] / "engine"
POINT = re.compile(r'\.pause\("([a-z.]+)"\)$', re.MULTILINE)
ELSEWHERE = {"table.swept", "index.folded", "index.kept", "index.walked"}
"""
Points that no seed comes to: `node/test_table_drop.py` cuts off a drop at each slice, and
`ops/prove search` has what there is of texts and vectors crash amid their upkeep.
"""
ROUNDS_FOR_ALL_POINTS = 20
"""So many seeds come to every pause point of the engine, and everything goes wrong in them."""
LEAST_A_ROUND = {"lives": 2, "records": 50, "values shown": 100, "steps": 2_000}
"""A third of what the poorest of thirty seeds had, or half."""
WENT_WRONG = (
    "power cuts",
    "refused batches",
    "unknown outcomes",
    "clock jumps",
    "connections lost",
    "pushes",
)


def prove(plan: Plan) -> Verdict:
    """Run the seeds from `plan.seed` on, or, planted, look whether each bug is caught by some."""
    trace_to_stderr(level="critical")
    if plan.planted:
        return _prove_planted(plan.seed)
    counts: Counter[str] = Counter()
    missed = {name for path in ENGINE.rglob("*.py") for name in POINT.findall(path.read_text())}
    assert missed > ELSEWHERE, "the engine has pause points, and these are among them"
    missed -= ELSEWHERE
    failed: list[dict[str, object]] = []
    for number, seed in enumerate(range(plan.seed, plan.seed + plan.rounds), start=1):
        tale = twice(seed)
        counts += tale.counts
        counts["steps"] += len(tale.schedule.steps)
        missed -= tale.points
        if tale.problems:
            _report(seed, tale)
            failed.append({"seed": seed, "was": tale.problems[0]})
            (plan.directory / FAILED).write_text(json.dumps(failed, indent=2) + "\n")
        if number % 25 == 0:
            print(f"  {number} seeds, {len(failed)} failed", flush=True)
    if missed and plan.rounds >= ROUNDS_FOR_ALL_POINTS:
        print(f"  nobody came to {', '.join(sorted(missed))}", flush=True)
        failed.append({})
    idle = too_few(counts, _least(plan.rounds))
    for text in idle:
        print(f"  {text}", flush=True)
    return Verdict(held=not failed and not idle, figure=_figure(plan, counts, len(failed)))


def _least(rounds: int) -> dict[str, int]:
    least = {name: count * rounds for name, count in LEAST_A_ROUND.items()}
    return {**least, **dict.fromkeys(WENT_WRONG, rounds // ROUNDS_FOR_ALL_POINTS)}


def twice(seed: int, plant: Plant = nullcontext) -> Tale:
    """What a seed gives; among its problems is that it gave something else the second time."""
    with plant():
        tale, again = simulated(seed), simulated(seed)
    if parting := tale.schedule.parts_from(again.schedule):
        hashes = f"{tale.schedule.hash} and {again.schedule.hash}"
        tale.problems.append(f"two runs have the schedules {hashes}: {parting}")
    return tale


def _report(seed: int, tale: Tale) -> None:
    for text in tale.problems[:SHOWN_MAX]:
        print(f"  seed {seed}: {text}", flush=True)


def _figure(plan: Plan, counts: Counter[str], failed: int) -> str:
    return (
        f"{plan.rounds} seeds twice, {counts['steps']:,} steps each time: "
        f"{counts['lives']:,} lives, {counts['records']:,} commits, "
        f"{counts['values shown']:,} values shown, "
        f"{', '.join(_went_wrong(counts))}; {failed} seeds failed"
    )


def _went_wrong(counts: Counter[str]) -> Iterator[str]:
    for name in WENT_WRONG:
        yield f"{counts[name]:,} {name}"


def _prove_planted(first: int) -> Verdict:
    caught = sum(_is_caught(name, plant, first) for name, plant in PLANTED.items())
    return Verdict(
        held=caught == len(PLANTED), figure=f"{caught} of {len(PLANTED)} planted bugs caught"
    )


def _is_caught(name: str, plant: Plant, first: int) -> bool:
    for seed in range(first, first + PLANTED_SEEDS):
        tale = twice(seed, plant)
        if tale.problems:
            print(f"  {name}: seed {seed - first + 1}: {tale.problems[0]}", flush=True)
            return True
    print(f"  {name}: NOT CAUGHT in {PLANTED_SEEDS} seeds", flush=True)
    return False
