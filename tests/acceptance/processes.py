"""Real processes for a test's length: what they say line by line, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.architecture.source_tree import ROOT

START_S_MAX = 30.0
STOP_S_MAX = 15.0


class Process:
    """One that runs; standard output and error are the lines it said."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.pid = popen.pid
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_line(self, pattern: str, *, after: int = 0, seconds: float = 10.0) -> re.Match[str]:
        """
        The first line, of those from number `after` on, in which `pattern` is found.

        Raises:
            AssertionError: none came for so long, or before it ended.
        """
        deadline = time.monotonic() + seconds
        seen = after
        with self._said:
            while True:
                for line in self.lines[seen:]:
                    if match := re.search(pattern, line):
                        return match
                seen = len(self.lines)
                left_s = deadline - time.monotonic()
                if self._is_over or left_s <= 0:
                    raise AssertionError(f"no line with {pattern!r} in:\n" + "\n".join(self.lines))
                self._said.wait(left_s)

    def write(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{line}\n")
        self.popen.stdin.flush()

    def kill(self) -> None:
        """SIGKILL: it has no time to do anything."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def stop(self) -> None:
        """End it, and whatever it started, in order; by force if that takes too long."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, ending)
                self.popen.wait(STOP_S_MAX)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(STOP_S_MAX)
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                stream.close()

    def rss_bytes(self) -> int:
        """Memory of it that is resident now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found, f"no VmRSS in {status}"
        return int(found[1]) * 1024

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self._is_over = True
            self._said.notify_all()


@contextmanager
def running(
    command: Sequence[object], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """A process for the length of the block."""
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = Process(
        subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env={**ours, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    )
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def serving(app: Path, data: Path, *, port: int = 0) -> Iterator[tuple[Process, str]]:
    """`headrace serve` of `app`, ready, and its URL."""
    command = [sys.executable, "-m", "engine", "serve", app, "--data", data, "--port", port]
    with running(command) as server:
        url = server.wait_line(r"serving .* at (http://\S+),", seconds=START_S_MAX)[1]
        server.wait_line("; ready", seconds=START_S_MAX)
        yield server, url


@contextmanager
def developing(app: Path, data: Path) -> Iterator[tuple[Process, str]]:
    """`headrace dev` of `app`, with its first push done, and its URL."""
    command = [sys.executable, "-m", "engine", "dev", app, "--data", data, "--port", "0"]
    with running(command) as server:
        url = server.wait_line(r"Serving .* at (http://\S+),", seconds=START_S_MAX)[1]
        server.wait_line("Pushed in", seconds=START_S_MAX)
        yield server, url
