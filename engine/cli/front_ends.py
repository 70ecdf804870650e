"""Front ends of a project: its folder and those in it that have a package.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NOT_FRONT_ENDS: Final = frozenset({"node_modules"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """A folder with a package.json, and the packages that this says it needs."""

    folder: Path
    needs: frozenset[str]


def front_ends(root: Path) -> Iterator[FrontEnd]:
    """Those of the project at `root`."""
    folders = (each for each in sorted(root.iterdir()) if each.is_dir())
    for folder in (root, *folders):
        package = folder / "package.json"
        if folder != root and (folder.name in NOT_FRONT_ENDS or folder.name.startswith(".")):
            continue
        if package.is_file():
            yield FrontEnd(folder=folder, needs=_needs(package))


def _needs(package: Path) -> frozenset[str]:
    try:
        content = json.loads(package.read_text("utf-8"))
        return frozenset({**content.get("dependencies", {}), **content.get("devDependencies", {})})
    except (OSError, ValueError, AttributeError, TypeError):
        return frozenset()
