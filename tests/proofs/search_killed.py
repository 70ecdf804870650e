"""
Searches of a real engine that is killed, again and again: the rounds of `search` with a process.

A round: start the engine, on a disk and with threads, let it say what its index files are worth,
write, ask, fold, push and rebuild, all at once, and kill it: at a random moment, or while it reads
its index files, writes them, folds, or builds an index.  Everything that it found is compared with
a look at the notes that there have to be, which follow from what was acknowledged.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any, Final

from engine.model.values import UNDEFINED
from tests import naive_search
from tests.proofs.proof import too_few
from tests.proofs.search_notes import (
    ASKED_AT_FIRST,
    TAGS,
    WORKERS,
    Notes,
    Question,
    after,
    note,
)

MOMENTS: Final = ["any", "open", "files", "fold", "build"]
"""What it is amid when it is killed; one after the other, as the rounds go on."""
DATABASE_ROUNDS: Final = 20
"""Then another one is begun."""
LIFE_S_MAX: Final = 120.0
KILLED_LATE_S_MAX: Final = 0.1
ANSWERED: Final = b'{"what": "answered"'
ANSWERS_MAX: Final = 40
"""Until it is killed, and half as many again where it does not come to its moment before."""
RECALL_LEAST: Final = 0.99
"""Of what is nearest, where graphs are asked: what `bench/README.md` says of them."""
LEAST: Final = {"kills": 1, "answers": 3, "folds": 3, "notes found": 30}
"""In each round, on average."""
AMID: Final = [
    *(f"kills amid {name}" for name in ("open", "files", "fold")),
    *(f"kills amid a build for {name}" for name in ("a push", "a rebuild")),
]
ROUNDS_FOR_ALL: Final = 40
"""In so many there is one of each."""
PROBLEMS_MAX: Final = 5
"""Of one process."""
GRAPHS_FOR_ALL: Final = 10
"""Answers by graphs, of which it is then known how much they found."""


@dataclass
class Database:
    """What the workers of one database have written, as far as anybody knows."""

    seed: int
    version: int = 0
    acknowledged: list[int] = field(default_factory=lambda: [0] * WORKERS)
    """Of each worker, how many mutations."""
    _notes: list[dict[int, Notes]] = field(
        default_factory=lambda: [{0: {}} for _ in range(WORKERS)]
    )
    """Of each worker, by how many mutations were done."""

    def notes(self, worker: int, done: int) -> Notes:
        known = self._notes[worker]
        for number in range(max(known), done):
            known[number + 1] = after(known[number], self.seed, worker, number)
        return known[done]

    def forget(self) -> None:
        """Nobody sees states again that were there before the last one that is known."""
        for worker, done in enumerate(self.acknowledged):
            self._notes[worker] = {done: self.notes(worker, done)}


@dataclass
class Witness:
    """What was found by killed engines, over all rounds."""

    done: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """The part of the nearest that was found where graphs were asked."""
        return self.done["found by graphs"] / max(1, self.done["to be found by graphs"])

    def missing(self, rounds: int) -> list[str]:
        """What all answers together lack, or was done too little in so many rounds."""
        least = {name: count * rounds for name, count in LEAST.items()}
        least |= dict.fromkeys(AMID, rounds // ROUNDS_FOR_ALL)
        least["asked of graphs"] = rounds // 2
        missing = too_few(self.done, least)
        if self.done["asked of graphs"] >= GRAPHS_FOR_ALL and self.recall < RECALL_LEAST:
            missing.append(f"graphs found {self.recall:.4f} of what is nearest")
        return missing

    @property
    def figure(self) -> str:
        counted = ", ".join(f"{count:,} {name}" for name, count in sorted(self.done.items()))
        return f"{counted}, {len(self.problems)} problems"


def live_and_kill(
    directory: Path, rounds: int, dice: Random, witness: Witness, bug: str = "none"
) -> None:
    """Live the rounds, or those until there is a problem; the databases are kept if there is."""
    first = dice.randrange(len(MOMENTS))
    for number in range(rounds):
        if number % DATABASE_ROUNDS == 0:
            database, folder = Database(dice.getrandbits(32)), directory / f"{bug}-{number}"
        moment = MOMENTS[(first + number) % len(MOMENTS)]
        _round(folder, bug, database, moment, dice, witness)
        is_last = number == rounds - 1 or (number + 1) % DATABASE_ROUNDS == 0
        if is_last and not witness.problems:
            _look_at_what_is_left(folder, bug, database, dice, witness)
        if witness.problems or (bug != "none" and witness.missing(0)):
            return
        if is_last:
            shutil.rmtree(folder)


def _round(
    folder: Path, bug: str, database: Database, moment: str, dice: Random, witness: Witness
) -> None:
    answers = dice.randint(0, ANSWERS_MAX) if moment == "any" else ANSWERS_MAX * 3 // 2
    lines = _lives(folder, bug, database, moment, dice.getrandbits(32), answers)
    witness.done["kills"] += 1
    _take_all(lines, database, witness, where=f"seed {database.seed}, killed amid {moment}")


def _look_at_what_is_left(
    folder: Path, bug: str, database: Database, dice: Random, witness: Witness
) -> None:
    """After the last kill somebody looks, too."""
    lines = _lives(folder, bug, database, "never", dice.getrandbits(32), ASKED_AT_FIRST)
    _take_all(lines, database, witness, where=f"seed {database.seed}, in the end")


def _lives(
    folder: Path, bug: str, database: Database, moment: str, life: int, answers: int
) -> list[dict[str, Any]]:
    """
    What a process says from when it is begun until it has killed itself, or is killed.

    Args:
        answers: after so many it is killed.

    Returns:
        Its lines, and one that says `failed` where it ended otherwise.
    """
    arguments = map(str, (folder, bug, database.seed, life, database.version, moment))
    subject = subprocess.Popen(
        [sys.executable, "-m", "tests.proofs.search_subject", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert subject.stdout is not None
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(subject.stdout or ()))
    reader.start()
    try:
        deadline = time.monotonic() + LIFE_S_MAX
        while subject.poll() is None and time.monotonic() < deadline:
            if sum(line.startswith(ANSWERED) for line in lines) > answers:
                time.sleep(KILLED_LATE_S_MAX * (life % 100) / 100)
                break
            time.sleep(0.01)
        is_over_time = time.monotonic() >= deadline
    finally:
        subject.kill()
        subject.wait()
        reader.join()
        subject.stdout.close()
    has_failed = is_over_time or subject.returncode != -signal.SIGKILL
    told = f"it was to end by SIGKILL, and did by {subject.returncode}, or took {LIFE_S_MAX} s"
    # The last one may be half a line.
    said = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [*said, {"what": "failed", "told": told}] if has_failed else said


def _take_all(
    lines: list[dict[str, Any]], database: Database, witness: Witness, where: str
) -> None:
    """Compare what a process has said with what it had to say."""
    database.forget()
    answers = [line for line in lines if line["what"] == "answered"]
    if answers:
        _check_survivors(answers[0]["done"], database, witness, where)
        for name, count in answers[-1]["counts"].items():
            witness.done[COUNTED[name]] += count
    for line in lines:
        _take(line, database, witness, where)
        if len(witness.problems) > PROBLEMS_MAX:
            return


def _take(line: dict[str, Any], database: Database, witness: Witness, where: str) -> None:
    match line["what"]:
        case "opened":
            told = line["problems"][:PROBLEMS_MAX]
            witness.problems += [f"{where}, verify: {text}" for text in told]
        case "wrote":
            database.acknowledged[line["worker"]] = line["number"] + 1
            witness.done["mutations"] += 1
        case "pushed":
            database.version = line["version"]
            witness.done["pushes"] += 1
        case "rebuilt":
            witness.done["rebuilds"] += 1
        case "dying":
            witness.done[f"kills amid {line['amid']}"] += 1
        case "answered":
            _compare(line, database, witness, where)
        case "failed":
            witness.problems.append(f"{where}: {line['told']}")


COUNTED: Final = {
    "read": "indexes read from files",
    "follow": "slices followed at openings",
    "files": "checkpoints",
    "fold": "folds",
    "build": "slices of builds",
    "graphs": "graphs asked",
}


def _check_survivors(done: list[float], database: Database, witness: Witness, where: str) -> None:
    """Of each worker all that was acknowledged is there, and at most one mutation that was not."""
    for worker, (is_there, acknowledged) in enumerate(
        zip(done, [*database.acknowledged], strict=True)
    ):
        if not acknowledged <= is_there <= acknowledged + 1:
            witness.problems.append(
                f"{where}: worker {worker} was told of {acknowledged}, and {is_there} are there"
            )
        database.acknowledged[worker] = int(is_there)


def _compare(line: dict[str, Any], database: Database, witness: Witness, where: str) -> None:
    """Compare one answer with a look at every note."""
    asked = Question(*line["asked"])
    docs = _docs(line, database)
    if docs is None:
        witness.problems.append(f"{where}: the notes are not those of a state")
        return
    filters = {} if asked.tag < 0 else {"tag": _missing(TAGS[asked.tag])}
    words = naive_search.search(docs, "text", asked.text, filters)[: asked.wanted]
    near = naive_search.nearest(docs, "place", asked.place, filters)
    witness.done["answers"] += 1
    witness.done["notes found"] += len(words) + len(near[: asked.wanted])
    _same(line["words"], [doc_id for _, doc_id in words], f"{where}: {asked.text!r}", witness)
    expected = [[doc_id, score] for score, doc_id in near[: asked.wanted]]
    _same(line["near"], expected, f"{where}: near {asked.place}", witness)
    if "nearly" in line:  # nobody was writing
        if line["done"] != database.acknowledged:
            told = f"{database.acknowledged} are acknowledged, and {line['done']} are found"
            witness.problems.append(f"{where}: {told}")
        _check_nearly(line, near, asked.wanted, witness, where)


def _docs(line: dict[str, Any], database: Database) -> list[naive_search.Doc] | None:
    """The notes of an answer with their fields; `None` if these cannot be all notes there were."""
    docs: list[naive_search.Doc] = []
    there: list[dict[int, int]] = [{} for _ in range(WORKERS)]
    for doc_id, created, *numbers in line["notes"]:
        worker, slot, number = map(int, numbers)
        there[worker][slot] = number
        fields = {
            name: value
            for name, value in note(database.seed, worker, slot, number).items()
            if value is not UNDEFINED
        }
        docs.append({"_id": doc_id, "_creationTime": created, **fields})
    expected = [database.notes(worker, int(done)) for worker, done in enumerate(line["done"])]
    return docs if there == expected else None


def _missing(tag: Any) -> Any:
    return naive_search.MISSING if tag is UNDEFINED else tag


def _same(found: list[Any], expected: list[Any], where: str, witness: Witness) -> None:
    if found != expected:
        pairs = enumerate(zip_longest(found, expected))
        at = next(place for place, (one, other) in pairs if one != other)
        witness.problems.append(
            f"{where}: of {len(expected)} were found {len(found)}; from place {at} on "
            f"{found[at:][:3]}, and it is {expected[at:][:3]}"
        )


def _check_nearly(
    line: dict[str, Any], near: list[tuple[float, str]], count: int, witness: Witness, where: str
) -> None:
    """Of what an action finds each is there, with its score and in order; some may be missed."""
    found = [(score, doc_id) for doc_id, score in line["nearly"]]
    if not set(found) <= set(near) or found != sorted(found, reverse=True):
        witness.problems.append(f"{where}: an action found {found}, of {near[:count]}")
    if len(found) != len(near[:count]):
        witness.problems.append(f"{where}: an action found {len(found)} of {len(near)} near")
    if line["is_by_graph"] and near:
        least = near[:count][-1][0]
        witness.done["asked of graphs"] += 1
        witness.done["to be found by graphs"] += len(near[:count])
        witness.done["found by graphs"] += sum(score >= least for score, _ in found)
