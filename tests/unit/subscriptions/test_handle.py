"""No commit after a subscription's `ts` is missed, whichever of the two came first."""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.log.recent import Recent
from engine.model.reads import ReadSet
from engine.subscriptions import handle
from engine.subscriptions.handle import (
    COMPARED_ROWS_MAX,
    MISSED_ROWS_MAX,
    SLICE_LIVES,
    Subscriptions,
)
from engine.subscriptions.token import Live
from tests.unit.subscriptions.touch import (
    INDEXES,
    READS,
    SEARCHED,
    Order,
    Text,
    Touch,
    Word,
    moved,
    overlaps,
    reads_of,
    touches,
)

EVERYTHING = reads_of(ranges=[(INDEXES[0], (b"", None))])


def history(*commits: Touch, count_max: int = 1_000) -> Recent[Touch]:
    recent: Recent[Touch] = Recent(0, count_max=count_max)
    for commit in commits:
        recent.append(commit)
    return recent


def test_a_late_subscriber_learns_of_the_first_commit_it_missed() -> None:
    commits = [moved(ts, b"a", b"b") for ts in (3, 5, 7)]
    subscribed = Subscriptions(history(*commits))
    subscribed.advance(commits, 7)

    born = [subscribed.subscribe(EVERYTHING, ts).invalidated_at for ts in (2, 3, 6, 7)]

    assert born == [3, 5, 7, None]


def test_one_that_is_born_invalidated_is_not_kept() -> None:
    commits = [moved(3, b"a", b"b")]
    subscribed = Subscriptions(history(*commits))
    subscribed.advance(commits, 3)

    subscribed.subscribe(EVERYTHING, 2)

    assert subscribed.statistics().lives == 0


def test_whoever_leaves_between_two_slices_of_a_comparison_is_passed_over() -> None:
    commit = moved(3, b"a", b"b")
    subscribed = Subscriptions(history(commit))
    lives = [subscribed.subscribe(EVERYTHING, 2) for _ in range(4)]

    with mock.patch.object(handle, "SLICE_LIVES", 1):
        for _ in subscribed.compare(commit):
            for live in [live for live in lives if live.invalidated_at is None][-1:]:
                live.release()
                lives.remove(live)
    subscribed.finish(3)

    assert [3, 3] == [live.invalidated_at for live in lives]
    assert subscribed.processed.value == 3
    assert subscribed.statistics().lives == 0


def test_an_early_subscriber_is_not_told_of_what_it_has_seen() -> None:
    commits = [moved(ts, b"a", b"b") for ts in (3, 5, 7)]
    subscribed = Subscriptions(history(*commits), processed_ts=2)
    lives = [subscribed.subscribe(EVERYTHING, ts) for ts in (2, 3, 5, 6, 7)]

    subscribed.advance(commits, 7)

    assert [live.invalidated_at for live in lives] == [3, 5, 7, 7, None]


def test_a_subscriber_older_than_what_is_kept_counts_as_invalidated_at_once() -> None:
    commits = [moved(ts, b"x", b"y", index=INDEXES[1]) for ts in range(1, 8)]
    subscribed = Subscriptions(history(*commits, count_max=4))
    subscribed.advance(commits, 7)

    live = subscribed.subscribe(EVERYTHING, 1)

    assert live.invalidated_at == 2
    assert live.valid_at(1)


def test_commits_that_nobody_knows_invalidate_all_but_those_who_read_past_them() -> None:
    subscribed = Subscriptions(history(), processed_ts=10)
    lives = [subscribed.subscribe(EVERYTHING, ts) for ts in (10, 12, 20, 21)]
    woken: list[int] = []
    for live in lives:
        live.watch(lambda ts=live.ts: woken.append(ts))  # type: ignore[misc]

    subscribed.invalidate_all(20)

    assert [live.invalidated_at for live in lives] == [11, 13, None, None]
    assert woken == [10, 12]
    assert subscribed.processed.value == 20


@pytest.mark.parametrize("stamps", [(5, 4), (4, 4), (3,), (11,)])
def test_commits_are_compared_once_and_in_order(stamps: tuple[int, ...]) -> None:
    subscribed = Subscriptions(history(), processed_ts=3)

    with pytest.raises(AssertionError, match="in order"):
        subscribed.advance([moved(ts, b"a", b"b") for ts in stamps], 10)


@pytest.mark.parametrize(
    ("rows", "kept", "is_compared"),
    [(COMPARED_ROWS_MAX, 1, True), (COMPARED_ROWS_MAX + 1, 1, False), (1, 0, False)],
)
def test_who_cannot_wait_compares_little_and_only_what_is_known(
    rows: int, kept: int, *, is_compared: bool
) -> None:
    recent: Recent[Touch] = Recent(1 - kept, count_max=10)
    recent.append(Touch(ts=1, rows=frozenset(bytes([n >> 8, n & 255]) for n in range(rows))))
    subscribed = Subscriptions(recent)
    live = subscribed.subscribe(reads_of(points=[b"\0\0"]), 0)

    assert is_compared == subscribed.compared(1)
    expected = (1, 1) if is_compared else (0, None)
    assert expected == (subscribed.processed.value, live.invalidated_at)


def test_who_is_touched_by_thousands_is_told_of_none_before_all_are_marked() -> None:
    commit = moved(1, b"a", b"b")
    subscribed = Subscriptions(history(commit))
    lives = [subscribed.subscribe(EVERYTHING, 0) for _ in range(SLICE_LIVES + 10)]
    woken: list[int] = []
    for live in (lives[0], lives[-1]):
        live.watch(lambda: woken.append(subscribed.processed.value))

    is_compared = subscribed.compared(1)
    told = list(woken)
    for _ in subscribed.compare(commit):
        pass
    subscribed.finish(1)

    assert (is_compared, told, woken) == (False, [], [1, 1])
    assert {1} == {live.invalidated_at for live in lives}


def test_who_subscribes_between_two_slices_is_compared_with_that_commit() -> None:
    commit = Touch(ts=1, rows=frozenset({b"row"}), entries={INDEXES[0]: [b"a"]})
    subscribed = Subscriptions(history(commit))
    for _ in range(SLICE_LIVES + 10):
        subscribed.subscribe(EVERYTHING, 0)

    slices = subscribed.compare(commit)
    next(slices)
    late = [subscribed.subscribe(EVERYTHING, ts) for ts in (0, 1)]
    for _ in slices:
        pass
    subscribed.finish(1)

    assert [1, None] == [live.invalidated_at for live in late]


def searched(order: Order) -> ReadSet:
    reads = reads_of(points=[b"found"], searches=[Word("x")])
    reads.rankings[SEARCHED] = order
    return reads


def written(ts: int, word: str, order: Order) -> Touch:
    order.changed_ts = ts
    return Touch(ts=ts, rows=frozenset({b"written"}), texts=(Text((word,)),))


def test_what_was_found_rests_until_somebody_watches_who_is_told_of_what_came_meanwhile() -> None:
    order = Order()
    recent = history()
    subscribed = Subscriptions(recent)
    lives = [subscribed.subscribe(searched(order), 0) for _ in range(3)]
    for ts, word in enumerate("yxy", 1):
        recent.append(commit := written(ts, word, order))
        if ts == 1:
            lives[0].watch(lambda: None)
        subscribed.advance([commit], ts)
    lives[1].watch(lambda: None)

    assert [2, 2, None] == [live.invalidated_at for live in lives]
    assert [False, False, True] == [live.is_resting for live in lives]
    assert [False] * 3 == [live.is_in_order() for live in lives]


def test_what_rests_and_is_in_its_order_no_more_is_freed_and_nothing_else() -> None:
    orders = [Order(), Order()]
    subscribed = Subscriptions(history())
    freed: list[Live] = []
    subscribed.keep_until_touched(freed.append)
    lives = [subscribed.subscribe(searched(order), ts) for ts in (0, 1) for order in orders]
    lives[0].watch(lambda: None)

    orders[0].changed_ts = 1
    while subscribed.tidy():
        pass
    first = list(freed)
    orders[0].changed_ts = orders[1].changed_ts = 2
    while subscribed.tidy():
        pass

    assert ([], lives[1:]) == (first, freed)


def test_who_has_missed_too_much_when_somebody_watches_counts_as_touched() -> None:
    order = Order()
    commits = [written(ts, "y", order) for ts in range(1, MISSED_ROWS_MAX + 2)]
    subscribed = Subscriptions(history(*commits))
    lives = [subscribed.subscribe(searched(order), ts) for ts in (1, 0)]
    subscribed.advance(commits, len(commits))
    for live in lives:
        live.watch(lambda: None)

    assert [None, MISSED_ROWS_MAX + 1] == [live.invalidated_at for live in lives]


@dataclass(frozen=True)
class Commit:
    """Publish one more commit."""

    touch: Touch


@dataclass(frozen=True)
class Subscribe:
    """Subscribe to what was read some commits ago, and watch it at once or later, if at all."""

    reads: ReadSet
    age: int
    is_ranked: bool
    is_watched: bool


@dataclass(frozen=True)
class Watch:
    """Watch one of those that are held."""

    at: int


@dataclass(frozen=True)
class Release:
    """Let go of one of those that are held."""

    at: int


@dataclass(frozen=True)
class Advance:
    """Process some of what was published, all if there is less."""

    count: int


@dataclass(frozen=True)
class Begin:
    """Compare the next commit with some read sets, and leave the others."""

    slices: int


@dataclass(frozen=True)
class Tidy:
    """Free what belonged to those that were invalidated."""


@dataclass(frozen=True)
class Ask:
    """Ask whether all that was published is compared, by who cannot wait."""


STEPS = (
    st.builds(Commit, touches(0))
    | st.builds(Ask)
    | st.builds(Begin, st.integers(1, 3))
    | st.builds(Tidy)
    | st.builds(
        Subscribe,
        reads=READS,
        age=st.integers(0, 4),
        is_ranked=st.booleans(),
        is_watched=st.booleans(),
    )
    | st.builds(Watch, st.integers(0, 20))
    | st.builds(Release, st.integers(0, 20))
    | st.builds(Advance, st.integers(0, 4))
)


Step: TypeAlias = Commit | Subscribe | Watch | Release | Advance | Begin | Tidy | Ask


class World:
    """Subscriptions beside the plainest account of what they should say."""

    def __init__(self) -> None:
        self.published: list[Touch] = []
        self.recent = history()
        self.subscribed = Subscriptions(self.recent)
        self.order = Order()
        self.held: list[Live] = []
        self.watched: set[Live] = set()
        self.read_at: dict[Live, int] = {}
        self.woken: list[Live] = []

    def take(self, step: Step) -> None:
        match step:
            case Commit(touch):
                ts = len(self.published) + 1
                commit = replace(touch, ts=ts)
                if commit.texts:
                    self.order.changed_ts = ts
                self.published.append(commit)
                self.recent.append(commit)
            case Subscribe(reads, age, is_ranked, is_watched):
                ts = max(len(self.published) - age, 0)
                reads = deepcopy(reads)
                if is_ranked and reads.searches:
                    reads.rankings[SEARCHED] = self.order
                live = self.subscribed.subscribe(reads, ts)
                self.read_at[live] = ts
                self.held.append(live)
                if is_watched:
                    self.watch(live)
            case Watch(at):
                if self.held:
                    self.watch(self.held[at % len(self.held)])
            case Release(at):
                if self.held:
                    self.held.pop(at % len(self.held)).release()
            case _:
                self.process(step)

    def watch(self, live: Live) -> None:
        if live not in self.watched:
            self.watched.add(live)
            live.watch(lambda: self.woken.append(live))

    def process(self, step: Advance | Begin | Tidy | Ask) -> None:
        match step:
            case Advance(count):
                seen = self.subscribed.processed.value
                upto = min(seen + count, len(self.published))
                self.subscribed.advance(self.published[seen:upto], upto)
            case Begin(slices):
                for commit in self.unprocessed[:1]:
                    deque(islice(self.subscribed.compare(commit), slices), 0)
            case Tidy():
                assert not self.subscribed.tidy()
            case Ask():
                if not self.subscribed.compared(len(self.published)):
                    self.subscribed.advance(self.unprocessed, len(self.published))
                assert self.subscribed.processed.value == len(self.published)

    @property
    def unprocessed(self) -> list[Touch]:
        return self.published[self.subscribed.processed.value :]

    def expected(self, live: Live) -> int | None:
        later = self.published[self.read_at[live] : self.subscribed.processed.value]
        return next((commit.ts for commit in later if overlaps(live.reads, commit)), None)


@given(st.lists(STEPS, min_size=20, max_size=60))
def test_whatever_happens_in_whatever_order_no_touch_is_missed(
    script: list[Step],
) -> None:
    world = World()
    with mock.patch.object(handle, "SLICE_LIVES", 1):
        for step in [*script, Ask()]:
            world.take(step)

    for live in world.held:
        expected = world.expected(live)
        if live.is_resting and not live.is_in_order():
            continue  # whoever asks is not given it, and nobody watches
        if not live.reads.rankings:
            assert live.invalidated_at == expected
        assert (live.invalidated_at is None) == (expected is None)
        assert world.woken.count(live) == (live in world.watched and expected is not None)
    assert world.subscribed.statistics().lives == sum(
        live.invalidated_at is None for live in world.held
    )
    for live in world.held:
        live.release()
    assert not world.subscribed.tidy()
    left = world.subscribed.statistics()
    assert (left.lives, left.points, left.ranges) == (0, 0, 0)
