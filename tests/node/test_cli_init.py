"""`headrace init`: the templates that there are, and what they make."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.cli import component
from engine.cli.failures import Exit
from engine.cli.init import PLACE, TEMPLATES
from tests.node.command_line import headrace, started

ELSEWHERE = {
    "AUTH_ISSUER": "https://auth.example.com",
    "AUTH_JWKS": 'data:application/json,{"keys":[]}',
    "AUTH_AUDIENCE": "chat",
    "HEADRACE_DEV": "1",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of the template that signs people in."""
    made = headrace(tmp_path, "init", "chat", "--template", "react")
    assert made.code == Exit.DONE, made.err
    return tmp_path / "chat"


def test_each_template_that_is_listed_is_there_and_none_besides(tmp_path: Path) -> None:
    help_text = headrace(tmp_path, "init", "--help").out

    assert {folder.name for folder in PLACE.iterdir()} == {*TEMPLATES, component.TEMPLATE}
    for name, template in TEMPLATES.items():
        assert f"\n  {name:8}{template.summary}\n" in help_text


def test_a_template_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    refused = headrace(tmp_path, "init", "chat", "--template", "vue")

    assert Exit.USAGE == refused.code
    assert "error: there is no template 'vue'; there are python and react\n" == refused.err
    assert [] == list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("template", "count"), [("python", 1), ("react", 4)])
def test_the_tests_of_a_new_project_pass(template: str, count: int, tmp_path: Path) -> None:
    is_installed = any(each.value == "engine.testing" for each in entry_points(group="pytest11"))
    plugin = [] if is_installed else ["-p", "engine.testing"]
    headrace(tmp_path, "init", "chat", "--template", template)

    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin],
        cwd=tmp_path / "chat",
        env={name: value for name, value in os.environ.items() if "HEADRACE" not in name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert f"{count} passed" in tested.stdout, tested.stdout


def test_the_name_of_the_folder_is_that_of_the_project(project: Path) -> None:
    texts = [file.read_text() for file in project.rglob("*") if file.is_file()]

    assert 'name = "chat"' in (project / "pyproject.toml").read_text()
    assert [] == [text for text in texts if "{{" + "name}}" in text]


@pytest.mark.slow
def test_the_issuer_for_development_is_of_dev_and_of_nothing_else(project: Path) -> None:
    with started(project, "dev", "--port", "0") as dev:
        dev.wait_said("Pushed in")
        token = sign_in(dev.url)["value"]
        said = ask_who(dev.url, token)
    unset = headrace(project, "serve", "--data", "data", "--port", "0")
    lines = "".join(f"{name}={value}\n" for name, value in ELSEWHERE.items())
    (project / "backend" / ".env.local").write_text(lines)
    with started(project, "serve", "--data", "data", "--port", "0") as serve:
        serve.wait_said("; ready")
        refused = sign_in(serve.url)
        unknown = ask_who(serve.url, token)

    assert "Ada" == said["value"]["name"]
    assert "AUTH_ISSUER is not set" in unset.err
    assert "This sign-in is for development" in refused["errorData"]
    assert "NoAuthProvider" == unknown["code"]
    key = project / ".dev-issuer.json"
    assert 0o600 == stat.S_IMODE(key.stat().st_mode)
    assert key.name in (project / ".gitignore").read_text().splitlines()


def sign_in(url: str) -> Any:
    body = {"path": "dev_issuer:sign_in", "args": {"name": "Ada"}, "format": "json"}
    return httpx.post(f"{url}/api/action", json=body).json()


def ask_who(url: str, token: str) -> Any:
    body = {"path": "people:me", "args": {}, "format": "json"}
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{url}/api/query", json=body, headers=headers).json()
