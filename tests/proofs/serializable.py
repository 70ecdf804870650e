"""
Let mutations run beside each other, yielding by seed, and look for what no serial order gives.

In the lane nothing can conflict, so the lane is opened here: each round is a crowd of clients
whose every call on the database may be followed by somebody else's.  Lost updates show in a sum,
phantoms in a name that two have claimed.
"""

from __future__ import annotations

import trio
import trio.testing

from engine.committer import actor as committer_actor
from engine.committer.conflicts import find_conflict
from tests.proofs.proof import Plan, Verdict
from tests.simulation.crowd import crowd, is_serial, no_validation, without_ranges

PROMISE = "Mutations that run beside each other leave what some serial order would have left."
ROUNDS = 60

PLANTED = {"no validation": no_validation, "ranges are not validated": without_ranges}
PLANTED_ROUNDS = 20


def prove(plan: Plan) -> Verdict:
    """Run the rounds, or, planted, look whether each bug is caught."""
    if not plan.planted:
        broken = _broken(plan.seed, plan.rounds)
        figure = f"{plan.rounds} crowds of 8 clients, {len(broken)} not serial {broken[:5] or ''}"
        return Verdict(held=not broken, figure=figure.strip())
    caught = 0
    for name, planted in PLANTED.items():
        setattr(committer_actor, "find_conflict", planted)  # noqa: B010 - a module's name
        broken = _broken(plan.seed, PLANTED_ROUNDS)
        print(f"  {name}: {len(broken)} of {PLANTED_ROUNDS} crowds are not serial")
        caught += bool(broken)
    setattr(committer_actor, "find_conflict", find_conflict)  # noqa: B010
    return Verdict(held=caught == len(PLANTED), figure=f"{caught} of {len(PLANTED)} bugs caught")


def _broken(seed: int, rounds: int) -> list[int]:
    return [one for one in range(seed, seed + rounds) if not is_serial(_run(one))]


def _run(seed: int) -> tuple[float, list[str], list[object]]:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(crowd, seed, clock=clock)
