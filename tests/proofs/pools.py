"""
Live histories of pools and of batch workers, as their tests do, for as long as one likes.

Works are enqueued, fail, are tried again and canceled; parallelism changes; loops, their monitors
and the jobs of works are killed; the power is cut between commits and amid one.  What has to hold
after each step is what the machines of `tests/components` say.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, Final

from hypothesis import Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from engine.kernel.trace import trace_to_stderr
from tests.components.batch_worker.test_machine import History as HistoryOfAWorker
from tests.components.workpool.test_machine import History as HistoryOfAPool
from tests.proofs.pools_planted import OF_POOLS, OF_WORKERS
from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = "A work has one end and is told of once, a batch is done once, whatever is killed."
ROUNDS = 40
"""Histories, each of a pool and of a batch worker."""

STEPS: Final = 25
ROUNDS_PLANTED: Final = 100
"""At most, until something is seen."""
PLANTED: Final = {
    **{name: (HistoryOfAWorker, bug) for name, bug in OF_WORKERS.items()},
    **{name: (HistoryOfAPool, bug) for name, bug in OF_POOLS.items()},
}


def prove(plan: Plan) -> Verdict:
    """Live the histories, or, planted, look whether each bug is seen in one."""
    trace_to_stderr(level="critical")
    logging.getLogger("headrace").setLevel(logging.CRITICAL)
    if plan.planted:
        return _prove_planted(plan)
    counts: Counter[str] = Counter()
    problems = [
        problem
        for machine in (HistoryOfAPool, HistoryOfAWorker)
        if (problem := first_problem(machine, plan.rounds, plan.seed, counts))
    ]
    missing = too_few(counts, {"crashes": plan.rounds // 2, "works and items": plan.rounds})
    for text in [*problems, *missing]:
        print(f"  {text}")
    counted = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    figure = f"{counted}; {len(problems)} problems"
    return Verdict(held=not problems and not missing, figure=figure)


def _prove_planted(plan: Plan) -> Verdict:
    missed = []
    for name, (machine, bug) in PLANTED.items():
        with bug.planted():
            seen = first_problem(machine, ROUNDS_PLANTED, plan.seed, Counter())
        print(f"  {name}: {seen or 'NOT CAUGHT'}", flush=True)
        missed += [] if seen else [name]
    figure = f"{len(PLANTED) - len(missed)} of {len(PLANTED)} planted bugs caught"
    return Verdict(held=not missed, figure=figure)


def first_problem(machine: Any, rounds: int, dice: int, counts: Counter[str]) -> str:
    """
    What did not hold in the first history in which something did not; empty if all held.

    Args:
        counts: of what was lived through, to be added to.
    """
    options = settings(
        max_examples=rounds,
        stateful_step_count=STEPS,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
    try:
        run_state_machine_as_test(seed(dice)(_counting(machine, counts)), settings=options)
    except Exception as error:  # also what a function raised that should have done nothing
        return _where(error)
    return ""


def _counting(machine: Any, counts: Counter[str]) -> Any:
    class Counting(machine):  # type: ignore[misc]
        def teardown(self) -> None:
            counts["histories"] += 1
            counts["works and items"] += len(getattr(self, "works", None) or self.due)
            counts["crashes"] += self.lives.number - 1
            super().teardown()

    return Counting


def _where(error: Exception) -> str:
    """The rule that did not hold, by the name that it has in its machine."""
    at, names = error.__traceback__, []
    while at is not None:
        if at.tb_frame.f_code.co_filename.endswith("test_machine.py"):
            names.append(at.tb_frame.f_code.co_name)
        at = at.tb_next
    what = "" if isinstance(error, AssertionError) else f": {error!r:.80}"
    return f"{names[-1].replace('_', ' ') if names else 'nowhere'}{what}"
