"""Applications and components that a test writes, as packages that can be imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files, whose folders are made."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


@contextmanager
def importable(folder: Path, prefix: str) -> Iterator[None]:
    """Inside, packages in `folder` can be imported; afterwards those with the prefix are gone."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.startswith(prefix)]:
            del sys.modules[name]
