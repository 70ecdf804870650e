"""What operators see of scheduled functions and crons, and what they do about them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import blocking
from engine.cli.crons import _there_are
from engine.cli.jobs import _row, when
from tests.architecture.source_tree import ROOT
from tests.node.command_line import eventually, headrace, started

APP = """
from headrace import Crons, Retry, internal_action, internal_mutation, mutation


@internal_mutation
async def beat(ctx) -> None:
    pass


@internal_mutation
async def fails(ctx, why: str) -> None:
    raise ValueError(why)


@mutation
async def register(ctx) -> None:
    await ctx.crons.register("registered", beat, hours=2)


@internal_action
async def flaky(ctx) -> None:
    raise ValueError("for now")


@mutation
async def plan_flaky(ctx) -> str:
    retry = Retry(initial_backoff=3_600_000, base=1)
    return await ctx.scheduler.with_retry(retry).run_after(0, flaky)


@mutation
async def plan(ctx, days: float, why: str) -> str:
    return await ctx.scheduler.run_after(days * 86_400_000, fails, why)


crons = Crons()
crons.interval("the beat", beat, hours=1)
"""


@pytest.mark.slow
def test_jobs_and_crons_are_listed_shown_counted_and_canceled(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)

    with started(tmp_path, "serve", "app.py", "--data", "db", "--port", "0") as server:
        server.wait_said("ready")

        def verb(*arguments: str) -> str:
            said = headrace(tmp_path, *arguments, "--data", "db")
            assert 0 == said.code, said.err
            return said.out + said.err

        def plan(days: int, why: str) -> str:
            arguments = json.dumps({"days": days, "why": why})
            return str(json.loads(verb("run", "app:plan", arguments)))

        first, second, ended = plan(1, "one"), plan(2, "two"), plan(0, "at once")
        eventually(lambda: "failed" in verb("jobs", "show", ended))
        pending = verb("jobs", "list")
        some = verb("jobs", "list", "-n", "1")
        failed = verb("jobs", "list", "--state", "failed", "--json")
        none = verb("jobs", "list", "--state", "failed", "--function", "app:beat", "--json")
        canceled = verb("jobs", "cancel", first, ended)
        left = verb("jobs", "list", "--json")
        flaky = json.loads(verb("run", "app:plan_flaky"))
        eventually(lambda: "for now" in verb("jobs", "show", flaky))
        waits, *_ = map(json.loads, verb("jobs", "list", "--json").splitlines())
        crons = verb("crons", "list")
        runs = verb("crons", "logs", "the beat")
        (run,) = map(json.loads, verb("crons", "logs", "the beat", "--json").splitlines())
        verb("run", "app:register")
        removed = verb("crons", "remove", "registered")
        again, declared = (
            headrace(tmp_path, "crons", "remove", name, "--data", "db")
            for name in ("registered", "the beat")
        )
        missing = headrace(tmp_path, "crons", "logs", "no such", "--data", "db")
        nobody = headrace(tmp_path, "jobs", "show", first[:-1] + "0", "--data", "db")
        stats = verb("stats")

    assert pending.index(first) < pending.index(second)
    assert "there are more than these 1" in some
    assert (ended, "at once") == (json.loads(failed)["_id"], json.loads(failed)["args"][0]["why"])
    assert "ValueError: at once" in json.loads(failed)["state"]["error"]
    assert "" == none
    assert f"canceled {first}" in canceled
    assert f"{ended} had ended already" in canceled
    assert second == json.loads(left)["_id"]
    assert (flaky, True) == (waits["_id"], waits["due"] - waits["scheduledTime"] > 1_000_000)
    assert "the beat\tapp:beat\tinterval seconds=3600\t" in crons
    assert "\t0\tsuccess" in runs
    assert run["scheduledTime"] <= run["startedTime"] <= run["completedTime"]
    assert "removed registered" in removed
    assert (2, 2) == (again.code, declared.code)
    assert "declared in the code" in declared.err
    assert "there are the beat" in missing.err
    assert (2, True) == (nobody.code, "checksum" in nobody.err)
    assert "jobs.ended\tfunction=app:fails, state=failed\t1" in stats
    assert "scheduler.lag_s\t\t0" in stats
    assert "sessions\t\t0" in stats
    assert "crons.ended\tfunction=app:beat, state=success\t" in stats
    assert "executions\tfunction=app:plan, kind=mutation, state=success\t3" in stats


def test_what_is_tried_again_is_listed_with_when_that_is() -> None:
    job = {"_id": "k1", "name": "m:f", "component": "", "state": {"kind": "pending"}}

    assert when(5e12) == _row({**job, "scheduledTime": 1e12, "due": 5e12})[2]
    assert when(1e12) == _row({**job, "scheduledTime": 1e12})[2]


def test_of_many_crons_some_are_named() -> None:
    crons = [{"component": "", "cron": f"c{number}"} for number in range(1_000)]

    assert "there are none" == _there_are([])
    assert "there are c0, c1" == _there_are(crons[:2])
    assert _there_are(crons).endswith("c18, c19 and 980 more")


LOOKS_AT_THREE = """
import sys
from engine.cli.command import main
from engine.functions import jobs
jobs.LISTED_ROWS_MAX = jobs.LISTED_SLICE_ROWS = 3
sys.exit(main(["jobs", "list", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_list_that_did_not_go_through_all_jobs_says_so(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    data = str(tmp_path / "db")
    with blocking.open(data, app=str(tmp_path / "app.py")) as engine:
        for _ in range(4):
            engine.mutation("app:plan", {"days": 0.01, "why": "one of many"})
        engine.mutation("app:plan_flaky")

    def said(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-c", LOOKS_AT_THREE, "--data", data, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        return len(done.stdout.splitlines()), done.stderr

    found, told = said("--function", "app:flaky", "--json")
    assert 0 == found
    assert "looked at 3 that are pending and not at all there are: there may be more" in told
    found, told = said("--function", "app:fails", "--json", "-n", "2")
    assert (2, True) == (found, "more than these 2" in told)
    _, told = said("--state", "success")
    assert "looked at" not in told


PAUSED_APP = """
from headrace import Crons, MutationCtx, QueryCtx, internal_mutation, mutation, query


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text + VERSION})


@mutation
async def plan(ctx: MutationCtx, text: str) -> None:
    await ctx.scheduler.run_after(2_000, note, text)


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return sorted([doc["text"] async for doc in ctx.db.query("notes")])


crons = Crons()
crons.interval("tick", note, seconds=1, args={"text": "tick"})
"""


@pytest.mark.slow
def test_a_pause_outlives_the_process_and_lets_pushes_through(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(PAUSED_APP.replace("VERSION", '" of the first"'))
    serve = ("serve", "app.py", "--data", "db", "--port", "0")

    def verb(*arguments: str) -> str:
        said = headrace(tmp_path, *arguments, "--data", "db")
        assert 0 == said.code, said.err
        return said.out

    with started(tmp_path, *serve) as server:
        server.wait_said("ready")
        verb("run", "app:plan", '{"text": "job"}')
        verb("pause")
        server.process.kill()
        server.process.wait()
    with started(tmp_path, *serve) as server:
        server.wait_said("ready")
        refused = headrace(tmp_path, "run", "app:notes", "--data", "db")
        app.write_text(PAUSED_APP.replace("VERSION", '" of the second"'))
        verb("push")
        eventually(lambda: "scheduler.paused\t\t1" in verb("stats"))
        time.sleep(3)
        waiting = json.loads(verb("jobs", "list", "--json"))
        missed = verb("crons", "logs", "tick")
        verb("resume")
        notes: list[str] = []

        def has_run() -> bool:
            notes[:] = json.loads(verb("run", "app:notes"))
            return "job of the second" in notes and "tick of the second" in notes

        eventually(has_run)
        cron = json.loads(verb("crons", "list", "--json"))

    assert refused.code != 0
    assert "this deployment is paused" in refused.err
    assert ("app:note", "pending") == (waiting["name"], waiting["state"]["kind"])
    assert ["job of the second"] == [text for text in notes if text.startswith("job")]
    assert cron["skipped"] >= 3, missed
