"""
The lane: mutations run in it one after another.

It is held from the first step of a handler until its writes are staged or it
has failed, across its yields.  Taking a free lane costs no task switch.
Whoever waits is served in order, and gives up when its patience ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from engine.errors import Overloaded


class Lane:
    """
    Args:
        has_room: whether one more transaction may be staged now.
    """

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._is_held = False
        self._waiting: deque[trio.lowlevel.Task] = deque()

    @property
    def is_held(self) -> bool:
        return self._is_held

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    async def enter(self, patience_s: float) -> None:
        """
        Take the lane, waiting at most `patience_s` for it and for room behind it.

        Raises:
            Overloaded: nothing was done.
        """
        if not self._is_held and not self._waiting and self._has_room():
            self._is_held = True
            return
        task = trio.lowlevel.current_task()
        self._waiting.append(task)

        def forget(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_after(patience_s) as patience:
            await trio.lowlevel.wait_task_rescheduled(forget)
        if patience.cancelled_caught:
            raise Overloaded("the mutation lane", patience_s)

    def leave(self) -> None:
        """Give the lane to whoever waits longest, if there is room."""
        assert self._is_held
        self._is_held = False
        self.admit()

    def admit(self) -> None:
        """Let the next one in, if the lane is free and there is room."""
        if self._waiting and not self._is_held and self._has_room():
            self._is_held = True
            trio.lowlevel.reschedule(self._waiting.popleft())
