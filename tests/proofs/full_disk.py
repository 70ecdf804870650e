"""
Let the disk of an engine fill under load, and the limit of its bytes, and its flushes fail.

A round is one of each, in processes of their own:

    disk     a small file system that only the process sees (it has to be allowed to mount one),
             filled by a file beside the database: what is refused, what is read meanwhile, a
             hundred snapshots, a restart without room, one transaction that alone is too large,
             and what is left when there is room again
    limit    the same with `data_bytes_max` as what is full
    flush    strace makes every flush after some fail with EIO: the engine has to end, and the
             next one to find everything that was acknowledged
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.proofs.full_disk_subject import ALONE, ENGINE, RECOVERY, REOPENING, STOPPING, TYPED
from tests.proofs.proof import Plan, Verdict
from tests.proofs.reopening import LEDGER, Checker, Problem, Told
from tests.proofs.write_trace import STRACE
from tests.proofs.write_trace import obstacle as tracing_obstacle

PROMISE = "On a full disk writes are refused by name, reads go on, and room is all that it takes."
ROUNDS = 5

DISK_BYTES: Final = 96 << 20
SCENARIO_S_MAX: Final = 120.0
FLUSHES_BEFORE: Final = (6, 60)
"""Of a writer process before they fail; opening needs a few."""
PROBLEMS_SHOWN: Final = 10
PLANTED: Final = {
    "answer-before-sync": ("limit", {LEDGER}),
    "fail-together": ("limit", {ALONE}),
    "stop-when-full": ("limit", {TYPED, ENGINE}),
    "never-again": ("limit", {RECOVERY}),
    "open-only-with-room": ("limit", {REOPENING}),
    "readers-in-a-hole": ("disk", {ENGINE}),
    "go-on-after-a-failed-flush": ("flush", {STOPPING}),
}
"""Each bug, where it shows, and the checks that have to see it."""


@dataclass
class Story:
    """What was tried and what was found, over all rounds."""

    tried: int = 0
    acknowledged: int = 0
    refused: int = 0
    reads: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, report: dict[str, Any]) -> None:
        self.tried += 1
        self.acknowledged += sum(report["acknowledged"])
        self.refused += report["refused"]
        self.reads += report["reads"]
        self.problems += (Problem(check, text) for check, text in report["problems"])

    @property
    def figure(self) -> str:
        return (
            f"{self.tried} scenarios, {self.acknowledged:,} acknowledged mutations,"
            f" {self.refused:,} refused, {self.reads} looks while there was no room,"
            f" {len(self.problems)} problems"
        )


def prove(plan: Plan) -> Verdict:
    """Play every scenario in each round, or, planted, look whether each bug is caught."""
    missing = _missing(plan.directory)
    for scenario, why in missing.items():
        print(f"  {scenario} is not tried: {why}")
    unknown = "".join(f"; NOT TRIED: {scenario} ({why})" for scenario, why in missing.items())
    if plan.planted:
        return _prove_planted(plan, missing, unknown)
    story, dice = Story(), random.Random(plan.seed)
    for number in range(plan.rounds):
        for scenario in ("disk", "limit", "flush"):
            seed = dice.getrandbits(32)
            if scenario not in missing:
                _play(plan.directory / f"{scenario}-{number}", scenario, "none", seed, story)
    for problem in story.problems[:PROBLEMS_SHOWN]:
        print(f"  {problem.check}: {problem.text}")
    return Verdict(held=not story.problems, figure=story.figure + unknown)


def _prove_planted(plan: Plan, missing: dict[str, str], unknown: str) -> Verdict:
    caught = tried = 0
    for bug, (scenario, checks) in PLANTED.items():
        if scenario in missing:
            continue
        story = Story()
        _play(plan.directory / bug, scenario, bug, plan.seed, story)
        first = {problem.check: problem.text for problem in reversed(story.problems)}
        for check, text in first.items():
            print(f"  {bug} is caught by {check}: {text}")
        for check in sorted(checks - first.keys()):
            print(f"  {bug} is NOT CAUGHT by {check}")
        tried += 1
        caught += checks <= first.keys()
    return Verdict(held=caught == tried, figure=f"{caught} of {tried} bugs caught{unknown}")


def _missing(directory: Path) -> dict[str, str]:
    """The scenarios that this machine has no means for, and why."""
    missing: dict[str, str] = {}
    trying = _with_disk(directory, ["true"])
    if not trying or subprocess.run(trying, capture_output=True, check=False).returncode:
        missing["disk"] = "no file system may be mounted here"
    if why := tracing_obstacle():
        missing["flush"] = why
    return missing


def _with_disk(directory: Path, command: Sequence[str]) -> list[str]:
    """The command that runs `command` where `directory` is a small disk; empty if there is none."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    alone = [unshare, "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mounting = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && exec "$@"'
    return [*alone, "sh", "-c", mounting, str(directory), *command]


def _play(directory: Path, scenario: str, plant: str, seed: int, story: Story) -> None:
    """Run a scenario in the empty `directory`, which is kept if there is a problem."""
    directory.mkdir()
    module = "tests.proofs.full_disk_subject"
    command = [sys.executable, "-m", module, str(directory), scenario, plant, str(seed)]
    match scenario:
        case "disk":
            command = _with_disk(directory, command)
        case "flush":
            command = _with_failing_flushes(command, random.Random(seed))
    report = _report_of(command, directory.with_name(f"{directory.name}.log"))
    if scenario == "flush":
        report["problems"] += _left(directory / "data", report["acknowledged"])
    story.add(report)
    if not report["problems"]:
        shutil.rmtree(directory)


def _with_failing_flushes(command: Sequence[str], dice: random.Random) -> list[str]:
    assert STRACE is not None, "ask for the obstacle first"
    fault = f"inject=fdatasync:error=EIO:when={dice.randint(*FLUSHES_BEFORE)}+"
    options = ["-f", "--seccomp-bpf", "-o", os.devnull, "-e", "trace=fdatasync", "-e", fault]
    return [STRACE, *options, *command]


def _report_of(command: Sequence[str], log: Path) -> dict[str, Any]:
    """What the process reports; that it did not is a problem like others."""
    with log.open("w+") as output:
        try:
            ended = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
                timeout=SCENARIO_S_MAX,
                check=False,
            )
            how = f"it ended with {ended.returncode}"
        except subprocess.TimeoutExpired:
            how = f"it was not done in {SCENARIO_S_MAX:g} s"
    last = log.read_text(errors="replace").splitlines()[-1:]
    if last and last[0].startswith("{"):
        report: dict[str, Any] = json.loads(last[0])
        return report
    said = f"; its last words: {last[0]}" if last else ""
    return {"acknowledged": [], "refused": 0, "reads": 0, "problems": [(ENGINE, how + said)]}


def _left(data: Path, acknowledged: list[int]) -> list[Problem]:
    checker = Checker()
    try:
        told = Told(acknowledged=tuple(acknowledged), shown=(0,) * len(acknowledged))
        return checker.check(data, told)
    finally:
        checker.close()
