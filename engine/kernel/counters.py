"""
Numbers that operators read: how often something happened, and how much of something there is.

    counters.add("jobs.ended", function="mail:send", state="failed")
    counters.watch("scheduler.lag_s", lambda: {(): scheduler.lag_s})
    counters.watch("searches", durations.read)
    counters.read()                     every number, by name and labels

Counts go up from when the engine was opened; what is watched is asked for when it is read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Final, TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values, by name."""
Watched: TypeAlias = Callable[[], Mapping[Labels, float]]


class Counters:
    """The numbers of one engine."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._watched: dict[str, Watched] = {}

    def add(self, name: str, by: int = 1, /, **labels: str) -> None:
        """Count something that happened."""
        self._counts[name, tuple(sorted(labels.items()))] += by

    def watch(self, name: str, read: Watched, /) -> None:
        """Have `read` asked for a number, or one for each of several labels."""
        assert name not in self._watched, "a number has one source"
        self._watched[name] = read

    def read(self) -> list[tuple[str, Labels, float]]:
        """All numbers, sorted by name and labels."""
        found = [(name, labels, float(n)) for (name, labels), n in self._counts.items()]
        for name, read in self._watched.items():
            found += [(name, labels, float(n)) for labels, n in read().items()]
        return sorted(found)


class Durations:
    """
    How many of something took how long, by kind.

    Args:
        kinds: what there may be.
    """

    def __init__(self, *kinds: str) -> None:
        self._counts = {kind: [0] * (len(WITHIN_S) + 1) for kind in kinds}

    def add(self, kind: str, seconds: float) -> None:
        """Count one that took so long."""
        self._counts[kind][bisect_left(WITHIN_S, seconds)] += 1

    def read(self) -> dict[Labels, float]:
        """For each kind and bound how many took no longer; `inf` is all of them."""
        return {
            (("kind", kind), ("within_s", within)): float(count)
            for kind, counts in self._counts.items()
            if any(counts)
            for within, count in zip(_WITHIN, accumulate(counts), strict=True)
        }


WITHIN_S: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_WITHIN: Final = [*(f"{seconds:.4f}" for seconds in WITHIN_S), "inf"]
"""So spelled that they are sorted as text as they are as numbers."""
