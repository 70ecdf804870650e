"""A pool under any history: retries, cancellations, other parallelism, killed jobs, power cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.components.restarts import Restarts
from tests.components.workpool import works
from tests.components.workpool.works import (
    APPLICATION,
    FIRST_MS,
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
CHECK_MS = 60_000
REPAIR_MS = 3_600_000


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
    never_begins: bool = False


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.works: dict[str, Expected] = {}
        self.is_disturbed = False
        self.limit = 3
        self.ceiling = 3

    @initialize()
    def open(self) -> None:
        new_ledger(keeps=False)
        self.lives = Restarts(APPLICATION)

    @property
    def t(self) -> Any:
        return self.lives.t

    def teardown(self) -> None:
        if not hasattr(self, "lives"):
            return
        try:
            self.t.mutation(tell, "configure", [], {"max_parallelism": 50})
            self.ceiling = self.limit = 50
            self.t.advance(5 * CHECK_MS)
            if self.report().get("backlog", 0):
                self.t.advance(REPAIR_MS)  # a pass and its monitor were both killed
            self.holds()
            self.everything_has_ended_as_it_should()
        finally:
            self.lives.close()

    @rule(
        kind=KINDS,
        count=st.integers(1, 5),
        ms=st.sampled_from([0, 0, 10, 400, 2_000]),
        fails=st.integers(0, 4),
        final=st.booleans(),
        retries=st.booleans(),
        wait_ms=st.sampled_from([0, 0, 0, 700, 20_000]),
    )
    def enqueue(
        self, kind: str, count: int, ms: float, fails: int, final: bool, retries: bool, wait_ms: int
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

    @rule(which=st.integers(0, 99), times=st.integers(1, 2))
    def cancel(self, which: int, times: int) -> None:
        if not self.works:
            return
        work_id = list(self.works)[which % len(self.works)]
        before = self.t.query(ask, "status", [work_id])["state"]
        for _ in range(times):
            self.t.mutation(tell, "cancel", [work_id], {})
        self._note_canceled(self.works[work_id], before)
        if before == "pending":
            assert {"state": "finished"} == self.t.query(ask, "status", [work_id])

    @rule(page_size=st.integers(1, 5))
    def cancel_all(self, page_size: int) -> None:
        before = {one: self.t.query(ask, "status", [one])["state"] for one in self.works}
        self.t.mutation(tell, "cancel_all", [], {"page_size": page_size})
        while any(job["name"].endswith("cancel_all") for job in self.lives.jobs_to_come()):
            self.t.finish_in_progress_scheduled_functions()
        for work_id, state in before.items():
            self._note_canceled(self.works[work_id], state, is_sure=False)

    @rule(limit=st.integers(0, 5))
    def configure(self, limit: int) -> None:
        self.t.mutation(tell, "configure", [], {"max_parallelism": limit})
        self.limit = limit
        self.ceiling = max(self.ceiling, limit)

    @rule(ms=st.sampled_from([0, 5, 200, 300, 1_000, 5_000, CHECK_MS + 1_000]))
    def advance(self, ms: float) -> None:
        self.t.advance(ms)
        if self.report().get("running", 0) <= self.limit:
            self.ceiling = self.limit

    @rule()
    def crash(self) -> None:
        self.is_disturbed = True
        new_ledger(keeps=True)
        self.lives.crash()

    @rule(which=st.integers(0, 99))
    def kill_a_job(self, which: int) -> None:
        own = ("run_pass", "perform", "carry_out", "watch")
        jobs = [job for job in self.lives.jobs_to_come() if job["name"].endswith(own)]
        if jobs:
            self.is_disturbed = True
            self.lives.kill_job(jobs[which % len(jobs)]["_id"])

    @rule(which=st.integers(0, 99), attempt=st.integers(0, 3))
    def a_stale_report_changes_nothing(self, which: int, attempt: int) -> None:
        if not self.works:
            return
        work_id = list(self.works)[which % len(self.works)]
        before = self.t.query(ask, "status", [work_id]), self.report()
        told = {"work": work_id, "attempt": attempt}
        late = {"job": "of another attempt", "result": {"kind": "success"}, "context": told}
        self.t.mutation(mount.ended, late)

        assert before == (self.t.query(ask, "status", [work_id]), self.report())

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "lives"):
            return
        told = self.told()
        assert len(told) == len({one["work"] for one in told})
        report = self.report()
        if report:
            assert report["running"] <= self.ceiling
        assert works.ledger.most <= max(self.ceiling, 5)
        by_work = {one["work"]: one for one in told}
        live = 0
        for work_id, expected in self.works.items():
            status = self.t.query(ask, "status", [work_id])
            live += status["state"] != "finished"
            if work_id in by_work:
                assert status["state"] == "finished"
                self._check_told(expected, by_work[work_id]["result"])
            begun = works.ledger.begun.get(expected.label, [])
            assert len(begun) <= expected.attempts_max
            assert not (begun and expected.never_begins)
            assert all(at >= expected.due_ms for at in begun)
            self._check_waits(expected, begun)
        if report:
            assert live == report["running"] + report["backlog"]

    def _check_told(self, expected: Expected, result: Any) -> None:
        assert expected.label == self.label_of(expected.id)
        begun = len(works.ledger.begun.get(expected.label, []))
        if result["kind"] == "success":
            assert f"{expected.label} is done" == result["returnValue"]
            if expected.kind == "action":
                assert expected.label in works.ledger.succeeded
            else:
                assert expected.fails == 0
        elif result["kind"] == "canceled":
            assert expected.canceled
        elif not self.is_disturbed:
            assert expected.fails > 0
            if expected.kind == "action" and expected.final:
                assert begun == 1
            elif expected.kind == "action":
                assert begun == expected.attempts_max
                assert f"ValueError: attempt {begun}" == result["error"]

    def _check_waits(self, expected: Expected, begun: list[float]) -> None:
        ended = works.ledger.ended.get(expected.label, [])
        if self.is_disturbed:
            return
        for number, (again, failed) in enumerate(zip(begun[1:], ended, strict=False), 1):
            assert again >= failed + 0.5 * FIRST_MS * 2 ** (number - 1) - 1

    def everything_has_ended_as_it_should(self) -> None:
        told = {one["work"]: one["result"] for one in self.told()}
        assert set(told) == set(self.works)
        written = [row["label"] for row in self.t.query(rows, "written")]
        assert len(written) == len(set(written))
        for work_id, expected in self.works.items():
            if expected.kind == "mutation":
                assert (expected.label in written) == (told[work_id]["kind"] == "success")
        report = self.report()
        assert 0 == report.get("running", 0) == report.get("backlog", 0)
        names = [job["name"] for job in self.lives.jobs_to_come()]
        assert [] == names

    def _note_canceled(self, expected: Expected, before: str, *, is_sure: bool = True) -> None:
        if before == "finished":
            return
        expected.canceled = True
        begun = works.ledger.begun.get(expected.label, [])
        if before == "pending" and not begun and is_sure:
            expected.never_begins = True

    def told(self) -> list[Any]:
        found: list[Any] = self.t.query(rows, "told")
        return found

    def label_of(self, work_id: str) -> str:
        return next(str(one["label"]) for one in self.told() if one["work"] == work_id)

    def report(self) -> Any:
        return self.t.query(ask, "report", [])

    @property
    def now_ms(self) -> float:
        """As a mutation is told, in whole milliseconds."""
        now_ns: int = self.t.now_ns
        return now_ns // 1_000_000


History.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestHistory = History.TestCase
