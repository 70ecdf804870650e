"""
The order in which everything happened in a run: each step of each task, and what is noted between.

Two runs of one seed have the same schedule, or something in them does not come from the seed.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import zip_longest
from typing import Final

import trio

_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")


STEPS_MAX: Final = 200_000
"""Ten times what a run takes; on a virtual clock a loop that comes to no end takes no time."""


class Schedule(trio.abc.Instrument):
    """Give it to `trio.run` as an instrument."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.limit = trio.CancelScope()
        """Cancelled when there are too many steps."""
        self._names: dict[trio.lowlevel.Task, str] = {}
        self._count = 0

    def note(self, event: str) -> None:
        """Something happened that is no step of a task."""
        self.steps.append(f"{trio.current_time():.9f} {event}")

    @property
    def hash(self) -> str:
        digest = blake2b(digest_size=8)
        for step in self.steps:
            digest.update(f"{step}\n".encode())
        return digest.hexdigest()

    def parts_from(self, other: Schedule) -> str | None:
        """Where the two part, if they do: the first step that is not the same, and both of them."""
        pairs = zip_longest(self.steps, other.steps, fillvalue="the end")
        for number, (mine, its) in enumerate(pairs):
            if mine != its:
                return f"the schedules part at step {number}: {mine} | {its}"
        return None

    # What trio tells.

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        # Numbered as they come; a task may be named after an object, by its address.
        self._count += 1
        self._names[task] = f"{self._count} {_ADDRESS.sub('', task.name)}"

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._names.pop(task, None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.note(self._names.get(task, "the first"))
        if len(self.steps) == STEPS_MAX:
            self.limit.cancel()
