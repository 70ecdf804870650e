"""
What the rest of the engine sees of subscriptions: subscribe, and how far commits were compared.

All of it happens on the engine's own thread, and every method here is plain
code: a commit is before a subscription or after it, never beside it.

    commits of ts  ──────┬───────────────┬────────────────────▶
                    processed        published
    subscribe at ts <= processed: compared with `recent` here and now
    subscribe at ts >  processed: compared as the actor comes past `ts`

A commit may touch thousands of read sets, most of them of answers that are kept in case somebody
asks again.  So it only marks them, some thousands at a time, and tells those who watch when it has
marked them all; what it leaves behind is freed later, in slices (`tidy`).

Where a text was searched that is not so much as marked.  Nobody who asks is given what is not in
order any more, and every commit to the index changes the order, so an answer that nobody watches
**rests**: it is compared with commits only as to the rows and ranges that it has read.  Whoever
watches it has it compared with what its searches have missed, and from then on as any other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol

from engine.kernel.watermark import Watermark
from engine.model.reads import ReadSet, Touched
from engine.subscriptions.index import ReadIndex
from engine.subscriptions.token import Callback, Live

COMPARED_ROWS_MAX: Final = 256
"""By whoever cannot wait for the actor: some two milliseconds."""
SLICE_LIVES: Final = 1_024
"""Marked before others get their turn: some two milliseconds."""
SLICE_READS: Final = 512
"""Points, ranges and searches that are taken out of the index before others get theirs: half a
millisecond, as whoever asks waits for it, and there may be hundreds of them.  What is freed with a
read set counts as `FREED_READS`."""
FREED_READS: Final = 40
MISSED_ROWS_MAX: Final = 256
"""Who has missed more than these when somebody watches it counts as touched, and is asked again:
that takes less time than looking through them."""


class Recent(Protocol):
    """The commits of the near past."""

    def covers(self, after: int) -> bool:
        """Whether every commit later than `after` is still here."""
        ...

    def between(self, after: int, upto: int) -> Iterable[Touched]:
        """Return those with ``after < ts <= upto``, oldest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatistics:
    """How much is subscribed to, and how far the comparing has come."""

    lives: int
    points: int
    ranges: int
    processed_ts: int


class Subscriptions:
    """
    Everything that somebody shows, found by the commits that touch it.

    Args:
        recent: the commits of the near past, for whoever subscribes late.
        processed_ts: commits up to here are compared with nothing.
    """

    def __init__(self, recent: Recent, *, processed_ts: int = 0) -> None:
        self._recent = recent
        self._index: ReadIndex[Live] = ReadIndex()
        self._begun_ts = processed_ts
        """Commits up to here, from `processed` on, have been compared with some read sets."""
        self._is_comparing = False
        """Whether that of one goes on when others have had their turn."""
        self._hit: list[Live] = []
        """Those who watch them are told when that is all."""
        self._resting: dict[bytes, OrderedDict[Live, None]] = {}
        """By the first index that each has searched, in the order in which they came."""
        self._free: Callable[[Live], None] = _nothing
        self.processed = Watermark(processed_ts)
        """Up to here every commit has been compared with every read set."""

    def subscribe(self, reads: ReadSet, ts: int) -> Live:
        """
        Follow `reads`, as they were read at `ts`; the caller holds the `Live`.

        No commit after `ts` is missed: one that has been processed already
        gives a `Live` that is born invalidated.  So does a `ts` so old that
        those commits are no longer kept; it then counts as valid at `ts` alone.
        """
        live = Live(reads, ts, self)
        live.is_resting = bool(reads.rankings) and reads.rankings.keys() == reads.searches.keys()
        touches = reads.is_met_by if live.is_resting else reads.is_touched_by
        live.invalidated_at = self._first_touch(touches, ts)
        if live.invalidated_at is None:
            self._index.add(reads, live, seeks=not live.is_resting)
            if live.is_resting:
                self._resting.setdefault(_place(live), OrderedDict())[live] = None
        return live

    def seek(self, live: Live, /) -> None:
        """Let commits from `live.ts` on be compared with its searches, which rested."""
        live.is_resting = False
        if live.invalidated_at is not None:
            return
        live.invalidated_at = self._first_found(live)
        if live.invalidated_at is None:
            self._rest_no_more(live)
            self._index.seek(live.reads, live)
        else:
            self._leave(live)

    def keep_until_touched(self, free: Callable[[Live], None]) -> None:
        """Have `free` called, some time after a `Live` was invalidated: of whoever only keeps."""
        self._free = free

    def slices(self, commit: Touched) -> Iterator[None]:
        """Work out what comparing `commit` will ask of it; nothing is compared yet."""
        for prefix in commit.indexes:
            if self._index.has_readers(prefix):
                yield from commit.slices(prefix)

    def compared(self, ts: int) -> bool:
        """
        Whether `processed` has come to `ts`, which has been published.

        If what is missing takes little time it is compared here and now: whoever has an answer
        of `ts` need not wait for the actor's turn to know what else has changed by then.
        """
        seen = self.processed.value
        if seen >= ts:
            return True
        if self._is_comparing or not self._recent.covers(seen):
            return False
        commits = list(self._recent.between(seen, ts))
        if sum(len(commit.rows) for commit in commits) > COMPARED_ROWS_MAX:
            return False
        for commit in commits:
            for _ in self.compare(commit):
                return False  # what was marked is marked
        self.finish(ts)
        return True

    def advance(self, commits: Iterable[Touched], upto: int) -> None:
        """Compare `commits`, which are all from `processed` up to `upto`, oldest first."""
        before = self.processed.value
        for commit in commits:
            assert before < commit.ts <= upto, "each commit once, in order"
            before = commit.ts
            for _ in self.compare(commit):
                pass
        self.finish(upto)

    def compare(self, commit: Touched) -> Iterator[None]:
        """
        Mark what `commit` touches, and stop after each slice so that others get their turn.

        It may be begun again, by whoever else: what is marked is not looked at twice.
        """
        self._begun_ts = max(self._begun_ts, commit.ts)
        if not self._index:
            return
        self._is_comparing = True
        try:
            yield from self._compare(commit)
        finally:
            self._is_comparing = False

    def _compare(self, commit: Touched) -> Iterator[None]:
        for count, live in enumerate(self._index.touched_in_slices(commit), 1):
            if live is None:
                yield
                continue
            # One that was read at this commit or after it has seen what it wrote, and one may have
            # been released since the last slice.
            if live.invalidated_at is None and live.ts < commit.ts and live in self._index:
                live.invalidated_at = commit.ts
                self._leave(live)
                if live.is_watched:
                    self._hit.append(live)
            if count % SLICE_LIVES == 0:
                yield

    def finish(self, upto: int) -> None:
        """
        Advance `processed`, as all commits up to `upto` have been compared.

        Watchers are called last, once each, when that is done: what they ask or
        subscribe to is answered as of `upto`.
        """
        self._begun_ts = max(self._begun_ts, upto)
        self.processed.advance(upto)
        self._wake()

    def tidy(self) -> bool:
        """
        Free a slice of what belonged to those that were invalidated, or rest and are of no use any
        more; whether there is more.
        """
        done = 0
        for live in chain(self._index.clean(), self._outdated()):
            self._free(live)
            done += FREED_READS + live.reads.count()
            if done > SLICE_READS:
                return True
        return False

    def invalidate_all(self, upto: int) -> None:
        """Advance to `upto` over commits that nobody knows: they may have touched anything."""
        unknown = [live for live in self._index if live.ts < upto]
        for live in unknown:
            live.invalidated_at = max(live.ts, self.processed.value) + 1
            self._leave(live)
        self._hit += unknown
        self.finish(upto)

    def statistics(self) -> SubscriptionStatistics:
        return SubscriptionStatistics(
            lives=len(self._index),
            points=self._index.point_count,
            ranges=self._index.range_count,
            processed_ts=self.processed.value,
        )

    def _first_touch(self, touches: Callable[[Touched], bool], ts: int) -> int | None:
        if ts >= self._begun_ts:
            return None
        if not self._recent.covers(ts):
            return ts + 1
        missed = self._recent.between(ts, self._begun_ts)
        return next((commit.ts for commit in missed if touches(commit)), None)

    def _first_found(self, live: Live) -> int | None:
        """The first of the commits that it has missed which its searches find."""
        if live.is_in_order():
            return None
        missed = 0

        def finds(commit: Touched) -> bool:
            nonlocal missed
            if live.reads.searches.keys().isdisjoint(commit.indexes):
                return False
            missed += len(commit.rows)
            return missed > MISSED_ROWS_MAX or live.reads.is_found_by(commit)

        return self._first_touch(finds, live.ts)

    def forget(self, live: Live, /) -> None:
        """Nobody holds it any more."""
        if live in self._index:
            self._index.remove(live)
            self._rest_no_more(live)

    def _leave(self, live: Live) -> None:
        """No commit finds it any more."""
        self._index.leave(live)
        self._rest_no_more(live)

    def _rest_no_more(self, live: Live) -> None:
        if live.reads.rankings and (resting := self._resting.get(_place(live))) is not None:
            resting.pop(live, None)
            if not resting:
                del self._resting[_place(live)]

    def _outdated(self) -> Iterator[Live]:
        """Those that rest and are given to nobody any more, as they are no longer in order."""
        for resting in list(self._resting.values()):
            while resting and not (live := next(iter(resting))).is_in_order():
                self._rest_no_more(live)
                yield live

    def _wake(self) -> None:
        hit, self._hit = self._hit, []
        woken: set[Callback] = set()
        for live in hit:
            live.wake(woken)


def _place(live: Live) -> bytes:
    """The first index that one has searched."""
    return next(iter(live.reads.searches))


def _nothing(_live: Live) -> None:
    """Stands in until somebody keeps what may be freed."""
