"""
A read set, and how long what was read under it has held.

Whoever shows a result, or keeps it to show it again, holds its `Live`.  While
one holder is left, every commit is compared with the read set, and the first
that touches it invalidates the `Live`, for good.  The last holder to let go
takes it out of the index in the same call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.model.reads import ReadSet

Callback = Callable[[], None]

POINT_BYTES = 400
RANGE_BYTES = 700
"""About what a point and a range of a read set take up in it and in the index together."""


class Mark(Protocol):
    """A timestamp that only rises."""

    @property
    def value(self) -> int: ...


class Home(Protocol):
    """Where a `Live` is known."""

    @property
    def processed(self) -> Mark:
        """Commits have been compared up to here."""
        ...

    def seek(self, live: Live, /) -> None:
        """Compare commits with its searches as well, from `live.ts` on."""

    def forget(self, live: Live, /) -> None:
        """Nobody holds it any more."""


class Live:
    """
    A subscription on a read set, shared by everybody who shows the result.

    It is born with one holder, whoever subscribed.

    Attributes:
        reads: what was read.
        ts: when it was read; what was read holds from here on.
        invalidated_at: the first commit after `ts` that touched it, or `None`.
        is_resting: nobody watches, so commits are not compared with its searches: whether it is
            `is_in_order` says whether these may have been touched.
    """

    __slots__ = (
        "_holders",
        "_home",
        "_watchers",
        "invalidated_at",
        "is_resting",
        "reads",
        "ts",
    )

    def __init__(self, reads: ReadSet, ts: int, home: Home) -> None:
        self.reads = reads
        self.ts = ts
        self.invalidated_at: int | None = None
        self.is_resting = False
        self._home = home
        self._holders = 1
        self._watchers: dict[Callback, None] = {}

    def valid_at(self, ts: int) -> bool:
        """
        Whether reading the same at `ts` would have given the same; of one that rests it is that
        if it `is_in_order`.

        Whoever asks about a `ts` that commits have not been compared up to
        waits first: `if processed.value < ts: await processed.wait_reached(ts)`.
        """
        assert self._holders, "nobody held this and so nobody knows"
        if self.invalidated_at is not None:
            return self.ts <= ts < self.invalidated_at
        assert ts <= max(self.ts, self._home.processed.value), (
            "not every commit has been compared yet"
        )
        return self.ts <= ts

    def is_in_order(self) -> bool:
        """Whether what was found by searches would still be found in this order."""
        return all(ranking.changed_ts <= self.ts for ranking in self.reads.rankings.values())

    @property
    def is_watched(self) -> bool:
        """Whether somebody wants to know at once."""
        return bool(self._watchers)

    def watch(self, callback: Callback) -> None:
        """
        Call `callback` once when this is invalidated, unless that is taken back by `unwatch`.

        If it is already invalidated, `callback` is called before this returns.
        A callback that watches several is called once for all that one step of
        the log invalidated.  It runs amid the engine's work: it takes note, it
        does not wait, and it raises nothing.  Nothing is made for it here: thousands
        of clients watch one result, and anew after each commit.
        """
        if self.is_resting:
            self._home.seek(self)
        if self.invalidated_at is not None:
            callback()
        else:
            self._watchers[callback] = None

    def unwatch(self, callback: Callback) -> None:
        """Do not call `callback`, if it has not been called."""
        self._watchers.pop(callback, None)

    @property
    def holders(self) -> int:
        return self._holders

    def retain(self) -> None:
        """Hold this as well; every `retain` has its `release`."""
        assert self._holders, "what everybody has let go cannot be held again"
        self._holders += 1

    def release(self) -> None:
        """Let go of it; after the last holder has, it leaves the index and wakes nobody."""
        assert self._holders, "let go more often than held"
        self._holders -= 1
        if not self._holders:
            self._watchers.clear()
            self._home.forget(self)

    def size_bytes(self) -> int:
        """About how much memory the read set and its place in the index take."""
        ranges = sum(map(len, self.reads.ranges.values()))
        ranges += sum(map(len, self.reads.searches.values()))
        return POINT_BYTES * len(self.reads.points) + RANGE_BYTES * ranges

    def wake(self, woken: set[Callback]) -> None:
        """Call the watchers that are not among `woken`, and add them to it."""
        watchers = self._watchers
        for callback in list(watchers):
            # A callback may have taken back a watch further down this list.
            if callback in watchers:
                del watchers[callback]
                if callback not in woken:
                    woken.add(callback)
                    callback()
