"""
The lane: mutations run in it one after another.

It is held from the first step of a handler until its writes are staged or it
has failed, across its yields.  Taking a free lane costs no task switch.

Whoever finds it taken waits, with a ticket.  When it is free a group of those
who wait is woken at once, the oldest tickets first: most handlers never yield,
so the whole group passes in one turn of the scheduler and shares a batch.  Who
is woken and finds the lane taken again goes back to its place.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Final

import trio

from engine.errors import Overloaded

GROUP_MAX: Final = 64
"""Enough to share a batch; few enough that going back to one's place stays cheap."""

Waiting = tuple[int, trio.lowlevel.Task]


class Lane:
    """
    Args:
        has_room: whether one more transaction may be staged now.
    """

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._is_held = False
        self._tickets = 0
        self._waiting: list[Waiting] = []
        """By falling ticket: the oldest is last."""
        self._woken = 0
        """Those who were woken and have not run yet."""

    @property
    def is_held(self) -> bool:
        return self._is_held

    @property
    def waiting_count(self) -> int:
        return len(self._waiting) + self._woken

    def enter_nowait(self) -> bool:
        """Take the lane if it is free, has room, and nobody waits; whether that was so."""
        if self._is_held or self._waiting or self._woken or not self._has_room():
            return False
        self._is_held = True
        return True

    async def enter(self, patience_s: float) -> None:
        """
        Take the lane, waiting at most `patience_s` for it and for room behind it.

        Raises:
            Overloaded: nothing was done.
        """
        if self.enter_nowait():
            return
        self._tickets += 1
        ticket = -self._tickets
        with trio.move_on_after(patience_s) as patience:
            while True:
                await self._wait(ticket)
                if self._is_open():
                    self._is_held = True
                    return
        assert patience.cancelled_caught, "it is left only by taking the lane or giving up"
        raise Overloaded("the mutation lane (staged_count_max, staged_bytes_max)", patience_s)

    def leave(self) -> None:
        """Give the lane to whoever comes next, if there is room."""
        assert self._is_held
        self._is_held = False
        self.admit()

    def admit(self) -> None:
        """Wake those who wait longest, if they can pass and nobody is on the way already."""
        if self._waiting and not self._woken and self._is_open():
            group = self._waiting[-GROUP_MAX:]
            del self._waiting[-GROUP_MAX:]
            self._woken = len(group)
            for _, task in reversed(group):
                trio.lowlevel.reschedule(task)

    def _is_open(self) -> bool:
        return not self._is_held and self._has_room()

    async def _wait(self, ticket: int) -> None:
        entry = (ticket, trio.lowlevel.current_task())
        insort(self._waiting, entry, key=lambda waiting: waiting[0])

        def forget(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(entry)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)
        self._woken -= 1
