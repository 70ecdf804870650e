"""`ops/demo` where something is missing: Node, or a port that is free."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself


def helpdesk(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `path` is where it looks for programs."""
    environment = os.environ if path is None else {**os.environ, "PATH": path}
    command = [sys.executable, "-m", "ops.helpdesk", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_without_node_every_step_is_checked_with_the_python_client(tmp_path: Path) -> None:
    checked = helpdesk("--check", path=str(tmp_path))

    assert 0 == checked.returncode, checked.stdout + checked.stderr
    assert 2 == checked.stdout.count("the Python client saw the change")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = helpdesk("--port", str(port), "--empty", "--data", str(tmp_path / "data"))

    assert 1 == refused.returncode
    assert f"Address already in use (127.0.0.1:{port})\n" in refused.stderr
