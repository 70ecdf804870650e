"""`headrace workpool` and `headrace aggregate`, beside a server that has the data open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.aggregate.command import main as aggregate
from components.workpool.command import main as workpool
from engine.errors import UsageError
from tests.components.verbs import served
from tests.node.command_line import headrace

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


@mutation
async def score_later(ctx: MutationCtx, points: float) -> None:
    await scores.insert(ctx, key=points, id="a", queued=True)
"""


@pytest.mark.slow
def test_operators_look_at_pools_and_trees_and_do_something_about_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path, APP, capfd) as verb:
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
        unknown = verb(workpool, "cancel nobody")
        tables = headrace(tmp_path, "data", "--component", "pool", "--data", "db")
        pools = headrace(tmp_path, "data", "pool/pools", "--json", "--data", "db")
        missing = headrace(tmp_path, "data", "--component", "pol", "--data", "db")
        with pytest.raises(SystemExit):
            verb(workpool, "cancel")
        with pytest.raises(UsageError, match="a whole number from 0, which pauses, to 200"):
            verb(workpool, "configure --max-parallelism 201")
        for points in (1, 1, 1):
            headrace(tmp_path, "run", "app:score_later", f'{{"points": {points}}}', "--data", "db")
        drained = verb(aggregate, "drain")
        letters = [
            json.loads(line) for line in verb(aggregate, "dead-letters --json")[1].split("\n")[:-1]
        ]
        table = verb(aggregate, "dead-letters")
        discarded = verb(aggregate, f"discard {letters[0]['id']} nobody")
        retried = verb(aggregate, "retry --all")
        verb(aggregate, "drain")
        queue = json.loads(verb(aggregate, "queue --json")[1])
        trees = verb(aggregate, "list --json")
        whole = verb(aggregate, "verify")

    assert "the provider is away" in failed[0]["error"]
    assert report["failed"] == 2
    assert f"{failed[0]['workId']} is " in again[2]
    assert "nobody is not among the failures of pool" in again[2]
    assert "0 at a time" in paused[2]
    assert (0, True) == (canceled[0], "are canceled" in canceled[2])
    assert "nobody had ended before, or is no work of pool" in unknown[2]
    assert [1, 1, 1] == [again[0], unknown[0], discarded[0]]
    assert {"pool"} == {line.partition("/")[0] for line in tables.out.splitlines()[1:]}
    assert 0 == json.loads(pools.out)["max_parallelism"]
    assert (2, True) == (missing.code, "no tables of a component 'pol'" in missing.err)
    assert "operations were taken" in drained[2]
    assert ["KEY_EXISTS", "KEY_EXISTS"] == [letter["kind"] for letter in letters]
    assert f"{letters[0]['id']} is forgotten" in discarded[2]
    assert "nobody is not among the dead letters of scores" in discarded[2]
    assert f"{letters[1]['id']} is queued again" in retried[2]
    assert {"queued": 0, "applied": 1, "refused": 3, "deadLetters": 1} == {
        name: count for name, count in queue.items() if name != "oldestAt"
    }
    assert letters[0]["error"] in table[1]
    assert {"namespace": "chess", "count": 2, "sum": 7} == json.loads(trees[1].split("\n")[1])
    assert "2 trees with 3 items" in whole[2]
