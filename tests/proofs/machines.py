"""Histories of state machines, lived by seed until something does not hold."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from hypothesis import Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from engine.kernel.trace import trace_to_stderr
from tests.proofs.planted_lines import Planted
from tests.proofs.proof import Plan, Verdict

STEPS: Final = 25
"""Of a history."""
ROUNDS_PLANTED: Final = 100
"""At most, until something is seen."""

Counted = Callable[[Any], Mapping[str, int]]
"""What a machine has lived through, told when its history ends."""


def say_nothing() -> None:
    """Keep traces and logs of what is killed and fails on purpose to oneself."""
    trace_to_stderr(level="critical")
    logging.getLogger("headrace").setLevel(logging.CRITICAL)


def prove_planted(plan: Plan, planted: Mapping[str, tuple[Any, Planted]]) -> Verdict:
    """Plant each bug, and live histories of its machine until it is seen in one."""
    missed = []
    for name, (machine, bug) in planted.items():
        with bug.planted():
            seen = first_problem(machine, ROUNDS_PLANTED, plan.seed)
        print(f"  {name}: {seen or 'NOT CAUGHT'}", flush=True)
        missed += [] if seen else [name]
    figure = f"{len(planted) - len(missed)} of {len(planted)} planted bugs caught"
    return Verdict(held=not missed, figure=figure)


def verdict_of(problems: list[str], missing: list[str], lived: str) -> Verdict:
    """Print what did not hold, and what was too rare; `lived` is what there was."""
    for text in [*problems, *missing]:
        print(f"  {text}")
    return Verdict(held=not problems and not missing, figure=f"{lived}; {len(problems)} problems")


def first_problem(
    machine: Any,
    rounds: int,
    dice: int,
    counts: Counter[str] | None = None,
    counted: Counted = lambda _: {},
) -> str:
    """
    What did not hold in the first history in which something did not; empty if all held.

    Args:
        counts: of what was lived through, to be added to.
        counted: of a machine.
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
    told = Counter[str]() if counts is None else counts
    try:
        run_state_machine_as_test(seed(dice)(_counting(machine, told, counted)), settings=options)
    except Exception as error:  # also what a function raised that should have done nothing
        return _where(error)
    return ""


def _counting(machine: Any, counts: Counter[str], counted: Counted) -> Any:
    class Counting(machine):  # type: ignore[misc]
        def teardown(self) -> None:
            counts["histories"] += 1
            counts.update(counted(self))
            super().teardown()

    return Counting


def _where(error: Exception) -> str:
    """The rule that did not hold, by the name that it has in its machine."""
    at, names = error.__traceback__, []
    while at is not None:
        if "/tests/components/" in at.tb_frame.f_code.co_filename:
            names.append(at.tb_frame.f_code.co_name)
        at = at.tb_next
    what = "" if isinstance(error, AssertionError) else f": {error!r:.80}"
    return f"{names[-1].replace('_', ' ').strip() if names else 'nowhere'}{what}"
