"""`serve`, and the verbs that speak to it: its lock, its signals, its pushes."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from engine.cli.service import OTHER_FILES
from tests.node.command_line import ROOT, eventually, headrace, started

APP = """
import gc
import os

import trio
from headrace import Document, Schema, Table, action, mutation, query


class Note(Document):
    text: str


schema = Schema(notes=Table(Note))
FAILED: list[str] = []


@mutation
async def add(ctx, text: str) -> None:
    await ctx.db.insert(Note, {"text": text})


@query
async def texts(ctx) -> list[str]:
    return [note["text"] for note in await ctx.db.query(Note).collect()]


@query
def fails(ctx) -> None:
    FAILED.append("once more")
    raise ValueError("a secret")


@action
async def naps(ctx) -> str:
    await trio.sleep(1)
    return "rested"


@action
async def seed(ctx) -> str:
    return os.environ["PYTHONHASHSEED"]


@action
async def left_alone(ctx) -> bool:
    return gc.get_freeze_count() > 10_000
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def app(tmp_path: Path) -> Path:
    file = tmp_path / "notes.py"
    file.write_text(APP)
    return file


def _post(url: str, kind: str, path: str) -> dict[str, object]:
    answer = httpx.post(f"{url}/api/{kind}", json={"path": path, "args": {}, "format": "json"})
    found: dict[str, object] = answer.json()
    return found


def test_a_served_directory_is_asked_through_its_server_and_refused_to_others(app: Path) -> None:
    where = app.parent
    with started(where, "serve", "notes.py", "--data", "db", "--port", "0") as server:
        server.wait_said("ready")

        second = headrace(where, "serve", "notes.py", "--data", "db", "--port", "0")
        headrace(where, "run", "notes:add", '{"text": "one"}', "--data", "db")
        tables = headrace(where, "data", "--data", "db")
        sound = headrace(where, "verify", "--data", "db")
        shell = headrace(where, "shell", "-c", "1", "--data", "db")
        logs = headrace(where, "logs", "--executions", "--data", "db")
        admin = ("--admin-key", (where / "db" / "admin.key").read_text().strip())
        objects = headrace(where, "logs", "--executions", "--json", "--url", server.url, *admin)
        stranger = headrace(where, "data", "--url", server.url, "--admin-key", "headrace|wrong")
        failed = _post(server.url, "query", "notes:fails")
        [request_id] = re.findall("Request ID: ([0-9a-f]+)", str(failed["errorMessage"]))
        found = headrace(where, "logs", "--request", request_id, "--data", "db")
        nobodys = headrace(where, "logs", "--request", "0" * 16, "--data", "db")
        seed = _post(server.url, "action", "notes:seed")
        left_alone = _post(server.url, "action", "notes:left_alone")

    key = (where / "db" / "admin.key").read_text().strip()
    assert "warning: notes.py:" in server.said
    assert left_alone["value"] is True, "the collector goes through what is there for good"
    assert 4 == second.code
    assert str(server.process.pid) in second.err
    assert server.url in second.err
    assert "notes\t1\t" in tables.out
    assert (0, True) == (sound.code, sound.out.endswith("sound\n"))
    assert 4 == shell.code
    assert logs.out.startswith("ended ")
    assert "mutation notes:add" in logs.out
    executions = [json.loads(line) for line in objects.out.splitlines()]
    assert {"notes:add": ("http", 1)} == {
        each["path"]: (each["origin"], each["documentsWritten"])
        for each in executions
        if each["path"] == "notes:add"
    }
    assert 2 == stranger.code
    assert "secret" not in json.dumps(failed)
    assert "query notes:fails" in found.out
    assert f"    [Request ID: {request_id}]\n    Uncaught " in found.out
    assert "secret" in found.out
    assert "mutation notes:add" not in found.out
    assert "" == nobodys.out
    assert (where / "db" / "hash.seed").read_text().strip() == seed["value"]
    assert 1 == server.said.count(key)
    assert 0o600 == (where / "db" / "admin.key").stat().st_mode & 0o777


def test_sigterm_lets_what_runs_be_answered(app: Path) -> None:
    with (
        started(app.parent, "serve", "notes.py", "--data", "db", "--port", "0") as server,
        ThreadPoolExecutor() as threads,
    ):
        server.wait_said("ready")

        napping = threads.submit(_post, server.url, "action", "notes:naps")
        time.sleep(0.4)
        code = server.stop()
        answer = napping.result()

    assert ("success", "rested") == (answer["status"], answer["value"])
    assert 0 == code


@pytest.fixture
def few_files() -> Iterator[None]:
    """What is started may have 200 files open, and more if it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_serve_has_files_for_as_many_clients_as_it_takes(app: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sessions_max = hard // 4
    set_sessions_max(app, sessions_max)

    with started(app.parent, "serve", "notes.py", "--data", "db", "--port", "0") as server:
        server.wait_said("ready")
        soft, _ = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)

        assert soft == sessions_max + OTHER_FILES
        assert "files may be open" not in server.said


def set_sessions_max(app: Path, count: int) -> None:
    limits = f"[tool.headrace.limits]\nsessions_max = {count}\n"
    (app.parent / "pyproject.toml").write_text(f'[tool.headrace]\napp = "notes.py"\n{limits}')


def test_serve_warns_of_clients_for_whom_it_has_no_files(app: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    set_sessions_max(app, hard)

    with started(app.parent, "serve", "notes.py", "--data", "db", "--port", "0") as server:
        assert f"warning: {hard:,} files may be open" in server.said


def test_a_push_that_documents_do_not_fit_is_refused_and_changes_nothing(app: Path) -> None:
    where = app.parent
    with started(where, "serve", "notes.py", "--data", "db", "--port", "0") as server:
        server.wait_said("ready")
        headrace(where, "run", "notes:add", '{"text": "one"}', "--data", "db")
        app.write_text(APP.replace("text: str\n\n", "text: str\n    by: str\n\n"))

        pushed = headrace(where, "push", "--data", "db")
        told = server.said
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.said.count("not pushed") == 2)
        texts = _post(server.url, "query", "notes:texts")

        app.write_text(APP.replace('note["text"]', 'note["text"].upper()'))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: _post(server.url, "query", "notes:texts")["value"] == ["ONE"], 10)

    assert 4 == pushed.code
    assert "does not fit the new schema" in pushed.err
    assert "does not fit the new schema" in told
    assert "not pushed; the version before serves on" in told
    assert ["one"] == texts["value"]


def test_a_server_tells_what_a_push_over_the_network_has_changed(app: Path) -> None:
    where = app.parent
    with started(where, "serve", "notes.py", "--data", "db", "--port", "0") as server:
        server.wait_said("ready")
        app.write_text(APP.replace("Table(Note)", 'Table(Note).index("by_text", ["text"])'))

        pushed = headrace(where, "push", "--data", "db")

        told = server.said.partition("; ready\n")[2]

    assert "added index notes.by_text\n" == pushed.out
    assert "added index notes.by_text\npushed " in told
    assert told.endswith("; ready\n")


def test_what_cannot_be_deployed_at_the_start_ends_serve(app: Path) -> None:
    app.write_text("def (")

    served = headrace(app.parent, "serve", "notes.py", "--data", "db", "--port", "0")

    assert 4 == served.code
    assert "notes.py:1" in served.err


def test_a_process_that_cannot_be_drained_is_ended() -> None:
    stuck = "import time; from engine.cli.deadline import end_in; end_in(0.1); time.sleep(30)"

    ended = subprocess.run([sys.executable, "-c", stuck], cwd=ROOT, timeout=20, check=False)

    assert 70 == ended.returncode


@pytest.mark.parametrize(
    ("imported", "spared"),
    [
        ("engine.cli.command, engine.cli.serve", {"trio", "structlog", "httpx", "hypercorn"}),
        ("engine.cli.service", {"httpx", "joserfc", "cryptography"}),
    ],
    ids=["before it is re-executed", "afterwards"],
)
def test_a_start_does_not_wait_for_what_it_does_not_need(imported: str, spared: set[str]) -> None:
    code = f"import sys, {imported}; print(*sys.modules)"

    modules = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert set() == spared & set(modules.stdout.split())
