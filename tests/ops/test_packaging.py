"""What an install holds: the engine, under a name of its own that type checkers follow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ops.lib.lock import pinned
from tests.acceptance.windows import needs_node
from tests.architecture.source_tree import ROOT, files

BASE_BYTES_MAX = 25_000_000
"""Without bytecode, which every Python writes as it likes."""

TEMPLATES = "engine/cli/templates/"

APPLICATION = """\
import headrace
from headrace import MutationCtx, mutation

@mutation
async def send(ctx: MutationCtx, body: str) -> int:
    return len(body)

reveal_type(headrace.mutation)
reveal_type(send)
headrace.Path
headrace.typo
"""


def run(command: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    built = run([*pip, "--wheel-dir", folder, ROOT], folder)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("headrace-*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with that wheel, which borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def test_the_wheel_has_the_license_the_types_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert "headrace/py.typed" in names
    assert "engine/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {"components", "engine", "headrace"} >= {
        name.partition("/")[0] for name in names if ".dist-info/" not in name
    }
    ours = (name for name in names if not name.startswith(TEMPLATES))
    assert [name for name in ours if "/test_" in name or "/tests/" in name] == []


def test_the_wheel_has_the_templates_with_all_of_their_files(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(TEMPLATES)}

    tree = (path.relative_to(ROOT).as_posix() for path in files())
    assert {path for path in tree if path.startswith(TEMPLATES)} == inside


def test_every_package_that_is_installed_has_types() -> None:
    packages = [ROOT / "engine", *{path.parent for path in ROOT.glob("components/*/__init__.py")}]

    assert [folder.name for folder in packages if not (folder / "py.typed").exists()] == []


def test_what_is_installed_exports_the_objects_of_its_own_engine(
    python: Path, tmp_path: Path
) -> None:
    program = (
        "import json, engine, headrace; from pathlib import Path;"
        "same = [getattr(headrace, n) is getattr(engine, n) for n in engine.__all__];"
        "homes = [str(Path(m.__file__).parents[1]) for m in (engine, headrace)];"
        "print(json.dumps([all(same), len(same) > 0, homes[0] == homes[1]]))"
    )

    done = run([python, "-c", program], tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True, True]


def test_an_import_waits_for_nothing_that_it_does_not_need(python: Path, tmp_path: Path) -> None:
    program = "import headrace, sys; print({'trio', 'lmdb', 'hypercorn'} & set(sys.modules))"

    done = run([python, "-c", program], tmp_path)

    assert done.stdout == "set()\n", done.stderr


def test_this_environment_exports_the_objects_of_this_tree() -> None:
    engine, headrace = import_module("engine"), import_module("headrace")

    assert Path(engine.__file__ or "") == ROOT / "engine" / "__init__.py"
    assert headrace.__all__ == engine.__all__
    assert [n for n in engine.__all__ if getattr(headrace, n) is not getattr(engine, n)] == []


@pytest.mark.parametrize("intruder", ["engine.py", "engine/__init__.py", "components/__init__.py"])
def test_another_package_of_that_name_is_refused_with_its_file(
    intruder: str, python: Path, tmp_path: Path
) -> None:
    path = tmp_path / intruder
    path.parent.mkdir(exist_ok=True)
    path.write_text("")

    done = run([python, "-c", "import headrace"], tmp_path)

    name = Path(intruder).parts[0].removesuffix(".py")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: headrace is built on its own package `{name}`, but")
    assert f" {path} first" in last


def test_a_folder_of_components_without_a_module_is_shared(python: Path, tmp_path: Path) -> None:
    (tmp_path / "components").mkdir()

    done = run([python, "-c", "import headrace"], tmp_path)

    assert done.returncode == 0, done.stderr


def test_the_base_install_is_small_and_needs_no_cryptography(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = pinned([Requirement(need) for need in project["dependencies"]])

    size = sum(installed_bytes(name) for name in needed)
    size += sum(info.file_size for info in zipfile.ZipFile(wheel).infolist())

    assert {"trio", "lmdb", "hypercorn"} <= needed.keys()
    assert {"joserfc", "cryptography", "cffi"} & needed.keys() == set()
    assert size < BASE_BYTES_MAX


def installed_bytes(name: str) -> int:
    paths = [Path(str(file.locate())) for file in distribution(name).files or []]
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")


BARE = "import sys; sys.modules |= dict.fromkeys(['joserfc', 'cryptography']);"
DESK = """\
from headrace import QueryCtx, internal_query

@internal_query
def read(ctx: QueryCtx) -> str:
    return "read"
"""
ASK = """\
import httpx, trio
from engine.serving import serving

TOKEN = "Bearer e30.e30.e30"  # three parts, two of them empty objects

async def main():
    async with serving("data", app="desk.py") as served, httpx.AsyncClient() as http:
        for proof in (f"Convex {served.admin_key}", TOKEN):
            body = {"path": "desk:read", "args": {}, "format": "json"}
            headers = {"Authorization": proof}
            answer = await http.post(f"{served.url}/api/query", json=body, headers=headers)
            print("answer:", answer.json().get("value"), answer.json().get("code"))

trio.run(main)
"""


def test_the_admin_key_needs_no_extra(python: Path, tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(DESK)

    done = run([python, "-c", f"{BARE}\n{ASK}"], tmp_path)

    answers = [line for line in done.stdout.splitlines() if line.startswith("answer: ")]
    assert ["answer: read None", "answer: None NoAuthProvider"] == answers, done.stderr


def test_an_application_with_providers_says_which_extra_it_needs(
    python: Path, tmp_path: Path
) -> None:
    provider = 'Oidc(domain="example.com", application_id="chat")'
    (tmp_path / "chat.py").write_text(
        f"from headrace import App, Oidc\n\napp = App(auth=[{provider}])\n"
    )

    done = run(
        [python, "-c", f"{BARE} from engine.cli import main; sys.exit(main(['check', 'chat.py']))"],
        tmp_path,
    )

    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr == (
        "error: App(auth=[...]) verifies tokens, for which joserfc is missing: "
        "pip install 'headrace[auth]'\n"
    )


WINDOWS = "import sys; sys.platform = 'win32'; sys.modules |= dict.fromkeys(['fcntl', 'resource']);"
REFUSAL = (
    "Headrace does not run on Windows, where files cannot be locked and processes signalled as it "
    "needs; run it inside WSL, which is Linux."
)


@pytest.mark.parametrize("line", ["import headrace", "from engine import query"])
def test_windows_is_refused_in_one_sentence_when_it_is_imported(
    line: str, python: Path, tmp_path: Path
) -> None:
    done = run([python, "-c", f"{WINDOWS} {line}"], tmp_path)

    assert f"ImportError: {REFUSAL}" == done.stderr.splitlines()[-1]


def test_windows_is_refused_in_one_sentence_by_the_command(python: Path, tmp_path: Path) -> None:
    done = run([python, "-c", f"{WINDOWS} from engine.cli import main; main(['dev'])"], tmp_path)

    assert (4, "", f"{REFUSAL}\n") == (done.returncode, done.stdout, done.stderr)


def test_pytest_goes_on_on_windows_while_no_test_asks_for_an_engine(
    python: Path, tmp_path: Path
) -> None:
    done = run([python, "-c", f"import pytest; {WINDOWS} import engine.testing"], tmp_path)

    assert (0, "") == (done.returncode, done.stderr)


def test_mypy_follows_the_name(python: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    command: list[str | Path] = [sys.executable, "-m", "mypy", "--strict"]

    report = run(
        [*command, "--config-file=", "--cache-dir", tmp_path / "cache", "app.py"], tmp_path
    )

    assert 'Module "headrace" does not explicitly export attribute "Path"' in report.stdout
    assert '"Any"' not in report.stdout
    assert 'Module has no attribute "typo"' in report.stdout
    assert "Found 2 errors in 1 file (checked 1 source file)" in report.stdout


@needs_node
def test_pyright_follows_the_name(python: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')

    report = run([sys.executable, "-m", "pyright", "--pythonpath", python, "app.py"], tmp_path)

    assert '"Path" is not exported from module "headrace"' in report.stdout
    assert '"typo" is not a known attribute of module "headrace"' in report.stdout
    assert 'is "Unknown"' not in report.stdout
    assert "\n3 errors, " in report.stdout  # the typo is two: no such name, and so no type
