"""
Clock and dice, and the places where a test may hold the engine.

The engine never asks the operating system for the time or for a random number:
it asks the `Runtime` it was given.  The real one reads the system; a virtual
one, with a seed, makes a run that can be had again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random, SystemRandom
from typing import Final, Protocol

import trio
from trio.abc import Clock

from engine.kernel.pause import Hold


class Runtime(Protocol):
    """What the engine may know of the outside world."""

    random: Random
    interleave: Random | None
    """If not `None`: mutations run beside each other and yield by these dice at every call."""
    is_virtual: bool
    """Whether the clock is one that jumps; what looks at the system now and then is left out."""

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since 1970 UTC; may jump."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps."""

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of `monotonic`."""

    def random_bytes(self, count: int) -> bytes:
        """`count` bytes that nobody can guess, or that a seed decides."""

    async def pause(self, point: str) -> None:
        """A named point where a test may hold, crash or fail whoever passes."""


RANDOM_BYTES_AT_ONCE: Final = 512


class SystemRuntime:
    """The clock and the dice of the operating system."""

    now_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.random: Random = SystemRandom()
        self.interleave: Random | None = None
        self.is_virtual = False
        self._bytes = b""

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        # Asking the system takes a microsecond, and every execution wants a seed.
        if count > len(self._bytes):
            self._bytes = os.urandom(max(count, RANDOM_BYTES_AT_ONCE))
        drawn, self._bytes = self._bytes[:count], self._bytes[count:]
        return drawn

    async def pause(self, point: str) -> None:
        """Nobody holds a real engine."""


EPOCH_2026_NS: Final = 1_767_225_600_000_000_000


class VirtualRuntime:
    """
    A clock that follows trio's (which a test may let jump) and dice with a seed.

    Args:
        seed: the same seed gives the same run.
        start_ns: the wall clock at the start.
        interleaves: let mutations run beside each other, so that only the validation of
            what they read keeps them apart.
    """

    def __init__(
        self, seed: int = 0, *, start_ns: int = EPOCH_2026_NS, interleaves: bool = False
    ) -> None:
        self.random: Random = Random(seed)
        self.interleave = Random(seed + 1) if interleaves else None
        self.is_virtual = True
        self._start_ns = start_ns
        self._offset_ns = 0
        self._clock: Clock | None = None
        self._born: float | None = None
        self.points: dict[str, Callable[[], Awaitable[None]]] = {}
        """What to do at a pause point, by its name."""

    def now_ns(self) -> int:
        return self._start_ns + self._offset_ns + round(self.monotonic() * 1e9)

    def monotonic(self) -> float:
        # An action in a thread looks at it, too, where trio knows no current clock.
        with suppress(RuntimeError):
            self._clock = trio.lowlevel.current_clock()
        assert self._clock is not None, "the engine looks before its functions do"
        now = self._clock.current_time()
        if self._born is None:
            self._born = now
        return now - self._born

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def jump(self, seconds: float) -> None:
        """Move the wall clock, but not the monotonic one."""
        self._offset_ns += round(seconds * 1e9)

    def hold(self, point: str, *, skip: int = 0) -> Hold:
        """Hold whoever comes to `point`, after the first `skip`, until the returned hold says."""
        self.points[point] = hold = Hold(skip=skip)
        return hold

    async def pause(self, point: str) -> None:
        if hold := self.points.get(point):
            await hold()
