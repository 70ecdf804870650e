"""A component that somebody else made: begun by the command line, installed by pip, mounted."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT
from tests.node.command_line import headrace

NAME = "mail_box"
VERB = """
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    print("delivered", *arguments)
    return 3
"""
ENTRY_POINT = '\n[project.entry-points."headrace.commands"]\ndeliver = "mail_box.verb:main"\n'
APPLICATION = """
from headrace import App, MutationCtx, QueryCtx, Schema, Table, mutation, query, v
from mail_box import MailBox, Settings, component

app = App()
box = MailBox(app.use(component, name="box", config=Settings(most=2)))
schema = Schema(letters=Table({"number": v.number()}))


@mutation
async def put(ctx: MutationCtx) -> int:
    number = await box.add(ctx, "letters")
    await ctx.db.insert("letters", {"number": number})
    return number


@query
async def count(ctx: QueryCtx) -> int:
    return await box.count(ctx, "letters")
"""
WITHOUT = "from headrace import Schema, Table, v\n\nschema = Schema(letters=Table(v.any()))\n"


def run(command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `component new` makes, with a verb for the command line."""
    folder = tmp_path_factory.mktemp("elsewhere")
    said = headrace(folder, "component", "new", NAME)
    assert 0 == said.code, said.err
    project = folder / NAME
    (project / NAME / "verb.py").write_text(VERB)
    with (project / "pyproject.toml").open("a") as settings:
        settings.write(ENTRY_POINT)
    return project


@pytest.fixture(scope="module")
def python(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which it is installed, which borrows everything else from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    borrowed = [sysconfig.get_path("purelib"), str(ROOT)]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    found = folder / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", found, "install", "--quiet"]
    installed = run([*pip, "--no-index", "--no-deps", "--no-build-isolation", made], folder)
    assert 0 == installed.returncode, installed.stderr
    return found


def test_what_is_begun_has_tests_that_pass(made: Path) -> None:
    tests = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], made)

    assert 0 == tests.returncode, tests.stdout
    assert "3 passed" in tests.stdout


@pytest.mark.parametrize("name", ["trio", "a b", "class", "3d", "", "tests/x"])
def test_nothing_is_begun_under_a_name_that_none_can_have(name: str, tmp_path: Path) -> None:
    said = headrace(tmp_path, "component", "new", name)

    assert 2 == said.code
    assert [] == list(tmp_path.iterdir())


def test_nothing_is_begun_where_there_is_something(made: Path) -> None:
    assert "choose another name" in headrace(made.parent, "component", "new", NAME).err


@pytest.mark.slow
def test_what_is_installed_is_mounted_called_left_and_deleted(python: Path, tmp_path: Path) -> None:
    (tmp_path / "post.py").write_text(APPLICATION)

    def verb(*arguments: str, code: int = 0) -> str:
        done = run([python, "-m", "engine", *arguments], tmp_path)
        assert code == done.returncode, done.stderr
        return done.stdout + done.stderr

    assert "delivered a letter" in verb("deliver", "a letter", code=3)
    before = verb("component", "list")
    assert "mail_box\tmail_box\tmail-box 0.1.0" in before
    assert "Nothing is mounted yet" in before
    assert "box (not pushed yet)\tmail_box\t0\t0" in verb("component", "list", "--app", "post.py")

    assert "mounted box" in verb("push", "--app", "post.py", "--data", "db")
    run_it = ("run", "--app", "post.py", "--data", "db")
    assert ["1", "2"] == [verb(*run_it, "post:put").strip() for _ in range(2)]
    assert "TooMany" in verb(*run_it, "post:put", code=1)
    assert "2" == verb(*run_it, "post:count").strip()
    listed = verb("component", "list", "--app", "post.py", "--data", "db")
    assert "box\tmail_box\t1\t1" in listed
    assert '"letters"' in verb("data", "things", "--component", "box", "--data", "db", "--json")
    assert "is mounted" in verb("component", "delete", "box", "--data", "db", code=2)

    (tmp_path / "post.py").write_text(WITHOUT)
    assert "unmounted box; its data stays" in verb("push", "--app", "post.py", "--data", "db")
    assert "box (not mounted)\t\t1\t1" in verb("component", "list", "--data", "db")
    assert "box/things (not mounted)\t1" in verb("data", "--data", "db")
    (tmp_path / "more.jsonl").write_text('{"name": "x", "count": 1}\n')
    into = ("--table", "things", "--component", "box", "--app", "post.py", "--data", "db")
    refused = verb("import", *into, "more.jsonl", code=2)
    assert "no component is mounted as 'box'" in refused
    verb("verify", "--data", "db")
    assert "deleted box and its documents (1)" in verb("component", "delete", "box", "--data", "db")
    assert "mounted as" not in verb("component", "list", "--data", "db")
    assert "letters" in verb("data", "--data", "db")
