"""
A README as a reader follows it: section by section, each in a directory of its own.

A heading begins a section. Under it, blocks fenced as `python`, `sh` or `js` run in the order in
which they stand, all in one fresh directory, with this environment's Python and commands. A `js`
block is a module under Node with the official client at hand. It may follow a query for ever: it
ends a moment after it first printed something, and has to print. `toml` has to be that. Blocks
fenced as anything else are only shown. A comment right before a block says what else is meant:

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
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.acceptance.windows import CLIENT, CLIENT_MISSING, NODE

PYTHON = {"python", "py"}
JAVASCRIPT = {"js", "javascript", "mjs"}
LANGUAGES = {*PYTHON, *JAVASCRIPT, "sh", "bash", "shell", "toml"}
BLOCK_S_MAX = 120.0
LISTEN_S_MAX = 30.0
PRINT_S_MAX = 30.0
"""Until a `js` block prints something, and `GOES_ON_S` more until it is ended."""
GOES_ON_S = 1.0
STOP_S_MAX = 15.0

HAS_JAVASCRIPT = NODE is not None and CLIENT is not None
SKIPS_JAVASCRIPT = not HAS_JAVASCRIPT and os.environ.get("CI") != "true"
"""Elsewhere such a block fails where its Node or its client is missing."""

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
        return self.key == "file" or (self.language in LANGUAGES and self.why_not_run is None)

    @property
    def why_not_run(self) -> str | None:
        """Why it is only shown, if it is one of those that run elsewhere."""
        if self.language not in LANGUAGES or self.key == "file":
            return None
        if self.key == "not run":
            return self.value
        return CLIENT_MISSING if self.language in JAVASCRIPT and SKIPS_JAVASCRIPT else None


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
        BlockFailed: a block exited with an error, took too long, or never listened or printed;
            or is no TOML.
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
            elif block.language == "toml":
                _parse(block)
            elif block.language in JAVASCRIPT:
                _show(block, directory)
            else:
                _run(block, directory)


def _until(fence: re.Match[str], lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    """The lines up to the closing fence, without the indentation of the opening one."""
    for _, line in lines:
        if line.strip() == fence["fence"]:
            return
        yield line.removeprefix(fence["indent"])


def _command(block: Block, directory: Path) -> list[str]:
    if block.language in PYTHON:
        return [sys.executable, _script(block, directory, ".py")]
    if block.language in JAVASCRIPT:
        if NODE is None:
            raise _failed(block, "cannot run", CLIENT_MISSING.encode())
        return [NODE, "--no-warnings", _script(block, directory, ".mjs")]
    return ["bash", "-e", "-c", block.text]


def _script(block: Block, directory: Path, suffix: str) -> str:
    """A file, so that tracebacks show the code."""
    script = directory / f"readme_line_{block.line}{suffix}"
    script.write_text(block.text)
    return str(script)


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


def _parse(block: Block) -> None:
    try:
        tomllib.loads(block.text)
    except tomllib.TOMLDecodeError as error:
        raise _failed(block, "is no TOML", str(error).encode()) from None


def _show(block: Block, directory: Path) -> None:
    """Run `block` until it ends by itself, or has printed something and gone on for a while."""
    with _with_client(directory), _started(block, directory) as (process, output):
        _wait(lambda: output.stat().st_size > 0 or process.poll() is not None, PRINT_S_MAX)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GOES_ON_S)
        if process.poll():
            raise _failed(block, f"exited with {process.returncode}", output.read_bytes())
        if not output.read_bytes():
            raise _failed(block, "printed nothing", b"")


@contextmanager
def _with_client(directory: Path) -> Iterator[None]:
    """
    Have `directory` find the official client, unless it has installed its own.

    Only inside the block: what installs one later does not write into ours.
    """
    modules = directory / "node_modules"
    if CLIENT is None or modules.exists():
        yield
        return
    modules.symlink_to(CLIENT / "node_modules", target_is_directory=True)
    try:
        yield
    finally:
        modules.unlink()


@contextmanager
def _listening(block: Block, directory: Path) -> Iterator[None]:
    """Have `block` run for the length of the block, from when its port serves."""
    port = int(block.value.removeprefix("port "))
    with _reserved(port), _started(block, directory) as (process, output):
        _wait(lambda: _serves(port) or process.poll() is not None, LISTEN_S_MAX)
        if not _serves(port):
            raise _failed(block, f"never listened on port {port}", output.read_bytes())
        yield


@contextmanager
def _started(block: Block, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Have `block` run beside the block, and the file to which it says what it says."""
    output = directory / f"readme_line_{block.line}.out"
    with (
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
            yield process, output
        finally:
            _stop(process)


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    """Until `condition` is fulfilled, but no longer than so many seconds."""
    patience = time.monotonic() + seconds
    while not condition() and time.monotonic() < patience:
        time.sleep(0.05)


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


def _serves(port: int) -> bool:
    """Whether something listens there, and does not say that it is not ready."""
    if not _answers(port):
        return False
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
            return True
    except HTTPError as error:
        return error.code != HTTPStatus.SERVICE_UNAVAILABLE
    except OSError:
        return True  # it speaks another protocol


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        asking.settimeout(1)
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _failed(block: Block, what: str, output: bytes) -> BlockFailed:
    said = output.decode(errors="replace")
    return BlockFailed(f"the {block.language} block at line {block.line} {what}:\n{said}")
