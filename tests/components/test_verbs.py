"""`headrace workpool` and `headrace aggregate`, beside a server that has the data open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.aggregate.command import main as aggregate
from components.workpool.command import main as workpool
from tests.node.command_line import headrace, started

APP = """
from components import aggregate, workpool
from headrace import ActionCtx, App, MutationCtx, internal_action, mutation

app = App()
works = workpool.Workpool(app.use(workpool.component, name="pool"), max_parallelism=4)
scores = aggregate.DirectAggregate(app.use(aggregate.component, name="scores"))


@internal_action
async def fail(ctx: ActionCtx) -> None:
    raise ValueError("the provider is away")


@mutation
async def enqueue(ctx: MutationCtx, count: int) -> None:
    for _ in range(count):
        await works.enqueue_action(ctx, fail, {}, retry=False)


@mutation
async def score(ctx: MutationCtx, points: float) -> None:
    await scores.insert(
        ctx, key=points, id=f"id {points}", sum_value=points, namespace="chess"
    )
"""

Verb = Callable[[Callable[[list[str]], int], str], tuple[int, str, str]]


@pytest.fixture
def verb(capfd: pytest.CaptureFixture[str]) -> Verb:
    def said(main: Callable[[list[str]], int], line: str) -> tuple[int, str, str]:
        code = main([*line.split(), "--data", "db"])
        return (int(code or 0), *capfd.readouterr())

    return said


@pytest.mark.slow
def test_operators_look_at_pools_and_trees_and_do_something_about_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    with started(tmp_path, "serve", "app.py", "--data", "db", "--port", "0") as server:
        server.wait_said("ready")
        headrace(tmp_path, "run", "app:enqueue", '{"count": 2}', "--data", "db")
        for points in (3, 4):
            headrace(tmp_path, "run", "app:score", f'{{"points": {points}}}', "--data", "db")

        failed: list[Any] = []
        while len(failed) < 2:
            failed = [
                json.loads(line) for line in verb(workpool, "failures --json")[1].split("\n")[:-1]
            ]
        report = json.loads(verb(workpool, "report --json")[1])
        again = verb(workpool, f"retry {failed[0]['workId']} nobody")
        paused = verb(workpool, "configure --max-parallelism 0")
        canceled = verb(workpool, "cancel --all")
        with pytest.raises(SystemExit):
            verb(workpool, "cancel")
        trees = verb(aggregate, "list --json")
        whole = verb(aggregate, "verify")

    assert "the provider is away" in failed[0]["error"]
    assert report["failed"] == 2
    assert f"{failed[0]['workId']} is " in again[2]
    assert "nobody is not among the failures" in again[2]
    assert "0 at a time" in paused[2]
    assert (0, True) == (canceled[0], "are canceled" in canceled[2])
    assert {"namespace": "chess", "count": 2, "sum": 7} == json.loads(trees[1])
    assert "1 trees with 2 items" in whole[2]
