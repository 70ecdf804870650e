"""Batch workers as components use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.interface import target_of
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.batch_worker.letters import (
    APPLICATION,
    REST_MS,
    add,
    add_to,
    batches,
    numbers,
    ping,
    start,
    status,
    stop,
    times,
)
from tests.components.lives import Lives


@pytest.fixture
def t() -> Iterator[BlockingHarness]:
    with open_place(APPLICATION) as place:
        yield BlockingHarness(place)


@pytest.fixture
def lives() -> Iterator[Lives]:
    with Lives(APPLICATION) as lives:
        yield lives


def test_what_is_added_is_done_in_batches_and_in_order(t: BlockingHarness) -> None:
    t.mutation(add, 0, 20, False, 0)
    t.finish_all_scheduled_functions()

    assert list(range(20)) == t.query(numbers, "done")
    assert [8, 8, 4] == [len(batch) for batch in t.query(batches)]


@pytest.mark.parametrize(
    ("name", "rests"), [("rests", [1, 2, 3, 4]), ("rests when done", [1, 1, 1, 2])]
)
def test_it_rests_before_a_batch_unless_it_was_told_that_there_is_more(
    t: BlockingHarness, name: str, rests: list[int]
) -> None:
    begun_ms = t.now_ns / 1_000_000
    t.mutation(add_to, name, 0, 20)
    t.advance(1.5 * REST_MS if rests[2] == 1 else 3.5 * REST_MS)
    t.mutation(add_to, name, 20, 1)
    t.finish_all_scheduled_functions()

    done_ms = t.query(times)
    firsts = [done_ms[n] - begun_ms for n in ("0", "8", "16", "20")]
    assert rests == [round(ms / REST_MS) for ms in firsts]


def test_an_idle_worker_has_no_job_to_come(lives: Lives) -> None:
    lives.t.mutation(add, 0, 3, False, 0)
    lives.t.finish_in_progress_scheduled_functions()

    assert "idle" == lives.t.query(status)["state"]
    assert [] == lives.jobs()


def test_it_wakes_up_when_it_was_asked_to_and_not_earlier(lives: Lives) -> None:
    lives.t.mutation(add, 0, 3, False, 60_000)
    lives.t.advance(59_999)
    assert [] == lives.t.query(numbers, "done")

    lives.t.advance(1)

    assert [0, 1, 2] == lives.t.query(numbers, "done")


def test_what_is_due_earlier_is_not_held_up_by_what_is_due_later(t: BlockingHarness) -> None:
    t.mutation(add, 0, 1, False, 60_000)
    t.advance(1_000)
    t.mutation(add, 1, 1, False, 1_000)
    t.advance(1_000)

    assert [1] == t.query(numbers, "done")


def test_one_that_is_poison_is_set_aside_alone_and_the_others_go_on(t: BlockingHarness) -> None:
    t.mutation(add, 0, 8, True, 0)
    t.mutation(add, 8, 8, False, 0)
    t.finish_all_scheduled_functions()

    assert [0] == t.query(numbers, "aside")
    assert list(range(1, 16)) == t.query(numbers, "done")


def test_a_ping_of_a_worker_that_runs_writes_nothing(lives: Lives) -> None:
    lives.t.mutation(add, 0, 1, False, 0)
    before = lives.place.wait(lambda: commit_of(lives))

    assert before == lives.place.wait(lambda: commit_of(lives))


async def commit_of(lives: Lives) -> int:
    """The timestamp of a ping: of the state that it found, if it writes nothing."""
    await lives.place.stage.callee(None).mutation(target_of(ping, (), {}))
    return lives.place.stage.callee(None).now_ts


def test_stopped_it_does_nothing_and_started_it_goes_on_with_nothing_lost(
    t: BlockingHarness,
) -> None:
    t.mutation(add, 0, 3, False, 0)
    t.mutation(stop)
    t.mutation(add, 3, 3, False, 0)
    t.finish_all_scheduled_functions()
    assert [] == t.query(numbers, "done")

    t.mutation(start)
    t.finish_all_scheduled_functions()

    assert list(range(6)) == t.query(numbers, "done")
