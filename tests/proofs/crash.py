"""
Kill a real engine under load, again and again, and look at what the next one finds.

A round: start the engine, let it say what is in the database, compare that with
every acknowledgement so far, let a crowd of workers write, and kill it at a
random moment.  After a kill each worker sends the mutation that was not
answered once more, under the same number, so a double would show.

SIGKILL keeps the page cache, so it cannot see a missing flush; the engine's own
description of its environment is held against that: its flags, and two flushes
for each batch.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.proofs.proof import Plan, Verdict

PROMISE = "What was acknowledged survives kill -9, no mutation is applied twice, and verify agrees."
ROUNDS = 100

WORKERS = 16
LOAD_S_MAX = 0.4
OPEN_S_MAX = 60.0
PLANTED = ("answer-before-flush", "forget-requests", "no-sync")
PLANTED_ROUNDS = 12


@dataclass
class Witness:
    """What the outside world was told, and what contradicts it."""

    acknowledged: list[int] = field(default_factory=lambda: [0] * WORKERS)
    """For each worker, the first number that was never acknowledged."""
    problems: list[str] = field(default_factory=list)
    mutations: int = 0
    unanswered_done: int = 0
    batches: int = 0

    def ack(self, worker: int, number: int) -> None:
        if number < self.acknowledged[worker]:
            self.problems.append(f"worker {worker} was answered twice for {number}")
        self.acknowledged[worker] = number + 1
        self.mutations += 1

    def compare(self, state: dict[str, Any]) -> None:
        """Hold what is in the database against what was acknowledged."""
        lines = Counter((worker, number) for worker, number in state["ledger"])
        self.problems += [f"{line} is there {n} times" for line, n in lines.items() if n > 1]
        for worker, first in enumerate(self.acknowledged):
            missing = [n for n in range(first) if (worker, n) not in lines]
            if missing:
                self.problems.append(f"worker {worker}: {missing[:5]} were acknowledged and lost")
            if (worker, first) in lines:
                self.unanswered_done += 1
            beyond = [n for w, n in lines if w == worker and n > first]
            if beyond:
                self.problems.append(f"worker {worker}: {beyond[:5]} were never sent")
        self._compare_totals(state["totals"], lines)
        self.problems += state["problems"]
        self._check_store(state["store"])

    def _compare_totals(self, totals: list[list[float]], lines: Counter[tuple[int, int]]) -> None:
        counted = Counter(worker for worker, _ in lines.elements())
        stated = {int(worker): int(count) for worker, count in totals}
        if stated != dict(counted):
            self.problems.append(f"totals {stated} for a ledger of {dict(counted)}")

    def _check_store(self, store: dict[str, Any]) -> None:
        flags = store["flags"]
        if not (flags["sync"] and flags["metasync"]) or flags["writemap"]:
            self.problems.append(f"the environment is open with {flags}")
        batches, flushes = store["batches"], store["flushes"]
        if flushes != 2 * batches or not batches:
            self.problems.append(f"{flushes} flushes for {batches} batches")
        self.batches += batches


def prove(plan: Plan) -> Verdict:
    """Run the rounds, or, planted, look whether each bug is caught."""
    if not plan.planted:
        witness = _rounds(plan.directory / "data", "none", plan.rounds, plan.seed)
        figure = (
            f"{plan.rounds} kills, {witness.mutations:,} acknowledged mutations, "
            f"{witness.unanswered_done} done but not answered, {len(witness.problems)} problems"
        )
        for problem in witness.problems[:10]:
            print(f"  {problem}")
        return Verdict(held=not witness.problems, figure=figure)
    caught = []
    for bug in PLANTED:
        witness = _rounds(plan.directory / bug, bug, PLANTED_ROUNDS, plan.seed)
        print(f"  {bug}: {witness.problems[0] if witness.problems else 'NOT CAUGHT'}")
        caught.append(bool(witness.problems))
    return Verdict(held=all(caught), figure=f"{sum(caught)} of {len(caught)} planted bugs caught")


def _rounds(directory: Path, plant: str, rounds: int, seed: int) -> Witness:
    dice = random.Random(seed)
    witness = Witness()
    for number in range(rounds):
        _round(directory, plant, witness, dice.uniform(0.0, LOAD_S_MAX))
        if witness.problems:
            print(f"  round {number}: {witness.problems[0]}")
            return witness
    _round(directory, plant, witness, 0.0)
    return witness


def _round(directory: Path, plant: str, witness: Witness, load_s: float) -> None:
    command = [sys.executable, "-m", "tests.proofs.crash_subject", str(directory), plant]
    subject = subprocess.Popen(
        [*command, *map(str, witness.acknowledged)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        reader = _Lines(subject)
        state = reader.next_line(time.monotonic() + OPEN_S_MAX)
        if state is None or not state.startswith("state "):
            witness.problems.append(f"the engine did not open again: {state!r}")
            return
        witness.compare(json.loads(state.removeprefix("state ")))
        _listen(reader, witness, time.monotonic() + load_s)
        subject.send_signal(signal.SIGKILL)
        subject.wait()
        _listen(reader, witness, time.monotonic() + OPEN_S_MAX)
    finally:
        subject.kill()
        subject.wait()
        assert subject.stdout is not None
        subject.stdout.close()


def _listen(reader: _Lines, witness: Witness, deadline: float) -> None:
    while (line := reader.next_line(deadline)) is not None:
        _, worker, number = line.split()
        witness.ack(int(worker), int(number))


class _Lines:
    """Lines of a process as they come, until it ends or a deadline passes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)
        self._read = b""

    def next_line(self, deadline: float) -> str | None:
        while b"\n" not in self._read:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._selector.select(left_s):
                return None
            part = os.read(self._fd, 1 << 16)
            if not part:
                return None
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()
