"""
How many durable mutations a second come through WebSockets, and how late does a subscriber know?

50 clients, each of whom sends a message, waits until it is durable, and sends the
next; then one who writes, and one who shows what is written.  In the same run
the same clients speak with an application on the bare server library, which
says their texts back and on.  At the end the messages are counted.  The server
and the process that writes for it have one core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.crowd import Crowd, Socket
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

CONNECTIONS: Final = 50
BODY: Final = "." * 60
PEER: Final = "hypercorn"
MANY: Final = "sync"
ONE: Final = "sync-subscriber"
RATE: Final = "per_s"
RATE_GOAL: Final = 3_000
P50_GOAL_MS: Final = 3
P99_GOAL_MS: Final = 10


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of sending for a while."""

    took_s: float = 0.0
    busy_s: float = 0.0
    """Of the server, without the process that writes."""
    late_s: list[float] = field(default_factory=list)


class Talk:
    """Clients of one server, who speak with it as it likes to be spoken to."""

    def __init__(self, kind: str, server: Served, crowd: Crowd) -> None:
        self.server = server
        self.crowd = crowd
        self.is_answer = is_answer if kind == ENGINE else is_echo
        self._is_engine = kind == ENGINE

    def writer(self) -> Socket:
        [each] = self.crowd.join(1)
        if self._is_engine:
            each.say(greeting())
        return each

    def subscriber(self, name: str) -> tuple[Socket, bytes]:
        """Somebody who is told what is written, and what he was told first."""
        [each] = self.crowd.join(1)
        for text in [greeting(), shows(name, {})] if self._is_engine else [LISTEN]:
            each.say(text)
        while True:
            for other, message in self.crowd.hear():
                if other is each and b'modifications":[]' not in message:
                    return each, message

    def write(self, each: Socket, number: int) -> None:
        """Have `each` say what is to become durable, or only to be said on."""
        call = calls(number, "send", {"author": "ada", "body": f"{number:08} {BODY}"})
        each.say(call if self._is_engine else tells(call))


def run(bench: Bench) -> Iterator[Result]:
    """Measure both servers, then say what came of the goals."""
    results: list[Result] = []
    for kind, peer in ((ENGINE, None), (BARE, PEER)):
        with _talk(kind, bench.directory / kind) as talk:
            progress(f"{kind}: {CONNECTIONS} clients in a closed loop")
            many = _closed_loop(talk, bench.budget_s / 4)
            progress(f"{kind}: one client writes, another is told")
            one = _to_subscriber(talk, bench.budget_s / 4)
            if kind == ENGINE:
                _check_total(talk, len(many.late_s) + len(one.late_s))
        for result in (*_figures(MANY, CONNECTIONS, many, peer), *_figures(ONE, 1, one, peer)):
            results.append(result)
            yield result
    yield from _goals(results)


@contextmanager
def _talk(kind: str, directory: Path) -> Iterator[Talk]:
    with served(kind, directory) as server, Crowd(server.port) as crowd:
        yield Talk(kind, server, crowd)


def _closed_loop(talk: Talk, seconds: float) -> Found:
    """Everybody waits for his answer and goes on."""
    found = Found()
    writers = [talk.writer() for _ in range(CONNECTIONS)]
    began, busy_s = time.perf_counter(), talk.server.cpu_s()
    said = dict.fromkeys(writers, began)
    numbers = dict.fromkeys(writers, 0)
    for each in writers:
        talk.write(each, 0)
    while said:
        for each, message in talk.crowd.hear():
            if not talk.is_answer(message):
                continue
            now = time.perf_counter()
            found.late_s.append(now - said.pop(each))
            if now - began < seconds:
                said[each] = now
                numbers[each] += 1
                talk.write(each, numbers[each])
    found.took_s = time.perf_counter() - began
    found.busy_s = talk.server.cpu_s() - busy_s
    return found


def _to_subscriber(talk: Talk, seconds: float) -> Found:
    """One writes and goes on when he is answered and another was told; the other's time counts."""
    found = Found()
    writer, (subscriber, _) = talk.writer(), talk.subscriber("newest")
    began, busy_s = time.perf_counter(), talk.server.cpu_s()
    number, is_over = 0, False
    while not is_over:
        said = time.perf_counter()
        talk.write(writer, number)
        waiting = {writer, subscriber}
        while waiting:
            for each, message in talk.crowd.hear():
                if each is writer and not talk.is_answer(message):
                    continue
                waiting.remove(each)
                if each is subscriber:
                    assert b"%08d" % number in message, f"no message {number} in {message!r}"
                    found.late_s.append(time.perf_counter() - said)
        number += 1
        is_over = time.perf_counter() - began > seconds
    found.took_s = time.perf_counter() - began
    found.busy_s = talk.server.cpu_s() - busy_s
    return found


def _check_total(talk: Talk, answered: int) -> None:
    _, told = talk.subscriber("total")
    [change] = json.loads(told)["modifications"]
    assert answered == change["value"], f"{answered:,} answers, {change['value']:,} messages"


def _figures(name: str, writers: int, found: Found, peer: str | None) -> Iterator[Result]:
    params: dict[str, Param] = {"writers": writers, "samples": len(found.late_s)}

    def figure(metric: str, value: float, unit: str) -> Result:
        return Result(name=name, params=params, metric=metric, value=value, unit=unit, peer=peer)

    yield figure(RATE, len(found.late_s) / found.took_s, "1/s")
    yield figure("busy", found.busy_s / len(found.late_s) * 1e6, "us of the server each")
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        yield figure(label, percentile(found.late_s, share) * 1e3, "ms")


def _goals(results: Sequence[Result]) -> Iterator[Result]:
    """Each goal as one figure, beside what it should be at least or at most."""
    found = {(r.name, r.metric, r.peer): r.value for r in results}
    bounds: list[tuple[str, str, str, dict[str, Param]]] = [
        (MANY, RATE, "1/s", {"at_least": RATE_GOAL}),
        (ONE, "p50", "ms", {"at_most": P50_GOAL_MS}),
        (ONE, "p99", "ms", {"at_most": P99_GOAL_MS}),
    ]
    for name, metric, unit, bound in bounds:
        ours, theirs = found[name, metric, None], found[name, metric, PEER]
        yield _goal({"what": name, **bound}, metric, ours, unit)
        yield _goal({"what": name, "metric": metric}, "by theirs", ours / theirs, "times")


def _goal(params: dict[str, Param], metric: str, value: float, unit: str) -> Result:
    return Result(name="sync-goal", params=params, metric=metric, value=value, unit=unit)
