"""What the browser tests cannot have here, and may not install, they say in one line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

NOBODY = "echo 1000"
REFUSES = "exit 1"
NO_CHROMIUM = "Chromium was not found, and apt-get may not install it here"
NO_REGISTRY = "npm's registry does not answer"
UNOPENED = "the React application was not opened in a browser."


@pytest.mark.parametrize(
    ("programs", "missing"),
    [
        ({"id": NOBODY}, NO_CHROMIUM),
        (
            {"id": NOBODY, "apt-get": ""},
            NO_CHROMIUM,
        ),
        (
            {"id": "echo 0", "apt-get": REFUSES},
            NO_CHROMIUM,
        ),
        ({"chromium": "", "npm": REFUSES}, NO_REGISTRY),
    ],
)
def test_what_is_missing_is_a_line_and_no_failure(
    programs: dict[str, str], missing: str, tmp_path: Path
) -> None:
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")
    script = str(ROOT / "tests" / "clients" / "run")
    command = [shutil.which("bash") or "bash", script, "browser"]

    done = subprocess.run(
        command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert (77, "") == (done.returncode, done.stderr)
    assert f"{missing}: {UNOPENED}\n" == done.stdout
