"""A `Live` says when what it stands for stopped being so, and wakes whoever watches it."""

from __future__ import annotations

import pytest

from engine.log.recent import Recent
from engine.subscriptions.handle import Subscriptions
from engine.subscriptions.token import Live
from tests.unit.subscriptions.touch import INDEXES, Touch, moved, reads_of

B_TO_D = reads_of(ranges=[(INDEXES[0], (b"b", b"d"))])


def subscriptions(processed_ts: int = 0) -> Subscriptions:
    recent: Recent[Touch] = Recent(0, count_max=100)
    return Subscriptions(recent, processed_ts=processed_ts)


def hit(subscribed: Subscriptions, ts: int) -> None:
    subscribed.advance([moved(ts, b"c", b"c")], ts)


def test_it_is_valid_until_the_first_commit_that_touches_it() -> None:
    subscribed = subscriptions(10)
    live = subscribed.subscribe(B_TO_D, 10)
    subscribed.advance([moved(12, b"x", b"y")], 14)
    hit(subscribed, 15)
    hit(subscribed, 16)

    assert live.invalidated_at == 15
    assert [live.valid_at(ts) for ts in (9, 10, 14, 15, 99)] == [False, True, True, False, False]


def test_nobody_may_ask_about_commits_that_were_not_compared() -> None:
    live = subscriptions(10).subscribe(B_TO_D, 10)

    with pytest.raises(AssertionError, match="compared"):
        live.valid_at(11)


def test_it_is_valid_when_it_was_read_though_the_comparing_is_behind() -> None:
    live = subscriptions(10).subscribe(B_TO_D, 12)

    assert live.valid_at(12)


def test_a_watcher_is_called_once_and_never_again() -> None:
    subscribed = subscriptions()
    calls: list[str] = []
    subscribed.subscribe(B_TO_D, 0).watch(lambda: calls.append("look"))

    hit(subscribed, 1)
    hit(subscribed, 2)

    assert calls == ["look"]


def test_one_who_watches_a_thousand_is_called_once_for_all_that_a_step_touched() -> None:
    subscribed = subscriptions()
    calls: list[str] = []
    look = Recorder(calls, "look")
    other = Recorder(calls, "other")
    for _ in range(1_000):
        subscribed.subscribe(B_TO_D, 0).watch(look)
    subscribed.subscribe(B_TO_D, 0).watch(other)

    hit(subscribed, 1)

    assert calls == ["look", "other"]


def test_one_who_took_back_the_watch_is_not_called() -> None:
    subscribed = subscriptions()
    calls: list[str] = []
    live = subscribed.subscribe(B_TO_D, 0)
    gone = Recorder(calls, "gone")
    live.watch(gone)
    live.watch(lambda: calls.append("here"))

    live.unwatch(gone)
    live.unwatch(gone)
    hit(subscribed, 1)

    assert calls == ["here"]


def test_a_watcher_may_take_back_the_watch_of_the_one_after_it() -> None:
    subscribed = subscriptions()
    calls: list[str] = []
    live = subscribed.subscribe(B_TO_D, 0)
    second = Recorder(calls, "second")
    live.watch(lambda: live.unwatch(second))
    live.watch(second)

    hit(subscribed, 1)

    assert calls == []


def test_watching_what_is_already_invalidated_calls_at_once() -> None:
    subscribed = subscriptions()
    calls: list[str] = []
    live = subscribed.subscribe(B_TO_D, 0)
    hit(subscribed, 1)

    look = Recorder(calls, "look")
    live.watch(look)
    live.unwatch(look)

    assert calls == ["look"]


def test_a_watcher_that_subscribes_anew_does_so_as_of_the_commit_that_woke_it() -> None:
    subscribed = subscriptions()
    again: list[Live] = []
    first = subscribed.subscribe(B_TO_D, 0)
    first.watch(lambda: again.append(subscribed.subscribe(B_TO_D, subscribed.processed.value)))

    subscribed.advance([moved(1, b"c", b"c"), moved(2, b"c", b"c")], 2)

    assert [(live.ts, live.invalidated_at) for live in again] == [(2, None)]
    hit(subscribed, 3)
    assert again[0].invalidated_at == 3


def test_it_stays_in_the_index_until_the_last_holder_lets_go() -> None:
    subscribed = subscriptions()
    live = subscribed.subscribe(B_TO_D, 0)
    live.retain()

    live.release()
    held = subscribed.statistics()
    live.release()
    left = subscribed.statistics()

    assert (held.lives, held.ranges) == (1, 1)
    assert (left.lives, left.points, left.ranges) == (0, 0, 0)


def test_one_that_everybody_let_go_wakes_nobody() -> None:
    subscribed = subscriptions()
    calls: list[str] = []
    live = subscribed.subscribe(B_TO_D, 0)
    live.watch(lambda: calls.append("look"))

    live.release()
    hit(subscribed, 1)

    assert calls == []


def test_what_was_let_go_cannot_be_held_or_asked_or_let_go_again() -> None:
    live = subscriptions().subscribe(B_TO_D, 0)
    live.release()

    for misuse in (live.retain, live.release, lambda: live.valid_at(0)):
        with pytest.raises(AssertionError):
            misuse()


def test_an_invalidated_one_leaves_the_index_though_it_is_still_held() -> None:
    subscribed = subscriptions()
    live = subscribed.subscribe(reads_of(points=[b"row"], ranges=[(INDEXES[1], (b"", None))]), 0)

    subscribed.advance([Touch(ts=1, rows=frozenset({b"row"}))], 1)
    found = subscribed.statistics()
    is_more = subscribed.tidy()

    left = subscribed.statistics()
    assert (found.lives, is_more) == (0, False)
    assert (left.lives, left.points, left.ranges) == (0, 0, 0)
    live.release()
    assert live.invalidated_at == 1


class Recorder:
    def __init__(self, calls: list[str], name: str) -> None:
        self._calls = calls
        self._name = name

    def __call__(self) -> None:
        self._calls.append(self._name)
