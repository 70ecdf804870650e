"""
Live histories of pools and of batch workers, as their tests do, for as long as one likes.

Works are enqueued, fail, are tried again and canceled; parallelism changes; loops, their monitors
and the jobs of works are killed; the power is cut between commits and amid one.  What has to hold
after each step is what the machines of `tests/components` say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from tests.components.batch_worker.test_machine import History as HistoryOfAWorker
from tests.components.workpool.test_machine import History as HistoryOfAPool
from tests.proofs.machines import first_problem, prove_planted, say_nothing, verdict_of
from tests.proofs.pools_planted import OF_POOLS, OF_WORKERS
from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = "A work has one end and is told of once, a batch is done once, whatever is killed."
ROUNDS = 40
"""Histories, each of a pool and of a batch worker."""

PLANTED: Final = {
    **{name: (HistoryOfAWorker, bug) for name, bug in OF_WORKERS.items()},
    **{name: (HistoryOfAPool, bug) for name, bug in OF_POOLS.items()},
}


def prove(plan: Plan) -> Verdict:
    """Live the histories, or, planted, look whether each bug is seen in one."""
    say_nothing()
    if plan.planted:
        return prove_planted(plan, PLANTED)
    counts: Counter[str] = Counter()
    problems = [
        problem
        for machine, counted in ((HistoryOfAPool, _of_a_pool), (HistoryOfAWorker, _of_a_worker))
        if (problem := first_problem(machine, plan.rounds, plan.seed, counts, counted))
    ]
    missing = too_few(counts, {"crashes": plan.rounds // 2, "works and items": plan.rounds})
    lived = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return verdict_of(problems, missing, lived)


def _of_a_pool(history: HistoryOfAPool) -> Mapping[str, int]:
    return {"works and items": len(history.works), "crashes": history.lives.number - 1}


def _of_a_worker(history: HistoryOfAWorker) -> Mapping[str, int]:
    return {"works and items": len(history.due), "crashes": history.lives.number - 1}
