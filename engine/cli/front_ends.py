"""
Front ends of a project: its folder and those in it that have a package.json.

A folder in it that is a project of its own has its own application, and is left to that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.cli.project import is_project

NOT_FRONT_ENDS: Final = frozenset({"node_modules"})
VIRTUAL_ENVIRONMENT: Final = "pyvenv.cfg"
"""What each has, whatever it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """A folder with a package.json, and the packages that this says it needs."""

    folder: Path
    needs: frozenset[str]


def front_ends(root: Path) -> Iterator[FrontEnd]:
    """Those of the project at `root`."""
    folders = (each for each in sorted(root.iterdir()) if each.is_dir())
    for folder in (root, *(each for each in folders if _is_part(each))):
        package = folder / "package.json"
        if package.is_file():
            yield FrontEnd(folder=folder, needs=_needs(package))


def _is_part(folder: Path) -> bool:
    """Whether a folder of a project is the project's to write in."""
    if folder.name in NOT_FRONT_ENDS or folder.name.startswith("."):
        return False
    return not ((folder / VIRTUAL_ENVIRONMENT).exists() or is_project(folder))


def _needs(package: Path) -> frozenset[str]:
    try:
        content = json.loads(package.read_text("utf-8"))
        return frozenset({**content.get("dependencies", {}), **content.get("devDependencies", {})})
    except (OSError, ValueError, AttributeError, TypeError):
        return frozenset()
