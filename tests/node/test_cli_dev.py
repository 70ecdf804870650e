"""From `init` to a running application whose files change under its clients."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import convex
import httpx
import pytest

from engine.cli.dev import write_urls
from engine.cli.failures import Exit
from tests.node.command_line import headrace, started


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as `init` makes it."""
    assert headrace(tmp_path, "init", "chat").code == 0
    return tmp_path / "chat"


@pytest.mark.slow
def test_a_new_project_is_served_broken_and_repaired(project: Path) -> None:
    messages = project / "backend" / "messages.py"
    good = messages.read_text()
    with started(project, "dev", "--port", "0") as dev:
        dev.wait_said("2 functions")

        sent = headrace(project, "run", "messages:send", '{"author": "ada", "body": "hello"}')
        messages.write_text(good + "\ndef broken(:\n")
        dev.wait_said("Not pushed. The version before serves on")
        listed = headrace(project, "run", "messages:list")
        messages.write_text(good.replace('"author": author', '"author": author.upper()'))
        dev.wait_said("Pushed", 5)
        time.sleep(0.5)
        headrace(project, "run", "messages:send", '{"author": "bob", "body": "hi"}')
        documents = headrace(project, "data", "messages", "--json")
        ended = dev.stop()

    assert sent.code == 0
    assert "a message from" in sent.err
    assert ["hello"] == [message["body"] for message in listed.json]
    assert f"{messages}:{good.count(chr(10)) + 2}: " in dev.said
    assert "def broken(:" in dev.said
    assert "[LOG] 'a message from' 'ada'" in dev.said
    assert "failed" not in dev.said
    authors = [json.loads(line)["author"] for line in documents.out.splitlines()]
    assert ["ada", "BOB"] == authors
    assert 0 == ended


@pytest.mark.slow
def test_who_asks_for_a_push_is_seen_in_the_window_of_dev(project: Path) -> None:
    messages = project / "backend" / "messages.py"
    good = messages.read_text()
    with started(project, "dev", "--port", "0") as dev:
        dev.wait_said("2 functions")

        again = headrace(project, "push")
        pushed = dev.said.count("Pushed in")
        messages.write_text(good + "\ndef broken(:\n")
        dev.wait_said("Not pushed. The version before serves on")
        refused = headrace(project, "push")

    assert (0, 2) == (again.code, pushed)
    assert (Exit.REFUSED, 2) == (refused.code, dev.said.count("Not pushed"))


@pytest.mark.slow
@pytest.mark.timeout(60)  # the client waits forever, and does not heed signals
def test_a_subscriber_stays_connected_and_gets_the_result_of_new_code(project: Path) -> None:
    messages = project / "backend" / "messages.py"
    good = messages.read_text()
    with started(project, "dev", "--port", "0") as dev:
        dev.wait_said("2 functions")
        client: Any = convex.ConvexClient(dev.url)
        client.mutation("messages:send", {"author": "ada", "body": "hello"})
        results = client.subscribe("messages:list", {})
        first = next(results)

        saved_at = time.monotonic()
        messages.write_text(good.replace("take(50)", "take(0)"))
        second = next(results)
        took_s = time.monotonic() - saved_at
        results.unsubscribe()

    assert ["hello"] == [message["body"] for message in first]
    assert [] == second
    assert took_s < 1.0


@pytest.mark.slow
def test_the_files_of_a_single_file_application_are_watched_and_shown(tmp_path: Path) -> None:
    chat = tmp_path / "chat.py"
    chat.write_text(
        "from headrace import query\n\n@query\ndef hello(ctx) -> str:\n    return 1 / 0\n"
    )
    (tmp_path / "package.json").write_text('{"dependencies": {"vite": "5"}}')
    (tmp_path / ".env.local").write_text("OTHER=1\nVITE_CONVEX_URL=http://old\n")
    with started(tmp_path, "dev", "chat.py", "--port", "0") as dev:
        dev.wait_said("1 function")

        failed = headrace(tmp_path, "run", "chat:hello")
        dev.wait_said("division by zero")
        page = httpx.get(dev.url).text
        environment = (tmp_path / ".env.local").read_text()

    assert 1 == failed.code
    assert "hello (chat.py:5)  return 1 / 0" in failed.err
    assert "return 1 / 0" in dev.said
    assert "chat:hello" in page
    assert "division by zero" in page
    assert f"OTHER=1\nVITE_CONVEX_URL={dev.url}\n" == environment


def test_front_ends_are_told_the_url_and_other_projects_are_not(tmp_path: Path) -> None:
    for name in ("web", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "package.json").write_text("{}")
    (tmp_path / "other" / "pyproject.toml").write_text('[tool.headrace]\napp = "other.py"\n')
    (tmp_path / "other" / ".env.local").write_text("VITE_CONVEX_URL=http://other\n")

    list(write_urls(tmp_path, "http://here"))

    assert "VITE_CONVEX_URL=http://here\n" == (tmp_path / "web" / ".env.local").read_text()
    assert "VITE_CONVEX_URL=http://other\n" == (tmp_path / "other" / ".env.local").read_text()


def test_the_url_is_written_through_no_link_out_of_the_project(tmp_path: Path) -> None:
    root = tmp_path / "project"
    outside, inside = tmp_path / "secrets.env", root / "shared.env"
    for folder, target in ((root / "web", outside), (root / "mobile", inside)):
        folder.mkdir(parents=True)
        target.write_text("A=1\n")
        (folder / "package.json").write_text("{}")
        (folder / ".env.local").symlink_to(target)

    said = "\n".join(write_urls(root, "http://here"))

    assert "A=1\n" == outside.read_text()
    assert f"error: {root / 'web' / '.env.local'} is a symbolic link that leads out of" in said
    assert "A=1\nVITE_CONVEX_URL=http://here\n" == inside.read_text()


@pytest.mark.slow
def test_what_cannot_be_loaded_at_the_start_is_served_once_it_is_repaired(tmp_path: Path) -> None:
    chat = tmp_path / "chat.py"
    chat.write_text("from headrace import query\nnothing.here\n")
    with started(tmp_path, "dev", "chat.py", "--port", "0") as dev:
        dev.wait_said("Nothing is served yet")
        refused = httpx.post(f"{dev.url}/api/query", json={"path": "chat:hello", "args": {}})
        unready = httpx.get(f"{dev.url}/readyz")

        chat.write_text("from headrace import query\n\n@query\ndef hello(ctx) -> int: return 1\n")
        dev.wait_said("Pushed in")
        ready = httpx.get(f"{dev.url}/readyz")

    assert f"{chat}:2" in dev.said
    assert "nothing.here" in dev.said
    assert (503, 503, 200) == (refused.status_code, unready.status_code, ready.status_code)
