"""
One running engine: who is made, in which order, and how they drain.

    store           opened first, closed last
    snapshots       what readers see
    committer       the only writer
    keeper          builds text and vector indexes, and folds them
    subscriptions   compares every commit with what is shown
    functions       runs queries, mutations and actions
    scheduler       runs what is due

The order in which the actors stand in `running_node` is the order in which
they start; its reverse is the order in which they drain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from engine.app.registry import Application
from engine.committer.actor import Committer, Head
from engine.committer.retention import Retention
from engine.errors import StoreFailed
from engine.functions.deployment import Deployment
from engine.functions.index_upkeep import IndexUpkeep, Progress
from engine.functions.job_sweep import JobSweep
from engine.functions.jobs import Jobs
from engine.functions.mounts import delete_component
from engine.functions.past_reads import PastReads
from engine.functions.pausing import is_paused
from engine.functions.push import Push
from engine.functions.run import Functions
from engine.functions.session_sweep import SessionSweep
from engine.functions.table_drop import begin_drop
from engine.functions.watchdog import Watchdog
from engine.indexes.annexes import DiskAnnexes, MemoryAnnexes
from engine.indexes.catalog import DEPLOYMENT_KEY
from engine.indexes.checkpoints import Checkpoints, Place
from engine.indexes.keeper import IndexKeeper
from engine.indexes.live import LiveIndexes
from engine.indexes.recovery import recover
from engine.indexes.snapshot import Snapshots
from engine.indexes.written import RecentCommits
from engine.kernel.actor import running
from engine.kernel.counters import Counters, Labels
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.kernel.watermark import Watermark
from engine.log.recent import Recent
from engine.model.codec import decode
from engine.model.limits import Limits
from engine.scheduler.actor import Scheduler
from engine.store.interface import Store
from engine.subscriptions.actor import SubscriptionsActor
from engine.subscriptions.handle import Subscriptions

trace = tracer(__name__)

DRAIN_S = 10.0
STORE_CHECK_EVERY_S = 10.0
STALL_S = 1.0


@dataclass(slots=True, kw_only=True)
class Node:
    """The parts of a running engine that its hosts talk to."""

    store: Store
    committer: Committer
    subscriptions: Subscriptions
    functions: Functions
    scheduler: Scheduler
    upkeep: IndexUpkeep
    keeper: IndexKeeper
    published: Watermark
    recent: RecentCommits
    retention: Retention
    counters: Counters
    runtime: Runtime
    limits: Limits
    watchdog: Watchdog
    nursery: trio.Nursery
    """For work that outlives whoever asked for it, such as actions."""
    pushing: trio.Lock = field(default_factory=trio.Lock)

    async def push(self, application: Application, progress: Progress | None = None) -> list[str]:
        """
        Deploy `application`; it is durable and serves when this returns.

        Pushes come one after another.

        Returns:
            What changed in tables, indexes and crons, a line each.

        Raises:
            PushRefused: nothing changed.
            StoreFull: there is no room on the disk, and this is not what is deployed already.
        """
        async with self.pushing:
            return await self._push(application, progress).run()

    async def take_up(self, application: Application) -> None:
        """
        Serve `application` and write nothing, for somebody who only looks.

        Raises:
            PushRefused: its tables or indexes are not those of what is deployed.
        """
        async with self.pushing:
            await self._push(application).take_up()

    async def pause(self) -> bool:
        """
        Call no function any more: new calls are refused, jobs and crons wait, pushes work.

        What has begun goes on.  It is durable when this returns, and stays so until `resume`.

        Returns:
            Whether it was not paused before.

        Raises:
            UsageError: nothing was ever deployed.
        """
        async with self.pushing:
            with trio.CancelScope(shield=True):  # both, or neither
                is_news = await self.functions.set_paused(paused=True)
                self.scheduler.pause()
        return is_news

    async def resume(self) -> bool:
        """
        Call functions again; overdue jobs run, and crons at their next time.

        The times of theirs that have come by now are skipped before that, durably, while nothing
        is called yet.

        Returns:
            Whether it was paused before.
        """
        async with self.pushing:
            if self.functions.is_paused:
                await self.scheduler.skip_missed()
            with trio.CancelScope(shield=True):  # both, or neither
                is_news = await self.functions.set_paused(paused=False)
                self.scheduler.resume()
        return is_news

    async def drop_table(self, component: str, name: str) -> int:
        """
        Drop a table, durably; its documents go in the background.

        Returns:
            How many documents it has.

        Raises:
            UsageError: there is no such table, or the schema that serves has it or ids of it.
        """
        async with self.pushing:
            application = self.functions.deployment.application
            drop = partial(begin_drop, application, component, name)
            count = await self.functions.turns.write(drop)
        self.upkeep.wake()
        return count

    async def delete_component(self, path: str) -> int:
        """
        Remove what is kept of a component that is not mounted, durably; its documents go behind it.

        Returns:
            How many documents it had.

        Raises:
            UsageError: it is mounted, or nothing is kept of it.
        """
        async with self.pushing:
            count = await delete_component(self.functions.turns, path)
        self.upkeep.wake()
        return count

    def _push(self, application: Application, progress: Progress | None = None) -> Push:
        return Push(
            application,
            committer=self.committer,
            recent=self.recent,
            runtime=self.runtime,
            limits=self.limits,
            upkeep=self.upkeep,
            switch=self._switch,
            is_fresh=lambda: self.functions.is_fresh,
            progress=progress or _silent,
            watchdog=self.watchdog,
        )

    def table_number(self, component: str, name: str) -> int | None:
        table = self.committer.head.catalog.table(component, name)
        return None if table is None else table.number

    def _switch(self, deployment: Deployment) -> None:
        self.functions.deployment = deployment
        self.scheduler.start()


def _silent(_what: str, _done: int, _total: int | None) -> None:
    """Nobody wants to know."""


@asynccontextmanager
async def running_node(
    store: Store,
    *,
    runtime: Runtime,
    limits: Limits,
    watchdog: Watchdog,
    data: Path | None = None,
) -> AsyncIterator[Node]:
    """
    Run an engine on `store` for the length of the block, then drain it.

    Args:
        data: the directory for what is kept beside the store; without, that is in memory.

    Raises:
        StoreDamaged: the store is not what an engine wrote.
    """
    head = _read_head(store)
    live = LiveIndexes(runtime.monotonic)
    snapshots = Snapshots(
        store,
        runtime.monotonic,
        live=live,
        age_s_max=limits.snapshot_age_s_max,
        fresh_s_max=limits.client_past_s_max,
    )
    snapshots.publish(head.ts, head.catalog, head.counts)
    annexes = MemoryAnnexes(snapshots) if store.folder is None else DiskAnnexes(store.folder)
    await annexes.clear()
    published = Watermark(head.ts)
    recent: RecentCommits = Recent(
        head.ts, count_max=limits.history_count_max, bytes_max=limits.history_bytes_max
    )
    subscriptions = Subscriptions(recent, processed_ts=head.ts)
    committer = Committer(
        store,
        snapshots,
        head=head,
        published=published,
        recent=recent,
        live=live,
        runtime=runtime,
        limits=limits,
    )
    keeper = IndexKeeper(
        live,
        snapshots,
        published=published,
        recent=recent,
        staged_after=lambda ts: committer.staged.after(ts),
        durable=lambda: Place(committer.durable.ts, committer.durable.record_hash),
        checkpoints=None if data is None else Checkpoints(data),
        runtime=runtime,
        limits=limits,
    )
    past = PastReads(annexes, snapshots, published=published, runtime=runtime, limits=limits)
    functions = Functions(
        Deployment(Application(functions={}), _no_tables),
        committer=committer,
        snapshots=snapshots,
        subscriptions=subscriptions,
        published=published,
        past=past,
        runtime=runtime,
        limits=limits,
        watchdog=watchdog,
    )
    jobs = Jobs(
        functions,
        snapshots=snapshots,
        subscriptions=subscriptions,
        recent=recent,
        runtime=runtime,
        limits=limits,
    )
    counters = Counters()
    for number in ("documents", "parts", "size_bytes", "unfolded_bytes", "lag_s"):
        counters.watch(f"indexes.{number}", partial(_of_indexes, keeper, number))
    counters.watch("searches", live.took.read)
    _watch(counters, committer, subscriptions)
    functions.watch(counters)
    scheduler = Scheduler(jobs, runtime=runtime, limits=limits, counters=counters)
    if is_paused(_deployed(snapshots)):
        functions.is_paused = True
        scheduler.pause()
    try:
        async with (
            running(SubscriptionsActor(published, recent, subscriptions), grace_s=DRAIN_S),
            running(committer, grace_s=DRAIN_S),
            running(keeper, grace_s=DRAIN_S),
            running(scheduler, grace_s=DRAIN_S),
            trio.open_nursery() as nursery,
        ):
            sweep = SessionSweep(functions.turns, runtime=runtime, limits=limits)
            nursery.start_soon(sweep.run)
            job_sweep = JobSweep(functions.turns, runtime=runtime, limits=limits)
            nursery.start_soon(job_sweep.run)
            upkeep = IndexUpkeep(committer, functions.turns, keeper, runtime=runtime, limits=limits)
            nursery.start_soon(upkeep.run)
            retention = Retention(committer, store, runtime=runtime, limits=limits)
            nursery.start_soon(retention.run)
            if not runtime.is_virtual:
                nursery.start_soon(_look_after, store, runtime)
                nursery.start_soon(_notice_stalls, functions, keeper, runtime)
            yield Node(
                store=store,
                committer=committer,
                subscriptions=subscriptions,
                functions=functions,
                scheduler=scheduler,
                upkeep=upkeep,
                keeper=keeper,
                published=published,
                recent=recent,
                retention=retention,
                counters=counters,
                runtime=runtime,
                limits=limits,
                watchdog=watchdog,
                nursery=nursery,
            )
            nursery.cancel_scope.cancel()
    finally:
        functions.loops.close()
        with trio.CancelScope(shield=True):
            await past.close()
            await annexes.clear()
        snapshots.close()


def _watch(counters: Counters, committer: Committer, subscriptions: Subscriptions) -> None:
    """Have operators read what was written, and what is shown."""

    def written(what: str) -> dict[Labels, float]:
        return {(): committer.stats[what]}

    for what in ("commits", "batches", "batches_refused"):
        counters.watch(f"committer.{what}", partial(written, what))
    counters.watch("committer.queued", lambda: {(): committer.lane.waiting_count})
    counters.watch("subscriptions", lambda: {(): subscriptions.statistics().lives})


def _of_indexes(keeper: IndexKeeper, number: str) -> dict[Labels, float]:
    """A number of each text and vector index, by its name."""
    return {(("index", one.name),): getattr(one, number) for one in keeper.statuses()}


async def _look_after(store: Store, runtime: Runtime) -> None:
    """
    Now and then free what killed processes hold: it keeps old pages from being used again.

    Raises:
        StoreFailed: nothing can be written any more; whoever only reads would never find out.
    """
    while True:
        await runtime.sleep(STORE_CHECK_EVERY_S)
        if obstacle := store.obstacle():
            raise StoreFailed(obstacle)
        if freed := store.reader_check():
            trace.info("store.readers_freed", count=freed)


async def _notice_stalls(functions: Functions, keeper: IndexKeeper, runtime: Runtime) -> None:
    """Say when something held the trio thread, so that everybody waited."""
    while True:
        began = runtime.monotonic()
        await runtime.sleep(STALL_S)
        late_s = runtime.monotonic() - began - STALL_S
        if late_s > STALL_S:
            trace.warning(
                "loop.stalled",
                seconds=round(late_s, 1),
                **_suspects(functions, keeper),
            )


def _suspects(functions: Functions, keeper: IndexKeeper) -> dict[str, Any]:
    """Who may have held the trio thread, as far as is known."""
    if actions := sorted(functions.running_actions):
        advice = "an action that blocks is a plain def, or @action(loop='asyncio')"
        return {"actions": actions, "advice": advice}
    return {"building": building} if (building := keeper.building) else {}


def _read_head(store: Store) -> Head:
    snapshot = store.snapshot()
    try:
        found = recover(snapshot)
    finally:
        snapshot.close()
    return Head(
        ts=found.ts,
        record_hash=found.record_hash,
        state_hash=found.state_hash,
        catalog=found.catalog,
        epoch=found.epoch,
        counts=found.counts,
    )


def _deployed(snapshots: Snapshots) -> Any:
    row = snapshots.current.row(DEPLOYMENT_KEY)
    return None if row is None else decode(row)


def _no_tables(_component: str, _name: str) -> int | None:
    return None
