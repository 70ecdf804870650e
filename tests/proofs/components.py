"""
Live histories of rate limiters, of migrations and of aggregates, as their tests do.

What has to hold after each step is what the machines of `tests/components` say: a limit is a
number for each key, a migration visits everybody once, an aggregate is a sorted list.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.components.aggregate.test_machine import History as HistoryOfAnAggregate
from tests.components.aggregate.test_queue_machine import History as HistoryOfAQueue
from tests.components.migrations.test_machine import Runs
from tests.components.rate_limiter.test_machine import Bucket, Shards, Window
from tests.proofs.components_planted import (
    OF_AGGREGATES,
    OF_BUCKETS,
    OF_MIGRATIONS,
    OF_QUEUES,
    OF_SHARDS,
    OF_WINDOWS,
)
from tests.proofs.machines import first_problem, prove_planted, say_nothing, verdict_of
from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = "Limits, migrations and aggregates are what a few lines say, whatever is done to them."
ROUNDS = 40
"""Histories of each machine."""

MACHINES: Final = {
    Bucket: OF_BUCKETS,
    Window: OF_WINDOWS,
    Shards: OF_SHARDS,
    Runs: OF_MIGRATIONS,
    HistoryOfAnAggregate: OF_AGGREGATES,
    HistoryOfAQueue: OF_QUEUES,
}
"""With the bugs that histories of each have to catch."""
PLANTED: Final = {
    name: (machine, bug) for machine, bugs in MACHINES.items() for name, bug in bugs.items()
}


def prove(plan: Plan) -> Verdict:
    """Live the histories, or, planted, look whether each bug is seen in one."""
    say_nothing()
    if plan.planted:
        return prove_planted(plan, PLANTED)
    counts: Counter[str] = Counter()
    problems = [
        f"{machine.__module__}: {problem}"
        for machine in MACHINES
        if (problem := first_problem(machine, plan.rounds, plan.seed, counts))
    ]
    missing = too_few(counts, {"histories": plan.rounds * len(MACHINES)})
    return verdict_of(problems, missing, f"{counts['histories']:,} histories")
