"""A migration in any history: started, stopped, reset, cut off, with bad documents and new ones."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.components.migrations.people import mount
from tests.components.migrations.towns import WHOLE, town


class Runs(RuleBasedStateMachine):
    """One migration, whatever is done to it, by how often it has visited each person."""

    def __init__(self) -> None:
        super().__init__()
        self._town = town(*range(7))
        self.here = self._town.__enter__()
        self.numbers = 7
        self.passes = 1
        """How often it may have visited somebody."""
        self.is_started = False
        self.late: set[int] = set()
        """Who has come when it was done."""
        self.bad: set[int] = set()
        self.may_skip = False

    @initialize(name=st.sampled_from([*WHOLE, "in_three_parts"]))
    def choose(self, name: str) -> None:
        self.name = name

    def teardown(self) -> None:
        """Nothing that happened keeps it from its end, or from visiting all of them once more."""
        try:
            self.nobody_is_bad()
            self.here.start(self.name)
            self.here.finish()
            assert "success" == self.status["state"]
            self.what_is_said_is_so()
            before = self.here.seen
            self.here.start(self.name, reset=True)
            self.here.finish()
            assert {n: seen + 1 for n, seen in before.items()} == self.here.seen
        finally:
            self._town.__exit__(None, None, None)

    @property
    def status(self) -> Any:
        return self.here.status(self.name)

    # What happens.

    @rule()
    def somebody_comes(self) -> None:
        if self.status["isDone"]:
            self.late.add(self.numbers)
        self.here.add(self.numbers)
        self.numbers += 1

    @rule(size=st.sampled_from([None, 1, 1, 2, 3]), skip=st.sampled_from([False, False, True]))
    def start(self, size: int | None, skip: bool) -> None:
        self.here.t.advance(1)
        before, self.is_started = self.status, True
        self.may_skip |= skip
        found = self.here.start(self.name, batch_size=size, skip_errors=skip)
        if before["state"] in ("success", "inProgress"):
            assert before == found

    @rule(size=st.integers(1, 3), skip=st.just(False))
    def reset(self, size: int, skip: bool) -> None:
        before, self.is_started = self.status, True
        self.may_skip |= skip
        found = self.here.start(self.name, reset=True, batch_size=size, skip_errors=skip)
        if before["state"] == "inProgress":
            assert before == found
            return
        self.passes += 1
        self.late.clear()

    @rule()
    def cancel(self) -> None:
        self.start(1, False)
        was, before = self.status["state"], self.here.seen
        status = self.here.cancel(self.name)
        self.each_part_has_a_batch_to_come_while_it_is_in_progress()
        assert ("success" == was) == (status["state"] == "success")
        assert was != "inProgress" or status["state"] == "canceled"
        self.here.finish()
        assert before == self.here.seen

    @rule()
    def a_batch_that_was_canceled_does_nothing(self) -> None:
        """Should it come all the same."""
        self.cancel()
        before = self.here.seen
        for job in self.here.life.jobs("canceled"):
            if job["name"].endswith("step"):
                self.here.t.mutation(mount.step, job["args"][0])
        assert before == self.here.seen

    @rule(
        is_begun=st.booleans(),
        cuts=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=2),
    )
    def another_is_to_follow(self, is_begun: bool, cuts: list[tuple[int, bool]]) -> None:
        self.nobody_is_bad()
        if is_begun:
            self.start(1, False)
        self.is_started = True
        self.here.serially(self.name, "set_color")
        self.here.cut(*cuts)
        self.time_passes()
        assert self.here.status("set_color")["isDone"]

    @rule(size=st.integers(1, 7))
    def dry_run(self, size: int) -> None:
        rows = self.here.rows()
        with suppress(LookupError):
            assert self.here.start(self.name, dry_run=True, batch_size=size)["dryRun"]
        assert rows == self.here.rows()

    @rule(number=st.integers(0, 8), skip=st.booleans())
    def somebody_is_bad(self, number: int, skip: bool) -> None:
        self.here.switch(number, True)
        self.bad.add(number)
        self.start(2, skip)
        self.here.serially(self.name, "set_color")
        self.time_passes()

    @rule(number=st.integers(0, 6), skip=st.booleans())
    def all_are_visited_while_one_of_them_is_bad(self, number: int, skip: bool) -> None:
        self.cancel()
        self.nobody_is_bad()
        self.here.switch(number, True)
        self.bad.add(number)
        self.reset(2, skip)
        self.here.finish()
        status = self.status
        ends = ("success", 1) if skip else ("failed", 0)
        assert ends == (status["state"], status["skipped"])

    @rule()
    def nobody_is_bad(self) -> None:
        for number in self.bad:
            self.here.switch(number, False)

    @rule(batches=st.integers(0, 4), in_flight=st.booleans())
    def power_is_cut(self, batches: int, in_flight: bool) -> None:
        self.start(1, False)
        self.here.cut((batches, in_flight))

    @rule()
    def time_passes(self) -> None:
        self.here.finish()
        status = self.status
        assert (status["state"] in ("success", "failed", "canceled")) == self.is_started
        assert [] == status["next"]

    # What holds.

    @invariant()
    def what_is_said_is_so(self) -> None:
        status, seen = self.status, self.here.seen
        assert max(seen.values()) <= self.passes
        if self.passes == 1:
            assert sum(seen.values()) + status["skipped"] == status["processed"]
        if status["isDone"]:
            skipped = self.bad if self.may_skip else set()
            assert all(seen[n] for n in range(self.numbers) if n not in self.late | skipped)
        if status["state"] == "failed":
            assert "LookupError" in status["error"]
            assert [] == status["next"]

    @invariant()
    def whoever_was_not_visited_is_as_before(self) -> None:
        for person in self.here.people:
            assert ("theme" in person) == ("seen" in person)

    @invariant()
    def each_part_has_a_batch_to_come_while_it_is_in_progress(self) -> None:
        """And one only, and none when it is not."""
        jobs = [job for job in self.here.life.jobs() if job["name"].endswith("step")]
        parts = [job["args"][0]["part"] for job in jobs]
        assert len(parts) == len(set(parts))
        states = [each["state"] for each in self.here.status(self.name, "set_color")]
        assert ("inProgress" in states) == bool(parts)


Runs.TestCase.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
TestRuns = Runs.TestCase
