"""A mutation that never ends and catches everything, while others use the same server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.model.limits import Limits
from tests.acceptance.processes import serving
from tests.acceptance.windows import needs_client, window

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself

LIMIT_S = Limits().user_time_s_max
GRACE_S = 0.3
CALLS_S_MAX = 1.0
"""For the rows that a mutation may read and write, whose time is not its own."""

APP = """\
from headrace import MutationCtx, QueryCtx, mutation, query


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [note["body"] async for note in ctx.db.query("notes")]


@mutation
async def note(ctx: MutationCtx, body: str) -> None:
    await ctx.db.insert("notes", {"body": body})


@mutation
async def swallow(ctx: MutationCtx) -> None:
    while True:
        try:
            pass
        except BaseException:
            pass


@mutation
async def swallow_around_work_and_calls(ctx: MutationCtx) -> None:
    while True:
        try:
            sum(range(50_000))
            await ctx.db.query("notes").collect()
        except BaseException:
            pass


@mutation
async def swallow_around_calls(ctx: MutationCtx) -> None:
    known = await ctx.db.insert("notes", {"body": "never seen"})
    while True:
        try:
            await ctx.db.get(known)
            await ctx.db.query("notes").collect()
        except BaseException:
            pass


@mutation
async def swallow_around_writes(ctx: MutationCtx) -> None:
    while True:
        try:
            await ctx.db.insert("notes", {"body": "never seen"})
        except BaseException:
            pass
"""


@needs_client
@pytest.mark.parametrize(
    ("endless", "calls_s"),
    [
        ("swallow", 0.0),
        ("swallow_around_work_and_calls", 0.0),
        ("swallow_around_calls", CALLS_S_MAX),
        ("swallow_around_writes", CALLS_S_MAX),
    ],
)
def test_an_endless_mutation_ends_at_its_limit_and_everybody_else_goes_on(
    endless: str, calls_s: float, tmp_path: Path
) -> None:
    app = tmp_path / "desk.py"
    app.write_text(APP)
    with (
        serving(app, tmp_path / "data") as (_, url),
        window(url, "desk:notes") as shown,
        httpx.Client(base_url=url, timeout=30) as caller,
        httpx.Client(base_url=url, timeout=30) as other,
    ):
        shown.wait_shown(lambda notes: notes == [])
        call(other, "mutation", "note", body="before")
        shown.wait_shown(lambda notes: notes == ["before"])
        began = time.perf_counter()
        ended = call(caller, "mutation", endless)
        took_s = time.perf_counter() - began
        written = call(other, "mutation", "note", body="after")
        found = call(other, "query", "notes")
        shown.wait_shown(lambda notes: notes == ["before", "after"])

        assert 1 == shown.connections
        assert [[], ["before"], ["before", "after"]] == shown.shown
    assert "error" == ended["status"]
    assert ["success", "success"] == [written["status"], found["status"]]
    assert ["before", "after"] == found["value"]
    assert LIMIT_S <= took_s < LIMIT_S + GRACE_S + calls_s


def call(http: httpx.Client, kind: str, function: str, **args: Any) -> dict[str, Any]:
    body = {"path": f"desk:{function}", "args": args, "format": "json"}
    answer: dict[str, Any] = http.post(f"/api/{kind}", json=body).json()
    return answer
