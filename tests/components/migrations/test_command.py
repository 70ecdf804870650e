"""`headrace migrations` and `headrace rate-limits`, beside a server that has the data open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.migrations.command import main as migrations
from components.rate_limiter.command import main as rate_limits
from engine.errors import FunctionFailed, UsageError
from tests.components.verbs import served
from tests.node.command_line import headrace

APP = """
from components import migrations, rate_limiter
from headrace import App, MutationCtx, mutation

app = App()
run = migrations.Migrations(app.use(migrations.component, name="run"), default_batch_size=10)
limiter = rate_limiter.RateLimiter(app.use(rate_limiter.component, name="limits"))
hourly = rate_limiter.FixedWindow(rate=5, period=rate_limiter.HOUR)


@run.define("numbers")
async def double(ctx: MutationCtx, number: dict) -> dict:
    return {"n": number["n"] * 2}


@run.define("numbers")
async def fail_at_the_last(ctx: MutationCtx, number: dict) -> None:
    if number["last"]:
        raise ValueError("the last is none")


@mutation
async def fill(ctx: MutationCtx, count: int) -> None:
    for n in range(count):
        await ctx.db.insert("numbers", {"n": n, "last": n == count - 1})
    for key in ("ada", "bob"):
        await limiter.limit(ctx, "send", key=key, config=hourly)
"""


@pytest.mark.slow
def test_operators_run_watch_stop_and_list(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path, APP, capfd) as verb:
        assert 0 == headrace(tmp_path, "run", "app:fill", '{"count": 300}', "--data", "db").code

        dry = verb(migrations, "run app:double --dry-run --batch-size 2")
        ran = verb(migrations, "run app:double")
        detached = verb(migrations, "run app:double --reset --batch-size 1 --detach")
        stopped = verb(migrations, "cancel --all")
        again = verb(migrations, "cancel app:double")
        failed = verb(migrations, "run app:fail_at_the_last")
        skipped = verb(migrations, "run app:fail_at_the_last --skip-errors")
        listed = verb(migrations, "list")
        as_json = verb(migrations, "list --json")
        shown = verb(migrations, "status app:double --component run")
        watched = verb(migrations, "status app:fail_at_the_last --watch")
        limits = verb(rate_limits, "list send --json")
        verb(rate_limits, "reset send --key ada")
        unknown = verb(rate_limits, "reset sendd")
        some = verb(rate_limits, "list -n 1")
        verb(rate_limits, "reset send --all-keys")
        none = verb(rate_limits, "list --json")

    changes = [json.loads(line) for line in dry[1].splitlines()]
    assert [(1, 2)] == [(c["before"]["n"], c["after"]["n"]) for c in changes]
    assert (0, "app:double: success, 300 of 300 documents") == (ran[0], ran[2].splitlines()[-1])
    assert 0 == detached[0]
    assert "app:double: canceled" in stopped[2]
    assert "app:double: canceled" in again[2]
    assert 1 == failed[0]
    assert "failed, 290 of 300 documents: ValueError: the last is none" in failed[2]
    assert 0 == skipped[0]
    assert "success, 300 of 300 documents, 1 of them skipped" in skipped[2]
    assert "skipped" in skipped[2].splitlines()[-1]
    assert ["app:double", "app:fail_at_the_last"] == [
        line.partition("\t")[0] for line in listed[1].splitlines()[1:]
    ]
    assert ["canceled", "success"] == [json.loads(x)["state"] for x in as_json[1].splitlines()]
    assert "canceled" == json.loads(shown[1])["state"]
    assert (0, True) == (watched[0], "success" in watched[2])
    assert ["ada", "bob"] == [json.loads(line)["key"] for line in limits[1].splitlines()]
    assert "\tbob\t" in some[1]
    assert (0, "sendd: nothing was taken of a limit of this name\n") == unknown[::2]
    assert "" == none[1]


TWO = """
from components import migrations
from headrace import App, MutationCtx, mutation

app = App()
old = migrations.Migrations(app.use(migrations.component, name="old"))
new = migrations.Migrations(app.use(migrations.component, name="new"), default_batch_size=1)


@new.define("numbers")
async def double(ctx: MutationCtx, number: dict) -> dict:
    return {"n": number["n"] * 2}


@mutation
async def fill(ctx: MutationCtx) -> None:
    for n in (1, 2):
        await ctx.db.insert("numbers", {"n": n})
"""


@pytest.mark.slow
def test_a_migration_is_not_started_where_it_is_not_looked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path, TWO, capfd) as verb:
        headrace(tmp_path, "run", "app:fill", "{}", "--data", "db")

        with pytest.raises(FunctionFailed, match="app:double is a migration of 'new'"):
            verb(migrations, "run app:double --component old")
        nothing = verb(migrations, "status app:double --component new")
        with pytest.raises(UsageError, match="app:double was never started in new"):
            verb(migrations, "cancel app:double --component new")
        with pytest.raises(UsageError, match="app:fill is no migration: run what"):
            verb(migrations, "run app:fill --component new")
        with pytest.raises(UsageError, match="no function app:dubble; did you mean app:double"):
            verb(migrations, "run app:double app:dubble --component new")
        with pytest.raises(UsageError, match="'old2': say --component new or --component old"):
            verb(migrations, "list --component old2")
        ran = verb(migrations, "run app:double --component new")

    assert "unknown" == json.loads(nothing[1])["state"]
    assert (0, "app:double: success, 2 of 2 documents") == (ran[0], ran[2].splitlines()[-1])
