"""Which files an application is made of, and when they have changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import trio

from engine.codegen.files import PYTHON_FOLDER

POLL_S: Final = 0.15
SETTLE_S: Final = 0.05
"""Editors write a file in steps; it is read when two looks in a row see the same."""

Seen: TypeAlias = dict[str, tuple[int, int]]
"""Time of modification and size, by file."""


def look(app: Path) -> Seen:
    """The files that a push would read."""
    seen = {}
    for file in _files(app):
        try:
            stat = file.stat()
        except OSError:
            continue
        seen[str(file)] = (stat.st_mtime_ns, stat.st_size)
    return seen


async def changed(app: Path, before: Seen) -> Seen:
    """Wait until the files are others than `before`, and at rest; return them."""
    while True:
        await trio.sleep(POLL_S)
        seen = await trio.to_thread.run_sync(look, app)
        if seen == before:
            continue
        while True:
            await trio.sleep(SETTLE_S)
            again = await trio.to_thread.run_sync(look, app)
            if again == seen:
                return seen
            seen = again


def _files(app: Path) -> Iterator[Path]:
    if app.is_dir():
        yield from (file for file in app.rglob("*.py") if _is_read(file.relative_to(app)))
        yield app / ".env.local"
    else:
        yield app
        yield app.parent / ".env.local"


def _is_read(file: Path) -> bool:
    """Whether the loader reads it; what is written after a push asks for no other push."""
    first, *_ = file.parts
    return first != PYTHON_FOLDER and not any(part.startswith(".") for part in file.parts)
