"""
The newest commits, in memory, for followers that come a little later.

Whoever falls behind what is kept here reads the log itself, or starts anew.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

FORGOTTEN_AT_ONCE: Final = 64
"""This part of them: to free half of thousands of commits would hold everybody up."""


class Stamped(Protocol):
    @property
    def ts(self) -> int: ...


C = TypeVar("C", bound=Stamped)


class Recent(Generic[C]):
    """
    Commits in order of their timestamps.

    Args:
        floor_ts: everything after it, and nothing before, is kept.
        count_max: how many commits may be kept.
        bytes_max: how large they may be together; the newest is kept, however large it is.
    """

    def __init__(self, floor_ts: int, *, count_max: int, bytes_max: float = math.inf) -> None:
        self.floor_ts = floor_ts
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._stamps: list[int] = []
        self._commits: list[C] = []
        self._sizes: list[int] = []
        self._bytes = 0

    def append(self, commit: C, size_bytes: int = 0) -> None:
        """Add the newest commit; the oldest ones go when there is no room."""
        self.extend([commit], [size_bytes])

    def extend(self, commits: Sequence[C], sizes_bytes: Sequence[int]) -> None:
        """Add the newest commits, oldest first."""
        self._stamps += [commit.ts for commit in commits]
        self._commits += commits
        self._sizes += sizes_bytes
        self._bytes += sum(sizes_bytes)
        while len(self._commits) > self._count_max or (
            self._bytes > self._bytes_max and len(self._commits) > 1
        ):
            self._forget(max(1, len(self._commits) // FORGOTTEN_AT_ONCE))

    def covers(self, after: int) -> bool:
        """Whether every commit later than `after` is still here."""
        return after >= self.floor_ts

    def between(self, after: int, upto: int) -> Iterator[C]:
        """Commits with `after < ts <= upto`, in order."""
        start, end = bisect_right(self._stamps, after), bisect_right(self._stamps, upto)
        return iter(self._commits[start:end])

    def _forget(self, count: int) -> None:
        self.floor_ts = self._stamps[count - 1]
        self._bytes -= sum(self._sizes[:count])
        del self._stamps[:count], self._commits[:count], self._sizes[:count]
