"""
The flushes of a store's writer process, counted where they happen: in the kernel, by strace.

LMDB makes a batch durable in two steps: fdatasync of its pages, then the meta page that leads to
them, written through a descriptor that is open with O_DSYNC.  The writer answers on its socket.
So between two answers both have to be seen, in that order; what the writer says of itself is not
asked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

STRACE: Final = shutil.which("strace")

_TRACE: Final = "trace"
_OPENED: Final = re.compile(r'openat\(.*/data\.mdb", (\S+).* = (\d+)<')
_FLUSHED: Final = re.compile(r"(?:fdatasync|fsync)\(\d+<.*/data\.mdb>\) += 0$")
_WRITTEN: Final = re.compile(r"pwrite64\((\d+)<.*/data\.mdb>.* = \d+$")
_ANSWERED: Final = re.compile(r"sendto\(\d+<socket:.* = \d+$")


class Flushes(NamedTuple):
    """Of one batch."""

    pages: int
    meta: int
    """Only those after the pages were flushed: before that it would lead nowhere."""

    @property
    def is_durable(self) -> bool:
        return self.pages > 0 and self.meta > 0


def obstacle() -> str | None:
    """Why flushes cannot be counted on this machine, if so."""
    if STRACE is None:
        return "strace is missing"
    tried = subprocess.run([STRACE, "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "strace may not trace here" if tried.returncode else None


def traced(command: Sequence[str], folder: Path) -> list[str]:
    """The command that runs `command`, and notes in `folder` what each process asks the kernel."""
    assert STRACE is not None, "ask for the obstacle first"
    folder.mkdir(parents=True)
    calls = "trace=openat,fdatasync,fsync,pwrite64,sendto"
    options = ["-ff", "-y", "-s", "0", "-e", calls, "-e", "signal=none"]
    return [STRACE, *options, "-o", str(folder / _TRACE), *command]


def flushes_seen(folder: Path, writer_pid: int) -> list[Flushes]:
    """The flushes of each batch that the writer answered, in order."""
    with (folder / f"{_TRACE}.{writer_pid}").open(errors="replace") as lines:
        return list(_by_batch(lines))


def _by_batch(lines: Iterable[str]) -> Iterator[Flushes]:
    synchronous: set[str] = set()
    is_open, pages, meta = False, 0, 0
    for line in map(str.rstrip, lines):
        if opened := _OPENED.match(line):
            flags, descriptor = opened.groups()
            (synchronous.add if "O_DSYNC" in flags else synchronous.discard)(descriptor)
        elif _FLUSHED.match(line):
            pages += 1
        elif (written := _WRITTEN.match(line)) and written[1] in synchronous:
            meta += pages > 0
        elif _ANSWERED.match(line):
            if is_open:
                yield Flushes(pages, meta)
            # The first answer is that the environment is open.
            is_open, pages, meta = True, 0, 0
