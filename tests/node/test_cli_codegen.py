"""Types on disk: which files are written, left as they are, removed and refused."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from engine.cli import main
from engine.cli.failures import Exit
from engine.codegen.files import TYPESCRIPT, WRITTEN_BY
from tests.node.command_line import eventually, headrace, started

APP = """
from headrace import Document, QueryCtx, Schema, Table, query


class Person(Document):
    name: str


schema = Schema(people=Table(Person))


@query
async def everybody(ctx: QueryCtx) -> list[Person]:
    return await ctx.db.query(Person).collect()
"""
NEEDS_CONVEX = '{"dependencies": {"convex": "1"}}'
FILES = ["api.d.ts", "api.js", "dataModel.d.ts"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a front end in a folder of its own, and the command line in this process."""
    module(tmp_path).write_text(APP)
    (tmp_path / "pyproject.toml").write_text(f'[tool.headrace]\napp = "{tmp_path.name}.py"\n')
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "package.json").write_text(NEEDS_CONVEX)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    structlog.reset_defaults()


def module(project: Path) -> Path:
    """The application, of another name in each test."""
    return project / f"{project.name}.py"


@pytest.fixture
def generated(project: Path) -> Path:
    """Where the types of its front end are."""
    return project / "web" / "convex" / "_generated"


def python_files(project: Path) -> dict[str, str]:
    """What is written for the application itself, by name."""
    folder = project / f"other_{project.name}"
    folder.mkdir()
    (folder / "people.py").write_text(APP)
    assert main(["codegen", folder.name]) == Exit.DONE
    return {file.name: file.read_text() for file in (folder / "_generated").iterdir()}


def configure(project: Path, lines: str) -> None:
    with (project / "pyproject.toml").open("a") as file:
        file.write(f"[tool.headrace.codegen]\n{lines}\n")


def test_types_are_written_once_and_again_only_where_the_application_is_another(
    project: Path, generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [main(["codegen"])]
    first = capsys.readouterr().out
    before = {file: file.stat() for file in generated.iterdir()}
    codes.append(main(["codegen"]))
    second = capsys.readouterr().out
    same = {file: file.stat() for file in generated.iterdir()}
    module(project).write_text(APP.replace("everybody", "nobody"))
    codes.append(main(["codegen"]))
    third = capsys.readouterr().out

    assert [Exit.DONE] * 3 == codes
    assert [f"Wrote web/convex/_generated/{name}" for name in FILES] == first.splitlines()
    assert FILES == sorted(file.name for file in generated.iterdir())
    assert "" == second
    assert before == same
    assert "Wrote web/convex/_generated/api.d.ts\n" == third
    assert "nobody: FunctionReference<" in (generated / "api.d.ts").read_text()


def test_a_check_writes_nothing_and_says_what_would_change(
    project: Path, generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = main(["codegen", "--check"])
    said = capsys.readouterr().out
    was_there = generated.exists()
    main(["codegen"])
    capsys.readouterr()
    after = main(["codegen", "--check"])
    (generated / "api.js").write_text((generated / "api.js").read_text() + "changed();\n")
    changed = main(["codegen", "--check"])

    assert [f"would write web/convex/_generated/{name}" for name in FILES] == said.splitlines()
    assert not was_there
    assert [Exit.FAILED, Exit.DONE, Exit.FAILED] == [before, after, changed]
    assert "would write web/convex/_generated/api.js\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "export type Id = string;\n",
        f"// What begins so is of codegen:\n// {WRITTEN_BY}\nexport type Id = string;\n",
        "\n".join(["", *TYPESCRIPT.lines("One more line above.")]),
    ],
)
def test_a_file_of_somebody_else_is_named_and_nothing_is_written(
    generated: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    generated.mkdir(parents=True)
    (generated / "dataModel.d.ts").write_text(text)

    code = main(["codegen"])

    assert Exit.USAGE == code
    assert f"{generated / 'dataModel.d.ts'} was not written by headrace" in capsys.readouterr().err
    assert text == (generated / "dataModel.d.ts").read_text()
    assert ["dataModel.d.ts"] == [file.name for file in generated.iterdir()]


def test_a_link_in_the_place_of_a_file_is_somebody_elses(project: Path, generated: Path) -> None:
    main(["codegen"])
    ours = (generated / "api.js").rename(project / "api.js")
    (generated / "api.js").symlink_to(ours)
    module(project).write_text(APP.replace("everybody", "nobody"))

    code = main(["codegen"])

    assert Exit.USAGE == code
    assert (generated / "api.js").is_symlink()


def test_files_of_ours_that_are_of_no_more_use_go_and_others_stay(
    project: Path, generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours_in_python = python_files(project)
    main(["codegen"])
    ours = (generated / "api.js").read_text()
    (generated / "api.py").write_text(ours_in_python["api.py"])
    others = {
        "server.js": ours,  # never a name of ours
        "api.pyi": f"# {ours_in_python['api.pyi']}",
        "data_model.py": "\n".join(f"# {line}" for line in ours.splitlines()),
    }
    for name, text in others.items():
        (generated / name).write_text(text)
    (generated / "__init__.py").write_bytes(b"\xff")
    capsys.readouterr()

    main(["codegen"])

    assert "Removed web/convex/_generated/api.py\n" == capsys.readouterr().out
    assert sorted([*FILES, *others, "__init__.py"]) == sorted(f.name for f in generated.iterdir())


def test_what_git_makes_of_the_ends_of_lines_is_no_change(generated: Path) -> None:
    main(["codegen"])
    text = (generated / "api.js").read_text()
    (generated / "api.js").write_text(text, newline="\r\n")

    assert Exit.DONE == main(["codegen", "--check"])


@pytest.mark.parametrize(
    ("lines", "places"),
    [
        ('javascript = "src/convex"', ["src/convex"]),
        ('javascript = ["web/a", "../elsewhere"]', ["web/a", "../elsewhere"]),
        ("javascript = []", []),
    ],
)
def test_the_project_says_where(
    project: Path, generated: Path, lines: str, places: list[str]
) -> None:
    configure(project, lines)

    code = main(["codegen"])

    assert Exit.DONE == code
    assert not generated.exists()
    for place in places:
        assert FILES == sorted(file.name for file in (project / place).iterdir())


@pytest.mark.parametrize(
    ("lines", "written"),
    [
        ("", ["__init__.py", "api.py", "api.pyi", "data_model.py"]),
        ("python = true", ["__init__.py", "api.py", "api.pyi", "data_model.py"]),
        ("python = false", []),
    ],
)
def test_a_folder_has_types_of_its_own(project: Path, lines: str, written: list[str]) -> None:
    folder = project / f"folder_of_{project.name}"
    folder.mkdir()
    module(project).rename(folder / "people.py")
    (project / "pyproject.toml").write_text(f'[tool.headrace]\napp = "{folder.name}"\n')
    configure(project, lines)

    codes = [main(["codegen"]), main(["codegen", "--check"])]

    assert [Exit.DONE, Exit.DONE] == codes
    assert written == sorted(file.name for file in (folder / "_generated").glob("*"))


@pytest.mark.parametrize(
    "lines", ["python = 1", "javascript = 5", "javascript = [5]", 'typescript = "web"']
)
def test_what_cannot_be_said_is_refused(
    project: Path, lines: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, lines)

    assert Exit.USAGE == main(["codegen"])
    assert "[tool.headrace.codegen]" in capsys.readouterr().err


def test_only_a_front_end_that_needs_the_client_has_types(project: Path, generated: Path) -> None:
    (project / "web" / "package.json").write_text('{"dependencies": {"vite": "8"}}')

    code = main(["codegen"])

    assert Exit.DONE == code
    assert not generated.exists()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", '[tool.headrace]\napp = "other.py"\n'),
        ("pyproject.toml", "[tool.headrace\n"),
        ("pyvenv.cfg", ""),
    ],
)
def test_a_folder_that_is_not_the_projects_own_is_left_alone(
    project: Path, generated: Path, file: str, text: str
) -> None:
    (project / "web" / file).write_text(text)

    code = main(["codegen"])

    assert Exit.DONE == code
    assert not generated.exists()


def test_a_folder_with_a_pyproject_of_something_else_is_the_projects_own(
    project: Path, generated: Path
) -> None:
    (project / "web" / "pyproject.toml").write_text('[tool.ruff]\nsrc = ["."]\n')

    code = main(["codegen"])

    assert Exit.DONE == code
    assert generated.exists()


@pytest.mark.parametrize("link", ["web", "web/convex", "web/convex/_generated"])
def test_nothing_is_written_through_a_link_out_of_the_project(
    project: Path, generated: Path, link: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = lead_away(project, link, project.parent / f"out_of_{project.name}")

    code = main(["codegen"])

    assert Exit.USAGE == code
    assert f"{project / link} is a symbolic link that leads out of" in capsys.readouterr().err
    assert [] == [*outside.rglob("*.ts")]


def test_a_link_within_the_project_is_followed(project: Path, generated: Path) -> None:
    inside = lead_away(project, "web/convex/_generated", project / "types")

    code = main(["codegen"])

    assert Exit.DONE == code
    assert FILES == sorted(file.name for file in inside.iterdir())


def lead_away(project: Path, link: str, place: Path) -> Path:
    """Move a folder of the project to `place`, with a link to it where it was."""
    (project / link).mkdir(parents=True, exist_ok=True)
    (project / link).rename(place)
    (project / link).symlink_to(place)
    return place


def test_types_of_an_application_are_written_through_no_link_out_of_it(
    project: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / f"folder_of_{project.name}"
    folder.mkdir()
    module(project).rename(folder / "people.py")
    outside = tmp_path_factory.mktemp("outside")
    (folder / "_generated").symlink_to(outside)

    code = main(["codegen", folder.name])

    assert Exit.USAGE == code
    assert f"{folder / '_generated'} is a symbolic link" in capsys.readouterr().err
    assert [] == [*outside.iterdir()]


@pytest.mark.parametrize("has_types", [False, True])
def test_two_sets_of_types_in_one_folder_are_refused(
    project: Path, generated: Path, has_types: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / f"folder_of_{project.name}"
    folder.mkdir()
    module(project).rename(folder / "people.py")
    assert not has_types or main(["codegen", folder.name]) == Exit.DONE
    before = sorted(folder.rglob("_generated/*"))
    configure(project, f'javascript = "web/../{folder.name}/_generated"')

    codes = [main(["codegen", folder.name]), main(["codegen", folder.name, "--check"])]

    assert [Exit.USAGE, Exit.USAGE] == codes
    assert "name another folder with javascript = ... or write python = false" in (
        capsys.readouterr().err
    )
    assert before == sorted(folder.rglob("_generated/*"))


def test_a_broken_application_leaves_the_last_types(project: Path, generated: Path) -> None:
    main(["codegen"])
    before = (generated / "api.d.ts").read_text()
    module(project).write_text(APP.replace("everybody", "nobody") + "1 / 0\n")

    code = main(["codegen"])
    checked = main(["codegen", "--check"])

    assert [Exit.REFUSED, Exit.REFUSED] == [code, checked]
    assert before == (generated / "api.d.ts").read_text()


@pytest.mark.slow
def test_a_new_project_has_its_types(tmp_path: Path) -> None:
    headrace(tmp_path, "init", "chat")

    checked = headrace(tmp_path / "chat", "codegen", "--check")

    assert (Exit.DONE, "", "") == (checked.code, checked.out, checked.err)
    assert (tmp_path / "chat" / "backend" / "_generated" / "api.pyi").is_file()


@pytest.mark.slow
def test_dev_writes_types_on_save_and_leaves_the_last_good_ones(tmp_path: Path) -> None:
    assert headrace(tmp_path, "init", "chat").code == 0
    project = tmp_path / "chat"
    (project / "package.json").write_text(NEEDS_CONVEX)
    types = project / "convex" / "_generated" / "api.d.ts"
    own_types = project / "backend" / "_generated" / "api.pyi"
    messages = project / "backend" / "messages.py"
    good = messages.read_text()
    with started(project, "dev", "--port", "0") as dev:
        dev.wait_said("Wrote convex/_generated/dataModel.d.ts")
        first = types.read_text()
        time.sleep(1)  # in which it would push what it has written itself
        pushes = dev.said.count("Pushed in")
        messages.write_text(good.replace("async def send(", "async def post(") + "\n1 / 0\n")
        dev.wait_said("Not pushed")
        broken = types.read_text()
        messages.write_text(good.replace("async def send(", "async def post("))
        eventually(lambda: "post: FunctionReference<" in types.read_text())
        eventually(lambda: "post: _MutationReference[" in own_types.read_text())
        types.write_text("export {};\n")
        messages.write_text(good)
        dev.wait_said("was not written by headrace")
        served = headrace(project, "run", "messages:send", '{"author": "ada", "body": "hi"}')

    assert 1 == pushes
    assert "send: FunctionReference<" in first
    assert first == broken
    assert "export {};\n" == types.read_text()
    assert Exit.DONE == served.code
