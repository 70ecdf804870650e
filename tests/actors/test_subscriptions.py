"""The subscriptions actor keeps up with what is published, and nobody misses a commit."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from unittest.mock import patch

import pytest
import trio
import trio.testing

from engine.kernel.actor import running
from engine.kernel.watermark import Watermark
from engine.log.recent import Recent
from engine.model.reads import Interval, ReadSet
from engine.subscriptions import actor
from engine.subscriptions.actor import SubscriptionsActor
from engine.subscriptions.handle import FREED_READS, SLICE_LIVES, SLICE_READS, Subscriptions
from engine.subscriptions.token import Live
from tests.unit.subscriptions.touch import INDEXES, Touch, moved, overlaps, reads_of

EVERYTHING = reads_of(ranges=[(INDEXES[0], (b"", None))])


@dataclass(eq=False)
class Node:
    """What lies below and above the actor: published commits, and who subscribed."""

    history_max: int = 10_000
    commits: list[Touch] = field(default_factory=list)
    published: Watermark = field(default_factory=Watermark)

    def __post_init__(self) -> None:
        self.recent: Recent[Touch] = Recent(0, count_max=self.history_max)
        self.subscribed = Subscriptions(self.recent)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Subscriptions]:
        follower = SubscriptionsActor(self.published, self.recent, self.subscribed)
        async with running(follower, grace_s=5):
            yield self.subscribed

    def publish(self, *commits: Touch) -> None:
        for commit in commits:
            self.commits.append(commit)
            self.recent.append(commit)
        self.published.advance(self.commits[-1].ts)


async def test_a_commit_invalidates_whoever_read_what_it_wrote(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node()
    with trio.fail_after(1):
        async with node.running() as subscribed:
            live = subscribed.subscribe(EVERYTHING, 0)
            woken = trio.Event()
            live.watch(woken.set)
            node.publish(moved(1, b"a", b"b"))
            await woken.wait()

    assert live.invalidated_at == 1
    assert subscribed.processed.value == 1


async def test_what_was_kept_is_freed_with_no_more_commits_to_come() -> None:
    node = Node()
    kept: list[int] = []
    async with node.running() as subscribed:
        subscribed.keep_until_touched(lambda live: kept.append(live.ts))
        for _ in range(1_000):
            subscribed.subscribe(EVERYTHING, 0)
        node.publish(moved(1, b"a", b"b"))
        await trio.testing.wait_all_tasks_blocked()

        assert len(kept) == 1_000
        assert subscribed.statistics().ranges == 0


async def test_closing_compares_what_was_published_before() -> None:
    node = Node()
    async with node.running() as subscribed:
        live = subscribed.subscribe(EVERYTHING, 0)
        node.publish(*(moved(ts, b"a", b"b", index=INDEXES[1]) for ts in range(1, 1_000)))
        node.publish(moved(1_000, b"a", b"b"))

    assert subscribed.processed.value == 1_000
    assert live.invalidated_at == 1_000


async def test_many_commits_at_once_leave_others_their_turn() -> None:
    node = Node()
    turns: list[int] = []

    async def take_turns() -> None:
        while node.subscribed.processed.value < 2_000:
            turns.append(node.subscribed.processed.value)
            await trio.lowlevel.checkpoint()

    async with node.running(), trio.open_nursery() as nursery:
        node.publish(*(moved(ts, b"a", b"b") for ts in range(1, 2_001)))
        nursery.start_soon(take_turns)

    # Of two tasks either may be first in a round, so up to two steps go by between turns.
    gaps = [later - sooner for sooner, later in pairwise(sorted({*turns, 2_000}))]
    assert max(gaps) <= 2 * actor.STEP_COMMITS_MAX


async def test_a_commit_of_many_rows_leaves_others_their_turn() -> None:
    node = Node()
    keys = [bytes([at >> 8, at & 255]) for at in range(2_000)]
    large = Touch(ts=1, rows=frozenset(keys), entries={INDEXES[0]: keys, INDEXES[1]: keys})
    turns = 0
    async with node.running() as subscribed:
        live = subscribed.subscribe(EVERYTHING, 0)
        node.publish(large)
        while not subscribed.processed.value:
            turns += 1
            await trio.lowlevel.checkpoint()

    assert live.invalidated_at == 1
    assert len(keys) <= turns < 2 * len(keys)  # of the index that somebody reads


async def test_a_commit_that_touches_very_many_leaves_others_their_turn() -> None:
    node = Node()
    waited = freed = 0
    async with node.running() as subscribed:
        lives = [subscribed.subscribe(EVERYTHING, 0) for _ in range(3 * SLICE_LIVES)]
        node.publish(moved(1, b"a", b"b"))
        while not subscribed.processed.value:
            waited += 1
            await trio.lowlevel.checkpoint()
        while subscribed.tidy():
            freed += 1

    assert {1} == {live.invalidated_at for live in lives}
    assert waited > 2
    assert freed > len(lives) * FREED_READS / SLICE_READS / 2


async def test_what_somebody_compares_while_a_commit_is_worked_out_is_compared_once() -> None:
    node = Node()
    keys = [bytes([at >> 8, at & 255]) for at in range(2_000)]
    large = Touch(ts=2, rows=frozenset(keys), entries={INDEXES[0]: keys})
    async with node.running() as subscribed:
        lives = [subscribed.subscribe(EVERYTHING, ts) for ts in (0, 1)]
        node.publish(moved(1, b"a", b"b"), large)
        await trio.lowlevel.checkpoint()
        asked = [subscribed.compared(ts) for ts in (2, 1)]
        await subscribed.processed.wait_reached(2)

    assert [False, True] == asked
    assert [1, 2] == [live.invalidated_at for live in lives]


async def test_one_who_is_outrun_by_commits_is_told_rather_than_forgotten() -> None:
    node = Node(history_max=10)
    async with node.running() as subscribed:
        live = subscribed.subscribe(EVERYTHING, 0)
        ahead = subscribed.subscribe(EVERYTHING, 50)
        node.publish(*(moved(ts, b"a", b"b", index=INDEXES[1]) for ts in range(1, 51)))
        await subscribed.processed.wait_reached(50)

    assert live.invalidated_at == 1
    assert ahead.invalidated_at is None


SECONDS = 15
"""How long the crowd keeps at it, on a clock that jumps."""


@dataclass(eq=False)
class Crowd:
    """Clients that subscribe, wait, look and leave, while others commit."""

    node: Node
    dice: random.Random
    held: dict[Live, int] = field(default_factory=dict)
    """How often each of those that are still held was woken."""
    read_at: dict[Live, int] = field(default_factory=dict)
    """The `ts` that each subscribed with."""
    subscribed_late: int = 0
    subscribed_ahead: int = 0

    def is_over(self) -> bool:
        return trio.current_time() >= SECONDS

    async def commit(self) -> None:
        while not self.is_over():
            await trio.sleep(self.dice.choice((0, 0.01, 0.1, 0.3)))
            first = len(self.node.commits) + 1
            batch = [self.touch(ts) for ts in range(first, first + self.dice.randrange(1, 5))]
            self.node.publish(*batch)

    async def show(self) -> None:
        """Read and subscribe over and over, at whatever moment that happens to be."""
        while not self.is_over():
            ts = self.node.published.value
            await self.evaluate()
            live = self.subscribe(self.reads(), ts)
            with trio.move_on_after(self.dice.choice((0, 0.05, 1, 20))):
                await self.until_woken(live)
            if self.dice.random() < 0.7:
                del self.held[live]
                live.release()

    async def evaluate(self) -> None:
        """Take no time, some, or until the moment something new is published."""
        match self.dice.randrange(3):
            case 0:
                await trio.sleep(self.dice.choice((0.01, 0.2)))
            case 1:
                with trio.move_on_after(1):
                    await self.node.published.wait_reached(self.node.published.value + 1)

    def subscribe(self, reads: ReadSet, ts: int) -> Live:
        processed = self.node.subscribed.processed.value
        if self.dice.random() < 0.3:
            ts = self.node.published.value
        self.subscribed_late += ts < processed
        self.subscribed_ahead += ts > processed
        live = self.node.subscribed.subscribe(reads, ts)
        self.held[live] = 0
        self.read_at[live] = ts
        live.watch(lambda: self.woken(live))
        return live

    def woken(self, live: Live) -> None:
        self.held[live] += 1

    async def until_woken(self, live: Live) -> None:
        while not self.held[live]:
            upto = self.node.published.value
            await self.node.subscribed.processed.wait_reached(upto)
            assert live.valid_at(upto) == (self.first_touch(live, upto) is None)
            await self.node.subscribed.processed.wait_reached(upto + 1)

    def first_touch(self, live: Live, upto: int) -> int | None:
        later = self.node.commits[self.read_at[live] : upto]
        return next((commit.ts for commit in later if overlaps(live.reads, commit)), None)

    def reads(self) -> ReadSet:
        points = [self.key() for _ in range(self.dice.randrange(3))]
        ranges = [(self.dice.choice(INDEXES), self.interval()) for _ in range(2)]
        return reads_of(points, ranges)

    def touch(self, ts: int) -> Touch:
        """Move some rows: an old key and a new one in either index, never the same."""
        rows = frozenset(self.key() for _ in range(self.dice.randrange(2)))
        entries = {index: [self.key(), self.key()] for index in INDEXES if self.dice.random() < 0.6}
        return Touch(ts=ts, rows=rows, entries=entries)

    def interval(self) -> Interval:
        """Return one key alone, a few, or now and then all from there on."""
        lower = self.dice.randrange(250)
        few = bytes([lower + self.dice.randrange(1, 6)])
        upper = None if self.dice.random() < 0.02 else self.dice.choice((few, bytes([lower, 0])))
        return bytes([lower]), upper

    def key(self) -> bytes:
        return bytes([self.dice.randrange(256)])


@pytest.mark.parametrize("seed", range(8))
async def test_no_overlapping_commit_is_ever_missed(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    node = Node()
    crowd = Crowd(node, random.Random(seed))

    with patch.object(actor, "STEP_COMMITS_MAX", 3):
        async with node.running(), trio.open_nursery() as nursery:
            nursery.start_soon(crowd.commit)
            for _ in range(30):
                nursery.start_soon(crowd.show)

    upto = node.subscribed.processed.value
    assert upto == len(node.commits)
    for live, times_woken in crowd.held.items():
        assert crowd.first_touch(live, upto) == live.invalidated_at
        assert times_woken == (live.invalidated_at is not None)
    still_valid = sum(live.invalidated_at is None for live in crowd.held)
    assert node.subscribed.statistics().lives == still_valid
    assert min(crowd.subscribed_late, crowd.subscribed_ahead, still_valid) > 0
    assert any(crowd.held.values())
    for live in crowd.held:
        live.release()
    left = node.subscribed.statistics()
    assert (left.lives, left.points, left.ranges) == (0, 0, 0)
