"""The first minutes with the wheel, as `first_minutes.md` tells them, against the clock."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.windows import skipped_unless
from tests.architecture.source_tree import ROOT
from tests.docs.readme import follow, sections

pytestmark = pytest.mark.xdist_group("acceptance")  # each wants a core for itself

TRANSCRIPT = Path(__file__).parent / "first_minutes.md"
PORT = "3210"
MINUTES_S_MAX = 180.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new folder that has nothing in it but the wheel of this tree."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "--wheel-dir", tmp_path / "dist", ROOT], cwd=tmp_path, check=True, timeout=120
    )
    return tmp_path


@pytest.mark.slow
@skipped_unless(shutil.which("npm") is not None, "npm is not here, and the windows need it")
def test_two_windows_are_in_step_within_three_minutes(folder: Path) -> None:
    text = TRANSCRIPT.read_text().replace(PORT, free_port())
    (section,) = sections(text)
    began = time.monotonic()

    follow(section, folder)

    took_s = time.monotonic() - began
    print(f"the first minutes took {took_s:.0f} s")  # noqa: T201 - with -s, for who publishes it
    assert took_s < MINUTES_S_MAX
    shown = [(folder / name).read_text().splitlines() for name in ("watching.txt", "sending.txt")]
    assert ["ada: hello"] * 2 == [lines[-1] for lines in shown]
    assert re.findall(r"(?m)^  \+ (\S+)", output_of_dev(folder)) == [
        "messages:list",
        "messages:send",
    ]


def output_of_dev(folder: Path) -> str:
    (file,) = folder.glob("*.out")
    return file.read_text()


def free_port() -> str:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return str(asked.getsockname()[1])
