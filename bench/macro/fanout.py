"""
How many clients a second are told of one mutation, and what does each of them cost?

One message is written, over a WebSocket, and everybody shows the newest: 100,
1,000 and 10,000 clients, each of whom has to be told once, and all of them of
one execution.  In the same run an application on the bare server library sends
as long a text to as many.  Then as many different queries, each of another
document, of which one is touched; and what clients that have stopped reading do
to the others.  The server has a core for itself, and what one core delivers
goes by the time that the server was on it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.crowd import Crowd, Socket, descriptors
from bench.harness import Bench, Param, Result, percentile, progress
from bench.served import (
    BARE,
    ENGINE,
    LISTEN,
    Served,
    calls,
    greeting,
    is_answer,
    is_echo,
    served,
    shows,
    tells,
)

SIZES: Final = (100, 1_000, 10_000)
QUICK_SIZES: Final = (100, 1_000)
BODY: Final = "." * 60
BARE_TEXT: Final = "." * 470
"""As long as a transition with such a message in it."""
ROUNDS_MIN: Final = 3
SILENCE_S: Final = 0.2
"""For whatever should not come to have come."""
CELLS_AT_ONCE: Final = 1_000

READERS: Final = 100
SLEEPERS: Final = 50
LARGE_BODY: Final = "." * 16_000
SLEEPER_BUFFER_BYTES: Final = 4_096
FILLING_ROUNDS: Final = 100
"""After which the kernel holds for a sleeper all that it takes."""

PEER: Final = "hypercorn"
PER_CORE: Final = "deliveries_per_core_s"
TOUCHED: Final = "fanout-different"
STALLED: Final = "fanout-stalled"
CORE_GOAL: Final = 20_000
"""Deliveries a second of a core, at least."""
SPEED_GOAL: Final = 0.8
"""Of the bare server library's: 20,000 where that has 25,000."""
FLAT: Final = 1.5
"""Times as long with most queries as with fewest, or beside sleepers as without, at most."""


def run(bench: Bench) -> Iterator[Result]:
    """Measure all cases, the bare library's beside ours, then say what came of the goals."""
    sizes = _sizes(QUICK_SIZES if bench.quick else SIZES)
    seconds = bench.budget_s / (3 * len(sizes) + 2)
    results: list[Result] = []
    for case in (
        _shared(bench.directory / "ours", sizes, seconds),
        _bare(bench.directory / "bare", sizes, seconds),
        _different(bench.directory / "different", sizes, seconds),
        _stalled(bench.directory / "stalled", seconds),
    ):
        for result in case:
            results.append(result)
            yield result
    yield from _goals(results, sizes)


def _sizes(wanted: Sequence[int]) -> list[int]:
    """Those for which a process may have enough files open."""
    room = descriptors(max(wanted) + 1)
    if room <= max(wanted):
        progress(f"{max(wanted):,} clients are as many open files; {room:,} are allowed here")
    return [size for size in wanted if size < room]


# The clients


@dataclass(slots=True, kw_only=True)
class Audience:
    """The clients of one server: one orders, the others are told."""

    server: Served
    crowd: Crowd
    conductor: Socket
    is_answer: Callable[[bytes], bool]
    listeners: list[Socket] = field(default_factory=list)
    orders: int = 0

    def join(self, sayings: Iterable[Sequence[str]], **options: int) -> list[Socket]:
        """More listeners, each of whom says something first, and has an answer to that."""
        joined = []
        for texts in sayings:
            [each] = self.crowd.join(1, **options)
            for text in texts:
                each.say(text)
            joined.append(each)
        self._hear_all(joined, b"")
        self.listeners += joined
        return joined

    def tell(self, order: str, mark: str, told: Iterable[Socket] | None = None) -> Told:
        """Have the server tell all listeners, or only those; everybody is told once, and alike."""
        began, busy_s = time.perf_counter(), self.server.cpu_s()
        self.conductor.say(order)
        told = self.listeners if told is None else told
        length = self._hear_all([*told, self.conductor], mark.encode())
        last_s = time.perf_counter() - began
        return Told(last_s=last_s, cpu_s=self.server.cpu_s() - busy_s, length=length)

    def next_mark(self) -> str:
        """What no message before had in it."""
        self.orders += 1
        return f"order {self.orders:08}"

    def is_silent(self) -> bool:
        """Whether no listener is told anything more."""
        try:
            while True:
                if any(each is not self.conductor for each, _ in self.crowd.hear(SILENCE_S)):
                    return False
        except TimeoutError:
            return True

    def _hear_all(self, expected: Iterable[Socket], mark: bytes) -> int:
        """Hear one message of each; how long the last one of a listener was."""
        waiting, runs, length = set(expected), set[bytes](), 0
        while waiting:
            for each, message in self.crowd.hear():
                if each is self.conductor and not self.is_answer(message):
                    continue
                assert each in waiting, f"told again, or although it should not be: {message!r}"
                waiting.discard(each)
                if each is not self.conductor:
                    assert mark in message, f"{mark!r} is not in {message!r}"
                    runs.update(_RUNS.findall(message))
                    length = len(message)
        assert not mark or len(runs) <= 1, f"{len(runs)} executions for one question"
        return length


_RUNS: Final = re.compile(rb'"runs":\d+')


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    last_s: float
    """From the order to the last delivery."""
    cpu_s: float
    """Of the server, from the order to the last delivery."""
    length: int
    """Of one delivery, in bytes."""


@contextmanager
def _audience(kind: str, directory: Path) -> Iterator[Audience]:
    with served(kind, directory) as server, Crowd(server.port) as crowd:
        [conductor] = crowd.join(1)
        if kind == ENGINE:
            conductor.say(greeting())
        is_done = is_answer if kind == ENGINE else is_echo
        yield Audience(server=server, crowd=crowd, conductor=conductor, is_answer=is_done)


# The cases


def _shared(directory: Path, sizes: Sequence[int], seconds: float) -> Iterator[Result]:
    """Everybody shows the newest message."""
    with _audience(ENGINE, directory) as audience:

        def tell() -> Told:
            mark = audience.next_mark()
            order = calls(audience.orders, "send", {"author": "ada", "body": f"{mark} {BODY}"})
            return audience.tell(order, mark)

        yield from _growing(audience, (greeting(), shows("newest", {})), tell, sizes, seconds, None)


def _bare(directory: Path, sizes: Sequence[int], seconds: float) -> Iterator[Result]:
    """Everybody listens, and is sent a text of the length that ours have."""
    with _audience(BARE, directory) as audience:

        def tell() -> Told:
            mark = audience.next_mark()
            return audience.tell(tells(f"{mark} {BARE_TEXT}"), mark)

        yield from _growing(audience, (LISTEN,), tell, sizes, seconds, PEER)


def _growing(
    audience: Audience,
    saying: Sequence[str],
    tell: Callable[[], Told],
    sizes: Sequence[int],
    seconds: float,
    peer: str | None,
) -> Iterator[Result]:
    tell()
    before = audience.server.memory_bytes()
    for size in sizes:
        progress(f"{peer or 'ours'}: {size:,} clients are joining")
        audience.join([saying] * (size - len(audience.listeners)))
        memory = (audience.server.memory_bytes() - before) / size
        tell()
        yield from _figures(size, _for(seconds, tell), memory, peer)
    assert audience.is_silent(), "somebody was told again"


def _for(seconds: float, tell: Callable[[], Told]) -> list[Told]:
    found: list[Told] = []
    until = time.perf_counter() + seconds
    while len(found) < ROUNDS_MIN or time.perf_counter() < until:
        found.append(tell())
    return found


def _figures(size: int, found: list[Told], memory: float, peer: str | None) -> Iterator[Result]:
    params: dict[str, Param] = {
        "subscribers": size,
        "rounds": len(found),
        "bytes": found[-1].length,
    }

    def figure(metric: str, value: float, unit: str) -> Result:
        return Result(
            name="fanout", params=params, metric=metric, value=value, unit=unit, peer=peer
        )

    last_s = [told.last_s for told in found]
    yield figure("last_p50", percentile(last_s, 0.5) * 1e3, "ms")
    yield figure("last_max", max(last_s) * 1e3, "ms")
    yield figure("deliveries_per_s", size * len(found) / sum(last_s), "1/s")
    busy_s = sum(told.cpu_s for told in found)
    yield figure(PER_CORE, size * len(found) / busy_s, "1/s")
    yield figure("memory", memory, "bytes a subscriber")


def _different(directory: Path, sizes: Sequence[int], seconds: float) -> Iterator[Result]:
    """Each shows a document of its own, and one of them is changed."""
    with _audience(ENGINE, directory) as audience:
        for first in range(0, sizes[-1], CELLS_AT_ONCE):
            count = min(CELLS_AT_ONCE, sizes[-1] - first)
            audience.tell(calls(first, "fill", {"first": first, "count": count}), "", [])
        for size in sizes:
            progress(f"{size:,} different queries are being asked")
            numbers = range(len(audience.listeners), size)
            audience.join((greeting(), shows("cell", {"number": n})) for n in numbers)

            def tell(size: int = size) -> Told:
                mark = audience.next_mark()
                one = audience.orders * 7_919 % size
                order = calls(sizes[-1] + audience.orders, "touch", {"number": one, "text": mark})
                return audience.tell(order, mark, [audience.listeners[one]])

            yield from _touched(size, _for(seconds, tell))
        assert audience.is_silent(), "somebody was told what he does not show"


def _touched(size: int, found: list[Told]) -> Iterator[Result]:
    params: dict[str, Param] = {"queries": size, "rounds": len(found)}
    samples = {
        "last": [told.last_s for told in found],
        "cpu": [told.cpu_s for told in found],
    }
    for what, seconds in samples.items():
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            value = percentile(seconds, share) * 1e3
            metric = f"{what}_{label}"
            yield Result(name=TOUCHED, params=params, metric=metric, value=value, unit="ms")


def _stalled(directory: Path, seconds: float) -> Iterator[Result]:
    """Everybody shows a large message, and then some read no more."""
    with _audience(ENGINE, directory) as audience:

        def tell() -> Told:
            mark = audience.next_mark()
            order = calls(
                audience.orders, "send", {"author": "ada", "body": f"{mark} {LARGE_BODY}"}
            )
            return audience.tell(order, mark)

        saying = (greeting(), shows("newest", {}))
        audience.join([saying] * READERS)
        without = _grown(audience, tell)
        yield from _beside(0, _for(seconds / 2, tell))
        sleepers = audience.join([saying] * SLEEPERS, receive_buffer_bytes=SLEEPER_BUFFER_BYTES)
        for each in sleepers:
            audience.crowd.sleep(each)
            audience.listeners.remove(each)
        grown = (_grown(audience, tell) - without) / SLEEPERS
        yield from _beside(SLEEPERS, _for(seconds / 2, tell))
        yield Result(
            name=STALLED,
            params={"sleepers": SLEEPERS, "bytes": len(LARGE_BODY)},
            metric="memory",
            value=grown,
            unit="bytes a sleeper",
        )
        assert audience.is_silent(), "somebody was told again"
        _wake(audience, sleepers)


def _grown(audience: Audience, tell: Callable[[], Told]) -> int:
    """What so many rounds add to the memory of the server, its own history among it."""
    before = audience.server.memory_bytes()
    for _ in range(FILLING_ROUNDS):
        tell()
    return audience.server.memory_bytes() - before


def _beside(sleepers: int, found: list[Told]) -> Iterator[Result]:
    params: dict[str, Param] = {"readers": READERS, "sleepers": sleepers, "rounds": len(found)}
    last_s = [told.last_s for told in found]
    for label, share in (("last_p50", 0.5), ("last_p99", 0.99)):
        value = percentile(last_s, share) * 1e3
        yield Result(name=STALLED, params=params, metric=label, value=value, unit="ms")


def _wake(audience: Audience, sleepers: Sequence[Socket]) -> None:
    """Whoever reads again is right after some messages, and was not sent all that it missed."""
    newest = f"order {audience.orders:08}".encode()
    behind = dict.fromkeys(sleepers, 0)
    for each in sleepers:
        audience.crowd.wake(each)
    while behind:
        for each, message in audience.crowd.hear():
            behind[each] += 1
            if newest in message:
                assert behind.pop(each) < FILLING_ROUNDS, "a sleeper was sent everything"


# What comes of it


def _goals(results: Sequence[Result], sizes: Sequence[int]) -> Iterator[Result]:
    """Each goal as one figure, beside what it should be at least or at most."""

    def found(name: str, metric: str, peer: str | None = None, **params: int) -> float:
        return next(
            result.value
            for result in results
            if (result.name, result.metric, result.peer) == (name, metric, peer)
            and params.items() <= result.params.items()
        )

    for size in sizes:
        ours = found("fanout", PER_CORE, subscribers=size)
        theirs = found("fanout", PER_CORE, PEER, subscribers=size)
        yield _goal(PER_CORE, ours, "1/s", subscribers=size, at_least=CORE_GOAL)
        yield _goal("speed by theirs", ours / theirs, subscribers=size, at_least=SPEED_GOAL)
    few, many = (found(TOUCHED, "cpu_p50", queries=size) for size in (sizes[0], sizes[-1]))
    yield _goal("one touched: most queries by fewest", many / few, at_most=FLAT)
    without, beside = (found(STALLED, "last_p50", sleepers=count) for count in (0, SLEEPERS))
    yield _goal("beside sleepers by without", beside / without, at_most=FLAT)


def _goal(what: str, value: float, unit: str = "times", **params: float) -> Result:
    given: dict[str, Param] = {"what": what, **params}
    metric = "ratio" if unit == "times" else "rate"
    return Result(name="fanout-goal", params=given, metric=metric, value=value, unit=unit)
