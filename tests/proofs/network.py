"""
Clients count while their networks cut, delay, double and lose what they say and are told.

A round is a second.  Official JavaScript clients, our own, and followers by the engine's remote
client each have a line of their own to a served engine (`network_lines`).  A mutation takes the
next number of its client and of all, so that one too few or too many, or out of turn, stands in the
ledger; and every screen has three queries whose answers have to agree.  In the end the lines are
healed: all that was asked for comes to be done, and everybody shows the same.

Without Node, or `npm ci` in tests/clients, the official clients are left out, and a line says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from engine.kernel.trace import trace_to_stderr
from tests.node.sockets import dialled, exchange, post
from tests.proofs.network_clients import Account, Counting, Following
from tests.proofs.network_lines import ENDINGS, Line
from tests.proofs.network_subject import PLANTED
from tests.proofs.proof import Plan, Verdict, too_few

PROMISE = "Whatever a network does, each mutation is done once, and each screen shows one state."
ROUNDS = 600

OFFICIAL_COUNT: Final = 6
OWN_COUNT: Final = 6
FOLLOWERS_COUNT: Final = 2
PATIENT_IN: Final = 5
"""On one line in so many, a server that went dumb stays so until the client gives it up."""
PLANTED_S: Final = 10
PLANTED_TRIES_MAX: Final = 5
"""A race has to be met."""
SETTLED_S_MAX: Final = 90.0
PLANTED_SETTLED_S_MAX: Final = 20.0
"""An official client waits 16 s at most before it tries again, after many failures."""
LOOK_S: Final = 0.02

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = ROOT / "tests" / "clients"


@dataclass(kw_only=True)
class Story:
    """What one run came to."""

    accounts: list[Account] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """What was done to connections."""
    problems: list[str] = field(default_factory=list)

    @property
    def done(self) -> Counter[str]:
        done = Counter(self.counts)
        for account in self.accounts:
            done["mutations"] += len(account.acknowledged)
            done["repeated"] += account.repeated
            done["states"] += account.shown
        return done

    @property
    def figure(self) -> str:
        done = self.done
        endings = ", ".join(f"{done[name]:,} {name}" for name in ENDINGS)
        return (
            f"{done['mutations']:,} mutations of {len(self.accounts)} clients, "
            f"{done['repeated']:,} said again, {done['twice']:,} doubled on the way, "
            f"{done['states']:,} states on screens; connections: {endings}, "
            f"{done['refused']:,} refused; {len(self.problems)} problems"
        )


def prove(plan: Plan) -> Verdict:
    """Let them count for as many seconds as there are rounds, or look whether bugs are caught."""
    trace_to_stderr(level="critical")
    if not _has_official():
        print(
            "  Node, or `npm ci` in tests/clients, is missing: the official clients are left out."
        )
    if plan.planted:
        return _prove_planted(plan)
    story = tell(plan.directory / "data", plan.rounds, plan.seed)
    idle = too_few(story.done, _least(plan.rounds))
    for problem in [*story.problems[:10], *idle]:
        print(f"  {problem}")
    return Verdict(held=not story.problems and not idle, figure=story.figure)


def _least(seconds: int) -> dict[str, int]:
    """What has to have happened, or nothing was withstood."""
    often = dict.fromkeys([*ENDINGS, "twice", "repeated"], seconds // 10)
    return {"mutations": 10 * seconds, "states": 10 * seconds, **often}


def _prove_planted(plan: Plan) -> Verdict:
    caught = sum(_is_caught(plan, number, bug) for number, bug in enumerate(PLANTED))
    count = len(PLANTED)
    return Verdict(held=caught == count, figure=f"{caught} of {count} planted bugs caught")


def _is_caught(plan: Plan, number: int, bug: str) -> bool:
    for attempt in range(PLANTED_TRIES_MAX):
        directory = plan.directory / f"{number}-{attempt}"
        story = tell(directory, PLANTED_S, plan.seed + attempt, bug)
        if story.problems:
            print(f"  {bug}: {story.problems[0]}", flush=True)
            return True
    print(f"  {bug}: NOT CAUGHT", flush=True)
    return False


def tell(directory: Path, seconds: float, seed: int, *plant: str) -> Story:
    """Serve with a bug, or none, and let everybody count for so long."""
    directory.mkdir(parents=True, exist_ok=True)
    with _served(directory, *plant) as url:
        settled_s_max = PLANTED_SETTLED_S_MAX if plant else SETTLED_S_MAX
        return trio.run(_tell, url, seconds, seed, settled_s_max)


async def _tell(url: str, seconds: float, seed: int, settled_s_max: float) -> Story:
    story, dice = Story(), Random(seed)
    crowd = Crowd(dice)
    async with trio.open_nursery() as nursery:
        lines = [
            Line(
                url, Random(dice.random()), story.counts, is_patient=not dice.randrange(PATIENT_IN)
            )
            for _ in range(crowd.count)
        ]
        for line in lines:
            await nursery.start(line.serve)
        async with crowd.counting([line.url for line in lines]):
            await trio.sleep(seconds)
            for line in lines:
                line.heal()
            story.problems += await crowd.settle(url, settled_s_max)
        nursery.cancel_scope.cancel()
    story.accounts = crowd.accounts
    for account in story.accounts:
        story.problems += [*account.problems, *await _audit(url, account)]
    return story


class Crowd:
    """
    Everybody who counts or follows.

    Args:
        dice: their sessions and their pace, but for those of the official clients.
    """

    def __init__(self, dice: Random) -> None:
        self.own = [Counting(f"own{number}", Random(dice.random())) for number in range(OWN_COUNT)]
        self.followers = [Following(f"follower{number}") for number in range(FOLLOWERS_COUNT)]
        self.official = Official(OFFICIAL_COUNT if _has_official() else 0)

    @property
    def near(self) -> list[Counting | Following]:
        """Those in this process."""
        return [*self.own, *self.followers]

    @property
    def count(self) -> int:
        return len(self.near) + self.official.count

    @property
    def accounts(self) -> list[Account]:
        return [each.account for each in self.near] + self.official.accounts

    @asynccontextmanager
    async def counting(self, urls: Sequence[str]) -> AsyncIterator[None]:
        """Have each of them at it, on a line of its own, for the length of the block."""
        left = list(urls)
        async with trio.open_nursery() as nursery:
            for own in self.own:
                nursery.start_soon(own.count, left.pop())
            for follower in self.followers:
                nursery.start_soon(follower.follow, left.pop())
            async with self.official.counting(left):
                yield
            nursery.cancel_scope.cancel()

    async def settle(self, url: str, seconds: float) -> list[str]:
        """Have everybody complete what was begun, and show all of it; what was missing is said."""
        with trio.move_on_after(seconds) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.official.finish)
                for own in self.own:
                    nursery.start_soon(own.finish)
        if patience.cancelled_caught:
            unfinished = {own.account.who: own.unfinished_count for own in self.own}
            return [f"not all was completed: {unfinished} of ours, or some of official clients"]
        total = await _asked(url, "main:total", {})
        with trio.move_on_after(seconds):
            await self.official.show(total, seconds)
            for each in self.near:
                while not each.shows(total):  # noqa: ASYNC110 - it has nobody to tell
                    await trio.sleep(LOOK_S)
        blind = [each.account.who for each in self.near if not each.shows(total)]
        return [f"{who} does not show the last total, {total}" for who in blind]


class Official:
    """The official JavaScript clients, so many in a process of their own."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.accounts: list[Account] = []
        self._process: trio.Process | None = None

    @asynccontextmanager
    async def counting(self, urls: Sequence[str]) -> AsyncIterator[None]:
        """Have them count, each on its line, for the length of the block."""
        if not self.count:
            yield
            return
        clients = [{"who": f"js{number}", "url": url} for number, url in enumerate(urls)]
        script = CLIENTS / "javascript" / "network.mjs"
        self._process = await trio.lowlevel.open_process(
            ["node", str(script), json.dumps(clients)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            yield
        finally:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()

    async def finish(self) -> None:
        """Have them begin nothing more, and wait until all of it is completed."""
        if self._process is not None:
            await self._ask("stop")

    async def show(self, total: float, seconds: float) -> None:
        """Wait until all show the total, or so long, and take down their accounts."""
        if self._process is not None:
            self.accounts = [
                Account(**{**one, "acknowledged": dict(enumerate(one["acknowledged"]))})
                for one in json.loads(await self._ask(f"{total} {seconds}"))
            ]

    async def _ask(self, line: str) -> bytes:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.send_all(f"{line}\n".encode())
        data = b""
        while not data.endswith(b"\n"):
            part = await self._process.stdout.receive_some()
            assert part, "the official clients have ended"
            data += part
        return data


def _has_official() -> bool:
    return bool(shutil.which("node")) and (CLIENTS / "node_modules" / "convex").is_dir()


# What became of it.


async def _audit(url: str, account: Account) -> list[str]:
    """Whether the ledger has what was acknowledged: each once, and in the order of its client."""
    found = await _ledger(url, account.who)
    told = [[number, answer] for number, answer in sorted(account.acknowledged.items())]
    if found == told and [own for _, (own, _) in found] == [*range(len(found))]:
        return []
    times = Counter(number for number, _ in found)
    doubled = [number for number, count in times.items() if count > 1]
    lost = [number for number in account.acknowledged if number not in times]
    return [
        f"{account.who}: {len(found):,} in the ledger, {len(told):,} acknowledged; "
        f"doubled {doubled[:5]}, lost {lost[:5]}"
    ]


async def _ledger(url: str, who: str) -> list[list[Any]]:
    entries: list[list[Any]] = []
    after = -1
    while page := await _asked(url, "main:ledger", {"who": who, "after": after}):
        entries += page
        after = entries[-1][1][1]
    return entries


async def _asked(url: str, path: str, args: dict[str, Any]) -> Any:
    async with await dialled(url) as stream:
        status, body = await exchange(stream, post("/api/query", {"path": path, "args": args}))
    answer = json.loads(body)
    assert status == 200, answer
    assert answer["status"] == "success", answer
    return answer["value"]


# The server.


@contextmanager
def _served(directory: Path, *plant: str) -> Iterator[str]:
    subject = subprocess.Popen(
        [sys.executable, "-m", "tests.proofs.network_subject", str(directory), *plant],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert subject.stdout is not None
        for line in subject.stdout:
            if line.startswith("url "):
                yield line.split()[1]
                return
        raise AssertionError("the subject did not serve")
    finally:
        subject.kill()
        subject.communicate()
