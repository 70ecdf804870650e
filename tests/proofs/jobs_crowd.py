"""
Many jobs at a time, of several planners, and an engine that is killed amid them.

A round: start the engine, which goes on with what an earlier one left, have it plan, cancel and
tick, and let it kill itself when it comes to a point for some time, or kill it at some moment. In
the end one is left alone until nothing is to be done any more, and what it says is compared with
what the outside was told, and with what actions did there.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.proofs.crash import OPEN_S_MAX, _Lines
from tests.proofs.jobs_crowd_subject import ATTEMPTS, NOWHERE, TICK_S

POINTS: Final = ("committer.persist", "committer.published", "jobs.begun", "jobs.acted", NOWHERE)
"""Where it is killed; nowhere is at some moment."""
VISITS_MAX: Final = 30
LOAD_S_MAX: Final = 1.5
DATABASE_ROUNDS: Final = 25
"""Then another one is begun: the end of each compares all that there is."""
TOKENS_OF_A_LIFE: Final = 1_000_000
EARLY_MS: Final = 1.0
"""Functions see whole milliseconds."""
DOWN_S: Final = 6.0
"""Before the last life of a database: what a cron has missed by then is one tick."""
INTERRUPTED: Final = "the engine stopped while this action ran"


@dataclass
class Witness:
    """What the outside was told, and what contradicts it."""

    plans: dict[int, tuple[str, float, str]] = field(default_factory=dict)
    """By token: the kind, when it is due, and the job."""
    canceling: set[int] = field(default_factory=set)
    canceled: set[int] = field(default_factory=set)
    kills: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """From here on it is another database; what was counted stays counted."""
        self.plans, self.canceling, self.canceled = {}, set(), set()

    def hear(self, line: str) -> None:
        match line.split():
            case ["plan", token, kind, due_ms, job]:
                self.plans[int(token)] = (kind, float(due_ms), job)
            case ["cancel", token]:
                self.canceling.add(int(token))
            case ["canceled", token]:
                self.canceled.add(int(token))

    def compare(self, state: dict[str, Any], outside: list[str]) -> None:
        """Hold what is in the database, and in the world, against what was told."""
        self.problems += state["problems"]
        self.problems += _differences(self, _World.of(state, outside))
        ticks = [tick for tick in state["ticks"] if tick["life"] == state["life"]]
        most = state["seconds"] / TICK_S + 2
        if not 1 <= len(ticks) <= most:
            self.problems.append(
                f"a cron ticked {len(ticks)} times in {state['seconds']:.1f} s, after {DOWN_S:g} s "
                f"in which nobody was there"
            )
        self.counts["plans"] += len(self.plans)
        self.counts["canceled"] += len(self.canceled)
        self.counts["ticks"] += len(state["ticks"])
        self.counts["retried"] += sum(job.get("attempts", 0) > 1 for job in state["jobs"].values())
        self.counts["interrupted"] += sum(
            INTERRUPTED in str(job["state"].get("error")) for job in state["jobs"].values()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """What there is in the end, by token."""

    jobs: dict[int, dict[str, Any]]
    kinds: dict[int, str]
    landed: dict[int, list[float]]
    began: dict[int, list[float]]
    told: dict[int, list[str]]

    @classmethod
    def of(cls, state: dict[str, Any], outside: list[str]) -> _World:
        landed: dict[int, list[float]] = {}
        for row in state["landed"]:
            landed.setdefault(int(row["token"]), []).append(row["at"])
        began: dict[int, list[float]] = {}
        for line in outside:
            _, token, at = line.split()
            began.setdefault(int(token), []).append(float(at))
        told: dict[int, list[str]] = {}
        for row in state["told"]:
            told.setdefault(int(row["token"]), []).append(row["kind"])
        return cls(
            jobs={int(row["token"]): state["jobs"].get(row["job"]) for row in state["plans"]},
            kinds={int(row["token"]): row["kind"] for row in state["plans"]},
            landed=landed,
            began=began,
            told=told,
        )


def _differences(witness: Witness, world: _World) -> Iterator[str]:
    for token in witness.plans.keys() - world.jobs.keys():
        yield f"the plan {token} was acknowledged and is not there"
    for token, job in world.jobs.items():
        if job is None:
            yield f"the job of the plan {token} is gone"
            continue
        due_ms = witness.plans[token][1] if token in witness.plans else job["scheduledTime"]
        yield from (
            f"{world.kinds[token]} {token}: {what}"
            for what in _wrong_with(world, token, job, due_ms, witness)
        )


def _wrong_with(
    world: _World, token: int, job: dict[str, Any], due_ms: float, witness: Witness
) -> Iterator[str]:
    state = job["state"]["kind"]
    landed, began = world.landed.get(token, []), world.began.get(token, [])
    times = [*landed, *began]
    if times and min(times) < due_ms - EARLY_MS:
        yield f"began {due_ms - min(times):g} ms early"
    if token in witness.canceled and state == "pending":
        yield "was canceled, and waits"
    if state == "canceled" and token not in witness.canceling:
        yield "is canceled, and nobody asked for it"
    if len(landed) > 1:
        yield f"landed {len(landed)} times"
    if world.kinds[token] == "fragile":
        yield from _wrong_with_retries(job, began, world.told.get(token, []))
    else:
        yield from _wrong_with_end(world.kinds[token], job, began, landed)


def _wrong_with_end(
    kind: str, job: dict[str, Any], began: list[float], landed: list[float]
) -> Iterator[str]:
    state = job["state"]["kind"]
    match kind, state:
        case "land", "success" if not landed:
            yield "succeeded, and has not landed"
        case "land", "canceled" | "failed" if landed:
            yield f"landed, and is {state}"
        case "act", _ if len(began) > 1:
            yield f"began {len(began)} times"
        case "act", "success" if not (landed and began):
            yield "succeeded without having done what it does"
        case "act", "failed" if INTERRUPTED not in job["state"]["error"]:
            yield f"failed: {job['state']['error']}"


def _wrong_with_retries(job: dict[str, Any], began: list[float], told: list[str]) -> Iterator[str]:
    state = job["state"]["kind"]
    if len(began) > job["attempts"]:
        yield f"began {len(began)} times in {job['attempts']:g} attempts"
    if job["attempts"] > ATTEMPTS:
        yield f"had {job['attempts']:g} attempts"
    if state == "failed" and job["attempts"] < ATTEMPTS:
        yield f"failed for good after {job['attempts']:g} attempts"
    if told != [state]:
        yield f"ended as {state}, and was told {told}"


def crowded(directory: Path, plant: str, rounds: int, seed: int) -> Witness:
    """Kill so many; what they left and what contradicts it."""
    dice = random.Random(seed)
    witness = Witness()
    for first in range(0, rounds, DATABASE_ROUNDS):
        witness.begin()
        place = directory / str(first)
        place.mkdir(parents=True)
        for number in range(first, min(first + DATABASE_ROUNDS, rounds)):
            point = POINTS[number % len(POINTS)]
            visit, load_s = dice.randint(1, VISITS_MAX), dice.uniform(0.1, LOAD_S_MAX)
            _round(place, plant, witness, point, visit, load_s)
        _last_round(place, plant, witness)
        if witness.problems:
            return witness
    return witness


def _round(
    place: Path, plant: str, witness: Witness, point: str, visit: int, load_s: float
) -> None:
    """Let one live until it has killed itself, or for so long."""
    # What one planned and could not tell any more is not to be planned again by the next one.
    first = witness.kills.total() * TOKENS_OF_A_LIFE
    with _subject(place, plant, point, visit, first) as process:
        lines = _Lines(process)
        deadline = time.monotonic() + (load_s if point == NOWHERE else OPEN_S_MAX)
        while (line := lines.next_line(deadline)) is not None:
            witness.hear(line)
            if point == NOWHERE:
                deadline = min(deadline, time.monotonic() + load_s)
        process.kill()
        process.wait()
        while (line := lines.next_line(time.monotonic() + OPEN_S_MAX)) is not None:
            witness.hear(line)
    witness.kills[point] += 1


def _last_round(place: Path, plant: str, witness: Witness) -> None:
    """Let one come to the end of everything, and compare."""
    time.sleep(DOWN_S)
    with _subject(place, plant, NOWHERE, 0, -1) as process:
        lines = _Lines(process)
        line = lines.next_line(time.monotonic() + 2 * OPEN_S_MAX)
        if line is None or not line.startswith("state "):
            witness.problems.append(f"what was planned does not come to an end: {line!r}")
            return
        outside = (place / "outside").read_text().splitlines()
        witness.compare(json.loads(line.removeprefix("state ")), outside)


@contextmanager
def _subject(
    place: Path, plant: str, point: str, visit: int, first: int
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, killed at the end of the block if it still runs."""
    arguments = map(str, (place, plant, point, visit, first))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.proofs.jobs_crowd_subject", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
