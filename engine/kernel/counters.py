"""
Numbers that operators read: how often something happened, and how much of something there is.

    counters.add("jobs.ended", function="mail:send", state="failed")
    counters.watch("scheduler.lag_s", lambda: {(): scheduler.lag_s})
    counters.read()                     every number, by name and labels

Counts go up from when the engine was opened; what is watched is asked for when it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeAlias

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
