"""Pools as applications use them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.workpool import NonRetryable, Workpool, component
from engine import (
    ActionCtx,
    App,
    MutationCtx,
    internal_action,
    internal_mutation,
    mutation,
)
from engine.app.registry import Application
from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness, Place, open_place
from tests.components.lives import Lives
from tests.components.workpool import works
from tests.components.workpool.works import (
    APPLICATION,
    WITHOUT_DONE,
    ask,
    enqueue,
    enqueue_from_outside,
    new_ledger,
    plan,
    rows,
    tell,
)


@pytest.fixture
def lives() -> Iterator[Lives]:
    new_ledger(keeps=False)
    with Lives(APPLICATION, at_end=partial(new_ledger, keeps=True)) as lives:
        yield lives


@pytest.fixture
def t(lives: Lives) -> BlockingHarness:
    return lives.t


def put(t: BlockingHarness, kind: str, *plans: Any, where: str = "pool", **options: Any) -> Any:
    return t.mutation(enqueue, kind, list(plans), options, where)


def status(t: BlockingHarness, work_id: str) -> Any:
    return t.query(ask, "status", [work_id])


def results(t: BlockingHarness) -> dict[str, Any]:
    return {one["label"]: one["result"] for one in t.query(rows, "told")}


def deploy(place: Place, application: Application) -> None:
    """Push to a place that runs."""
    place.wait(partial(place.stage.deploy, application))


def configure(t: BlockingHarness, limit: int) -> None:
    t.mutation(tell, "configure", [], {"max_parallelism": limit})


@pytest.mark.parametrize("limit", [1, 3, 30])
def test_twenty_works_are_done_so_many_at_a_time(t: BlockingHarness, limit: int) -> None:
    configure(t, limit)
    put(t, "action", *[plan(f"{n}", 100) for n in range(20)])
    t.finish_all_scheduled_functions()

    assert min(limit, 20) == works.ledger.most
    assert {f"{n}" for n in range(20)} == works.ledger.succeeded
    assert {"success"} == {one["kind"] for one in results(t).values()}


def test_of_one_more_than_there_is_room_for_one_waits(t: BlockingHarness) -> None:
    configure(t, 50)
    put(t, "action", *[plan(f"{n}", 1_000) for n in range(51)])
    put(t, "action", plan("later"), run_after=60_000)
    t.advance(10)

    report = t.query(ask, "report", [])
    assert (50, 2) == (report["running"], report["backlog"])
    t.advance(3_000)
    report = t.query(ask, "report", [])
    assert (0, 1, 51) == (report["running"], report["backlog"], report["succeeded"])


@pytest.mark.parametrize("kind", ["action", "mutation", "query"])
def test_each_kind_is_told_what_it_returned_with_its_context(t: BlockingHarness, kind: str) -> None:
    put(t, kind, plan("a"), plan("b", fails=1))
    t.finish_all_scheduled_functions()

    assert {"kind": "success", "returnValue": "a is done"} == results(t)["a"]
    assert {"kind": "failed", "error": "ValueError: attempt 1"} == results(t)["b"]


def test_a_mutation_that_fails_has_written_nothing_and_runs_once(t: BlockingHarness) -> None:
    put(t, "mutation", plan("a"), plan("b", fails=1))
    t.finish_all_scheduled_functions()

    assert ["a"] == [row["label"] for row in t.query(rows, "written")]


def test_what_comes_first_is_done_first(t: BlockingHarness) -> None:
    configure(t, 1)
    put(t, "mutation", plan("late"), run_after=1_000)
    put(t, "mutation", plan("a"), plan("b"))
    put(t, "mutation", plan("c"))
    t.finish_all_scheduled_functions()

    assert ["a", "b", "c", "late"] == [row["label"] for row in t.query(rows, "written")]


def test_an_action_is_tried_again_later_and_later(t: BlockingHarness) -> None:
    put(t, "action", plan("a", fails=2), retry=True)
    t.finish_all_scheduled_functions()

    first, second, third = (attempt.begun for attempt in works.ledger.attempts["a"])
    assert 125 <= second - first <= 380
    assert 250 <= third - second <= 760
    assert "success" == results(t)["a"]["kind"]


@given(
    first_ms=st.integers(0, 50_000).map(lambda tenths: tenths / 10),
    base=st.integers(10, 30).map(lambda tenths: tenths / 10),
    max_attempts=st.integers(1, 4),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_attempt_begins_when_its_wait_is_over_and_not_later(
    t: BlockingHarness, first_ms: float, base: float, max_attempts: int
) -> None:
    new_ledger(keeps=False)
    retry = {"initial_backoff": first_ms, "base": base, "max_attempts": max_attempts}
    put(t, "action", plan("a", fails=9), retry=retry)
    t.finish_all_scheduled_functions()

    attempts = works.ledger.attempts["a"]
    assert max_attempts == len(attempts)
    for number, (failed, again) in enumerate(pairwise(attempts), 1):
        assert failed.ended is not None
        wait_ms = first_ms * base ** (number - 1)
        assert 0.5 * wait_ms <= again.begun - failed.ended <= 1.5 * wait_ms + 2


def test_waits_are_spread_so_that_what_failed_together_does_not_come_back_together(
    t: BlockingHarness,
) -> None:
    configure(t, 20)
    plans = [plan(f"{n}", fails=1) for n in range(20)]
    put(t, "action", *plans, retry={"initial_backoff": 1_000})
    t.finish_all_scheduled_functions()

    waits_ms = [second.begun - first.begun for first, second in works.ledger.attempts.values()]
    assert min(waits_ms) < 800
    assert max(waits_ms) > 1_200


def test_a_retry_that_came_due_in_a_full_pool_begins_when_there_is_room(
    t: BlockingHarness,
) -> None:
    configure(t, 1)
    put(t, "action", plan("a", 10, fails=1), retry={"initial_backoff": 100})
    put(t, "action", plan("b", 20))
    t.finish_all_scheduled_functions()

    first, second = works.ledger.attempts["a"]
    assert first.ended is not None
    assert second.begun - first.ended <= 150 + 2


def test_what_was_put_off_begins_in_time_after_the_pool_was_full(t: BlockingHarness) -> None:
    configure(t, 1)
    put(t, "action", plan("a", 500))
    put(t, "action", plan("b"), run_after=1_000)
    t.finish_all_scheduled_functions()

    (a,), (b,) = works.ledger.attempts["a"], works.ledger.attempts["b"]
    assert 1_000 <= b.begun - a.begun <= 1_010


def test_a_full_pool_is_not_looked_at_again_and_again(lives: Lives) -> None:
    configure(lives.t, 1)
    put(lives.t, "action", plan("long", 30_000))
    for number in range(20):
        put(lives.t, "action", plan(f"{number}"), run_after=1_000 * number)
    lives.t.advance(500)
    before = passes_done(lives)
    lives.t.advance(29_000)

    assert before == passes_done(lives) > 0
    lives.t.finish_all_scheduled_functions()
    assert 21 == len(works.ledger.succeeded)


def passes_done(lives: Lives) -> int:
    return len([job for job in lives.jobs("success") if job["name"].endswith("run_pass")])


def test_what_has_ended_is_counted_once_by_how_it_ended(t: BlockingHarness) -> None:
    put(t, "action", plan("a"), plan("b", fails=1), plan("c", fails=9), retry={"max_attempts": 2})
    put(t, "mutation", plan("d"), plan("e", fails=1))
    (work,) = put(t, "query", plan("f"), run_after=1_000)
    t.mutation(tell, "cancel", [work], {})
    t.advance(10_000)

    counted = t.query(ask, "report", [])
    ended = {name: counted[name] for name in ("succeeded", "failed", "retries", "canceled")}
    assert {"succeeded": 3, "failed": 2, "retries": 2, "canceled": 1} == ended
    assert sum(ended.values()) == counted["completed"]


def test_a_time_between_two_milliseconds_is_waited_for_without_being_asked_again_and_again(
    lives: Lives,
) -> None:
    put(lives.t, "action", plan("a"), run_after=1_000.5)
    lives.t.advance(1_000.6)
    passes = [job for job in lives.jobs() if job["name"].endswith("run_pass")]

    assert 1 == len(passes)
    lives.t.finish_all_scheduled_functions()
    assert {"a"} == works.ledger.succeeded


def test_attempts_come_to_an_end(t: BlockingHarness) -> None:
    put(t, "action", plan("a", fails=9), plan("b", fails=9), retry={"max_attempts": 2})
    put(t, "action", plan("c", fails=9), retry=False)
    put(t, "action", plan("d", fails=9, final=True), retry=True)
    t.finish_all_scheduled_functions()

    assert [2, 2, 1, 1] == [len(works.ledger.attempts[label]) for label in "abcd"]
    assert {"kind": "failed", "error": "for good"} == results(t)["d"]


# Status.


def test_a_work_is_pending_then_running_then_finished(t: BlockingHarness) -> None:
    (work,) = put(t, "action", plan("a", 1_000, fails=1), retry=True)
    seen = [status(t, work)]
    for ms in (10, 1_000, 500, 2_000):
        t.advance(ms)
        seen.append(status(t, work))

    assert [
        {"state": "pending", "previousAttempts": 0},
        {"state": "running", "previousAttempts": 0},
        {"state": "pending", "previousAttempts": 1},
        {"state": "running", "previousAttempts": 1},
        {"state": "finished"},
    ] == seen


def test_what_was_never_there_has_finished(t: BlockingHarness) -> None:
    assert {"state": "finished"} == status(t, "nothing")
    t.mutation(tell, "cancel", ["nothing"], {})


def test_what_a_pool_does_is_in_the_logs_as_its_level_says(lives: Lives) -> None:
    lives.t.mutation(tell, "configure", [], {"log_level": "INFO"})
    put(lives.t, "action", plan("a", fails=1), retry=True)
    lives.t.finish_all_scheduled_functions()

    events = [line.split()[1].strip("'") for line in log_lines(lives)]
    assert ["enqueued", "started", "completed", "started", "completed"] == events
    assert all(line.startswith("[INFO] '") for line in log_lines(lives))


def test_a_pool_reports_once_a_minute_unless_it_is_to_be_quiet(lives: Lives) -> None:
    for level in ("REPORT", "WARN"):
        lives.t.mutation(tell, "configure", [], {"log_level": level})
        put(lives.t, "action", plan(level), run_after=61_000)
        lives.t.finish_all_scheduled_functions()

    (line,) = log_lines(lives)
    assert line.startswith('[INFO] \'report {"completed": 0')


def log_lines(lives: Lives) -> list[str]:
    """Of all functions, in the order in which they ran."""
    executions = lives.place.stage.node.functions.executions
    return [line for _, record in executions.after(0) for line in record.log_lines]


# Cancelling.


def test_what_has_not_begun_never_does(t: BlockingHarness) -> None:
    (work,) = put(t, "action", plan("a"))
    for _ in range(2):
        t.mutation(tell, "cancel", [work], {})
    t.finish_all_scheduled_functions()

    assert {"a": {"kind": "canceled"}} == results(t)
    assert {} == works.ledger.attempts


def test_what_is_under_way_goes_on_and_is_not_tried_again(t: BlockingHarness) -> None:
    works_ids = put(t, "action", plan("good", 100), plan("bad", 100, fails=9), retry=True)
    t.advance(10)
    for work in works_ids:
        t.mutation(tell, "cancel", [work], {})
        assert "running" == status(t, work)["state"]
    t.finish_all_scheduled_functions()

    assert {"good": "success", "bad": "canceled"} == {
        label: result["kind"] for label, result in results(t).items()
    }
    assert 1 == len(works.ledger.attempts["bad"])


def test_a_retry_that_waits_is_canceled(t: BlockingHarness) -> None:
    (work,) = put(t, "action", plan("a", fails=1), retry={"initial_backoff": 60_000})
    t.advance(100)
    t.mutation(tell, "cancel", [work], {})
    t.finish_all_scheduled_functions()

    assert (1, "canceled") == (len(works.ledger.attempts["a"]), results(t)["a"]["kind"])


@pytest.mark.parametrize("page_size", [1, 64])
def test_all_are_canceled_a_page_at_a_time_and_not_what_comes_later(
    lives: Lives, page_size: int
) -> None:
    t = lives.t
    configure(t, 0)
    put(t, "mutation", *[plan(f"{n}") for n in range(65)])
    t.mutation(tell, "cancel_all", [], {"page_size": page_size})
    assert page_size == t.query(ask, "report", [])["canceled"]
    put(t, "mutation", plan("later"))
    t.finish_all_scheduled_functions()

    assert 65 == t.query(ask, "report", [])["canceled"]
    configure(t, 1)
    t.finish_all_scheduled_functions()
    assert "success" == results(t)["later"]["kind"]


def test_all_are_canceled_also_those_that_run(t: BlockingHarness) -> None:
    put(t, "action", *[plan(f"{n}", 100, fails=9) for n in range(5)], retry=True)
    t.advance(10)
    t.mutation(tell, "cancel_all", [], {"page_size": 1})
    t.finish_all_scheduled_functions()

    assert {"canceled"} == {result["kind"] for result in results(t).values()}
    assert 3 == len(works.ledger.attempts)


# Parallelism.


def test_a_pause_begins_nothing_and_lets_what_runs_come_to_its_end(t: BlockingHarness) -> None:
    put(t, "action", *[plan(f"{n}", 100, fails=1 if n == 0 else 0) for n in range(6)], retry=True)
    t.advance(10)
    configure(t, 0)
    t.advance(10_000)

    report = t.query(ask, "report", [])
    assert (0, 4) == (report["running"], report["backlog"])
    assert {"1", "2"} == set(results(t))
    configure(t, 6)
    t.finish_all_scheduled_functions()
    assert 6 == len(results(t))


def test_more_begin_at_once_where_there_is_more_room(t: BlockingHarness) -> None:
    put(t, "action", *[plan(f"{n}", 10_000) for n in range(9)])
    t.advance(10)
    assert 3 == len(works.ledger.running)
    configure(t, 8)
    t.advance(10)

    assert 8 == len(works.ledger.running)


def test_what_was_configured_holds_until_the_code_says_something_else(
    t: BlockingHarness,
) -> None:
    configure(t, 7)
    put(t, "mutation", plan("a"))

    assert 7 == t.query(ask, "report", [])["maxParallelism"]


def test_a_number_that_cannot_be_is_refused(t: BlockingHarness) -> None:
    for limit in (-1, 201):
        with pytest.raises(ValueError, match="max_parallelism is"):
            configure(t, limit)
    with pytest.raises(ValueError, match="log_level is 'LOUD'"):
        Workpool(works.mount, log_level="LOUD")  # type: ignore[arg-type]


def test_pools_do_not_wait_for_each_other(t: BlockingHarness) -> None:
    put(t, "action", *[plan(f"pool {n}", 60_000) for n in range(5)])
    put(t, "action", plan("other"), where="other")
    t.advance(100)

    assert "success" == results(t)["other"]["kind"]


# What is large.


def test_large_arguments_and_contexts_have_rows_of_their_own(t: BlockingHarness) -> None:
    label = "x" * 400_000
    (work,) = put(t, "mutation", plan(label))
    t.finish_all_scheduled_functions()

    assert "finished" == status(t, work)["state"]
    assert {label} == set(results(t))


def test_a_batch_that_is_too_large_for_a_call_is_enqueued_in_several(t: BlockingHarness) -> None:
    labels = [f"{n} {'x' * 600_000}" for n in range(20)]

    enqueued = t.action(enqueue_from_outside, list(map(plan, labels)), "x" * 300_000)
    t.finish_all_scheduled_functions()

    assert 20 == len(enqueued)
    assert labels == [one["label"] for one in t.query(rows, "written")]


def test_what_is_too_large_is_refused_by_name(t: BlockingHarness) -> None:
    with pytest.raises(ValueError, match=r"arguments of 1,0.* bytes"):
        put(t, "mutation", plan("x" * 1_000_001))
    with pytest.raises(ValueError, match="call enqueue_mutation"):
        t.run(enqueue_wrong_kind)
    with pytest.raises(ValueError, match="a mutation runs once"):
        put(t, "mutation", plan("a"), retry=True)
    with pytest.raises(ValueError, match="say either run_at or run_after"):
        put(t, "mutation", plan("a"), run_at=0, run_after=0)
    assert [] == t.query(rows, "told")


async def enqueue_wrong_kind(ctx: MutationCtx) -> None:
    await works.pool.enqueue_action(ctx, works.write, plan("a"))  # type: ignore[arg-type]


# What goes wrong.


def test_a_power_cut_costs_an_action_one_attempt(lives: Lives) -> None:
    put(lives.t, "action", plan("a", 1_000), retry=True)
    put(lives.t, "action", plan("b", 1_000))
    lives.t.advance(100)
    lives.crash()
    lives.t.finish_all_scheduled_functions()

    assert "success" == results(lives.t)["a"]["kind"]
    assert (2, 1) == (len(works.ledger.attempts["a"]), len(works.ledger.attempts["b"]))
    assert "the engine stopped while this action ran" in results(lives.t)["b"]["error"]


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_mutation_that_is_ended_between_claim_and_run_has_written_nothing(
    lives: Lives, how: str
) -> None:
    (work,) = put(lives.t, "mutation", plan("a"), run_after=1_000)
    lives.t.advance(10)  # the loop sleeps until then, so its next commit is the claim
    lives.cut(0, in_flight=True)
    assert "running" == status(lives.t, work)["state"]
    if how == "cancel":
        lives.t.mutation(tell, "cancel", [work], {})
    else:
        (job,) = [job for job in lives.jobs() if job["name"].endswith("carry_out")]
        lives.kill_job(job["_id"])
    lives.t.finish_all_scheduled_functions()

    error = {"error": "its scheduled job was canceled"}
    expected = {"kind": "canceled"} if how == "cancel" else {"kind": "failed", **error}
    assert {"a": expected} == results(lives.t)
    assert [] == lives.t.query(rows, "written")


def test_an_end_that_is_reported_twice_is_one(t: BlockingHarness) -> None:
    (work,) = put(t, "action", plan("a", 1_000), retry=True)
    t.advance(10)
    for _ in range(2):
        t.mutation(works.mount.ended, failed(work, attempt=0))

    assert {"state": "pending", "previousAttempts": 1} == status(t, work)
    assert 1 == t.query(ask, "report", [])["retries"]


def end_called_off(lives: Lives, label: str) -> str:
    """A work whose action has returned, which nobody will tell; another waits for its place."""
    configure(lives.t, 1)
    work: str
    (work,) = put(lives.t, "action", plan(label, 1_000))
    put(lives.t, "action", plan("b"))
    lives.t.advance(10)
    lives.cut(0, in_flight=True, ms=2_000)
    (job,) = [job for job in lives.jobs() if job["name"].endswith("ended")]
    lives.kill_job(job["_id"])
    return work


def test_an_end_that_is_called_off_on_its_way_is_noticed_a_minute_later(lives: Lives) -> None:
    work = end_called_off(lives, "a")

    lives.t.advance(50_000)
    assert "running" == status(lives.t, work)["state"]
    lives.t.advance(20_000)
    assert {"kind": "success", "returnValue": "a is done"} == results(lives.t)["a"]
    assert "success" == results(lives.t)["b"]["kind"]
    assert 1 == len(works.ledger.attempts["a"])


def test_a_large_result_whose_telling_is_called_off_keeps_its_place_for_an_hour(
    lives: Lives,
) -> None:
    work = end_called_off(lives, "large")

    lives.t.advance(3_500_000)
    assert "running" == status(lives.t, work)["state"]
    lives.t.advance(200_000)
    assert "never told: that was canceled" in results(lives.t)["large"]["error"]
    assert "success" == results(lives.t)["b"]["kind"]
    assert 1 == len(works.ledger.attempts["large"])


def test_the_end_of_an_earlier_attempt_is_not_that_of_the_one_under_way(
    t: BlockingHarness,
) -> None:
    (work,) = put(t, "action", plan("a", 1_000, fails=1), retry=True)
    t.advance(2_000)
    for attempt in (0, 5):
        t.mutation(works.mount.ended, failed(work, attempt=attempt))

    assert {"state": "running", "previousAttempts": 1} == status(t, work)
    t.finish_all_scheduled_functions()
    assert "success" == results(t)["a"]["kind"]


def failed(work: str, *, attempt: int) -> dict[str, Any]:
    """What the engine tells of the job of an attempt."""
    told = {"work": work, "attempt": attempt}
    return {"job": "", "result": {"kind": "failed", "error": "late"}, "context": told}


def test_works_that_failed_for_good_are_set_aside_and_can_be_done_again(
    t: BlockingHarness,
) -> None:
    (work,) = put(t, "action", plan("a", fails=1))
    t.finish_all_scheduled_functions()
    (failure,) = t.query(ask, "failures", [])
    assert (work, 1, "ValueError: attempt 1") == (
        failure["workId"], failure["attempts"], failure["error"],
    )  # fmt: skip

    assert t.mutation(tell, "retry_failure", [work], {})
    t.finish_all_scheduled_functions()

    assert {"a"} == works.ledger.succeeded
    assert [] == t.query(ask, "failures", [])
    assert t.mutation(tell, "retry_failure", [work], {}) is None


def test_what_is_done_again_is_told_of_and_tried_as_at_first(t: BlockingHarness) -> None:
    (work,) = put(t, "action", plan("a", fails=3), retry={"max_attempts": 2, "initial_backoff": 1})
    t.finish_all_scheduled_functions()
    again = t.mutation(tell, "retry_failure", [work], {})
    t.finish_all_scheduled_functions()

    assert 4 == len(works.ledger.attempts["a"])
    told = [(one["work"], one["label"], one["result"]["kind"]) for one in t.query(rows, "told")]
    assert [(work, "a", "failed"), (again, "a", "success")] == told


def test_what_was_too_large_to_be_kept_is_not_done_again(t: BlockingHarness) -> None:
    (work,) = put(t, "action", plan("x" * 60_000, fails=1))
    t.finish_all_scheduled_functions()

    with pytest.raises(ValueError, match=r"arguments and context of .* were too large to be kept"):
        t.mutation(tell, "retry_failure", [work], {})
    assert 1 == len(t.query(ask, "failures", []))


def test_a_callback_that_fails_takes_nothing_with_it() -> None:
    with open_place(POISON) as place:
        t = BlockingHarness(place)
        t.mutation(enqueue_poison, "good")
        t.finish_all_scheduled_functions()

        report = t.run(report_of_poison)
        assert (1, 0, 0) == (report["succeeded"], report["running"], report["backlog"])


@pytest.mark.parametrize("kind", ["action", "mutation"])
def test_who_is_to_be_told_may_be_gone_and_holds_up_nobody(kind: str) -> None:
    with open_place(APPLICATION) as place:
        t = BlockingHarness(place)
        configure(t, 1)
        (work,) = put(t, "action", plan("a", 100))
        (last,) = put(t, kind, plan("b", fails=1))
        t.advance(10)
        deploy(place, WITHOUT_DONE)
        t.finish_all_scheduled_functions()

        report = t.query(ask, "report", [])
        assert (0, 0) == (report["running"], report["backlog"])
        errors = {one["workId"]: one["error"] for one in t.query(ask, "failures", [])}
        assert errors[work].startswith("succeeded; nobody was told: Could not find")
        assert errors[last].startswith("ValueError: attempt 1; nobody was told: Could not find")

        deploy(place, APPLICATION)
        t.mutation(tell, "retry_failure", [work], {})
        t.finish_all_scheduled_functions()
        assert {"a": "success"} == {name: one["kind"] for name, one in results(t).items()}


@pytest.mark.parametrize("depth", [62, 63, 64, 65])
def test_a_result_that_is_nested_too_deep_to_be_told_has_failed(depth: int) -> None:
    with open_place(POISON) as place:
        t = BlockingHarness(place)
        t.mutation(enqueue_deep, depth)
        t.finish_all_scheduled_functions()

        report = t.run(report_of_poison)
        counts = [report[name] for name in ("succeeded", "failed", "running")]
        assert counts == ([1, 0, 0] if depth == 62 else [0, 1, 0])
        assert all("too deep" in one["error"] for one in t.run(failures_of_poison))


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"on_complete": works.rows}, ValueError, "on_complete is a mutation, and .*:rows is none"),
        ({"on_complete": works.act}, ValueError, "on_complete is a mutation, and .*:act is none"),
        ({"on_completed": works.done}, TypeError, "has no on_completed=; there are name, on_c"),
        ({"run_after": float("nan")}, ValueError, "due at nan"),
        ({"run_at": float("inf")}, ValueError, "due at inf"),
        ({"run_at": 1e300}, ValueError, r"due at 1e\+300"),
    ],
)
def test_options_that_cannot_be_are_refused_when_it_is_enqueued(
    options: dict[str, Any], error: type[Exception], why: str, t: BlockingHarness
) -> None:
    async def enqueue(ctx: MutationCtx) -> str:
        args = plan("a")
        return await works.pool.enqueue_action(ctx, works.act, args, **options)

    with pytest.raises(error, match=why):
        t.run(enqueue)


@pytest.mark.parametrize(
    ("what", "error"), [("endless", "user_time_s_max"), ("greedy", "LimitExceeded")]
)
def test_a_mutation_that_does_not_end_or_takes_too_much_has_failed(what: str, error: str) -> None:
    with open_place(POISON) as place:
        t = BlockingHarness(place)
        t.mutation(enqueue_poison, what)
        t.mutation(enqueue_poison, "good")
        t.finish_all_scheduled_functions()

        assert 0 == t.run(report_of_poison)["running"]
        (failure,) = t.run(failures_of_poison)
        assert error in failure["error"]


@pytest.mark.parametrize("how", ["mutation", "action"])
def test_an_error_for_good_is_one_wherever_it_comes_from(how: str) -> None:
    with open_place(POISON) as place:
        t = BlockingHarness(place)
        t.mutation(enqueue_nested, how)
        t.finish_all_scheduled_functions()

        assert 0 == t.run(report_of_poison)["retries"]
        assert 1 == t.run(report_of_poison)["failed"]


poisoned = App()
fragile = Workpool(poisoned.use(component, name="pool"), max_parallelism=1)


@internal_mutation
async def poison(ctx: MutationCtx, what: str) -> None:
    while what == "endless":
        pass
    while what == "greedy":
        await ctx.db.insert("much", {"text": "x" * 900_000})


@internal_mutation
async def for_good(ctx: MutationCtx) -> None:
    raise NonRetryable("for good")


@internal_action
async def nested(ctx: ActionCtx, how: str) -> None:
    if how == "action":
        raise NonRetryable("for good")
    await ctx.run_mutation(for_good)


@internal_action
async def deep(ctx: ActionCtx, depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@mutation
async def enqueue_deep(ctx: MutationCtx, depth: int) -> None:
    await fragile.enqueue_action(ctx, deep, {"depth": depth}, on_complete=works.refuse)


@mutation
async def enqueue_poison(ctx: MutationCtx, what: str) -> None:
    await fragile.enqueue_mutation(ctx, poison, {"what": what}, on_complete=works.refuse)


@mutation
async def enqueue_nested(ctx: MutationCtx, how: str) -> None:
    await fragile.enqueue_action(ctx, nested, {"how": how}, retry=True)


async def failures_of_poison(ctx: MutationCtx) -> Any:
    return await fragile.failures(ctx)


async def report_of_poison(ctx: MutationCtx) -> Any:
    return await fragile.report(ctx)


NESTING: list[Any] = [nested, deep, enqueue_nested, enqueue_deep]
POISON = load([poisoned, poison, for_good, enqueue_poison, works.refuse, *NESTING])
