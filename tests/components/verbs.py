"""Verbs of components, beside a server that has the data open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest

from tests.node.command_line import started

Main = Callable[[list[str]], int]


@contextmanager
def served(
    where: Path, app: str, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[Main, str], tuple[int, str, str]]]:
    """
    Serve the application of a text, and run verbs in this process, in the same directory.

    A verb is its `main` and a line of arguments; it gives an exit code, stdout and stderr.
    """
    (where / "app.py").write_text(app)

    def verb(main: Main, line: str) -> tuple[int, str, str]:
        code = main([*line.split(), "--data", "db"])
        return (int(code or 0), *capfd.readouterr())

    with chdir(where), started(where, "serve", "app.py", "--data", "db", "--port", "0") as server:
        server.wait_said("ready")
        yield verb
