"""
Kill a real engine under load, again and again, and look at what the next one finds.

A round: start the engine, let it say what is in the database, compare that with
every acknowledgement so far, let a crowd of workers write, and kill it at a
random moment.  After a kill each worker sends the mutation that was not
answered once more, under the same number, so a double would show.

SIGKILL keeps the page cache, so it cannot see a missing flush.  Two checks are
held against that: how the environment says it is open, in every round, and in the
first one what the kernel sees: strace counts the flushes of each batch.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.proofs.flushes import Flushes, flushes_seen, obstacle, traced
from tests.proofs.proof import Plan, Verdict

PROMISE = "What was acknowledged survives kill -9, no mutation is applied twice, and verify agrees."
ROUNDS = 100

WORKERS = 16
LOAD_S_MAX = 0.4
TRACED_LOAD_S = 1.5
TRACED_BATCHES_MIN = 5
"""In `TRACED_LOAD_S`, on the slowest disk; fewer would show little."""
OPEN_S_MAX = 60.0
DATABASE_ROUNDS = 100
"""Then another one is begun: each round compares and verifies all that there is."""
PLANTED_ROUNDS = 12

ENGINE: Final = "the engine"
LEDGER: Final = "the ledger"
VERIFY: Final = "verify"
FLAGS: Final = "the flags"
KERNEL: Final = "the kernel's count"
PLANTED: Final = {
    "answer-before-flush": {LEDGER},
    "forget-requests": {LEDGER},
    "no-sync": {FLAGS, KERNEL},
}
"""Each bug, and the checks that have to see it."""


class Problem(NamedTuple):
    """What a check has found."""

    check: str
    text: str


@dataclass
class Witness:
    """What the outside world was told, and what contradicts it."""

    acknowledged: list[int] = field(default_factory=lambda: [0] * WORKERS)
    """For each worker, the first number that was never acknowledged."""
    problems: list[Problem] = field(default_factory=list)
    mutations: int = 0
    unanswered_done: int = 0
    counted: list[Flushes] = field(default_factory=list)
    """Of each batch that was traced."""

    def begin(self) -> None:
        """From here on it is another database; what was counted stays counted."""
        self.acknowledged = [0] * WORKERS

    def ack(self, worker: int, number: int) -> None:
        if number < self.acknowledged[worker]:
            self.found(LEDGER, f"worker {worker} was answered twice for {number}")
        self.acknowledged[worker] = number + 1
        self.mutations += 1

    def found(self, check: str, text: str) -> None:
        self.problems.append(Problem(check, text))

    def compare(self, state: dict[str, Any]) -> None:
        """Hold what is in the database against what was acknowledged."""
        lines = Counter((worker, number) for worker, number in state["ledger"])
        for line, times in lines.items():
            if times > 1:
                self.found(LEDGER, f"{line} is there {times} times")
        for worker, first in enumerate(self.acknowledged):
            self._compare_worker(worker, first, lines)
        self._compare_totals(state["totals"], lines)
        for text in state["problems"]:
            self.found(VERIFY, text)
        self._check_store(state["store"])

    def count(self, counted: list[Flushes]) -> None:
        """Take in what the kernel saw of each batch."""
        self.counted += counted
        if len(counted) < TRACED_BATCHES_MIN:
            self.found(KERNEL, f"only {len(counted)} batches were traced")
        for number, flushes in enumerate(counted):
            if not flushes.is_durable:
                self.found(KERNEL, f"batch {number} was answered after {flushes}")
                return

    def _compare_worker(self, worker: int, first: int, lines: Counter[tuple[int, int]]) -> None:
        missing = [n for n in range(first) if (worker, n) not in lines]
        if missing:
            self.found(LEDGER, f"worker {worker}: {missing[:5]} were acknowledged and lost")
        if (worker, first) in lines:
            self.unanswered_done += 1
        beyond = [n for w, n in lines if w == worker and n > first]
        if beyond:
            self.found(LEDGER, f"worker {worker}: {beyond[:5]} were never sent")

    def _compare_totals(self, totals: list[list[float]], lines: Counter[tuple[int, int]]) -> None:
        counted = Counter(worker for worker, _ in lines.elements())
        stated = {int(worker): int(count) for worker, count in totals}
        if stated != dict(counted):
            self.found(LEDGER, f"totals {stated} for a ledger of {dict(counted)}")

    def _check_store(self, store: dict[str, Any]) -> None:
        flags = store["flags"]
        if not (flags["sync"] and flags["metasync"]) or flags["writemap"]:
            self.found(FLAGS, f"the environment is open with {flags}")
        batches, flushes = store["batches"], store["flushes"]
        if flushes != 2 * batches or not batches:
            self.found(FLAGS, f"they mean {flushes} flushes for {batches} batches")


def prove(plan: Plan) -> Verdict:
    """Run the rounds, or, planted, look whether each bug is caught."""
    if plan.planted:
        return _prove_planted(plan)
    witness = _rounds(plan.directory / "data", "none", plan.rounds, plan.seed)
    figure = (
        f"{plan.rounds} kills, {witness.mutations:,} acknowledged mutations, "
        f"{witness.unanswered_done} done but not answered, {flushes_told(witness)}, "
        f"{len(witness.problems)} problems"
    )
    for problem in witness.problems[:10]:
        print(f"  {problem.check}: {problem.text}")
    return Verdict(held=not witness.problems, figure=figure)


def flushes_told(witness: Witness) -> str:
    """How it is known that batches are flushed."""
    if (why := obstacle()) is not None:
        return f"flushes NOT COUNTED but taken from the flags ({why})"
    flushes = sum(one.pages + one.meta for one in witness.counted)
    return f"{flushes:,} flushes counted in the kernel for {len(witness.counted):,} batches"


def _prove_planted(plan: Plan) -> Verdict:
    caught = 0
    for bug, checks in PLANTED.items():
        witness = _rounds(plan.directory / bug, bug, PLANTED_ROUNDS, plan.seed)
        seen_by = {problem.check: problem.text for problem in reversed(witness.problems)}
        for check, text in seen_by.items():
            print(f"  {bug} is caught by {check}: {text}")
        missed = checks - seen_by.keys() - ({KERNEL} if obstacle() else set())
        for check in sorted(missed):
            print(f"  {bug} is NOT CAUGHT by {check}")
        caught += not missed
    blind = f"; {KERNEL} was not tried: {why}" if (why := obstacle()) else ""
    figure = f"{caught} of {len(PLANTED)} planted bugs caught{blind}"
    return Verdict(held=caught == len(PLANTED), figure=figure)


def _rounds(directory: Path, plant: str, rounds: int, seed: int) -> Witness:
    dice = random.Random(seed)
    witness = Witness()
    for first in range(0, rounds, DATABASE_ROUNDS):
        witness.begin()
        upto = min(first + DATABASE_ROUNDS, rounds)
        for number in range(first, upto):
            load_s = dice.uniform(0.0, LOAD_S_MAX)
            trace = directory.with_name(f"{directory.name}.trace") if _is_traced(number) else None
            _round(directory, plant, witness, load_s, trace)
            if witness.problems:
                print(f"  round {number}: {witness.problems[0].text}", flush=True)
                return witness
        _round(directory, plant, witness, 0.0)
        if witness.problems or upto == rounds:
            break
        print(f"  {upto} kills, {witness.mutations:,} acknowledged", flush=True)
        shutil.rmtree(directory)
    return witness


def _is_traced(number: int) -> bool:
    """One round is enough: the others are not to be slowed."""
    return number == 0 and obstacle() is None


def _round(
    directory: Path, plant: str, witness: Witness, load_s: float, trace: Path | None = None
) -> None:
    """
    Open, compare, load and kill.

    Args:
        trace: where to note what the kernel saw; the load is then `TRACED_LOAD_S` longer.
    """
    command = [sys.executable, "-m", "tests.proofs.crash_subject", str(directory), plant]
    command += map(str, witness.acknowledged)
    subject = subprocess.Popen(
        command if trace is None else traced(command, trace),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        reader = _Lines(subject)
        line = reader.next_line(time.monotonic() + OPEN_S_MAX)
        if line is None or not line.startswith("state "):
            witness.found(ENGINE, f"it did not open again: {line!r}")
            return
        state = json.loads(line.removeprefix("state "))
        witness.compare(state)
        _listen(reader, witness, time.monotonic() + load_s + (TRACED_LOAD_S if trace else 0.0))
        if subject.poll() is not None:
            witness.found(ENGINE, "it ended before it was killed")
        with suppress(ProcessLookupError):
            os.kill(state["pid"], signal.SIGKILL)  # not the tracer, if there is one
        subject.wait(OPEN_S_MAX)
        _listen(reader, witness, time.monotonic() + OPEN_S_MAX)
        if trace is not None:
            witness.count(flushes_seen(trace, state["store"]["writer_pid"]))
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
