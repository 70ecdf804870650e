"""
A README as a reader follows it: section by section, each in a directory of its own.

A heading begins a section. Under it, blocks fenced as `python` or `sh` run in the order in which
they stand, all in one fresh directory, with this environment's Python and commands. Blocks fenced
as anything else are only shown. A comment right before a block says what else is meant:

    <!-- file: backend/schema.py -->       this block is the content of that file; any language
    <!-- background: port 3210 -->         runs until the end of the section, once it listens there
    <!-- not run: it needs the network --> only shown, for that reason
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = {"python", "py", "sh", "bash", "shell"}
PYTHON = {"python", "py"}
BLOCK_S_MAX = 120.0
LISTEN_S_MAX = 30.0
STOP_S_MAX = 15.0

HEADING = re.compile(r"#{1,6} +(?P<title>.*)")
FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[\w-]*).*")
COMMENT = re.compile(r"\s*<!-- (?P<key>file|background|not run): (?P<value>.+?) -->\s*")


class BlockFailed(AssertionError):
    """A block did not do what the README says it does; the message has its line and output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """
    One fenced block; `line` is that of its opening fence.

    key, value: what the comment before it says, both empty where there is none.
    """

    language: str
    text: str
    line: int
    key: str = ""
    value: str = ""

    @property
    def does_something(self) -> bool:
        return self.key == "file" or (self.language in LANGUAGES and self.key != "not run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    title: str
    line: int
    blocks: tuple[Block, ...]


def sections(text: str) -> list[Section]:
    """The sections of a README that have blocks in them."""
    found: list[tuple[str, int, list[Block]]] = [("", 1, [])]
    lines = enumerate(text.splitlines(), 1)
    key = value = ""
    for number, line in lines:
        if heading := HEADING.fullmatch(line):
            found.append((heading["title"], number, []))
        elif comment := COMMENT.fullmatch(line):
            key, value = comment["key"], comment["value"]
            continue
        elif fence := FENCE.fullmatch(line):
            inside = "\n".join(_until(fence, lines)) + "\n"
            language = fence["language"]
            block = Block(language=language, text=inside, line=number, key=key, value=value)
            found[-1][2].append(block)
        elif not line.strip():
            continue  # a blank line between comment and block
        key = value = ""
    return [
        Section(title=title, line=line, blocks=tuple(blocks))
        for title, line, blocks in found
        if blocks
    ]


def follow(section: Section, directory: Path) -> None:
    """
    Do what `section` says, in `directory`.

    Raises:
        BlockFailed: a block exited with an error, took too long, or never listened.
    """
    with ExitStack() as running:
        for block in section.blocks:
            if not block.does_something:
                continue
            if block.key == "file":
                path = directory / block.value
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.key == "background":
                running.enter_context(_listening(block, directory))
            else:
                _run(block, directory)


def _until(fence: re.Match[str], lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    """The lines up to the closing fence, without the indentation of the opening one."""
    for _, line in lines:
        if line.strip() == fence["fence"]:
            return
        yield line.removeprefix(fence["indent"])


def _command(block: Block, directory: Path) -> list[str]:
    if block.language not in PYTHON:
        return ["bash", "-e", "-c", block.text]
    script = directory / f"readme_line_{block.line}.py"  # a file, so that tracebacks show the code
    script.write_text(block.text)
    return [sys.executable, str(script)]


def _environment() -> dict[str, str]:
    """As after activating this virtual environment, with nothing else on Python's path."""
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**ours, "PATH": path, "NO_COLOR": "1"}


def _run(block: Block, directory: Path) -> None:
    try:
        done = subprocess.run(
            _command(block, directory),
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BLOCK_S_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(block, f"took more than {BLOCK_S_MAX:g} s", error.stdout or b"") from None
    if done.returncode:
        raise _failed(block, f"exited with {done.returncode}", done.stdout)


@contextmanager
def _listening(block: Block, directory: Path) -> Iterator[None]:
    """Have `block` run for the length of the block, from when its port takes connections."""
    port = int(block.value.removeprefix("port "))
    output = directory / f"readme_line_{block.line}.out"
    with (
        _reserved(port),
        output.open("wb") as sink,
        subprocess.Popen(
            _command(block, directory),
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            patience = time.monotonic() + LISTEN_S_MAX
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > patience:
                    raise _failed(block, f"never listened on port {port}", output.read_bytes())
                time.sleep(0.05)
            yield
        finally:
            _stop(process)


@contextmanager
def _reserved(port: int) -> Iterator[None]:
    """Have the port to oneself: other tests, which may run beside this one, wait for it."""
    with Path(tempfile.gettempdir(), f"headrace-{os.getuid()}-{port}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _answers(port):
            raise BlockFailed(f"port {port} is taken by another program")
        yield


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it and what it started, as Ctrl-C does; by force if that takes too long."""
    for ending in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, ending)
            process.wait(STOP_S_MAX)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        asking.settimeout(1)
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _failed(block: Block, what: str, output: bytes) -> BlockFailed:
    said = output.decode(errors="replace")
    return BlockFailed(f"the {block.language} block at line {block.line} {what}:\n{said}")
