"""Symbolic links in a project: what is written stays in its folder."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import UsageError


def kept_in(root: Path, path: Path) -> Path:
    """
    `path`; one that is outside `root` without a link was named so, and is as good.

    Raises:
        UsageError: a symbolic link on the way from `root` leads out of it.
    """
    step = root
    for part in path.relative_to(root).parts if path.is_relative_to(root) else ():
        step /= part
        if step.is_symlink() and not _is_in(root, step):
            raise UsageError(
                f"{step} is a symbolic link that leads out of {root}, and nothing is written "
                "through it; put what it leads to in its place"
            )
    return path


def _is_in(root: Path, link: Path) -> bool:
    return Path(os.path.realpath(link)).is_relative_to(os.path.realpath(root))
