"""
Cut the power of an engine under load, at any moment, and look at every disk it may have left.

A real engine runs under strace, which notes every byte that it and its writer process write, every
flush, and every answer; halfway it is killed and started again. Then the trace is played back, and
at moments that the seed picks the disk is made as a power cut may leave it: all that was durable by
then, and of the rest any subset, reordered and torn between sectors. An engine opens each of these
images. Everything that had been acknowledged or shown by then has to be there, once; `verify` has
to agree; and then the clients send again what was not answered, and it is looked at once more.

A round is one image.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.proofs.disk import Disk
from tests.proofs.proof import Plan, Verdict
from tests.proofs.reopening import LEDGER, Checker, Problem, Told
from tests.proofs.write_trace import Event, Flush, Say, Write, events, obstacle, traced

PROMISE = "What was acknowledged is there once after the power fails, and the engine opens."
ROUNDS = 300

WORKERS: Final = 8
LIVES: Final = 2
"""How often the engine is started while it is traced; killed in between."""
LOAD_S: Final = 1.0
MAKING_SHARE: Final = 0.1
"""Of the images: it takes a moment only, and has rules of its own."""
PLANTED_IMAGES: Final = 60
PROBLEMS_SHOWN: Final = 10
PLANTED: Final = {
    "sync=False": {LEDGER},
    "metasync=False": {LEDGER},
    "answer-before-sync": {LEDGER},
    "folders-unflushed": {LEDGER},
}
"""Each bug, and the checks that have to see it."""


@dataclass
class Story:
    """What was traced, what was made of it, and what was found."""

    flushes: int = 0
    bytes_written: int = 0
    acknowledged: int = 0
    images: int = 0
    problems: list[Problem] = field(default_factory=list)
    caught: Counter[str] = field(default_factory=Counter)
    """In how many images each check has found something."""

    @property
    def figure(self) -> str:
        return (
            f"{self.images} images of {self.acknowledged:,} acknowledged mutations,"
            f" {self.bytes_written / 1e6:.1f} MB written in {self.flushes:,} flushes,"
            f" {len(self.problems)} problems"
        )


def prove(plan: Plan) -> Verdict:
    """Trace, and look at as many images as there are rounds, or look whether bugs are caught."""
    if (why := obstacle()) is not None:
        return Verdict(held=False, figure=f"nothing was tried: {why}")
    if plan.planted:
        return _prove_planted(plan)
    story = tell(plan.directory, "none", plan.rounds, plan.seed)
    for problem in story.problems[:PROBLEMS_SHOWN]:
        print(f"  {problem.check}: {problem.text}")
    return Verdict(held=not story.problems, figure=story.figure)


def _prove_planted(plan: Plan) -> Verdict:
    caught = 0
    for bug, checks in PLANTED.items():
        directory = plan.directory / bug
        directory.mkdir()
        story = tell(directory, bug, PLANTED_IMAGES, plan.seed)
        first = {problem.check: problem.text for problem in reversed(story.problems)}
        for check, text in first.items():
            print(f"  {bug} is caught by {check} in {story.caught[check]} images: {text}")
        missed = checks - first.keys()
        for check in sorted(missed):
            print(f"  {bug} is NOT CAUGHT by {check}")
        caught += not missed
    figure = f"{caught} of {len(PLANTED)} planted bugs caught"
    return Verdict(held=caught == len(PLANTED), figure=figure)


def tell(directory: Path, plant: str, images: int, seed: int) -> Story:
    """
    Trace an engine with a bug, or none, and look at images of its disk.

    Args:
        directory: empty; an image with a problem is kept in it, with the number of its round.
    """
    story = Story()
    data = directory / "data"
    steps = _traced_steps(directory, plant)
    _note(story, steps)
    dice = random.Random(seed)
    moments = _moments(dice, steps, images)
    disk, witness, done = Disk(directory), _Witness(), 0
    checker = Checker()
    try:
        for number, moment in enumerate(moments):
            for step in steps[done:moment]:
                step.take(disk, witness)
            done = moment
            image = directory / f"image-{number}"
            image.mkdir()
            disk.image(dice).write(image)
            found = checker.check(image / "data", witness.told())
            story.images += 1
            story.problems += found
            story.caught.update({problem.check for problem in found})
            if not found:
                shutil.rmtree(image)
            elif plant == "none":
                print(f"  {image.name}, step {moment} of {len(steps)}: {found[0].text}")
    finally:
        checker.close()
    for step in steps[done:]:
        step.take(disk, witness)
    _assert_whole(disk, data)
    return story


def _moments(dice: random.Random, steps: list[_Step], count: int) -> list[int]:
    """After which steps the power fails: a part of them while the store is being made."""
    first = next(n for n, step in enumerate(steps) if _is_answer(step))
    making = round(count * MAKING_SHARE)
    early = [dice.randrange(1, first + 1) for _ in range(making)]
    return sorted(early + [dice.randrange(1, len(steps) + 1) for _ in range(count - making)])


def _is_answer(step: _Step) -> bool:
    what = step.event.what
    return isinstance(what, Say) and what.text.startswith("ack ") and not step.is_end


@dataclass(frozen=True, slots=True)
class _Step:
    """The beginning or the end of a call."""

    event: Event
    is_end: bool

    def take(self, disk: Disk, witness: _Witness) -> None:
        if self.is_end:
            disk.end(self.event.what)
            return
        disk.begin(self.event.what)
        if isinstance(self.event.what, Say):
            witness.hear(self.event.what.text)


class _Witness:
    """What the outside world has been told so far."""

    def __init__(self) -> None:
        self._acknowledged = [0] * WORKERS
        self._shown = [0] * WORKERS

    def hear(self, text: str) -> None:
        match text.split():
            case ["ack", worker, number]:
                assert int(number) == self._acknowledged[int(worker)], "answered out of order"
                self._acknowledged[int(worker)] += 1
            case ["seen", worker, count]:
                self._shown[int(worker)] = max(self._shown[int(worker)], int(count))

    def told(self) -> Told:
        return Told(acknowledged=tuple(self._acknowledged), shown=tuple(self._shown))


def _traced_steps(directory: Path, plant: str) -> list[_Step]:
    """Let the engine live its lives; everything that it did, in order."""
    steps: list[_Step] = []
    witness = _Witness()
    for life in range(LIVES):
        trace = directory / f"trace-{life}"
        _live(directory / "data", plant, trace, witness.told().acknowledged)
        found = [_as_left(event) for event in events(trace, directory)]
        order = [(event.begin, _Step(event, is_end=False)) for event in found]
        order += [
            (event.end, _Step(event, is_end=True)) for event in found if event.end is not None
        ]
        order.sort(key=lambda placed: placed[0])
        for _, step in order:
            steps.append(step)
            if isinstance(step.event.what, Say) and not step.is_end:
                witness.hear(step.event.what.text)
    return steps


def _as_left(event: Event) -> Event:
    """A write that the death of its process cut off, as far as the cache has it."""
    what = event.what
    if event.end is not None or not isinstance(what, Write):
        return event
    with what.path.open("rb") as file:
        file.seek(what.offset)
        there = file.read(len(what.data))
    pairs = enumerate(zip(what.data, there, strict=False))
    reached = next((n for n, (wanted, found) in pairs if wanted != found), len(there))
    done = replace(what, data=what.data[:reached], synchronous=False)
    return Event(event.begin, sys.maxsize, done)


def _live(data: Path, plant: str, trace: Path, first: tuple[int, ...]) -> None:
    """Start, load, and kill; returns when the writer process has ended too."""
    command = [sys.executable, "-m", "tests.proofs.power_loss_subject", str(data), plant]
    command += [str(LOAD_S), *map(str, first)]
    with subprocess.Popen(
        traced(command, trace), stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as tracer:
        assert tracer.stdout is not None
        for line in tracer.stdout:
            if line == "tired\n":
                os.kill(_child(tracer.pid), signal.SIGKILL)
        assert tracer.wait() in (0, -signal.SIGKILL), "the engine ended by itself"


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _note(story: Story, steps: list[_Step]) -> None:
    for step in steps:
        story.acknowledged += _is_answer(step)
        match step.event.what:
            case Write(data=data, synchronous=synchronous) if step.is_end:
                story.bytes_written += len(data)
                story.flushes += synchronous
            case Flush() if step.is_end:
                story.flushes += 1
            case _:
                pass


def _assert_whole(disk: Disk, data: Path) -> None:
    """What was played back is what is there: nothing has written past the tracer."""
    file = data / "store" / "data.mdb"
    assert disk.cached(file) == file.read_bytes(), "something was written that was not traced"
