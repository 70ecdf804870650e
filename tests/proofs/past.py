"""
Kill an engine, and the processes that make its annexes, while somebody reads what was.

A round: start the engine, have it write, push an index and drop it again, and trim its log, ask it
for states of all that it ever said it had written, kill the process that takes back at some random
moments, and in the end the engine.  What it answers is compared with what it said then: gets,
ranges, pages and counts, by indexes that are there no more too, exactly at a commit and just before
the next.  A refusal has to be true: the log does not go back so far, or a process was killed.

Memory has hardly room for any past, so nearly all is read from annexes on a disk.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from tests.proofs.past_subject import ALL_PLANTED, KEPT_S, PAGE_ITEMS, VALUES
from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = "What was is read back as it was, whatever is killed, or refused with a true reason."
ROUNDS = 40

LOAD_S_MAX: Final = 5.0
OPEN_S_MAX: Final = 60.0
ENDED_S_MAX: Final = 30.0
ASKED_EVERY_S: Final = 0.02
ASKED_AT_ONCE: Final = 8
RECENT: Final = 200
"""States, of which half of all that are asked for are."""
LATE_S: Final = 1.0
"""So much later than it was written somebody may be told of it."""
DATABASE_ROUNDS: Final = 20
"""Then another one is begun."""
PLANTED_ROUNDS: Final = 8
LEAST_A_ROUND: Final = {"answers": 2, "annexes": 1}
WENT_WRONG: Final = ("killed processes", "answers by an index of then", "refused as trimmed")
"""Each has to be there once in `ROUNDS_FOR_ALL`, as some rounds have none."""
ROUNDS_FOR_ALL: Final = 20

Things = dict[int, tuple[str, int, int]]
"""Id and values of each, in the order in which they were made."""


@dataclass(frozen=True, slots=True)
class State:
    """What there was, up to the next one."""

    ts: int
    things: Things
    has_b: bool | None
    """Whether there was an index; `None` while a push was on its way."""
    told_at: float

    def ids(self) -> list[str]:
        return [thing for thing, _, _ in self.things.values()]


@dataclass
class Witness:
    """What the engine has said, and what contradicts it."""

    dice: random.Random
    states: list[State] = field(default_factory=list)
    begins: set[int] = field(default_factory=set)
    """Places of the first states of each life: before them there may be one that nobody knows."""
    has_b: bool | None = None
    is_asked: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def take(self, line: dict[str, Any]) -> None:
        match line["what"]:
            case "opened":
                self._take_opened(line)
            case "wrote":
                things = dict(self.states[-1].things)
                for (verb, n, a, b), thing in zip(line["steps"], line["ids"], strict=True):
                    if verb == "put":
                        things[n] = thing, a, b
                    else:
                        things.pop(n, None)
                self._note(line["ts"], things)
            case "pushing":
                self.has_b = None
            case "pushed":
                self.has_b = line["has_b"]
                self.counts["pushes"] += 1
                self._note(line["ts"], self.states[-1].things)
            case "answered":
                self._compare(line["asked"], line["value"])
            case "refused":
                self._check_refusal(line)

    def question(self) -> dict[str, Any]:
        """Something that was, by the dice."""
        dice = self.dice
        first = max(0, len(self.states) - RECENT) if dice.random() < 0.5 else 0
        place = dice.randrange(first, len(self.states))
        state, ts = self.states[place], self.states[place].ts
        if dice.random() < 0.3 and place + 1 < len(self.states) and place + 1 not in self.begins:
            ts = max(ts, self.states[place + 1].ts - 1)
        of, order = {"index": dice.choice(["by_a", "by_b"])}, dice.choice(["asc", "desc"])
        asked = dice.choice(["get", "between", "between", "pages", "count"])
        # Also of things that came later, or had gone by then.
        ids = [thing for some in (state, dice.choice(self.states)) for thing in some.ids()]
        if not ids:
            asked = "count"
        ends = sorted([dice.randrange(VALUES), dice.randrange(VALUES)])
        args: dict[str, dict[str, Any]] = {
            "get": {"thing": dice.choice(ids or [""])},
            "between": {**of, "first": ends[0], "last": ends[1], "order": order},
            "pages": of,
            "count": {},
        }
        self.is_asked += 1
        return {"what": asked, "args": args[asked], "ts": ts, "place": place}

    def _take_opened(self, line: dict[str, Any]) -> None:
        self.begins.add(len(self.states))
        self.has_b = line["has_b"]
        self._note(line["ts"], {n: (thing, a, b) for n, thing, a, b in line["things"]})
        if line["left"]:
            self._wrong(f"an engine before has left {line['left']}")

    def _note(self, ts: int, things: Things) -> None:
        self.states.append(State(ts, things, self.has_b, time.monotonic()))

    def _compare(self, asked: dict[str, Any], value: Any) -> None:
        self.is_asked -= 1
        self.counts["answers"] += 1
        if "by_b" in asked["args"].values() and self.has_b is False:
            self.counts["answers by an index of then"] += 1
        expected = _expected(self.states[asked["place"]].things, asked["what"], asked["args"])
        if value != expected:
            self._wrong(f"{asked} was answered with {value}, and that was {expected}")

    def _check_refusal(self, line: dict[str, Any]) -> None:
        self.is_asked -= 1
        asked, errors = line["asked"], line["errors"]
        state = self.states[asked["place"]]
        if "OutOfRetention" in errors:
            self.counts["refused as trimmed"] += 1
            is_young = time.monotonic() - state.told_at < KEPT_S - LATE_S
            is_true = asked["ts"] < line["anchor"] and not is_young
        elif "IndexNotFound" in errors:
            self.counts["refused without an index"] += 1
            is_true = "by_b" in asked["args"].values() and not state.has_b
        else:
            self.counts["refused as killed"] += 1
            is_true = "exit code -9" in line["text"] and self.counts["killed processes"] > 0
        if not is_true:
            self._wrong(f"{asked} was refused: {line['text']}")

    def _wrong(self, text: str) -> None:
        self.problems.append(text)


def _expected(things: Things, what: str, args: dict[str, Any]) -> Any:
    if what == "count":
        return len(things)
    if what == "get":
        found = {thing: [n, a, b] for n, (thing, a, b) in things.items()}
        return found.get(args["thing"])
    place = 1 if args["index"] == "by_a" else 2
    in_order = sorted(
        ([values[place], n] for n, values in things.items()), key=lambda pair: pair[0]
    )
    if what == "between":
        pairs = [pair for pair in in_order if args["first"] <= pair[0] <= args["last"]]
        return pairs if args["order"] == "asc" else pairs[::-1]
    numbers = [n for _, n in in_order]
    # The last page is one that is not full.
    return [numbers[at : at + PAGE_ITEMS] for at in range(0, len(numbers) + 1, PAGE_ITEMS)]


def prove(plan: Plan) -> Verdict:
    """Run the rounds, or, planted, look whether each bug is caught."""
    if plan.planted:
        return _prove_planted(plan)
    witness = _rounds(plan.directory / "data", "none", plan.rounds, plan.seed)
    for text in witness.problems[:10]:
        print(f"  {text}")
    least = {name: count * plan.rounds for name, count in LEAST_A_ROUND.items()}
    idle = too_few(
        witness.counts, {**least, **dict.fromkeys(WENT_WRONG, plan.rounds // ROUNDS_FOR_ALL)}
    )
    for text in idle:
        print(f"  {text}")
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(witness.counts.items()))
    return Verdict(
        held=not witness.problems and not idle,
        figure=f"{plan.rounds} kills, {counts}; {len(witness.problems)} problems",
    )


def _prove_planted(plan: Plan) -> Verdict:
    caught = 0
    for bug in ALL_PLANTED:
        witness = _rounds(plan.directory / bug.replace(" ", "-"), bug, PLANTED_ROUNDS, plan.seed)
        told = witness.problems[0][:200] if witness.problems else "NOT CAUGHT"
        print(f"  {bug}: {told}", flush=True)
        caught += bool(witness.problems)
    return Verdict(
        held=caught == len(ALL_PLANTED),
        figure=f"{caught} of {len(ALL_PLANTED)} planted bugs caught",
    )


def _rounds(directory: Path, plant: str, rounds: int, seed: int) -> Witness:
    dice = random.Random(seed)
    witness = Witness(dice)
    for number in range(rounds):
        if number % DATABASE_ROUNDS == 0 and number:
            shutil.rmtree(directory)
            witness.states.clear()
            witness.begins.clear()
        trio.run(_round, directory, plant, witness)
        if witness.problems:
            print(f"  round {number}: {witness.problems[0][:300]}", flush=True)
            break
    return witness


async def _round(directory: Path, plant: str, witness: Witness) -> None:
    """Open, load, ask, and kill."""
    seed = witness.dice.randrange(1 << 32)
    witness.is_asked = 0
    command = [sys.executable, "-m", "tests.proofs.past_subject", str(directory), plant, str(seed)]
    subject = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        is_open = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, subject, witness, is_open)
            with trio.fail_after(OPEN_S_MAX):
                await is_open.wait()
            async with trio.open_nursery() as crowd:
                crowd.cancel_scope.deadline = (
                    trio.current_time() + 0.2 + witness.dice.random() * LOAD_S_MAX
                )
                crowd.start_soon(_ask, subject, witness)
                crowd.start_soon(_kill_some, subject, witness)
            if subject.poll() is not None:
                witness.problems.append("the engine ended before it was killed")
            makers = _makers(subject.pid)
            with suppress(ProcessLookupError):
                subject.kill()
            await _ended(makers, witness)
    finally:
        subject.kill()
        with trio.CancelScope(shield=True):
            await subject.wait()


async def _listen(subject: trio.Process, witness: Witness, is_open: trio.Event) -> None:
    assert subject.stdout is not None
    rest = b""
    async for data in subject.stdout:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"{"):
                witness.problems.append(f"the engine said {line!r}")
                return
            witness.take(json.loads(line))
            is_open.set()
    is_open.set()  # it has ended


async def _ask(subject: trio.Process, witness: Witness) -> None:
    assert subject.stdin is not None
    with suppress(trio.BrokenResourceError):
        while True:
            if witness.is_asked < ASKED_AT_ONCE:
                await subject.stdin.send_all(json.dumps(witness.question()).encode() + b"\n")
            await trio.sleep(ASKED_EVERY_S * witness.dice.random())


async def _kill_some(subject: trio.Process, witness: Witness) -> None:
    """Kill some of the processes that make annexes, at any moment of theirs."""
    seen: set[int] = set()
    while True:
        for pid in _makers(subject.pid) - seen:
            seen.add(pid)
            witness.counts["annexes"] += 1
            if witness.dice.random() < 0.2:
                await trio.sleep(witness.dice.random() * 0.3)
                if pid in _makers(subject.pid):
                    witness.counts["killed processes"] += 1
                    os.kill(pid, signal.SIGKILL)
        await trio.sleep(0.01)


async def _ended(makers: set[int], witness: Witness) -> None:
    """Whoever makes annexes ends with its engine, at the end of a slice."""
    with trio.move_on_after(ENDED_S_MAX) as patience:
        while any(_is_maker(pid) for pid in makers):  # noqa: ASYNC110 - no child of this one
            await trio.sleep(0.01)
    if patience.cancelled_caught:
        witness.problems.append("a process takes back for an engine that is gone")


def _makers(pid: int) -> set[int]:
    """Processes of an engine that take back."""
    found = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                if _is_maker(int(child)):
                    found.add(int(child))
    return found


def _is_maker(pid: int) -> bool:
    try:
        return b"past_p" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
