"""
A client subscribes and stops reading, while everything that it shows keeps changing.

A round is a second in which it reads nothing, at a hundred commits a second;
another client shows the same counter and keeps up.  What the server has made
for the client that sleeps is then what the kernel holds of its connection, two
transitions more, and one to the newest state once it reads again.  It looks into
/proc, and so needs Linux.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from tests.node.sockets import SESSION, WebSocket, opened
from tests.proofs.proof import Plan, Verdict

PROMISE = "A client that stops reading costs two unsent transitions, and is right when it reads."
ROUNDS = 60

COMMITS_PER_S = 100
SETTLE_S = 2.0
"""Until the kernel holds all that it takes for a client."""
SILENCE_S = 0.5
"""Before the kernel's counters are read, so that nothing is on its way."""
CATCH_UP_S_MAX = 10.0
UNSENT_MAX = 2
GROWTH_BYTES_MAX = 5_000_000
RECEIVE_BUFFER_BYTES = 65_536
PLANTED = ("unbounded", "drop-newest")
PLANTED_ROUNDS = 5


@dataclass(kw_only=True)
class Story:
    """What one sleep looked like from outside, and what contradicts the promise."""

    commits: int = 0
    kept_up: int = 0
    """Transitions of the client that read."""
    unsent: int = 0
    """Transitions in the server's memory when the sleeper woke up."""
    growth_bytes: int = 0
    shown_beside: float = 0
    problems: list[str] = field(default_factory=list)

    @property
    def figure(self) -> str:
        return (
            f"{self.commits:,} commits while it slept, {self.unsent} transitions unsent, memory "
            f"{self.growth_bytes / 1e6:+.1f} MB, {self.kept_up:,} transitions to a client beside it"
        )


def prove(plan: Plan) -> Verdict:
    """Sleep for as many seconds as there are rounds, or look whether each bug is caught."""
    if not plan.planted:
        story = tell(plan.directory / "data", "none", plan.rounds)
        for problem in story.problems:
            print(f"  {problem}")
        return Verdict(held=not story.problems, figure=story.figure)
    caught = []
    for bug in PLANTED:
        story = tell(plan.directory / bug, bug, PLANTED_ROUNDS)
        print(f"  {bug}: {story.problems[0] if story.problems else 'NOT CAUGHT'}")
        caught.append(bool(story.problems))
    return Verdict(held=all(caught), figure=f"{sum(caught)} of {len(caught)} planted bugs caught")


def tell(directory: Path, plant: str, sleep_s: float) -> Story:
    """Serve with a bug, or none, and have a client sleep for `sleep_s`."""
    with _served(directory, plant) as (pid, url):
        return trio.run(_tell, pid, url, sleep_s)


async def _tell(pid: int, url: str, sleep_s: float) -> Story:
    story = Story()
    async with (
        opened(url, receive_buffer_bytes=RECEIVE_BUFFER_BYTES) as sleeper,
        opened(url) as reader,
        opened(url) as socket,
        trio.open_nursery() as nursery,
    ):
        version = (await _subscribe(sleeper, "main:large"))["endVersion"]
        await _subscribe(reader, "main:small")
        writer = Writer(socket)
        nursery.start_soon(writer.listen)
        nursery.start_soon(_keep_up, reader, story)
        await writer.write(SETTLE_S)
        resting_bytes = _memory_bytes(pid)
        story.commits = await writer.write(sleep_s)
        story.growth_bytes = _memory_bytes(pid) - resting_bytes
        await trio.sleep(SILENCE_S)
        kernel_bytes = _in_kernel(_ports(sleeper))
        await _wake(sleeper, version, writer.newest, kernel_bytes, story)
        nursery.cancel_scope.cancel()
    _judge(story, writer.newest)
    return story


def _judge(story: Story, newest: float) -> None:
    if story.unsent > UNSENT_MAX:
        story.problems.append(f"{story.unsent} transitions were waiting in the server's memory")
    if story.growth_bytes >= GROWTH_BYTES_MAX:
        story.problems.append(f"memory grew by {story.growth_bytes / 1e6:.1f} MB")
    if story.shown_beside != newest:
        story.problems.append(f"the client beside it shows {story.shown_beside}, not {newest}")


# The clients.


class Writer:
    """Commits at a steady pace, waiting for nothing but its turn."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._sent = 0
        self._answered = 0
        self._heard = trio.lowlevel.ParkingLot()
        self.newest: float = 0
        """The counter after the last answered commit."""

    async def listen(self) -> None:
        while (message := await self._socket.hear()) is not None:
            if message["type"] == "MutationResponse":
                assert message["success"], message
                self._answered += 1
                self._heard.unpark_all()
                self.newest = max(self.newest, message["result"])

    async def write(self, seconds: float) -> int:
        """Commit for so long; returns how often, when all is answered."""
        if not self._sent:
            await self._socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        count, began = round(seconds * COMMITS_PER_S), trio.current_time()
        for number in range(count):
            await trio.sleep_until(began + number / COMMITS_PER_S)
            call = {"requestId": self._sent, "udfPath": "main:count", "args": [{}]}
            await self._socket.say(type="Mutation", **call)
            self._sent += 1
        with trio.fail_after(CATCH_UP_S_MAX):
            while self._answered < self._sent:
                await self._heard.park()
        return count


async def _subscribe(socket: WebSocket, path: str) -> dict[str, Any]:
    """Show the query; the transition with its first state."""
    await socket.say(type="Connect", sessionId=str(uuid4()), connectionCount=0)
    add = {"type": "Add", "queryId": 0, "udfPath": path, "args": [{}]}
    await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])
    return await socket.hear_until("Transition")


async def _keep_up(reader: WebSocket, story: Story) -> None:
    while (message := await reader.hear()) is not None:
        for change in message.get("modifications", ()):
            story.kept_up += 1
            story.shown_beside = change["value"]


async def _wake(
    sleeper: WebSocket, version: object, newest: float, kernel_bytes: int, story: Story
) -> None:
    """Read everything until the newest state, and hold it against the promise."""
    shown = None
    with trio.move_on_after(CATCH_UP_S_MAX):
        async with aclosing(_frames(sleeper.stream)) as frames:
            async for end, message in frames:
                if message["type"] != "Transition":
                    continue
                start = message["startVersion"]
                if start != version:
                    story.problems.append(f"a transition from {start}, at {version}")
                version = message["endVersion"]
                shown = message["modifications"][0]["value"]["value"]
                if shown == newest:
                    break
                story.unsent += end > kernel_bytes
    if shown != newest:
        story.problems.append(
            f"it shows {shown} {CATCH_UP_S_MAX:g} s after waking up, not {newest}"
        )


async def _frames(stream: trio.abc.Stream) -> AsyncGenerator[tuple[int, dict[str, Any]], None]:
    """The messages that come, each with how many bytes have come up to its end."""
    data, taken = bytearray(), 0
    while part := await stream.receive_some(1 << 20):
        data += part
        while (size := _frame_bytes(data)) is not None and len(data) >= sum(size):
            head, length = size
            message = json.loads(data[head : head + length])
            del data[: head + length]
            taken += head + length
            yield taken, message


def _frame_bytes(data: bytearray) -> tuple[int, int] | None:
    """Of the first frame's head and of what is in it, once the head is there."""
    if len(data) < 10:
        return None
    match data[1]:
        case 126:
            return 4, struct.unpack(">H", data[2:4])[0]
        case 127:
            return 10, struct.unpack(">Q", data[2:10])[0]
        case length:
            return 2, length


# The server.


@contextmanager
def _served(directory: Path, plant: str) -> Iterator[tuple[int, str]]:
    subject = subprocess.Popen(
        [sys.executable, "-m", "tests.proofs.slow_client_subject", str(directory), plant],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert subject.stdout is not None
        for line in subject.stdout:
            if line.startswith("url "):
                yield subject.pid, line.split()[1]
                return
        raise AssertionError("the subject did not serve")
    finally:
        subject.kill()
        subject.communicate()


def _memory_bytes(pid: int) -> int:
    """What the process has allocated and touched; the pages of its database are not in it."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found, "no RssAnon of the server"
    return int(found[1]) * 1024


# The kernel.


def _ports(socket: WebSocket) -> set[int]:
    assert isinstance(socket.stream, trio.SocketStream)
    inside = socket.stream.socket
    return {inside.getsockname()[1], inside.getpeername()[1]}


def _in_kernel(ports: set[int]) -> int:
    """How many bytes of the connection between two ports have been sent and not yet read."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if {int(address.split(":")[1], 16) for address in (local, remote)} == ports:
            total += sum(int(queue, 16) for queue in queues.split(":"))
    return total
