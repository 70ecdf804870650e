"""What holds of migrations wherever they stop, on a real engine whose power is cut on the way."""

from __future__ import annotations

import math

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from engine import FunctionNotFound
from tests.components.migrations.towns import WHOLE, town

law = settings(max_examples=12, phases=[Phase.generate])
counts = st.integers(0, 14)
cuts = st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=3)
whole = st.sampled_from(WHOLE)


@law
@given(count=counts, name=whole, size=st.none() | st.integers(1, 20))
def test_each_document_is_visited_once(count: int, name: str, size: int | None) -> None:
    with town(*range(count)) as here:
        here.start(name, batch_size=size)
        here.finish()

        assert dict.fromkeys(range(count), 1) == here.seen
        status = here.status(name)
        assert ("success", count, count) == (status["state"], status["processed"], status["total"])


@law
@given(count=counts, name=whole, size=st.none() | st.integers(1, 5), cuts=cuts)
def test_neither_the_size_of_batches_nor_where_it_is_cut_off_changes_the_outcome(
    count: int, name: str, size: int | None, cuts: list[tuple[int, bool]]
) -> None:
    with town(*range(count)) as here:
        here.start(name, batch_size=size)
        here.cut(*cuts)
        here.finish()

        assert [1] * count == [person["seen"] for person in here.people]
        assert ["light"] * count == [person["theme"] for person in here.people]
        assert count == here.status(name)["processed"]


@law
@given(data=st.data(), count=st.integers(1, 14), size=st.integers(1, 5), cuts=cuts)
def test_a_batch_that_fails_vanishes_and_what_was_before_it_stays(
    data: st.DataObject, count: int, size: int, cuts: list[tuple[int, bool]]
) -> None:
    bad = data.draw(st.integers(0, count - 1))
    with town(*range(count)) as here:
        here.switch(bad, True)
        here.start("set_theme", batch_size=size)
        here.finish()
        failed, whole_batches = here.status("set_theme"), bad // size * size

        assert ("failed", whole_batches) == (failed["state"], failed["processed"])
        assert f"LookupError: bad at {bad}" in failed["error"]
        assert "at the document" in failed["error"]
        done = [1] * whole_batches + [0] * (count - whole_batches)
        assert done == list(here.seen.values())
        assert [bool(each) for each in done] == ["theme" in person for person in here.people]

        here.switch(bad, False)
        here.start("set_theme", batch_size=size)
        here.cut(*cuts)
        here.finish()

        assert dict.fromkeys(range(count), 1) == here.seen
        assert ("success", count) == tuple(
            map(here.status("set_theme").get, ("state", "processed"))
        )


@law
@given(count=counts, name=whole, cuts=cuts)
def test_one_that_is_done_stays_done_until_it_is_reset(
    count: int, name: str, cuts: list[tuple[int, bool]]
) -> None:
    with town(*range(count)) as here:
        here.start(name)
        here.finish()
        before = here.status(name)

        assert before == here.start(name)
        here.finish()
        assert dict.fromkeys(range(count), 1) == here.seen

        again = here.start(name, reset=True, batch_size=2)
        assert again["processed"] <= 2
        here.cut(*cuts)
        here.finish()
        assert dict.fromkeys(range(count), 2) == here.seen
        assert count == here.status(name)["processed"]


@law
@given(
    count=st.integers(1, 14),
    name=whole,
    steps=st.lists(
        st.sampled_from(["start", "start with a cursor", "reset", "serially", "cut"]), max_size=5
    ),
)
def test_however_often_it_is_started_nobody_is_visited_twice(
    count: int, name: str, steps: list[str]
) -> None:
    with town(*range(count)) as here:
        here.start(name, batch_size=1)
        for step in steps:
            is_done = here.status(name)["isDone"]
            match step:
                case "start":
                    here.start(name, batch_size=1)
                case "start with a cursor" if not is_done:
                    here.start(name, cursor=None)
                case "reset" if not is_done:
                    here.start(name, reset=True)
                case "serially":
                    here.serially(name, "set_color")
                case "cut":
                    here.cut((2, False))
        here.finish()

        assert dict.fromkeys(range(count), 1) == here.seen


@law
@given(
    count=counts,
    name=whole,
    size=st.integers(1, 20),
    before=st.sampled_from(["nothing", "some", "all"]),
)
def test_a_dry_run_leaves_everything_as_it_was(
    count: int, name: str, size: int, before: str
) -> None:
    with town(*range(count)) as here:
        if before != "nothing":
            here.start("set_color", batch_size=2)
        if before == "all":
            here.finish()
        rows = here.rows()

        found = here.start(name, dry_run=True, batch_size=size)

        assert rows == here.rows()
        assert (True, min(count, size)) == (found["dryRun"], found["processed"])
        assert min(count, size, 10) == len(found["changes"])
        for number, change in enumerate(found["changes"]):
            assert {**change["before"], "seen": 1, "theme": "light"} == change["after"]
            assert number == change["before"]["n"]


SERIES = ("set_theme", "in_batches_of_two", "set_color", "only_free")


@law
@given(
    chosen=st.permutations(SERIES),
    running=st.none() | st.sampled_from(SERIES),
    bad=st.none() | st.integers(0, 9),
    cuts=cuts,
)
def test_a_series_goes_on_in_its_order_and_forgets_none(
    chosen: list[str],
    running: str | None,
    bad: int | None,
    cuts: list[tuple[int, bool]],
) -> None:
    with town(*range(10)) as here:
        if running is not None:
            here.start(running, batch_size=1)
        if bad is not None:
            here.switch(bad, True)
        first = here.serially(*chosen)
        here.cut(*cuts)
        here.finish()

        states = [each["state"] for each in here.status(*chosen)]
        if running is not None and states[chosen.index(running)] == "success":
            assert running == first["name"].removeprefix("people:")
        if bad is not None:
            failed = states.index("failed")
            after = [name for name in chosen[failed + 1 :] if name != running]
            assert {"unknown"} >= {each["state"] for each in here.status(*after, *after)}
            here.switch(bad, False)
            here.serially(*chosen)
            here.finish()

        statuses = here.status(*chosen)
        assert ["success"] * 4 == [each["state"] for each in statuses]
        began = [
            each["latestStart"] for each in statuses if not each["name"].endswith(str(running))
        ]
        assert began == sorted(began)
        assert [[]] * 4 == [each["next"] for each in statuses]
        assert [3 if n % 2 == 0 else 2 for n in range(10)] == list(here.seen.values())


def test_a_series_that_is_asked_for_twice_still_runs_one_after_another() -> None:
    for steps in range(100):
        with town(*range(6)) as here:
            here.start("set_theme", batch_size=100)
            for _ in range(2):
                here.serially("set_theme", "in_batches_of_two", "set_color")
            here.cut((steps, False))
            second, third = here.status("in_batches_of_two", "set_color")
            assert third["state"] == "unknown" or second["isDone"]
            if third["isDone"]:
                return
    raise AssertionError("it has no end")


@law
@given(
    count=st.integers(1, 14),
    name=whole,
    first=st.integers(0, 5),
    second=st.integers(0, 5),
    cuts=cuts,
)
def test_one_that_is_canceled_stops_and_goes_on_where_it_was(
    count: int, name: str, first: int, second: int, cuts: list[tuple[int, bool]]
) -> None:
    with town(*range(count)) as here:
        here.start(name, batch_size=1)
        for batches in (first, second):
            here.cut((batches, False))
            was_done, before = here.status(name)["isDone"], here.seen
            status = here.cancel(name)
            here.finish()
            assert ("success" if was_done else "canceled") == status["state"]
            assert before == here.seen
            assert sum(before.values()) == status["processed"]
            here.start(name, batch_size=1)
        here.cut(*cuts)
        here.finish()

        assert dict.fromkeys(range(count), 1) == here.seen


@law
@given(
    batches=st.integers(0, 6),
    inserted=st.lists(st.integers(-5, 25), unique=True, max_size=4),
    removed=st.sets(st.integers(0, 12), max_size=4),
)
def test_what_comes_ahead_is_visited_and_what_comes_behind_is_not(
    batches: int, inserted: list[int], removed: set[int]
) -> None:
    numbers = range(7, 20)
    with town(*numbers) as here:
        here.start("two_ranges", batch_size=1)
        here.cut((batches, False))
        reached = max((n for n, seen in here.seen.items() if seen), default=6)
        is_done = here.status("two_ranges")["isDone"]
        before = here.seen
        here.add(*(n + 0.5 for n in inserted))
        for number in removed:
            here.t.mutation("people:remove", {"number": number + 7})
        here.finish()

        expected: dict[float, int] = {n: 1 for n in numbers if n - 7 not in removed}
        high = (n + 0.5 for n in inserted if n + 0.5 >= 7)
        expected |= {n: int(n > reached and not is_done) for n in high}
        assert before.items() >= {n: s for n, s in before.items() if s}.items()
        found = {n: seen for n, seen in here.seen.items() if n >= 7}
        assert expected == found


@settings(law, max_examples=4)
@given(count=st.integers(1, 12), name=whole, size=st.integers(1, 4))
def test_its_status_is_true_after_each_step(count: int, name: str, size: int) -> None:
    for steps in range(100):
        with town(*range(count)) as here:
            here.start(name, batch_size=size, next=["set_color"])
            here.cut((steps, False))
            status, color = here.status(name, "set_color")
            assert sum(here.seen.values()) == status["processed"]
            assert status["isDone"] <= (status["processed"] == count)
            assert ("success" if status["isDone"] else "inProgress") == status["state"]
            assert status["cursor"] is None or not status["isDone"]
            assert (color["state"] != "unknown") >= (color["processed"] > 0)
            assert color["state"] == "unknown" or status["isDone"]
            assert ["people:set_color"] == status["next"] or color["state"] != "unknown"
            names = [each["name"] for each in here.status("set_color", name)]
            assert ["people:set_color", f"people:{name}"] == names
            if color["isDone"]:
                return
    raise AssertionError("it has no end")


@pytest.mark.parametrize("is_dry", [False, True])
@pytest.mark.parametrize("size", [0, -1, 0.5, 2.5, math.nan, math.inf])
def test_batches_of_nothing_are_refused_before_anything_is_written(
    size: float, is_dry: bool
) -> None:
    with town(1, 2) as here:
        rows = here.rows()
        with pytest.raises(ValueError, match="a batch has to have documents"):
            here.t.mutation("people:set_theme", {"batchSize": size, "dryRun": is_dry})
        assert rows == here.rows()


@pytest.mark.parametrize(
    ("function", "error"),
    [("people:nowhere", FunctionNotFound), ("people:no_migration", Exception)],
)
def test_what_is_no_migration_is_refused_before_anything_is_written(
    function: str, error: type[Exception]
) -> None:
    with town(1, 2) as here:
        rows = here.rows()
        with pytest.raises(error):
            here.t.mutation("people:either", {"fn": function})
        assert rows == here.rows()
