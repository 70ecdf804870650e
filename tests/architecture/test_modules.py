"""Which modules there are, who imports them, and who may import what from outside."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from engine.cli.command import VERBS
from tests.architecture.source_tree import ROOT, Module, files, modules, parsed, third_party

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

DOORS = {
    "lmdb": "engine.store.lmdb_*",
    "cbor2": "engine.model.codec",
    "joserfc": "engine.server.keys",
    "numpy": "engine.indexes.*",
    "structlog": "engine.kernel.trace",
}
"""Libraries that enter by one module, so that what they can do to us can be read in one place."""

PUBLIC = {f"engine.{name}" for name in ("__main__", "aio", "blocking", "commands", "testing")}
"""What applications or Python itself import, besides `engine` and the entry points."""

PROCESSES = {"engine.store.writer_process", "engine.indexes.past_process"}
"""Begun as processes of their own, by a program that is text until then."""

DATA_ONLY = {"tzdata"}
"""Needed where the system has no time zones of its own; `zoneinfo` reads it by itself."""

WITHIN_IT = {("engine.testing", "pytest")}
"""A plugin is imported by what it is a plugin of."""

NAMELESS = {"common", "helper", "helpers", "misc", "util", "utils"}

# In two parts, so that this file is not its own first finding.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:" + "work|root|farm|home|Users" + r")/\w|/tm" + r"p/\w")


@pytest.mark.parametrize(("library", "door"), DOORS.items())
def test_a_library_enters_by_one_door(library: str, door: str) -> None:
    entering = {
        module.name for module in modules("engine", "components") if library in third_party(module)
    }

    assert {name for name in entering if not fnmatchcase(name, door)} == set()


def test_every_module_has_an_importer_or_is_an_entry() -> None:
    scripts = [*PROJECT["scripts"].values()]
    plugins = [
        target for group in PROJECT.get("entry-points", {}).values() for target in group.values()
    ]
    verbs = {f"engine.cli.{module}" for module in VERBS.values()}  # imported by these names
    entries = PUBLIC | PROCESSES | verbs
    entries |= {target.partition(":")[0] for target in scripts + plugins}

    assert orphans(modules("engine"), entries) == []


def test_a_module_that_only_imports_itself_is_an_orphan() -> None:
    tree = [
        parsed(Path("engine/node.py"), "from engine.store import disk"),
        parsed(Path("engine/store/__init__.py"), ""),
        parsed(Path("engine/store/disk.py"), "from . import pages"),
        parsed(Path("engine/store/pages.py"), ""),
        parsed(Path("engine/store/memory.py"), "import engine.store.memory"),
    ]

    assert orphans(tree, {"engine.node"}) == ["engine.store.memory"]


def test_modules_are_named_for_what_they_are() -> None:
    assert [m.name for m in modules() if m.name.rpartition(".")[2] in NAMELESS] == []


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    extras = PROJECT["optional-dependencies"]
    needs = [*PROJECT["dependencies"], *extras["auth"], *extras["terminal"], *extras["search"]]
    needs += extras["vectors"]
    declared = {re.split(r"[<>=!~ \[]", need)[0] for need in needs}
    imported = {
        name
        for module in modules("engine", "components")
        for name in third_party(module)
        if (module.name, name) not in WITHIN_IT
    }

    assert imported == declared - DATA_ONLY


def test_what_verifies_tokens_may_be_missing_until_there_is_one_to_verify() -> None:
    assert not is_imported_from_the_start("joserfc")


def test_what_searches_are_quick_by_may_be_missing() -> None:
    assert not is_imported_from_the_start("numpy")


def is_imported_from_the_start(library: str) -> bool:
    program = f"import sys, engine.serving, engine.cli.command; print({library!r} in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    return done.stdout == "True\n"


def test_what_may_be_missing_is_imported_only_where_there_is_another_way() -> None:
    importers = [module.name for module in modules("engine") if "rich" in third_party(module)]

    assert importers == ["engine.cli.output"]


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("cd /" + "root/x", True),
        ("see /" + "work/main", True),
        ('open("/' + 'tmp/data")', True),
        ("https://example.com/home/x", False),
        ("GET /api/home/x", False),
        ("/homework", False),
    ],
)
def test_a_path_of_a_machine_is_told_from_others(text: str, is_path: bool) -> None:
    assert is_path == bool(MACHINE_PATH.search(text))


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    texts = (path for path in files() if path.suffix not in {".lock", ".png", ".svg"})
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]

    assert found == []


def orphans(known: Iterable[Module], entries: set[str]) -> list[str]:
    """Modules that nothing imports; a package is reached through any module inside it."""
    known = list(known)
    reached = set(entries)
    for module in known:
        reached |= {target for target in module.imports if target != module.name}
    packages = {".".join(name.split(".")[:depth]) for name in reached for depth in (1, 2, 3)}
    return [module.name for module in known if module.name not in reached | packages]
