"""A pool under any history: retries, cancellations, other parallelism, killed jobs, power cuts."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.rehearsal.harness import BlockingHarness
from tests.components.lives import Lives
from tests.components.workpool import works
from tests.components.workpool.works import (
    APPLICATION,
    RETRY,
    ask,
    enqueue,
    mount,
    new_ledger,
    plan,
    rows,
    tell,
)

KINDS = st.sampled_from(["action", "action", "mutation", "query"])
COUNTS = st.integers(1, 5)
TIMES_MS = st.sampled_from([0, 0, 10, 400, 2_000])
WAITS_MS = st.sampled_from([0, 0, 0, 0.5, 700, 20_000])
CHECK_MS = 60_000
REPAIR_MS = 3_600_000
GRACE_MS = 2
"""Times of retries are rounded up."""
CALLS = ("perform", "carry_out")
LOOPS = ("run_pass", "watch")
FINISHED = {"state": "finished"}
RUNNING = "running"
LIMIT = 64


@dataclass
class Expected:
    """A work that was enqueued, and what was done to it."""

    id: str
    label: str
    kind: str
    fails: int
    final: bool
    attempts_max: int
    due_ms: float
    canceled: bool = False
    begun_when_canceled: int = 0
    is_disturbed: bool = False
    """Somebody has killed a job, or the power was cut, before it had ended."""


class History(RuleBasedStateMachine):
    """Whatever happens, each work comes to one end, within its bounds, and is told of once."""

    def __init__(self) -> None:
        super().__init__()
        new_ledger(keeps=False)
        self.lives = Lives(APPLICATION, at_end=partial(new_ledger, keeps=True))
        self.works: dict[str, Expected] = {}
        self.is_killed = False
        self.limit = 3
        self.ceiling = 3

    @property
    def t(self) -> BlockingHarness:
        return self.lives.t

    def teardown(self) -> None:
        with self.lives:
            self.configure(50)
            self.t.advance(5 * CHECK_MS)
            if self.report()["backlog"]:
                self.t.advance(REPAIR_MS)  # a pass and its monitor were both killed
            self.everything_has_ended_as_it_should()

    # What happens.

    @initialize(count=COUNTS, ms=TIMES_MS, fails=st.integers(0, 4), wait_ms=WAITS_MS)
    def begin(self, count: int, ms: float, fails: int, wait_ms: float) -> None:
        self.enqueue("mutation", count, ms, fails // 4, False, False, wait_ms)
        self.enqueue("action", count, ms, fails, False, True, wait_ms)

    @rule(
        kind=KINDS,
        count=COUNTS,
        ms=TIMES_MS,
        fails=st.integers(0, 4),
        final=st.booleans(),
        retries=st.booleans(),
        wait_ms=WAITS_MS,
    )
    def enqueue(
        self,
        kind: str,
        count: int,
        ms: float,
        fails: int,
        final: bool,
        retries: bool,
        wait_ms: float,
    ) -> None:
        retries = retries and kind == "action"
        plans = [
            plan(f"{kind} {len(self.works) + i}", ms, fails, final=final) for i in range(count)
        ]
        options = {"run_after": wait_ms, **({"retry": True} if retries else {})}
        ids = self.t.mutation(enqueue, kind, plans, options)
        for work_id, one in zip(ids, plans, strict=True):
            self.works[work_id] = Expected(
                id=work_id,
                label=one["label"],
                kind=kind,
                fails=fails,
                final=final,
                attempts_max=RETRY.max_attempts if retries else 1,
                due_ms=self.now_ms + wait_ms,
            )

    @rule(ms=st.sampled_from([10, 400]), fails=st.integers(0, 1))
    def fill(self, ms: float, fails: int) -> None:
        """Take all the room that there is, have something to come, and let time pass."""
        if room := self.limit - self.report()["running"]:
            self.enqueue("action", 1, 10, fails, False, True, 0)
            self.enqueue("action", max(0, room - 1), ms, 0, False, True, 0)
        self.enqueue("action", 1, 0, 0, False, True, 700)
        self.advance(1_000)

    @rule(fails=st.integers(1, 4))
    def what_has_failed_for_good_is_not_tried_again(self, fails: int) -> None:
        """Also where another attempt would have been the one that works."""
        if self.report()["running"] < self.limit:
            self.enqueue("action", 1, 10, fails, True, True, 0)
            self.advance(5_000)
            assert len(self.attempts(list(self.works.values())[-1])) <= 1

    @rule()
    def what_is_canceled_while_it_runs_is_not_tried_again(self) -> None:
        """Be it that it fails or that it succeeds."""
        for fails in (1, 0):
            if self.report()["running"] < self.limit:
                self.enqueue("action", 1, 10, fails, False, True, 0)
                self.advance(5)
                self.cancel(len(self.works) - 1, 1)
                self.advance(1_000)

    @rule(which=st.integers(0, 99), times=st.integers(1, 2))
    def cancel(self, which: int, times: int) -> None:
        work_id = list(self.works)[which % len(self.works)]
        before = self.states()
        for _ in range(times):
            self.t.mutation(tell, "cancel", [work_id], {})
        self._note_canceled({work_id: before[work_id]})
        if before[work_id]["state"] == "pending":
            assert FINISHED == self.states()[work_id]

    @rule(page_size=st.integers(1, 5))
    def cancel_all(self, page_size: int) -> None:
        before = self.states()
        self.t.mutation(tell, "cancel_all", [], {"page_size": page_size})
        while any(job["name"].endswith("cancel_all") for job in self.lives.jobs()):
            self.t.finish_in_progress_scheduled_functions()
        self._note_canceled(before, is_sure=False)

    @rule(limit=st.integers(0, 5))
    def configure(self, limit: int) -> None:
        self.t.mutation(tell, "configure", [], {"max_parallelism": limit})
        self.limit = limit
        self.ceiling = max(self.ceiling, limit)

    @rule(ms=st.sampled_from([0, 5, 200, 300, 1_000, 5_000, CHECK_MS + 1_000]))
    def advance(self, ms: float) -> None:
        self.t.advance(ms)
        self._note_room()
        if not self.is_killed:
            self.where_there_is_room_nobody_waits()

    @rule()
    def crash(self) -> None:
        self._disturb()
        self.lives.crash()

    @rule(
        batches=st.integers(0, 6),
        in_flight=st.booleans(),
        ms=st.sampled_from([0, 0, 300, 5_000]),
        then=st.sampled_from(["nothing", "kill", "cancel"]),
    )
    def crash_on_the_way(self, batches: int, in_flight: bool, ms: float, then: str) -> None:
        """And have somebody end, or cancel, what was found to be under way."""
        if then == "kill":
            self.enqueue("mutation", 2, 0, 0, False, False, 0)
        self._disturb()
        self.lives.cut(batches, in_flight=in_flight, ms=ms)
        self._note_room()
        running = {one: state for one, state in self.states().items() if state["state"] == RUNNING}
        if then == "kill":
            self._kill([job for job in self.lives.jobs() if job["name"].endswith(CALLS)])
        elif then == "cancel" and running:
            for work_id in running:
                self.t.mutation(tell, "cancel", [work_id], {})
            self._note_canceled(running)

    @rule(which=st.integers(0, 99))
    def kill_a_job(self, which: int) -> None:
        jobs = [job for job in self.lives.jobs() if job["name"].endswith((*CALLS, *LOOPS))]
        if jobs:
            self._kill([jobs[which % len(jobs)]])

    @rule()
    def reports_of_other_attempts_change_nothing(self) -> None:
        before = self.state()
        for work_id, state in self.states().items():
            under_way = state["previousAttempts"] if state["state"] == RUNNING else None
            for attempt in {0, 1, 2, 3} - {under_way}:
                told = {"work": work_id, "attempt": attempt}
                late = {"job": "", "result": {"kind": "failed", "error": "late"}, "context": told}
                self.t.mutation(mount.ended, late)
                self.t.mutation(mount.carry_out, {"told": told})
        assert before == self.state()

    @rule()
    def a_batch_of_an_earlier_moment_begins_no_more_than_there_is_room_for(self) -> None:
        before = self.report()["running"]
        batch = {"begin": list(self.works), "check": []}
        self.t.mutation(mount.run_batch, {"batch": batch})
        assert self.report()["running"] <= max(before, self.limit)

    # What holds.

    @invariant()
    def each_is_told_of_once_and_truly(self) -> None:
        told, states = self.told(), self.states()
        assert len(told) == len({one["work"] for one in told})
        for one in told:
            assert FINISHED == states[one["work"]]
            self._check_told(self.works[one["work"]], one)

    @invariant()
    def no_more_run_than_there_is_room_for(self) -> None:
        report = self.report()
        assert report["running"] <= self.ceiling
        assert works.ledger.most <= self.ceiling
        batch = self.t.query(mount.get_batch, {"limit": LIMIT}).get("batch", {"begin": []})
        assert len(batch["begin"]) <= max(0, self.limit - report["running"])

    @invariant()
    def attempts_have_bounds_in_number_and_time(self) -> None:
        for expected in self.works.values():
            attempts = self.attempts(expected)
            assert len(attempts) <= expected.attempts_max
            assert not expected.canceled or len(attempts) <= expected.begun_when_canceled
            assert all(attempt.begun >= expected.due_ms for attempt in attempts)
            for number, (failed, again) in enumerate(itertools.pairwise(attempts), 1):
                since_ms = failed.begun if failed.ended is None else failed.ended
                assert again.begun >= since_ms + 0.5 * RETRY.backoff_ms(number)

    @invariant()
    def each_is_pending_or_running_or_over(self) -> None:
        states, report = [one["state"] for one in self.states().values()], self.report()
        assert states.count(RUNNING) == report["running"]
        assert states.count("pending") == report["backlog"]

    def where_there_is_room_nobody_waits(self) -> None:
        if self.report()["running"] < self.limit:
            for work_id, state in self.states().items():
                if state["state"] == "pending":
                    due_ms = self.latest_due_ms(self.works[work_id], state["previousAttempts"])
                    assert self.now_ms < due_ms

    def latest_due_ms(self, expected: Expected, failed: float) -> float:
        """By when a work with so many attempts may begin the next one, the dice as they may be."""
        if not failed:
            return expected.due_ms
        ended = self.attempts(expected)[-1].ended
        if ended is None or expected.is_disturbed:
            return math.inf  # only the engine knows when it took that for a failure
        return ended + 1.5 * RETRY.backoff_ms(int(failed)) + GRACE_MS

    def everything_has_ended_as_it_should(self) -> None:
        self.each_is_told_of_once_and_truly()
        self.attempts_have_bounds_in_number_and_time()
        told = {one["work"]: one["result"] for one in self.told()}
        assert set(told) == set(self.works)
        written = [row["label"] for row in self.t.query(rows, "written")]
        assert len(written) == len(set(written))
        for work_id, expected in self.works.items():
            if expected.kind == "mutation":
                assert (expected.label in written) == (told[work_id]["kind"] == "success")
        report = self.report()
        assert 0 == report["running"] == report["backlog"]
        assert [] == [job["name"] for job in self.lives.jobs()]

    def _check_told(self, expected: Expected, told: Any) -> None:
        assert expected.label == told["label"]
        result, begun = told["result"], len(self.attempts(expected))
        if result["kind"] == "success":
            assert f"{expected.label} is done" == result["returnValue"]
            if expected.kind == "action":
                assert expected.label in works.ledger.succeeded
                if not expected.is_disturbed:
                    assert begun == expected.fails + 1
                    assert begun == 1 or not expected.final
            else:
                assert expected.fails == 0
                assert not expected.canceled or expected.begun_when_canceled
        elif result["kind"] == "canceled":
            assert expected.canceled
            assert expected.is_disturbed or expected.label not in works.ledger.succeeded
        elif not expected.is_disturbed:
            assert expected.fails > 0
            if expected.kind == "action" and expected.final:
                assert begun == 1
            elif expected.kind == "action":
                assert begun == expected.attempts_max
                assert f"ValueError: attempt {begun}" == result["error"]

    def _note_canceled(self, before: dict[str, Any], *, is_sure: bool = True) -> None:
        """Works that had not ended begin no other attempt, unless one was on its way."""
        for work_id, state in before.items():
            expected = self.works[work_id]
            if state != FINISHED and not expected.canceled:
                expected.canceled = True
                begun = len(self.attempts(expected))
                expected.begun_when_canceled = begun if is_sure else expected.attempts_max

    def _note_room(self) -> None:
        """Where a lower limit is reached by now, it holds from here on."""
        if self.report()["running"] <= self.limit:
            self.ceiling = self.limit
            works.ledger.most = len(works.ledger.running)

    def _kill(self, jobs: list[Any]) -> None:
        self._disturb()
        for job in jobs:
            self.is_killed = True
            self.lives.kill_job(job["_id"])

    def _disturb(self) -> None:
        for work_id, state in self.states().items():
            self.works[work_id].is_disturbed |= state != FINISHED

    def attempts(self, expected: Expected) -> list[works.Attempt]:
        return works.ledger.attempts.get(expected.label, [])

    def states(self) -> dict[str, Any]:
        """How each work is, by its id."""
        ids = list(self.works)
        return dict(zip(ids, self.t.query(ask, "status_batch", [ids]), strict=True))

    def told(self) -> list[Any]:
        return self.t.query(rows, "told")

    def report(self) -> Any:
        return self.t.query(ask, "report", [])

    def state(self) -> list[Any]:
        return [self.report(), self.states(), [job["_id"] for job in self.lives.jobs()]]

    @property
    def now_ms(self) -> float:
        """As a mutation is told, in whole milliseconds."""
        return self.t.now_ns // 1_000_000


History.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestHistory = History.TestCase
