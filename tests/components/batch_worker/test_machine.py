"""A batch worker under any history: pings, failures, stops, killed jobs, power cuts."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from engine.rehearsal.harness import BlockingHarness
from tests.components.batch_worker.letters import (
    APPLICATION,
    LAG_MS,
    add,
    batches,
    mount,
    numbers,
    ping,
    start,
    status,
    stop,
    times,
)
from tests.components.lives import Lives

REPAIR_MS = 3_600_000
COUNTS = st.integers(1, 20)
RARELY = st.sampled_from([False] * 5 + [True])
WAITS_MS = st.sampled_from([0, 0, 0, 5, 7.5, 1_000, 50_000])
PASS = ("run_pass",)
WATCH = ("watch",)


class History(RuleBasedStateMachine):
    """Whatever happens, everything is done once and in order, or set aside."""

    def __init__(self) -> None:
        super().__init__()
        self.lives = Lives(APPLICATION)
        self.due: dict[int, float] = {}
        self.at_once: set[int] = set()
        self.poison: set[int] = set()
        self.killed: set[str] = set()
        self.is_watched = True
        self.generation = 0
        self.over_when_stopped: int | None = None
        self.reasons = 0
        """To look at the queue: pings, starts, kills and crashes."""

    @property
    def t(self) -> BlockingHarness:
        return self.lives.t

    def teardown(self) -> None:
        with self.lives:
            self.t.mutation(start)
            self.t.advance(20 * LAG_MS)
            if not self.is_watched:
                self.t.advance(REPAIR_MS)
            self.over_when_stopped = None
            self.everything_is_somewhere()
            assert set(self.due) == {*self.in_table("done"), *self.in_table("aside")}
            assert self.poison == set(self.in_table("aside"))
            assert [] == self.lives.jobs()
            assert "idle" == self.t.query(status)["state"]

    # What happens.

    @initialize(count=COUNTS, poison=RARELY, wait_ms=WAITS_MS)
    def begin(self, count: int, poison: bool, wait_ms: float) -> None:
        self.add(count, poison, wait_ms)

    @rule(count=COUNTS, poison=RARELY, wait_ms=WAITS_MS)
    def add(self, count: int, poison: bool, wait_ms: float) -> None:
        self.reasons += 1
        first = len(self.due)
        due_ms = self.t.mutation(add, first, count, poison, wait_ms)
        added = range(first, first + count)
        self.due |= dict.fromkeys(added, due_ms)
        self.poison |= {first} if poison else set()
        self.at_once |= set() if wait_ms else set(added)

    @rule()
    def ping(self) -> None:
        self.reasons += 1
        self.t.mutation(ping)

    @rule(ms=st.sampled_from([0, 1, 100, 3_000, LAG_MS + 1_000]))
    def advance(self, ms: float) -> None:
        self.t.advance(ms)
        if not (self.killed or self.poison or self.over_when_stopped is not None):
            self.nothing_is_overdue()

    @rule()
    def start(self) -> None:
        self.reasons += 1
        self.t.mutation(start)
        self.over_when_stopped = None

    @rule()
    def stop(self) -> None:
        self.t.mutation(stop)
        if self.t.query(status) is not None:
            self.over_when_stopped = self.over()

    @rule()
    def crash(self) -> None:
        self.reasons += 1
        self.lives.crash()

    @rule(batches=st.integers(0, 6), in_flight=st.booleans(), ms=st.sampled_from([0, 3_000]))
    def crash_on_the_way(self, batches: int, in_flight: bool, ms: float) -> None:
        self.reasons += 1
        self.lives.cut(batches, in_flight=in_flight, ms=ms)

    @rule(names=st.sampled_from([PASS, PASS, WATCH, (*PASS, *WATCH)]))
    def kill_jobs(self, names: tuple[str, ...]) -> None:
        for job in self.lives.jobs():
            if job["name"].endswith(names):
                self.reasons += 1
                self.is_watched = self.is_watched and names == PASS
                self.killed.add(job["_id"])
                self.lives.kill_job(job["_id"])

    @precondition(lambda self: self.is_watched and not self.poison)
    @rule()
    def a_kill_is_noticed_in_time(self) -> None:
        """Whatever was killed, what is due is done within the lag of the monitor."""
        if self.over_when_stopped is None:
            self.t.advance(2 * LAG_MS + 1_000)
            self.nothing_is_overdue()

    @precondition(lambda self: self.over_when_stopped is None)
    @rule(waits_ms=st.integers(1_600, 3_000), kills=st.booleans())
    def what_comes_before_what_failed_is_done(self, waits_ms: float, kills: bool) -> None:
        """Though it is found where that would have been, after as many failures as there may be."""
        self.add(1, False, waits_ms)
        self.add(1, True, 0)
        self.t.advance(1_600)
        if kills:
            self.kill_jobs(PASS)
        self.t.advance(5 * LAG_MS)
        self.nothing_is_overdue()

    @precondition(lambda self: self.over_when_stopped is None)
    @rule()
    def who_lost_pass_and_monitor_is_repaired(self) -> None:
        """By what comes every hour, and comes now."""
        self.add(1, False, 0)
        self.kill_jobs((*PASS, *WATCH))
        self.t.mutation(mount.repair)
        self.is_watched = True
        self.t.advance(LAG_MS)
        self.nothing_is_overdue()

    @rule()
    def a_pass_that_was_canceled_does_nothing(self) -> None:
        """Each that the worker canceled is of an earlier loop, should it come all the same."""
        self.wake_it_before_its_time()
        before = self.state()
        for job in self.lives.jobs("canceled"):
            if job["name"].endswith(PASS) and job["_id"] not in self.killed:
                self.t.mutation(mount.run_pass, job["args"][0])
        assert before == self.state()

    def wake_it_before_its_time(self) -> None:
        """Have it sleep until something is due, and cancel that pass by a ping."""
        self.add(1, False, 50_000)
        self.t.advance(1)
        self.ping()

    # What holds.

    @invariant()
    def everything_is_somewhere(self) -> None:
        everywhere = [n for table in ("items", "done", "aside") for n in self.in_table(table)]
        assert sorted(self.due) == sorted(everywhere)
        assert not self.poison & set(self.in_table("done"))

    @invariant()
    def what_is_due_is_done_in_order_and_not_earlier(self) -> None:
        done = {int(n): at_ms for n, at_ms in self.t.query(times).items()}
        assert all(at_ms >= self.due[n] for n, at_ms in done.items())
        in_order = [n for n in done if n in self.at_once]
        assert sorted(in_order) == in_order

    @invariant()
    def stopped_it_does_nothing(self) -> None:
        if self.over_when_stopped is not None:
            assert "stopped" == self.t.query(status)["state"]
            assert self.over_when_stopped == self.over()

    @invariant()
    def at_most_one_pass_of_this_generation_is_to_come(self) -> None:
        found = self.t.query(status)
        if found is None:
            return
        assert self.generation <= found["generation"]
        self.generation = found["generation"]
        passes = [job for job in self.lives.jobs() if job["name"].endswith(PASS)]
        current = [job for job in passes if job["args"][0]["generation"] == self.generation]
        assert len(current) <= (found["state"] != "stopped")

    @invariant()
    def where_nothing_is_left_no_job_is_to_come(self) -> None:
        found = self.t.query(status)
        if found is not None and found["state"] == "idle" and not self.in_table("items"):
            assert [] == self.lives.jobs()

    @invariant()
    def it_looks_no_more_often_than_there_is_reason_to(self) -> None:
        passes = [job for job in self.lives.jobs("success") if job["name"].endswith(PASS)]
        with_work = len(self.t.query(batches)) + 12 * len(self.poison)
        assert len(passes) <= with_work + 2 * self.reasons + len(set(self.due.values()))

    def nothing_is_overdue(self) -> None:
        now_ms = self.t.now_ns // 1_000_000
        assert [] == [n for n in self.in_table("items") if self.due[n] <= now_ms]

    def over(self) -> int:
        """How many are done or set aside."""
        return len(self.in_table("done")) + len(self.in_table("aside"))

    def in_table(self, table: str) -> list[int]:
        return self.t.query(numbers, table)

    def state(self) -> list[Any]:
        tables = [self.in_table(table) for table in ("items", "done", "aside")]
        return [*tables, self.t.query(status), [job["_id"] for job in self.lives.jobs()]]


History.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestHistory = History.TestCase
