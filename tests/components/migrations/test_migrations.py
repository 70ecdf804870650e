"""Migrations as applications use them: started, followed, stopped, and told what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine import ConvexError, MutationCtx
from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness, open_place
from engine.store.memory_store import MemoryStore
from tests.components.inside import Inside
from tests.components.migrations.people import mount

inside = Inside(load(Path(__file__).with_name("people.py")), mount)


@pytest.fixture
def t() -> Iterator[BlockingHarness]:
    with open_place(inside.application) as place:
        t = BlockingHarness(place)
        t.mutation("people:add", {"numbers": list(range(10))})
        yield t


def start(t: BlockingHarness, name: str, **options: Any) -> Any:
    return t.mutation("people:start", {"name": name, "options": options})


def status(t: BlockingHarness, name: str) -> Any:
    (found,) = t.query("people:status", {"names": [name]})
    return found


def seen(t: BlockingHarness) -> list[int]:
    return [person.get("seen", 0) for person in t.query("people:people")]


def test_the_first_batch_runs_at_once_and_a_second_start_changes_nothing(
    t: BlockingHarness,
) -> None:
    first = start(t, "in_batches_of_two")
    second = start(t, "in_batches_of_two")

    assert ("inProgress", 2, 10) == (first["state"], first["processed"], first["total"])
    assert first == second


def test_one_that_is_done_begins_again_if_it_is_reset(t: BlockingHarness) -> None:
    start(t, "set_theme")
    t.finish_all_scheduled_functions()

    assert 10 == start(t, "set_theme")["processed"]
    assert 1 == start(t, "set_theme", reset=True, batch_size=1)["processed"]


@pytest.mark.parametrize("reset", [True, False])
def test_a_reset_holds_for_those_that_come_after(t: BlockingHarness, reset: bool) -> None:
    for name in ("set_theme", "set_color"):
        start(t, name)
        t.finish_all_scheduled_functions()
    before = status(t, "set_color")
    t.advance(1)

    start(t, "set_theme", reset=reset, next=["set_color", "only_free"])
    t.finish_all_scheduled_functions()

    assert reset is not (before == status(t, "set_color"))
    assert "success" == status(t, "only_free")["state"]


def test_one_that_was_canceled_goes_on_or_begins_anew(t: BlockingHarness) -> None:
    start(t, "in_batches_of_two")
    canceled = t.mutation("people:cancel", {"name": "in_batches_of_two"})
    t.finish_all_scheduled_functions()
    assert ("canceled", 2) == (canceled["state"], canceled["processed"])
    assert canceled == status(t, "in_batches_of_two")

    again = start(t, "in_batches_of_two", cursor=None)
    t.finish_all_scheduled_functions()

    assert 2 == again["processed"]
    assert [2, 2, 1, 1, 1, 1, 1, 1, 1, 1] == seen(t)
    assert "success" == status(t, "in_batches_of_two")["state"]


@pytest.mark.parametrize(("name", "chains"), [("in_batches_of_two", 1), ("in_three_parts", 3)])
def test_there_is_a_job_for_each_range_however_often_it_is_stopped_and_started(
    t: BlockingHarness, name: str, chains: int
) -> None:
    async def pending(ctx: MutationCtx) -> int:
        jobs = await ctx.db.system.query("_scheduled_functions").collect()
        return sum(job["state"]["kind"] == "pending" for job in jobs)

    for _ in range(3):
        start(t, name, batch_size=1)
        start(t, name, batch_size=1)
        assert chains == inside.run(t, pending)
        t.mutation("people:cancel", {"name": name})
        assert 0 == inside.run(t, pending)


def test_it_may_begin_at_a_cursor(t: BlockingHarness) -> None:
    cursor = start(t, "set_theme", batch_size=6)["cursor"]
    t.mutation("people:cancel", {"name": "set_theme"})

    start(t, "set_color", cursor=cursor)
    t.finish_all_scheduled_functions()

    colors = ["color" in person for person in t.query("people:people")]
    assert [False] * 6 + [True] * 4 == colors
    with pytest.raises(ValueError, match="one cursor is no place in them"):
        start(t, "in_three_parts", cursor=cursor)


def test_its_status_is_followed(t: BlockingHarness) -> None:
    with t.subscribe("people:status", {"names": ["in_batches_of_two"]}) as shown:
        states = [next(shown)[0]["state"]]
        start(t, "in_batches_of_two")
        progress = [next(shown)[0]["processed"]]
        t.finish_all_scheduled_functions()
        progress.append(next(shown)[0]["processed"])

    assert (["unknown"], 2) == (states, progress[0])
    assert progress[-1] > 2


def test_an_action_runs_all_of_it(t: BlockingHarness) -> None:
    done = t.action("people:complete", {"name": "in_three_parts", "options": {"batch_size": 1}})
    again = t.action("people:complete", {"name": "in_three_parts", "options": {}})

    assert ("success", 10, [1] * 10) == (done["state"], done["processed"], seen(t))
    assert done == again
    start(t, "in_batches_of_two")
    with pytest.raises(ConvexError) as raised:
        t.action("people:complete", {"name": "in_batches_of_two", "options": {}})
    assert "inProgress" == raised.value.data["state"]


def test_an_action_that_is_told_to_stop_does(t: BlockingHarness) -> None:
    t.mutation("people:add", {"numbers": list(range(10, 70))})

    found = t.action("people:complete_and_cancel", {"name": "set_theme"})

    assert "canceled" == found["state"]
    assert found["processed"] == sum(seen(t))
    assert found["processed"] < 70


def test_an_action_tells_of_a_failure_and_what_it_left_is_gone_on_with(t: BlockingHarness) -> None:
    t.mutation("people:switch", {"number": 5, "on": True})
    with pytest.raises(ConvexError, match="bad at 5"):
        t.action("people:complete", {"name": "in_batches_of_two", "options": {}})
    t.mutation("people:switch", {"number": 5, "on": False})

    start(t, "in_batches_of_two")
    t.finish_all_scheduled_functions()

    assert [1] * 10 == seen(t)


def test_a_range_of_ones_own_is_all_that_is_visited(t: BlockingHarness) -> None:
    start(t, "only_free")
    t.finish_all_scheduled_functions()

    found = status(t, "only_free")
    assert [1, 0] * 5 == seen(t)
    assert ("success", 5, False) == (found["state"], found["processed"], "total" in found)


def test_several_ranges_go_on_side_by_side(t: BlockingHarness) -> None:
    first = start(t, "two_ranges", batch_size=1)
    t.finish_all_scheduled_functions()
    found = status(t, "two_ranges")

    assert [1, 0] == [part["processed"] for part in first["parts"]]
    assert [5, 3] == [part["processed"] for part in found["parts"]]
    assert [1] * 5 + [0, 0] + [1] * 3 == seen(t)


@pytest.mark.parametrize(("name", "asked"), [("together", 4), ("one_by_one", 1)])
def test_one_that_fails_keeps_nobody_of_its_batch_from_being_asked_if_all_are_together(
    t: BlockingHarness, name: str, asked: int
) -> None:
    module: Any = inside.application.functions["people:people"].handler
    asked_of: list[float] = module.__globals__["asked_of"]
    asked_of.clear()
    start(t, name, batch_size=4)
    t.finish_all_scheduled_functions()

    assert "failed" == status(t, name)["state"]
    assert set(range(asked)) == set(asked_of)


def test_a_series_waits_for_one_that_somebody_else_has_begun_meanwhile(
    t: BlockingHarness,
) -> None:
    t.mutation("people:serially", {"names": ["set_theme", "in_batches_of_two", "set_color"]})
    start(t, "in_batches_of_two", batch_size=1)

    t.finish_all_scheduled_functions()

    names = ["set_theme", "in_batches_of_two", "set_color"]
    found = t.query("people:status", {"names": names})
    assert ["success"] * 3 == [each["state"] for each in found]
    assert [2] * 10 == seen(t)


def test_a_failure_ends_the_series_and_going_on_with_one_is_no_going_on_with_it(
    t: BlockingHarness,
) -> None:
    t.mutation("people:switch", {"number": 5, "on": True})
    first = t.mutation("people:serially", {"names": ["set_theme", "set_color"]})
    t.finish_all_scheduled_functions()
    failed = status(t, "set_theme")
    t.mutation("people:switch", {"number": 5, "on": False})

    start(t, "set_theme")
    t.finish_all_scheduled_functions()

    assert (["people:set_color"], []) == (first["next"], failed["next"])
    assert "success" == status(t, "set_theme")["state"]
    assert "unknown" == status(t, "set_color")["state"]


def test_a_bad_document_is_skipped_if_that_was_wanted(t: BlockingHarness) -> None:
    for number in (3, 4):
        t.mutation("people:switch", {"number": number, "on": True})

    start(t, "set_theme", skip_errors=True)
    t.finish_all_scheduled_functions()

    found, people = status(t, "set_theme"), t.query("people:people")
    assert ("success", 10, 2) == (found["state"], found["processed"], found["skipped"])
    assert [1, 1, 1, 0, 0, 1, 1, 1, 1, 1] == seen(t)
    assert [True] * 3 + [False] * 2 + [True] * 5 == ["theme" in person for person in people]
    assert ["bad at 3", "bad at 4"] == [each["error"][-8:] for each in _cut(found["failures"])]


def _cut(failures: list[Any]) -> list[Any]:
    """Without the document that each of them names."""
    return [{**each, "error": each["error"].partition(", at the document")[0]} for each in failures]


def test_only_so_many_bad_documents_are_kept(t: BlockingHarness) -> None:
    numbers = list(range(100, 300))
    t.mutation("people:add", {"numbers": numbers})
    for number in numbers:
        t.mutation("people:switch", {"number": number, "on": True})

    start(t, "set_theme", skip_errors=True)
    t.finish_all_scheduled_functions()
    found = status(t, "set_theme")

    assert (200, 10) == (found["skipped"], len(found["failures"]))


def test_batches_end_before_they_use_up_what_a_transaction_may(t: BlockingHarness) -> None:
    t.mutation("people:add", {"numbers": list(range(10, 70))})

    first = start(t, "write_a_lot")
    t.finish_all_scheduled_functions()

    assert 50 == first["processed"], "a page too far, and not all thousand"
    assert ("success", 70) == tuple(map(status(t, "write_a_lot").get, ("state", "processed")))


def test_a_batch_that_is_too_large_fails_and_says_so(t: BlockingHarness) -> None:
    start(t, "write_too_much")
    t.finish_all_scheduled_functions()

    found = status(t, "write_too_much")
    assert ("failed", 0) == (found["state"], found["processed"])
    assert "LimitExceeded" in found["error"]
    assert "inProgress" == start(t, "write_too_much", batch_size=4)["state"]


@pytest.mark.parametrize("name", ["never_end", "end_late"])
def test_a_batch_that_has_no_end_has_failed(t: BlockingHarness, name: str) -> None:
    if name == "never_end":
        with pytest.raises(Exception, match="time"):
            start(t, name)
        assert "unknown" == status(t, name)["state"]
        return
    start(t, name, batch_size=2)
    t.finish_all_scheduled_functions()

    found = status(t, name)
    assert ("failed", 2) == (found["state"], found["processed"])
    assert "time" in found["error"]


def test_one_whose_part_has_failed_is_started_again_beside_another_part_that_goes_on(
    t: BlockingHarness,
) -> None:
    t.mutation("people:switch", {"number": 1, "on": True})

    start(t, "end_late_once")
    t.finish_all_scheduled_functions()

    assert ("success", 10) == tuple(map(status(t, "end_late_once").get, ("state", "processed")))
    assert [1] * 10 == seen(t)


@pytest.mark.parametrize("how", ["start", "cancel"])
def test_weeks_after_a_batch_had_no_end_it_is_started_again_or_canceled(
    t: BlockingHarness, how: str
) -> None:
    start(t, "end_late", batch_size=2)
    t.finish_all_scheduled_functions()
    t.advance(timedelta(days=15))
    assert "unknown" == status(t, "end_late")["state"], "its job has been swept"

    if how == "start":
        assert 3 == start(t, "end_late", batch_size=1)["processed"]
    else:
        assert "canceled" == t.mutation("people:cancel", {"name": "end_late"})["state"]


def test_a_caller_that_fails_has_started_nothing(t: BlockingHarness) -> None:
    with pytest.raises(LookupError):
        t.mutation("people:start_and_fail", {"name": "set_theme"})
    t.finish_all_scheduled_functions()

    assert ("unknown", [0] * 10) == (status(t, "set_theme")["state"], seen(t))


def test_runners_and_migrations_are_called_by_themselves(t: BlockingHarness) -> None:
    dry = t.mutation("people:set_color", {"dryRun": True, "batchSize": 3})
    t.mutation("people:both", {})
    t.finish_all_scheduled_functions()
    t.mutation("people:either", {"fn": "people:only_free"})
    t.finish_all_scheduled_functions()

    assert 3 == dry["processed"]
    states = [each["state"] for each in t.query("people:status", {})]
    assert ["success"] * 3 == states
    with pytest.raises(ValueError, match="which"):
        t.mutation("people:either", {})


def test_those_that_are_listed_are_the_latest_the_oldest_first(t: BlockingHarness) -> None:
    for name in ("set_theme", "set_color", "only_free"):
        start(t, name)

    listed = [each["name"].removeprefix("people:") for each in t.query("people:status", {})]
    named = t.query("people:status", {"names": ["only_free", "two_ranges", "set_theme"]})

    assert ["set_theme", "set_color", "only_free"] == listed
    assert ["only_free", "two_ranges", "set_theme"] == [each["name"][7:] for each in named]


def test_canceling_what_never_was_is_an_error_and_what_has_ended_none(t: BlockingHarness) -> None:
    with pytest.raises(ConvexError) as raised:
        t.mutation("people:cancel", {"name": "set_theme"})
    assert "MigrationNotFound" == raised.value.data["kind"]
    start(t, "set_theme", batch_size=100)

    assert "success" == t.mutation("people:cancel", {"name": "set_theme"})["state"]


def test_all_that_are_in_progress_are_canceled(t: BlockingHarness) -> None:
    for name in ("set_theme", "in_three_parts"):
        start(t, name, batch_size=1, next=["set_color"])

    canceled = t.mutation("people:cancel_all")
    t.finish_all_scheduled_functions()

    assert ["canceled"] * 2 == [each["state"] for each in canceled]
    assert 2 == sum(seen(t))
    assert "unknown" == status(t, "set_color")["state"]


def test_what_has_ended_is_forgotten_and_could_be_run_again(t: BlockingHarness) -> None:
    start(t, "set_theme", batch_size=100)
    t.advance(1)
    start(t, "in_batches_of_two")

    t.mutation(mount.clear_all, {})

    assert "unknown" == status(t, "set_theme")["state"]
    assert "inProgress" == status(t, "in_batches_of_two")["state"]


def test_a_query_starts_nothing(t: BlockingHarness) -> None:
    with pytest.raises(TypeError, match="are started by mutations"):
        t.query("people:start_in_a_query")


def test_what_is_no_handle_is_refused(t: BlockingHarness) -> None:
    with pytest.raises(ValueError, match="no function handle"):
        t.mutation(mount.start, {"name": "x", "fn": "people:set_theme", "next": []})


def test_what_is_printed_on_how_to_go_on_says_where_it_is_mounted(
    t: BlockingHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    t.mutation("people:in_batches_of_two", {"component": mount.path})

    name = "people:in_batches_of_two"
    assert [
        f"{name}: inProgress, 2 of 10 documents so far",
        f"watch it: headrace migrations status {name} --watch --component {mount.path}",
        f"stop it: headrace migrations cancel {name} --component {mount.path}",
    ] == capsys.readouterr().out.splitlines()


APP = """
from components.migrations import Migrations, component
from engine import App, Document, MutationCtx, mutation

app = App()
migrations = Migrations(app.use(component, name="migrations"), default_batch_size=2)
RANGES = {ranges}


@migrations.define("people", custom_range=RANGES)
async def see(ctx: MutationCtx, person: Document) -> dict[str, object]:
    return {{"seen": person.get("seen", 0) + 1}}


@mutation
async def add(ctx: MutationCtx) -> None:
    for n in range(6):
        await ctx.db.insert("people", {{"n": n}})


@mutation
async def start_and_stop(ctx: MutationCtx) -> None:
    await migrations.run_one(ctx, see)
    await migrations.cancel(ctx, see)
"""
ONE, REST = (
    f'lambda q: q.with_index("by_creation_time").filter(lambda q: q.{condition}(q.field("n"), 1))'
    for condition in ("lt", "gte")
)


@pytest.mark.parametrize(
    ("number", "ranges"), [(0, "None"), (1, ONE), (3, f"[{ONE}, {REST}, {REST}]")]
)
def test_a_part_that_was_made_of_other_ranges_is_not_gone_on_with(
    tmp_path: Path, number: int, ranges: str
) -> None:
    module = f"with_{number}_ranges"
    file, store = tmp_path / f"{module}.py", MemoryStore()
    file.write_text(APP.format(ranges=f"[{ONE}, {REST}]"))
    with open_place(load(file), store=store) as place:
        t = BlockingHarness(place)
        t.mutation(f"{module}:add")
        t.mutation(f"{module}:start_and_stop")
        store = store.durable_copy()
    file.write_text(APP.format(ranges=ranges))

    with open_place(load(file), store=store) as place:
        t = BlockingHarness(place)
        found = t.mutation(f"{module}:see")
        anew = t.mutation(f"{module}:see", {"reset": True})

    assert ("failed", 1) == (found["state"], found["processed"])
    assert f"was begun with 2 ranges of its own, and has {number} now" in found["error"]
    assert "failed" != anew["state"]


@pytest.mark.parametrize(
    ("module", "made"), [("with_none", "None"), ("with_a_list", "[]"), ("with_a_call", "q.take(2)")]
)
def test_a_range_of_its_own_that_makes_no_query_fails_by_what_it_made(
    tmp_path: Path, module: str, made: str
) -> None:
    file = tmp_path / f"{module}.py"
    file.write_text(APP.format(ranges=f"lambda q: {made}"))
    with open_place(load(file)) as place:
        t = BlockingHarness(place)
        t.mutation(f"{module}:add")
        found = t.mutation(f"{module}:see")

    assert ("failed", 0) == (found["state"], found["processed"])
    assert "custom_range returned" in found["error"]
    assert "has to return the query that it is given, narrowed" in found["error"]


@pytest.mark.parametrize("named", ["no_migration", "anything"])
def test_what_is_no_migration_is_refused_also_where_it_would_come_next(
    t: BlockingHarness, named: str
) -> None:
    for options in ({"next": [f"people:{named}"]}, {"reset": True, "next": [f"people:{named}"]}):
        with pytest.raises(ValueError, match=f"people:{named} is no migration"):
            t.mutation("people:set_theme", options)
    with pytest.raises(ValueError, match=f"people:{named} is no migration"):
        start(t, named)

    assert [0] * 10 == seen(t)
    assert "unknown" == status(t, "set_theme")["state"]
    assert [] == t.query("people:status", {"names": [named]})[0]["next"]


@pytest.mark.parametrize("named", ["no_migration", "anything"])
def test_what_is_no_migration_is_refused_also_while_another_is_in_progress(
    t: BlockingHarness, named: str
) -> None:
    start(t, "set_theme")
    before = seen(t)

    for names in (["set_theme", named], [named, "set_theme"]):
        with pytest.raises(ValueError, match=f"people:{named} is no migration"):
            t.mutation("people:serially", {"names": names})

    assert "inProgress" == status(t, "set_theme")["state"]
    assert ([], before) == (status(t, "set_theme")["next"], seen(t))
