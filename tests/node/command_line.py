"""The command line as processes of its own, in a project in a directory of the test's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
VERB_S_MAX = 60.0
URL = re.compile(r"https?://[\w.]+:\d+")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a verb that has ended left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A verb that goes on, and the file that it writes what it says to."""

    process: subprocess.Popen[bytes]
    file: Path
    url: str

    @property
    def said(self) -> str:
        return self.file.read_text()

    def wait_said(self, text: str, seconds: float = VERB_S_MAX) -> None:
        eventually(lambda: text in self.said, seconds, lambda: f"{text!r} in {self.said}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(VERB_S_MAX)


def headrace(where: Path, *arguments: str, stdin: str = "") -> Said:
    """Run a verb to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        cwd=where,
        env=_environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=VERB_S_MAX,
        check=False,
    )
    return Said(code=done.returncode, out=done.stdout, err=done.stderr)


@contextmanager
def started(where: Path, *arguments: str) -> Iterator[Running]:
    """A verb that serves, once it has said where; killed at the end if it still runs."""
    file = where / "said.txt"
    with file.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", *arguments],
            cwd=where,
            env=_environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: URL.search(file.read_text()), VERB_S_MAX, file.read_text)
        found = URL.search(file.read_text())
        assert found is not None
        yield Running(process=process, file=file, url=found.group())
    finally:
        process.kill()
        process.wait()


def eventually(
    ask: Callable[[], T], seconds: float = VERB_S_MAX, otherwise: Callable[[], str] = str
) -> T:
    """What `ask` answers, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
    return answer


def _environment() -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "PYTHONHASH"))}
    return {**kept, "PYTHONPATH": str(ROOT)}
