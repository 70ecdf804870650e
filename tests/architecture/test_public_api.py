"""
The names that `engine` exports are a promise: none appears or goes by accident.

A change of `engine.__all__` is written into public_api.txt, and into CHANGELOG.md for whoever
used the name.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

PLUGINS: dict[str, str] = (
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    .get("entry-points", {})
    .get("pytest11", {})
)
HEAVY = {"httpx", "hypercorn", "lmdb", "rich", "trio"}
PINNED = Path(__file__).with_name("public_api.txt")


def exported(module: str) -> list[str]:
    return sorted(getattr(import_module(module), "__all__", ()))


def test_the_public_names_are_the_pinned_ones() -> None:
    assert PINNED.read_text().split() == exported("engine")


def test_every_exported_name_is_there() -> None:
    engine = import_module("engine")

    assert [name for name in exported("engine") if not hasattr(engine, name)] == []


@pytest.mark.parametrize("door", ["aio", "blocking", "commands", "testing"])
def test_headrace_has_every_door_that_the_engine_has(door: str) -> None:
    source = ROOT / "engine" / f"{door}.py"
    re_export = ROOT / "ops" / "packaging" / "headrace" / f"{door}.py"

    assert source.exists() == re_export.exists(), f"write {re_export.relative_to(ROOT)}"
    if source.exists():
        assert exported(f"engine.{door}"), f"engine/{door}.py needs an __all__"


def test_the_fixtures_for_applications_are_a_pytest_plugin() -> None:
    assert (ROOT / "engine" / "testing.py").exists() == bool(PLUGINS), "see pytest11 in pyproject"


@pytest.mark.parametrize("plugin", PLUGINS.values())
def test_a_pytest_plugin_imports_nothing_heavy_until_it_is_used(plugin: str) -> None:
    program = f"import json, sys, {plugin}; print(json.dumps(sorted(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert HEAVY & set(json.loads(done.stdout)) == set()
