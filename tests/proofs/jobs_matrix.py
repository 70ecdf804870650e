"""
Every place of every kind of job, and what is left of the job when something goes wrong there.

    cells()                     each place of each kind
    killed(...)                 real processes are killed at some, and started again a while later
    simulated(cell, fate)       the same in memory and virtual time: cut off, refused, held up, ...
    wrong_with(...)             what of the promise does not hold
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio
from trio.testing import MockClock

from engine.errors import StoreFailed, StoreFull
from engine.functions.jobs import INTERRUPTED, LOST
from engine.kernel.runtime import EPOCH_2026_NS, VirtualRuntime
from engine.store.memory_store import MemoryStore
from tests.node.nodes import serving
from tests.proofs.crash import OPEN_S_MAX, _Lines
from tests.proofs.jobs_life import (
    ATTEMPTS,
    BEAT_S,
    FUNCTION,
    PATHS,
    PERSIST,
    PLANNED,
    POINTS,
    PUBLISHED,
    Course,
    Left,
    Place,
    app,
    come_to_rest,
    left_of,
    live,
    take,
)

DOWN_S: Final = 95.0
"""By the clock of whoever comes next: nine ticks of a cron, and a bit."""
EARLY_MS: Final = 1.0
"""Functions see whole milliseconds."""
HELD_S: Final = 5.0
JUMP_S: Final = 86_400.0

FATES: Final = (
    "cut off",
    "cut off, and written",
    "failed",
    "held up",
    "clock forward",
    "clock back",
)
"""What happens in memory at a place: of a batch that was on its way nobody knows what became."""


class Cell(NamedTuple):
    kind: str
    place: Place

    def __str__(self) -> str:
        return f"{self.kind} at {self.place}"


def cells() -> list[Cell]:
    return [Cell(kind, place) for kind, path in PATHS.items() for place in path]


# What has to be left.


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """
    What became of one job.

    left: what it was when its engine was gone; the whole course if none was.
    is_back: whether another engine came after that one, `DOWN_S` later.
    has_raised: its function did, which is its own affair.
    clock_s: by how much the clock was set on the way.
    state: what `left_of` says in the end.
    outside: the lines of the world.
    """

    cell: Cell
    left: Left
    is_back: bool
    has_raised: bool = False
    clock_s: float = 0.0
    state: Mapping[str, Any]
    outside: Sequence[Sequence[str]]

    @property
    def began(self) -> list[float]:
        return [float(at) for what, at in self.outside if what == "began"]

    @property
    def landed(self) -> list[float]:
        return [row["at"] for row in self.state["landed"]]

    def jobs(self, name: str) -> list[dict[str, Any]]:
        return [job for job in self.state["jobs"] if job["name"].endswith(f":{name}")]


def wrong_with(end: End) -> list[str]:
    """What of the promise does not hold."""
    found = [*end.state["problems"], *_early(end)]
    match end.cell.kind:
        case "mutation":
            found += _expect(end, "land", "failed" if end.has_raised else "success")
        case "action":
            found += _wrong_with_action(end)
        case "retry":
            found += _wrong_with_retry(end)
        case "cancel" | "cancel of an action":
            is_mutation = end.cell.kind == "cancel"
            state = "canceled" if end.left == "canceled" else "success"
            found += _expect(end, "land" if is_mutation else "act", state)
            found += _times("began", end.began, 0 if is_mutation or state == "canceled" else 1)
        case "cancel of a running action":
            found += _wrong_with_parent(end)
        case _:
            found += _wrong_with_cron(end)
    return [f"{end.cell}: {problem}" for problem in found]


def _early(end: End) -> Iterator[str]:
    due_ms = [float(at) for what, at in end.outside if what == "due"]
    times = [*end.began, *end.landed]
    if end.clock_s < 0 and end.cell.place.point != PLANNED:
        return  # it was due when it was found
    if due_ms and times and min(times) < due_ms[0] - EARLY_MS:
        yield f"began {due_ms[0] - min(times):g} ms early"


def _times(what: str, found: Sequence[Any], *expected: int) -> Iterator[str]:
    if len(found) not in expected:
        yield f"{what} {len(found)} times, not {' or '.join(map(str, expected))}"


def _expect(end: End, name: str, state: str) -> Iterator[str]:
    """One job that is in a state, and has landed if that is success."""
    states = [job["state"] for job in end.jobs(name)]
    if [state] != [found["kind"] for found in states]:
        yield f"{name} is {states}, and not one that is {state}"
    yield from _times("landed", end.landed, *([1] if state == "success" else [0]))


def _wrong_with_action(end: End) -> Iterator[str]:
    if end.left != "begun":
        yield from _expect(end, "act", "success")
        yield from _times("began", end.began, 1)
        return
    yield from _lost(end, [job["state"] for job in end.jobs("act")])
    yield from _times("landed", end.landed, 0, 1)


def _lost(end: End, states: list[Any]) -> Iterator[str]:
    """It was begun, and what became of it is not known: so it has failed, and is begun no more."""
    yield from _times("began", end.began, 0, 1)
    error = states[0].get("error", "") if len(states) == 1 else ""
    if not any(why in error for why in (INTERRUPTED, LOST, "as planned")):
        yield f"was under way, and is {states}"


def _wrong_with_retry(end: End) -> Iterator[str]:
    if len(end.jobs("fragile")) != 1:
        yield f"there are {len(end.jobs('fragile'))} of it"
        return
    (job,) = end.jobs("fragile")
    is_second = end.cell.place.visit > (2 if end.cell.place.point in (PERSIST, PUBLISHED) else 1)
    attempts = 3 if end.left == "begun" and is_second else 2
    if (job["state"]["kind"], job["attempts"]) != ("success", attempts):
        yield f"is {job['state']} after {job['attempts']:g} attempts, not success after {attempts}"
    if not attempts - 1 <= len(end.began) <= job["attempts"] <= ATTEMPTS:
        yield f"began {len(end.began)} times in {job['attempts']:g} attempts"
    if (told := [row["kind"] for row in end.state["told"]]) != ["success"]:
        yield f"told {told}"


def _wrong_with_parent(end: End) -> Iterator[str]:
    states = [job["state"] for job in end.jobs("parent")]
    children = [job["state"]["kind"] for job in end.jobs("leave")]
    match end.left:
        case "canceled":
            if ["canceled"] != [state["kind"] for state in states]:
                yield f"was canceled, and is {states}"
            if {"canceled"} < {*children, "canceled"} or end.landed:
                yield f"was canceled, and its children are {children}"
            yield from _times("began", end.began, 1)
        case "begun":
            yield from _lost(end, states)
            yield from _times("landed", end.landed, 0)
        case _:
            # Who canceled it is gone as well.
            if (["success"], ["success"]) != ([state["kind"] for state in states], children):
                yield f"is {states}, its children {children}"
            yield from _times("began", end.began, 1)
            yield from _times("landed", end.landed, 1)


def _wrong_with_cron(end: End) -> Iterator[str]:
    """One run for each time that has come, or for all that were missed; the next is to come."""
    runs_of = [cron.get("runs", []) for cron in end.state["crons"]]
    if len(runs_of) != 1 or not runs_of[0]:
        yield f"there are {len(runs_of)} crons, which have run {runs_of}"
        return
    (cron,) = end.state["crons"]
    waits, runs, now_ms = cron["waits"], cron["runs"], end.state["now_ms"]
    if waits is None or waits["state"]["kind"] != "pending":
        yield f"its tick is {waits}"
    if cron["nextTime"] <= now_ms:
        yield f"is due {now_ms - cron['nextTime']:g} ms before now"
    first_ms = runs[0]["scheduledTime"]
    beats = (cron["nextTime"] - first_ms) / (BEAT_S * 1000)
    if beats != round(beats) or len(runs) + cron["skipped"] != beats:
        yield f"has skipped {cron['skipped']:g} and run {len(runs)} of {beats:g} beats"
    ran = end.landed if end.cell.kind == "cron" else end.began
    if end.has_raised or end.left == "begun":
        yield from _times("ran", ran, 0, 1)
        if runs[0]["state"]["kind"] != "failed":
            yield f"was under way, and is {runs[0]['state']}"
    elif end.is_back and end.left == "over":
        yield from _times("ran", ran, 2)
    else:
        yield from _times("ran", ran, *([1, 2] if end.clock_s > 0 else [1]))


# Real processes.


class Killed(NamedTuple):
    """A cell, whether somebody was killed there, and what is wrong with what was left."""

    cell: Cell
    is_hit: bool
    problems: list[str]


def killed(directory: Path, bug: str, chosen: Iterable[Cell]) -> Iterator[Killed]:
    """Kill one process at each cell; the next one looks what became of that."""
    directory.mkdir(parents=True)
    outside = directory / "outside"
    before: tuple[int, Cell, bool] | None = None
    for token, cell in enumerate([*chosen, None]):
        shift_s = token * DOWN_S
        state, is_hit = _life(directory, bug, shift_s, before, cell, token)
        if before is not None:
            number, last, was_hit = before
            yield Killed(last, was_hit, _judged(last, number, state, outside))
        before = None if cell is None else (token, cell, is_hit)


def _judged(cell: Cell, token: int, state: Mapping[str, Any] | None, outside: Path) -> list[str]:
    if state is None:
        return [f"{cell}: does not come to rest"]
    lines = _lines_of(token, outside.read_text().splitlines())
    left = PATHS[cell.kind][cell.place]
    return wrong_with(End(cell=cell, left=left, is_back=True, state=state, outside=lines))


def _lines_of(token: int, lines: Iterable[str]) -> list[list[str]]:
    """What the world was told of one plan."""
    words = (line.split() for line in lines)
    return [[what, at] for what, number, at in words if int(number) == token]


def _life(
    directory: Path,
    bug: str,
    shift_s: float,
    before: tuple[int, Cell, bool] | None,
    cell: Cell | None,
    token: int,
) -> tuple[dict[str, Any] | None, bool]:
    """What became of the job before, and whether the process has killed itself where it should."""
    kind, place = cell or ("", Place("", 0))
    last = -1 if before is None else before[0]
    new = -1 if cell is None else token
    arguments = (directory, bug, shift_s, last, kind, place.point, place.visit, new)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.proofs.jobs_matrix_subject", *map(str, arguments)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    state = None
    try:
        lines = _Lines(process)
        deadline = time.monotonic() + OPEN_S_MAX
        while (line := lines.next_line(deadline)) is not None:
            state = json.loads(line.removeprefix("state "))
        is_over = time.monotonic() < deadline
        return state, is_over and process.wait(OPEN_S_MAX) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


# In memory.


class _Walked(VirtualRuntime):
    """Its pause points are places of a course."""

    def __init__(self, course: Course, start_ns: int) -> None:
        super().__init__(1, start_ns=start_ns)
        self._course = course

    async def pause(self, point: str) -> None:
        await self._course.come(point)


def is_possible(cell: Cell, fate: str) -> bool:
    """Whether a fate can befall somebody at a place."""
    point = cell.place.point
    match fate:
        case "cut off, and written":
            return point == PERSIST
        case "failed":
            return point not in ("planned", "canceled")
        case "held up":
            return not (point == FUNCTION and cell.kind in ("mutation", "cron"))
        case _:
            return True


def simulated(cell: Cell, fate: str) -> list[str]:
    """What is wrong with what is left of a job to which something happened at a place."""
    simulation = _Simulation(cell, fate)
    trio.run(simulation.run, clock=MockClock(autojump_threshold=0))
    return simulation.problems


class _Simulation:
    def __init__(self, cell: Cell, fate: str) -> None:
        self.problems: list[str] = []
        self._cell, self._fate = cell, fate
        self._world: list[str] = []
        self._copy: MemoryStore | None = None
        self._has_raised = False
        self._crash = trio.CancelScope()

    async def run(self) -> None:
        self._store = MemoryStore()
        self._course = take(
            Course(self._cell.place, self._befall, self._befall_now, self._world.append)
        )
        self._runtime = _Walked(self._course, EPOCH_2026_NS)
        state: Any = None
        try:
            with self._crash:
                async with serving(app(), store=self._store, runtime=self._runtime) as node:
                    await live(node, self._cell.kind, 0)
                    state = await left_of(node, 0)
        except BaseExceptionGroup as group:
            if not any("as planned" in str(error) for error in _leaves(group)):
                raise
            self._copy = self._store.durable_copy()
        if not self._course.has_come:
            self.problems.append(f"{self._cell}: nobody came there")
        elif self._copy is None:
            self._judge(state, is_back=False)
            self._compare_paths()
        else:
            await self._come_back(self._copy)

    def _compare_paths(self) -> None:
        """The engine has no pause point on the way that `PATHS` has not, nor the reverse."""
        expected = Counter(place.point for place in PATHS[self._cell.kind])
        if self._cell.place.point == PLANNED and expected != self._course.visits:
            self.problems.append(f"{self._cell.kind} goes past {dict(self._course.visits)}")

    async def _come_back(self, store: MemoryStore) -> None:
        now_ns = self._runtime.now_ns() + round(DOWN_S * 1e9)
        course = take(Course(outside=self._world.append))
        async with serving(app(), store=store, runtime=_Walked(course, now_ns)) as node:
            await come_to_rest(node, 0)
            self._judge(await left_of(node, 0), is_back=True)

    def _judge(self, state: Any, *, is_back: bool) -> None:
        end = End(
            cell=self._cell,
            left=self._left(is_back=is_back),
            is_back=is_back,
            has_raised=self._has_raised and self._cell.kind in ("mutation", "cron"),
            clock_s={"clock forward": JUMP_S, "clock back": -JUMP_S}.get(self._fate, 0.0),
            state=state,
            outside=_lines_of(0, self._world),
        )
        self.problems += [f"{self._fate}: {problem}" for problem in wrong_with(end)]

    def _left(self, *, is_back: bool) -> Left:
        path = PATHS[self._cell.kind]
        if is_back and self._fate == "cut off, and written":
            return path[Place(PUBLISHED, self._cell.place.visit)]
        here = path[self._cell.place]
        if is_back or (here == "begun" and self._is_lost()):
            return here
        return list(path.values())[-1]

    def _is_lost(self) -> bool:
        """Whether it has failed because of what happened, and the engine went on."""
        return self._fate == "failed" and self._cell.place.point in (
            "jobs.begun",
            "jobs.acted",
            FUNCTION,
        )

    async def _befall(self) -> None:
        point = self._cell.place.point
        match self._fate:
            case "held up":
                await trio.sleep(HELD_S)
            case "failed" if point == PERSIST:
                self._store.fail_next(StoreFull("as planned"))
            case "cut off, and written":
                self._store.fail_next(StoreFailed("as planned"), written=True)
            case "failed" if point == PUBLISHED:
                raise OSError("as planned")
            case "failed" if point == FUNCTION:
                raise ValueError("as planned")
            case "failed":
                raise StoreFull("as planned")
            case _:
                self._befall_now()
        if self._copy is not None:
            await trio.sleep_forever()

    def _befall_now(self) -> None:
        match self._fate:
            case "clock forward":
                self._runtime.jump(JUMP_S)
            case "clock back":
                self._runtime.jump(-JUMP_S)
            case "failed":
                self._has_raised = True
                raise ValueError("as planned")
            case _:
                self._copy = self._store.durable_copy()
                self._crash.cancel()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


# The table.


def table(hits: Counter[Cell]) -> Iterator[str]:
    """How often somebody was killed at each place: a line a kind, a number for each visit."""
    width = max(map(len, PATHS))
    heads = [point.rpartition(".")[2] for point in POINTS]
    columns = [
        {
            kind: " ".join(str(hits[Cell(kind, place)]) for place in path if place.point == point)
            for kind, path in PATHS.items()
        }
        for point in POINTS
    ]
    widths = [
        max(len(head), *map(len, column.values()))
        for head, column in zip(heads, columns, strict=True)
    ]
    yield "  ".join(text.ljust(n) for text, n in zip(["", *heads], [width, *widths], strict=True))
    for kind in PATHS:
        cells_of = [column[kind] for column in columns]
        yield "  ".join(
            text.ljust(n) for text, n in zip([kind, *cells_of], [width, *widths], strict=True)
        )
