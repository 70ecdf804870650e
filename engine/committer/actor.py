"""
Committer: the only writer.

A mutation's writes go through five stages:

    stage     stamp and encode them, let later mutations see them     plain code
    gather    whatever is staged while a batch is on its way          no timer
              and the rest of a series, of which nobody waits for one at most 10 ms
    persist   one store transaction for the batch, flushed            the only await
    publish   let readers and followers see it                        plain code
    answer    wake whoever waits for it                               plain code

The point of no return is inside `persist`.  A batch that was certainly not
written is rolled back: the generation rises, and whoever ran on it runs again,
alone.  A batch of unknown fate stops the engine; opening it again reads from
the log what became of it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, Final, NamedTuple

import trio

from engine.committer.conflicts import find_conflict
from engine.committer.lane import Lane
from engine.committer.staged import Staged, StagedCommit, changes_of
from engine.committer.waiting import DurableWaiters
from engine.errors import Conflict, OutcomeUnknown, Stopped, StoreFull
from engine.indexes.catalog import Catalog
from engine.indexes.counts import Counts, changed_counts, counts_after
from engine.indexes.entries import Applied, Change, stored
from engine.indexes.live import LiveIndex, LiveIndexes
from engine.indexes.snapshot import SharedSnapshot, Snapshots
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.kernel.watermark import Watermark
from engine.log.recent import Recent
from engine.log.records import encode_record, next_state_hash, ts_key
from engine.log.retention import ANCHOR_NAME, Trim, encode_anchor
from engine.model.commits import Kind, RowWrite, Source
from engine.model.limits import Limits
from engine.model.reads import ReadSet
from engine.store.interface import Batch, Store, Tree

trace = tracer(__name__)


FOLLOWED_BATCHES: Final = 8
"""Of which documents stay decoded, for followers: those of thousands of commits, a million objects,
had the garbage collector hold everybody up for 0.7 s now and then."""


SERIES_S_MAX: Final = 0.01
"""A batch waits no longer for the rest of a series: what queries see may not be older."""


class RunAgain(Exception):
    """A batch failed below what this transaction saw; nothing of it was written."""


class Head(NamedTuple):
    """Where a history ends: what the next record is chained to."""

    ts: int
    record_hash: bytes
    state_hash: int
    catalog: Catalog
    epoch: int
    counts: Counts


class Committer:
    """
    Args:
        head: the end of the durable log, as recovery found it.
        published: rises when a batch is durable; readers and followers watch it.
        recent: receives every published commit.
        live: takes in what is staged.
    """

    name = "committer"

    def __init__(
        self,
        store: Store,
        snapshots: Snapshots,
        *,
        head: Head,
        published: Watermark,
        recent: Recent[Applied],
        live: LiveIndexes,
        runtime: Runtime,
        limits: Limits,
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._durable = head
        self._head = head
        self._published = published
        self._recent = recent
        self._live = live
        self._runtime = runtime
        self._limits = limits
        self._clock = _CommitClock(runtime, limits.clock_jump_s_max)
        self._staged = Staged()
        self._pending: deque[StagedCommit] = deque()
        self._staged_bytes = 0
        self._in_flight: list[StagedCommit] = []
        self._followed: deque[list[StagedCommit]] = deque()
        """The last that were published, oldest first."""
        self._pins: dict[int, int] = {}
        """How many views there are of each snapshot."""
        self._waiters = DurableWaiters()
        self._work = trio.Event()
        self._is_in_series = False
        self._is_closed = False
        self._refusal: StoreFull | None = None
        self.generation = 0
        self.lane = Lane(self._has_room)
        self.stats = Counter[str]()

    @property
    def obstacle(self) -> str | None:
        """Why nothing can be committed now; after a refused batch that is so until one is not."""
        if self._is_closed:
            return "the engine is closed"
        if not self._has_room():
            count = len(self._pending) + len(self._in_flight)
            return f"{count} transactions wait for the disk, and there is no room for more"
        if self._refusal is not None:
            return f"the last batch was refused: {self._refusal}"
        return None

    @property
    def is_refusing(self) -> bool:
        """Whether the last batch was refused."""
        return self._refusal is not None

    # What a mutation asks, in this order

    @property
    def staged(self) -> Staged:
        return self._staged

    @property
    def head(self) -> Head:
        return self._head

    @property
    def durable(self) -> Head:
        """Where the durable history ends."""
        return self._durable

    def pin(self) -> SharedSnapshot:
        """Lease the current snapshot and keep what is staged above it; `unpin` it afterwards."""
        self._check_open()
        snapshot = self._snapshots.acquire()
        self._pins[snapshot.ts] = self._pins.get(snapshot.ts, 0) + 1
        return snapshot

    def unpin(self, snapshot: SharedSnapshot) -> None:
        """Give back what `pin` gave, and forget what was only staged for its sake."""
        left = self._pins[snapshot.ts] - 1
        self._snapshots.release(snapshot)
        if left:
            self._pins[snapshot.ts] = left
        else:
            del self._pins[snapshot.ts]
            self._forget_staged()

    def validate(self, reads: ReadSet, begin_ts: int, path: str, ts: int) -> None:
        """
        For a transaction of `path` that ran outside the lane: has nobody changed what it read?

        Args:
            ts: what it is to be staged with.

        Raises:
            Conflict: somebody has, or it began so long ago that nobody knows, or `ts` has passed.
        """
        self._check_open()
        if self.lane.is_held:
            raise Conflict("a transaction that runs alone has the lane; run this one again")
        if ts <= self._head.ts:
            raise Conflict(
                f"the timestamp {ts} that it asked for has passed, as others have committed since; "
                "run it again"
            )
        if not self._recent.covers(min(begin_ts, self._durable.ts)):
            raise Conflict("it began before the commits that are remembered; run it again")
        published = self._recent.between(begin_ts, self._durable.ts)
        later = chain(published, self._staged.after(max(begin_ts, self._durable.ts)))
        conflict = find_conflict(reads, begin_ts, later, path)
        if conflict is not None:
            raise conflict

    def index_behind(self, writes: Sequence[RowWrite]) -> LiveIndex | None:
        """An index that has no room for `writes` until more of it is folded."""
        return self._live.behind(writes, self._limits.index_unfolded_bytes_max)

    def next_ts(self, after: int = 0) -> int:
        """
        The timestamp of whatever is staged next.

        Args:
            after: what it is to be later than, unless that lies too far ahead to be true.
        """
        return self._clock.next_ts(self._head.ts, after)

    def stage(
        self,
        writes: Sequence[RowWrite],
        source: Source,
        *,
        kind: Kind = Kind.WRITES,
        covered: Sequence[Any] = (),
        changes: Sequence[Change] = (),
        trim: Trim | None = None,
        ts: int | None = None,
        on_publish: Callable[[], None] | None = None,
    ) -> int:
        """
        Decide a transaction: from now on later mutations see it.

        Args:
            changes: entry changes, besides those of `writes`.
            trim: records that go with this one.
            ts: what `next_ts` gave, if nothing was staged with it or a later one since.
            on_publish: called when it is durable, before any reader sees it.

        Returns its timestamp.  It is durable when `settled` returns.
        """
        self._check_open()
        head = self._head
        if ts is None:
            ts = self.next_ts()
        assert ts > head.ts, "timestamps only rise"
        state_hash = next_state_hash(head.state_hash, writes)
        catalog = head.catalog.folded(writes)
        entries = changes_of(catalog, writes)
        entries += changes
        counts = counts_after(head.counts, writes)
        record, record_hash = encode_record(
            ts=ts,
            epoch=head.epoch,
            kind=kind,
            writes=writes,
            covered=covered,
            source=source,
            state_hash=state_hash,
            previous=head.record_hash,
        )
        commit = StagedCommit(
            ts,
            tuple(writes),  # which the garbage collector leaves alone, as it does what is in it
            catalog,
            source.path,
            changes=entries,
            record=record,
            record_hash=record_hash,
            state_hash=state_hash,
            counts=counts,
            trim=trim,
            size_bytes=len(record),
            on_publish=on_publish,
        )
        self._head = Head(ts, record_hash, state_hash, catalog, head.epoch, counts)
        self._staged.add(commit)
        self._live.stage(ts, writes)
        self._pending.append(commit)
        self._staged_bytes += commit.size_bytes
        if not self._is_in_series or len(self._pending) == 1:
            self._work.set()
        return ts

    @contextmanager
    def series(self) -> Iterator[None]:
        """
        One transaction after another is staged inside, and none of them waited for before the end.

        They share a batch, as long as nobody else waits for what is staged, and it does not take
        longer than `SERIES_S_MAX`.
        """
        assert not self._is_in_series, "there is one series at a time"
        self._is_in_series = True
        try:
            yield
        finally:
            self._is_in_series = False
            self._work.set()

    async def settled(self, ts: int, generation: int) -> None:
        """
        Wait until everything up to `ts` is durable and published.

        Raises:
            RunAgain: a batch failed meanwhile; nothing of it was written.
            OutcomeUnknown: the disk failed while it was written.
        """
        if generation != self.generation:
            raise RunAgain
        if ts <= self._durable.ts:
            await trio.lowlevel.checkpoint()  # who calls in a loop lets others run
            return
        self._check_open()
        self._work.set()
        await self._waiters.wait(ts)

    async def wait_settled(self) -> None:
        """
        Wait until nothing is staged, whatever became of it.

        Whoever holds the lane then has the next batch to itself: what refuses it is its own doing.

        Raises:
            OutcomeUnknown: the disk failed meanwhile.
        """
        with suppress(RunAgain):
            await self.settled(self._head.ts, self.generation)

    # The actor

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            while batch := await self._next_batch():
                await self._persist(batch)
        finally:
            self._abandon()

    def close(self) -> None:
        """Take no new work; what is staged is still written."""
        self._is_closed = True
        self._work.set()

    async def _next_batch(self) -> list[StagedCommit]:
        while not self._pending:
            if self._is_closed:
                return []
            await self._more_work()
        if self._is_in_series:
            await self._rest_of_series()
        limits = self._limits
        batch: list[StagedCommit] = []
        size = changes = 0
        while self._pending and len(batch) < limits.batch_count_max:
            size += self._pending[0].size_bytes
            changes += self._pending[0].changes_count
            if batch and (size > limits.batch_bytes_max or changes > limits.batch_changes_max):
                break
            batch.append(self._pending.popleft())
        return batch

    async def _rest_of_series(self) -> None:
        with trio.move_on_after(SERIES_S_MAX):
            while self._is_in_series and not self._waiters:
                await self._more_work()

    async def _more_work(self) -> None:
        self._work = trio.Event()
        await self._work.wait()

    async def _persist(self, batch: list[StagedCommit]) -> None:
        self._in_flight = batch
        encoded = _encode(batch, self._durable.counts)
        await self._runtime.pause("committer.persist")
        try:
            await self._store.apply(encoded)
        except StoreFull as error:
            self._roll_back(batch, error)
            return
        self._publish(batch)
        await self._answer(batch[-1].ts)
        await self._runtime.pause("committer.published")

    def _publish(self, batch: list[StagedCommit]) -> None:
        last = batch[-1]
        self._in_flight = []
        if self._refusal is not None:
            trace.warning("committer.recovered", batches_refused=self.stats["batches_refused"])
            self._refusal = None
        self._durable = Head(
            ts=last.ts,
            record_hash=last.record_hash,
            state_hash=last.state_hash,
            catalog=last.catalog,
            epoch=self._durable.epoch,
            counts=last.counts,
        )
        self._snapshots.publish(last.ts, last.catalog, last.counts)
        sizes = [commit.size_bytes for commit in batch]
        self._staged_bytes -= sum(sizes)
        for commit in batch:
            commit.published()
        self._recent.extend(batch, sizes)
        self._followed.append(batch)
        if len(self._followed) > FOLLOWED_BATCHES:
            for commit in self._followed.popleft():
                commit.followed()
        self._forget_staged()
        self._published.advance(last.ts)
        self.stats["batches"] += 1
        self.stats["commits"] += len(batch)

    async def _answer(self, upto: int) -> None:
        """
        Wake those who wait for what is durable now.

        When nothing else is staged the disk has nothing to do, and would have nothing until
        all of them have had their turn, and after that they would all wait for it.  So half of
        them go first, and what these stage is being written while the others run.
        """
        try:
            if not self._pending and self._waiters.release_half(upto):
                self.lane.admit()
                await trio.lowlevel.checkpoint()
        finally:
            self._waiters.release(upto)
            self.lane.admit()

    def _roll_back(self, batch: list[StagedCommit], error: StoreFull) -> None:
        """Nothing of the batch was written: everybody who saw it runs again."""
        if self._refusal is None:  # the first of what may be hundreds a second
            trace.warning("committer.batch_refused", count=len(batch), error=str(error))
        self._refusal = error
        self.generation += 1
        self.stats["batches_refused"] += 1
        self._in_flight = []
        self._pending.clear()
        self._staged.clear()
        self._staged_bytes = 0
        self._head = self._durable
        self._live.roll_back(self._durable.ts)
        again = RunAgain()
        again.__cause__ = error
        self._waiters.fail(again)
        self.lane.admit()

    def _abandon(self) -> None:
        """The actor ends: say of each waiting mutation what is known about it."""
        self._is_closed = True
        if self._in_flight:
            unknown = OutcomeUnknown(
                "the engine stopped while this was being written; it may or may not be done"
            )
            self._waiters.fail(unknown, upto=self._in_flight[-1].ts)
        self._waiters.fail(Stopped("the engine stopped before this was written; nothing was done"))

    def _forget_staged(self) -> None:
        floor = min(self._pins) if self._pins else self._durable.ts
        self._staged.drop_through(min(floor, self._durable.ts))

    def _has_room(self) -> bool:
        return (
            len(self._pending) + len(self._in_flight) < self._limits.staged_count_max
            and self._staged_bytes < self._limits.staged_bytes_max
        )

    def _check_open(self) -> None:
        if self._is_closed:
            raise Stopped("the engine is closed; nothing was done")


class _CommitClock:
    """
    Timestamps that only rise.

    They follow the wall clock, except when it leaps ahead of the monotonic one:
    a timestamp too far in the future can never be taken back.
    """

    def __init__(self, runtime: Runtime, jump_s_max: float) -> None:
        self._runtime = runtime
        self._jump_ns_max = int(jump_s_max * 1e9)
        self._offset_ns = runtime.now_ns() - int(runtime.monotonic() * 1e9)
        self._has_warned = False

    def next_ts(self, last: int, after: int) -> int:
        now = self._runtime.now_ns()
        expected = self._offset_ns + int(self._runtime.monotonic() * 1e9)
        if now - expected > self._jump_ns_max:
            self._warn(now - expected)
            now = expected
        if after - max(last, now) > self._jump_ns_max:
            after = 0
        return max(last + 1, now, after + 1)

    def _warn(self, jump_ns: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            trace.error(
                "committer.clock_jumped",
                jump_s=jump_ns / 1e9,
                advice="timestamps keep to the monotonic clock; restart to accept the new time",
            )


def _encode(batch: Sequence[StagedCommit], counts: Counts) -> bytes:
    """Fold a batch into store writes; of each row and entry only the last version is written."""
    folded = Batch()
    for name, count in changed_counts(counts, batch[-1].counts):
        folded.put(Tree.META, name, count)
    for commit in batch:
        folded.put(Tree.LOG, ts_key(commit.ts), commit.record)
        if commit.trim is not None:
            folded.merge(Tree.LOG, dict.fromkeys(commit.trim.keys))
            folded.put(Tree.META, ANCHOR_NAME, encode_anchor(commit.trim.anchor))
        for write in commit.writes:
            if write.after is None:
                folded.delete(Tree.ROWS, write.key)
            else:
                folded.put(Tree.ROWS, write.key, write.after)
        for prefix, key, row in commit.changes:
            stored_key, value = stored(prefix, key)
            if row is None:
                folded.delete(Tree.ENTRIES, stored_key)
            else:
                folded.put(Tree.ENTRIES, stored_key, value)
    return folded.encode()
