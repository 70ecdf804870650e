"""
What a process and its children asked of the file system: every call with its bytes, by strace.

    run([*traced(command, file)])
    for event in events(file, folder): ...

One file has the calls of all processes in the order in which the kernel was seen to begin and to
end them, so that what was said after a flush stands after the end of that flush.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

STRACE: Final = shutil.which("strace")

_WRITES: Final = "write,writev,pwrite64,pwritev,pwritev2,lseek,ftruncate,fallocate"
_NAMES: Final = "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir"
_FLUSHES: Final = "fdatasync,fsync"
_PROCESSES: Final = "clone,clone3,fork,vfork"
_CALLS: Final = f"trace={_WRITES},{_NAMES},{_FLUSHES},{_PROCESSES}"
_STRING_BYTES_MAX: Final = 64 << 20
"""More than any one write; what is cut short cannot be written again."""

_LINE: Final = re.compile(r"(\d+) +(.*)")
_RESUMED: Final = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_CALL: Final = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)", re.DOTALL)
_DESCRIPTOR: Final = re.compile(r"(\d+)<([^>]*)>")
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_UNFINISHED: Final = " <unfinished ...>"
_STANDARD_OUTPUT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Bytes on their way into a file. synchronous: with O_DSYNC, durable once the call ends."""

    path: Path
    offset: int
    data: bytes
    synchronous: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """The length of a file is set. grows: it is never made shorter by this."""

    path: Path
    size_bytes: int
    grows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush:
    """A file's bytes, or a folder's names, are made durable."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """A name that was not there. Of a file that is opened it may have been, and is left alone."""

    path: Path
    is_folder: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    path: Path
    to: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Something that a process wrote on its standard output: the world knows from here on."""

    text: str


What: TypeAlias = Write | Resize | Flush | Make | Rename | Remove | Say


class Event(NamedTuple):
    """
    A call that succeeded, or that was cut short by the death of its process.

    Positions rise with time, and a call that begins where another has ended comes after it.
    """

    begin: int
    end: int | None
    """None if it was never seen to end."""
    what: What


def obstacle() -> str | None:
    """Why nothing can be traced on this machine, if so."""
    if STRACE is None:
        return "strace is missing: install it to trace what an engine writes"
    tried = subprocess.run([STRACE, "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "strace may not trace processes here" if tried.returncode else None


def traced(command: Sequence[str], file: Path) -> list[str]:
    """The command that runs `command` and notes in `file` what it writes."""
    assert STRACE is not None, "ask for the obstacle first"
    options = ["-f", "--seccomp-bpf", "-y", "-xx", "-s", str(_STRING_BYTES_MAX)]
    return [STRACE, *options, "-e", _CALLS, "-e", "signal=none", "-o", str(file), *command]


def events(file: Path, folder: Path) -> list[Event]:
    """What `file` has of files in `folder` and of the standard output, by when it began."""
    calls = sorted(_calls(file), key=lambda call: call.begin)
    return list(_Reader(calls, folder).events())


@dataclass(frozen=True, kw_only=True)
class _Call:
    task: int
    name: str
    arguments: str
    result: int | None
    begin: int
    end: int | None

    @cached_property
    def descriptor(self) -> tuple[int, Path]:
        """Of the first argument: its number, and what it stands for."""
        found = _DESCRIPTOR.match(self.arguments)
        assert found, f"no descriptor: {self.name}({self.arguments[:100]}"
        return int(found[1]), Path(_bytes(found[2]).decode())

    @cached_property
    def strings(self) -> list[bytes]:
        return [_bytes(text) for text in _STRING.findall(self.arguments)]

    @property
    def numbers(self) -> list[int]:
        """The arguments after the last string or descriptor that are numbers."""
        return [int(n) for n in re.findall(r", (-?\d+)(?=,|$)", self.arguments)]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _calls(file: Path) -> Iterator[_Call]:
    """Every call, by when it ended, and those that never did last."""
    begun: dict[int, tuple[int, str]] = {}
    with file.open(errors="replace") as lines:
        for number, line in enumerate(lines):
            found = _LINE.match(line)
            if not found:
                continue
            task, text = int(found[1]), found[2]
            if text.endswith(_UNFINISHED):
                begun[task] = number, text.removesuffix(_UNFINISHED)
                continue
            begin = number
            if (rest := _RESUMED.match(text)) and task in begun:
                begin, start = begun.pop(task)
                text = start + rest[1]
            if call := _CALL.match(text):
                name, arguments, result = call.groups()
                ended = None if result == "?" else int(result)
                end = None if ended is None else 2 * number + 1
                yield _Call(
                    task=task,
                    name=name,
                    arguments=arguments,
                    result=ended,
                    begin=2 * begin,
                    end=end,
                )
    for task, (begin, text) in begun.items():
        name, _, arguments = text.partition("(")
        yield _Call(
            task=task, name=name, arguments=arguments, result=None, begin=2 * begin, end=None
        )


class _Reader:
    """Makes events of calls; knows which tasks share descriptors, and where these stand."""

    def __init__(self, calls: Sequence[_Call], folder: Path) -> None:
        self._calls = calls
        self._folder = folder
        self._parents = {
            call.result: call.task
            for call in calls
            if call.name in ("clone", "clone3") and "CLONE_THREAD" in call.arguments
        }
        self._synchronous: set[tuple[int, int]] = set()
        self._offsets: dict[tuple[int, int], int] = {}

    def events(self) -> Iterator[Event]:
        for call in self._calls:
            if call.result is not None and call.result < 0:
                continue
            for what in self._of(call):
                yield Event(call.begin, call.end, what)

    def _process(self, task: int) -> int:
        while task in self._parents:
            task = self._parents[task]
        return task

    def _of(self, call: _Call) -> Iterator[What]:
        match call.name:
            case "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2":
                yield from self._write(call)
            case "lseek" | "ftruncate" | "fallocate":
                yield from self._place(call)
            case "openat":
                yield from self._open(call)
            case "fdatasync" | "fsync":
                _, path = call.descriptor
                if self._is_ours(path):
                    yield Flush(path=path)
            case "mkdir" | "rename" | "unlink" | "rmdir":
                yield from self._name(call)
            case "mkdirat" | "renameat" | "renameat2" | "unlinkat":
                paths = [path for path in map(_path, call.strings) if self._is_ours(path)]
                assert not paths, f"{call.name} of {paths} is not followed"

    def _write(self, call: _Call) -> Iterator[What]:
        number, path = call.descriptor
        data = b"".join(call.strings)
        if not self._is_ours(path):
            if number == _STANDARD_OUTPUT:
                yield Say(text=data.decode())
            return
        assert call.result in (None, len(data)), f"a write to {path} was cut short"
        file = self._process(call.task), number
        if call.name.startswith("p"):
            offset = call.numbers[-1]
        else:
            offset = self._offsets.get(file, 0)
            self._offsets[file] = offset + len(data)
        yield Write(path=path, offset=offset, data=data, synchronous=file in self._synchronous)

    def _place(self, call: _Call) -> Iterator[What]:
        number, path = call.descriptor
        if not self._is_ours(path) or call.result is None:
            return
        if call.name == "lseek":
            self._offsets[self._process(call.task), number] = call.result
        elif call.name == "ftruncate":
            yield Resize(path=path, size_bytes=call.numbers[-1], grows=False)
        else:
            yield Resize(path=path, size_bytes=sum(call.numbers[-2:]), grows=True)

    def _open(self, call: _Call) -> Iterator[What]:
        if call.result is None:
            return
        file = self._process(call.task), call.result
        self._offsets[file] = 0
        self._synchronous.discard(file)
        path = _path(call.strings[0])
        if "O_DSYNC" in call.arguments or "O_SYNC" in call.arguments:
            self._synchronous.add(file)
        if self._is_ours(path) and "O_CREAT" in call.arguments:
            yield Make(path=path, is_folder=False)
        if self._is_ours(path) and "O_TRUNC" in call.arguments:
            yield Resize(path=path, size_bytes=0, grows=False)

    def _name(self, call: _Call) -> Iterator[What]:
        path, *others = map(_path, call.strings)
        if not self._is_ours(path):
            return
        match call.name:
            case "mkdir":
                yield Make(path=path, is_folder=True)
            case "rename":
                yield Rename(path=path, to=others[0])
            case _:
                yield Remove(path=path)

    def _is_ours(self, path: Path) -> bool:
        return path.is_relative_to(self._folder)


def _path(name: bytes) -> Path:
    return Path(name.decode())
