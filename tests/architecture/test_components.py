"""Components use what applications use, and know each other only as they are built."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.architecture.source_tree import ROOT, Module, modules, parsed

ROW = re.compile(r"(?m)^\| \[`(\w+)`\]\(\w+/README\.md\) \|")

BUILT_ON = {
    "aggregate": {"batch_worker"},
    "rate_limiter": {"batch_worker"},
    "workflow": {"workpool"},
    "workpool": {"batch_worker"},
}
"""Which component may import which others."""

FOR_TESTS = "engine.testing"
FOR_VERBS = "engine.commands"


def test_a_component_imports_only_what_the_engine_exports() -> None:
    assert reaching_inside(modules("components"), modules("engine")) == []


def test_every_component_is_listed_where_it_is_installed_and_where_people_read() -> None:
    found = {path.parent.name for path in (ROOT / "components").glob("*/__init__.py")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = ROW.findall((ROOT / "components" / "README.md").read_text())

    assert {n: f"components.{n}" for n in found} == project["entry-points"]["headrace.components"]
    assert found == set(told)


def test_the_engine_knows_no_component() -> None:
    assert [m.name for m in modules("engine") if "components" in tops(m.imports)] == []


def test_components_are_independent_except_for_what_they_are_built_on() -> None:
    assert entangled(modules("components")) == []


def test_a_component_that_reaches_inside_is_found() -> None:
    paths = ("engine/model/ids.py", "engine/testing.py", "engine/commands.py")
    engine = [parsed(Path(path), "") for path in paths]
    component = [
        parsed(Path("components/limiter/client.py"), "from engine import query, Id"),
        parsed(Path("components/limiter/test_client.py"), "from engine.testing import Harness"),
        parsed(Path("components/limiter/store.py"), "from engine.model import ids"),
        parsed(Path("components/limiter/clock.py"), "from engine.testing import Harness"),
        parsed(Path("components/limiter/command.py"), "from engine.commands import note"),
        parsed(Path("components/limiter/table.py"), "from engine.commands import print_table"),
    ]

    found = reaching_inside(component, engine)

    assert found == [f"components.limiter.{name}" for name in ("store", "clock", "table")]


def test_components_that_know_each_other_are_found() -> None:
    component = [
        parsed(Path("components/workflow/run.py"), "from components.workpool import client"),
        parsed(Path("components/workpool/run.py"), "import components.workflow"),
        parsed(Path("components/workpool/pool.py"), "from . import run"),
    ]

    assert entangled(component) == ["components.workpool.run"]


def tops(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def reaching_inside(components: Iterable[Module], engine: Iterable[Module]) -> list[str]:
    """The modules that import something of the engine other than `engine` itself."""
    inside = {module.name for module in engine} - {"engine"}
    inside |= {name.rpartition(".")[0] for name in inside} - {"engine"}
    return [
        module.name for module in components if module.imports & (inside - also_allowed(module))
    ]


def also_allowed(module: Module) -> set[str]:
    """The doors of the engine that only some modules of a component use."""
    if is_test(module):
        return {FOR_TESTS}
    return {FOR_VERBS} if module.path.name == "command.py" else set()


def is_test(module: Module) -> bool:
    return "tests" in module.path.parts or module.path.name.startswith(("test_", "conftest"))


def entangled(components: Iterable[Module]) -> list[str]:
    """The modules that import a component which theirs is not built on."""
    return [
        module.name
        for module in components
        if others(module) - BUILT_ON.get(module.name.split(".")[1], set())
    ]


def others(module: Module) -> set[str]:
    """The components that it imports, besides its own."""
    parts = [name.split(".") for name in module.imports]
    imported = {part[1] for part in parts if part[0] == "components" and len(part) > 1}
    return imported - {module.name.split(".")[1]}
