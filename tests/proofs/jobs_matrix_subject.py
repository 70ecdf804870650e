"""
The process in which the matrix of the jobs proof kills an engine at one place.

    python -m tests.proofs.jobs_matrix_subject DIRECTORY PLANT SHIFT_S BEFORE KIND POINT VISIT TOKEN

It says `state JSON` of what the job with the token BEFORE has come to, if that is not -1.  Then it
plans one of KIND and kills itself at the place; with a TOKEN of -1 it plans nothing.  Its clock is
SHIFT_S ahead.  What actions do to the world outside is a line in the file `outside`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

import trio

from engine.host import Engine
from engine.kernel.runtime import SystemRuntime
from engine.kernel.trace import trace_to_stderr
from tests.node.nodes import mutate
from tests.proofs.jobs_life import Course, Place, app, come_to_rest, forget, left_of, live, take
from tests.proofs.jobs_planted import plant

_kill = ctypes.CDLL(None).kill
"""Mutations may send no signals by what Python has for it."""


class Doomed(SystemRuntime):
    """Its pause points are places of a course, and its clock is ahead."""

    def __init__(self, course: Course, shift_s: float) -> None:
        super().__init__()
        self._course = course
        self._shift_ns = round(shift_s * 1e9)

    def now_ns(self) -> int:
        return super().now_ns() + self._shift_ns

    async def pause(self, point: str) -> None:
        await self._course.come(point)


def die_now() -> None:
    _kill(os.getpid(), signal.SIGKILL)


async def die() -> None:
    die_now()


async def main(
    directory: Path, bug: str, shift_s: float, before: int, kind: str, place: Place, token: int
) -> None:
    plant(bug)
    outside = os.open(directory / "outside", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    course = take(
        Course(place, die, die_now, lambda line: _say(outside, line)),
    )
    runtime = Doomed(course, shift_s)
    async with Engine.open(directory / "data", app=app(), runtime=runtime) as engine:
        node = engine.node
        if before >= 0:
            await come_to_rest(node, before)
            _say(1, f"state {json.dumps(await left_of(node, before))}")
            await mutate(node, forget, before)
        if token >= 0:
            await live(node, kind, token)


def _say(fd: int, line: str) -> None:
    os.write(fd, line.encode() + b"\n")


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    where, planted, shift, last, what, at, often, new = sys.argv[1:]
    trio.run(
        main, Path(where), planted, float(shift), int(last), what, Place(at, int(often)), int(new)
    )
