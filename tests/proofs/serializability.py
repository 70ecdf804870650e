"""
Many clients transact on lists that only grow, and a checker looks for an order that explains it.

Through real sockets: fifty clients, an engine that is killed at the end of each round with their
transactions in flight, and now and then a transaction too large for the disk, which takes the
batch it is in with it.  All rounds are one history.

In simulation, by seed: power cuts and refused batches at every point, the lane closed and the lane
open.  Where it is open mutations run beside each other and yield by the dice at every call, so
that the validation of what they read does all the work; there the bugs are planted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Final

import trio

from engine.kernel.trace import trace_to_stderr
from tests.proofs.anomalies import Anomaly, anomalies
from tests.proofs.histories import Fate, Operation
from tests.proofs.proof import Plan, Verdict, too_few
from tests.proofs.socket_clients import LOST, Client, Crowd, HttpClient, SyncClient
from tests.simulation.lists import Programs
from tests.simulation.lives import Tale, simulated
from tests.simulation.planted import PLANTED, Plant

PROMISE = "Whatever clients do and are told, some serial order in real time explains all of it."
ROUNDS = 50
"""A round is 2,000 transactions through sockets up to a kill, and 6 simulations of 300."""

TRANSACTIONS = 2_000
SYNC_CLIENTS = 40
WATCHING_CLIENTS = 4
HTTP_CLIENTS = 10
KEYS_AT_A_TIME = 24
APPENDS_MAX = 24
SIMULATIONS = 3
"""Of each kind, a round."""
OPERATIONS_MIN = 150
"""Of one simulation, which has 300."""
SHOWN_MIN = 10
"""States on screens, a round."""
OPEN_S_MAX = 60.0
ROUND_S_MAX = 300.0
PLANTED_SEEDS = 200
PLANTED_ROUNDS = 2
ON_SOCKETS: Final = ("an answer before the write",)
"""Bugs that are also looked for through real sockets, with real kills."""


def prove(plan: Plan) -> Verdict:
    """Run the rounds, or, planted, look whether each bug is caught."""
    trace_to_stderr(level="critical")
    if plan.planted:
        return _prove_planted(plan)
    figures, problems = [], 0
    for name, interleaves in (("in the lane", False), ("beside each other", True)):
        figure, found = _simulations(name, plan, interleaves=interleaves)
        figures.append(figure)
        problems += found
    figure, found = _real(plan.directory, plan.rounds, plan.seed)
    figures.append(figure)
    problems += found
    return Verdict(held=not problems, figure=f"{'; '.join(figures)}; {problems} problems")


# In simulation.


def _simulations(name: str, plan: Plan, *, interleaves: bool) -> tuple[str, int]:
    """The figure of all seeds, and how many problems they have."""
    counted: Counter[str] = Counter()
    for seed in range(plan.seed, plan.seed + plan.rounds * SIMULATIONS):
        tale = simulated(seed, interleaves=interleaves)
        found = _problems(tale)
        for text in found[:3]:
            print(f"  {name}, seed {seed}: {text}", flush=True)
        counted["problems"] += len(found)
        counted["operations"] += len(tale.history.operations)
        counted["crashes"] += tale.crashes
        counted["refused"] += tale.refused_batches
    figure = (
        f"{counted['operations']:,} transactions simulated {name}, {counted['crashes']:,} power "
        f"cuts, {counted['refused']:,} refused batches"
    )
    print(f"  {figure}", flush=True)
    least = {
        "operations": OPERATIONS_MIN * SIMULATIONS * plan.rounds,
        "crashes": plan.rounds,
        "refused": plan.rounds,
    }
    return figure, counted["problems"] + _told_idle(name, too_few(counted, least))


def _told_idle(name: str, idle: Sequence[str]) -> int:
    for text in idle:
        print(f"  {name}: {text}", flush=True)
    return len(idle)


def _problems(tale: Tale) -> list[str]:
    return [*tale.problems, *map(_told, anomalies(tale.history.operations))]


def _told(anomaly: Anomaly) -> str:
    return f"{anomaly.kind}: {anomaly.text}"


# With bugs.


def _prove_planted(plan: Plan) -> Verdict:
    caught = 0
    for name, plant in PLANTED.items():
        caught += _is_caught(name, plant, plan.seed)
    for name in ON_SOCKETS:
        crowd = _crowd(plan.seed)
        _run_rounds(plan.directory / "planted", crowd, PLANTED_ROUNDS, name)
        kinds = _kinds(anomalies(crowd.history.operations))
        print(f"  {name}, through sockets: {kinds or 'NOT CAUGHT'}", flush=True)
        caught += bool(kinds)
    count = len(PLANTED) + len(ON_SOCKETS)
    return Verdict(held=caught == count, figure=f"{caught} of {count} planted bugs caught")


def _is_caught(name: str, plant: Plant, first: int) -> bool:
    for seed in range(first, first + PLANTED_SEEDS):
        with plant():
            tale = simulated(seed, interleaves=True)
        if kinds := _kinds(anomalies(tale.history.operations)):
            print(f"  {name}: {kinds}, by simulation {seed - first + 1}", flush=True)
            return True
    print(f"  {name}: NOT CAUGHT in {PLANTED_SEEDS} simulations", flush=True)
    return False


def _kinds(found: Sequence[Anomaly]) -> str:
    return ", ".join(sorted({anomaly.kind for anomaly in found}))


# Through sockets.


def _real(directory: Path, rounds: int, seed: int) -> tuple[str, int]:
    """The figure of all rounds, and how many problems they have."""
    crowd = _crowd(seed)
    _run_rounds(directory / "data", crowd, rounds)
    operations = crowd.history.operations
    found = [*crowd.problems, *map(_told, anomalies(operations))]
    for text in found[:10]:
        print(f"  through sockets: {text}", flush=True)
    done = {"answered": crowd.answered, "shown": crowd.shown, "operations": len(operations)}
    least = {"answered": TRANSACTIONS, "shown": SHOWN_MIN, "operations": TRANSACTIONS}
    idle = too_few(done, {name: count * rounds for name, count in least.items()})
    return _figure(crowd, operations, rounds), len(found) + _told_idle("through sockets", idle)


def _figure(crowd: Crowd, operations: Sequence[Operation], rounds: int) -> str:
    clients = SYNC_CLIENTS + HTTP_CLIENTS
    unknown = sum(one.fate is Fate.UNKNOWN for one in operations)
    return (
        f"{crowd.answered:,} transactions of {clients} clients through sockets and {crowd.shown:,} "
        f"states on screens, {rounds} kills, {unknown} of unknown fate, {crowd.sent_again} sent "
        f"again, {crowd.refused} too large for the disk"
    )


def _crowd(seed: int) -> Crowd:
    dice = Random(seed)
    programs = Programs(dice, keys_count=KEYS_AT_A_TIME, appends_max=APPENDS_MAX)
    return Crowd(dice=dice, programs=programs)


def _run_rounds(directory: Path, crowd: Crowd, rounds: int, *plant: str) -> None:
    clients: list[Client] = [
        SyncClient(crowd, number, watches=number < WATCHING_CLIENTS)
        for number in range(SYNC_CLIENTS)
    ]
    clients += [HttpClient(crowd, SYNC_CLIENTS + number) for number in range(HTTP_CLIENTS)]
    directory.parent.mkdir(parents=True, exist_ok=True)
    for number in range(rounds):
        with _served(directory, *plant) as (subject, url):
            trio.run(_load, subject, url, crowd, clients)
        if number % 10 == 9:
            print(f"  round {number + 1}: {crowd.answered:,} answered", flush=True)
    with _served(directory, *plant) as (_, url):
        trio.run(_end, url, crowd, clients)


async def _load(
    subject: subprocess.Popen[str], url: str, crowd: Crowd, clients: Sequence[Client]
) -> None:
    """Have all clients transact, and kill the engine among them."""
    upto = crowd.answered + TRANSACTIONS
    with trio.fail_after(ROUND_S_MAX):
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(_work, subject, url, crowd, client, upto)


async def _work(
    subject: subprocess.Popen[str], url: str, crowd: Crowd, client: Client, upto: int
) -> None:
    """Transact until the engine is gone, connecting again as long as it is there."""
    if crowd.dice.random() < 0.5:
        client.forget()
    while subject.poll() is None:
        try:
            async with client.connected(url) as connection:
                while True:
                    await client.step(connection)  # type: ignore[arg-type]  # its own kind
                    if crowd.answered >= upto:
                        os.kill(subject.pid, signal.SIGKILL)
                        await trio.to_thread.run_sync(subject.wait)
        except LOST:
            await trio.sleep(0.01)


async def _end(url: str, crowd: Crowd, clients: Sequence[Client]) -> None:
    """What was lost is sent again or forgotten, and everything is read."""
    for client in clients:
        if crowd.dice.random() < 0.5:
            client.forget()
        with trio.fail_after(ROUND_S_MAX):
            await _connect_once(client, url)
    reader = HttpClient(crowd, len(clients))
    async with reader.connected(url) as stream:
        await reader.read_all(stream)


async def _connect_once(client: Client, url: str) -> None:
    """Connect, and again if it hangs up itself, as clients here do now and then."""
    while True:
        with suppress(*LOST):
            async with client.connected(url):
                return


@contextmanager
def _served(directory: Path, *plant: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    module = "tests.proofs.serializability_subject"
    subject = subprocess.Popen(
        [sys.executable, "-m", module, str(directory), *plant],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert subject.stdout is not None
        for line in subject.stdout:
            if line.startswith("url "):
                yield subject, line.split()[1]
                return
        raise AssertionError("the subject did not serve")
    finally:
        subject.kill()
        subject.communicate()
