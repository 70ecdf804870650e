"""The check of the demo on a machine without Node, where the official Python client stands in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself


def test_without_node_every_step_is_checked_with_the_python_client(tmp_path: Path) -> None:
    without_node = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "ops.helpdesk", "--check"]

    checked = subprocess.run(command, cwd=ROOT, env=without_node, capture_output=True, text=True)

    assert 0 == checked.returncode, checked.stdout + checked.stderr
    assert 2 == checked.stdout.count("the Python client saw the change")
