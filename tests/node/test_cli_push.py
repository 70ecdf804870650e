"""Pushes that take their time, in processes: what is told of them, and what a kill leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.node.command_line import Running, eventually, headrace, started

APP = """
from headrace import Schema, Table, mutation, query, v

NOTES = Table({"n": v.number(), "text": v.any()})
schema = Schema(notes=NOTES)


@mutation
async def fill(ctx, count: int) -> None:
    for n in range(count):
        await ctx.db.insert("notes", {"n": n, "text": "word " * 20})


@query
async def first(ctx) -> float:
    return (await ctx.db.query("notes").with_index("by_n").first())["n"]
"""
INDEXED = APP.replace("notes=NOTES", 'notes=NOTES.index("by_n", ["n"])')
STRICTER = INDEXED.replace("v.any()", "v.string()")
SERVE = ("serve", "notes.py", "--data", "db", "--port", "0")
COUNT = 60_000

pytestmark = pytest.mark.slow


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application whose table has so many documents that to index them takes seconds."""
    file = tmp_path / "notes.py"
    file.write_text(APP)
    with started(tmp_path, *SERVE) as server:
        server.wait_said("ready")
        for _ in range(COUNT // 5_000):
            call = {"path": "notes:fill", "args": {"count": 5_000}, "format": "json"}
            assert (
                "success"
                == httpx.post(f"{server.url}/api/mutation", json=call, timeout=60).json()["status"]
            )
        server.stop()
    return file


def _readiness(server: Running) -> Any:
    """What /readyz says, until it is ready: then None."""
    answer = httpx.get(f"{server.url}/readyz")
    return None if answer.status_code == 200 else answer.json()


def _index_progress(server: Running) -> Any:
    said = eventually(lambda: _readiness(server))
    return said if said.get("doing") == "index notes.by_n" and said["done"] else None


def test_a_server_that_is_killed_while_it_indexes_goes_on_and_says_how_far_it_is(
    app: Path,
) -> None:
    app.write_text(INDEXED)
    with started(app.parent, *SERVE) as server:
        killed_at = eventually(lambda: _index_progress(server))
        server.process.kill()
        server.process.wait()

    with started(app.parent, *SERVE) as server:
        went_on_at = eventually(lambda: _index_progress(server))
        server.wait_said("ready")
        answer = httpx.post(
            f"{server.url}/api/query", json={"path": "notes:first", "args": {}, "format": "json"}
        )
    sound = headrace(app.parent, "verify", "--data", "db")

    assert COUNT == killed_at["total"] == went_on_at["total"]
    assert killed_at["done"] <= went_on_at["done"] < COUNT
    assert 0 == answer.json()["value"]
    assert "added index notes.by_n" in server.said
    assert (0, True) == (sound.code, sound.out.endswith("sound\n"))


def test_what_a_killed_push_prepared_goes_when_another_application_comes(app: Path) -> None:
    app.write_text(INDEXED)
    with started(app.parent, *SERVE) as server:
        eventually(lambda: _index_progress(server))
        server.process.kill()
        server.process.wait()

    app.write_text(APP)
    with started(app.parent, *SERVE) as server:
        server.wait_said("ready")
        eventually(lambda: "by_n" not in headrace(app.parent, "data", "--data", "db").out)
        sound = headrace(app.parent, "verify", "--data", "db")

    assert (0, True) == (sound.code, sound.out.endswith("sound\n"))


def test_a_push_to_a_server_is_told_how_far_it_is_and_may_be_left(app: Path) -> None:
    with started(app.parent, *SERVE) as server:
        server.wait_said("ready")
        app.write_text(STRICTER)
        key = (app.parent / "db" / "admin.key").read_text().strip()
        headers = {"authorization": f"Convex {key}"}
        push = f"{server.url}/api/headrace/push"
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(push, json={}, headers=headers, timeout=0.5)

        told = []

        def is_over() -> bool:
            told.append(httpx.get(push, headers=headers).json())
            return bool(told[-1]["doing"] == "nothing")

        eventually(is_over)
        again = headrace(app.parent, "push", "--data", "db")

    doing = {one["doing"]: one.get("total") for one in told}
    assert COUNT == doing["index notes.by_n"] == doing["documents of notes"]
    assert (0, "") == (again.code, again.out)


def test_a_table_is_dropped_when_the_schema_has_it_no_more(app: Path) -> None:
    where = app.parent
    app.write_text(APP.replace("notes=NOTES", ""))
    with started(where, *SERVE) as server:
        server.wait_said("removed table notes from the schema; its documents stay")
        server.wait_said("ready")
        dropped = headrace(where, "data", "notes", "--drop", "--data", "db")
        server.process.kill()
        server.process.wait()
    with started(where, *SERVE) as server:
        server.wait_said("ready")
        tables = headrace(where, "data", "--json", "--data", "db")
        app.write_text(APP)
        headrace(where, "push", "--data", "db")
        refused = headrace(where, "data", "notes", "--drop", "--data", "db")
    sound = headrace(where, "verify", "--data", "db")

    assert (0, f"dropped notes and its documents ({COUNT})\n") == (dropped.code, dropped.err)
    assert (0, "") == (tables.code, tables.out)
    assert "the schema has the table 'notes'" in refused.err
    assert (0, True) == (sound.code, sound.out.endswith("sound\n"))
