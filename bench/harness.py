"""What a bench is given and what it yields, and the machine that its figures belong to."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import TypeAlias

import trio

from bench.disk import append_flushes_s, page_writes_s
from bench.metronome import START

HERE = Path(__file__).parent
FOLDERS = ("micro", "macro", "compare")
FLUSHES = 200
"""Enough for a steady median, and under a second on a slow disk's 5 ms."""

Param: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """
    What a bench is given.

    directory: empty, on the disk that is measured; removed afterwards.
    budget_s: how long to measure, all cases together. Preparing comes on top, and is kept short
        when the bench is quick.
    quick: a look, not a figure to publish: fewer cases and less data.
    seed: what all choices derive from.
    part: of a bench that has several, the one to measure; None is all of them.
    """

    directory: Path
    budget_s: float
    quick: bool
    seed: int
    part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """
    One figure.

    name: what was measured. params: under which circumstances, batch sizes and concurrency
    included. metric: which property of it ("p99", "rate"). peer: the other system that the figure
    is of, None if it is ours.
    """

    name: str
    params: Mapping[str, Param]
    metric: str
    value: float
    unit: str
    peer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """
    Where and on what a figure was measured; no figure travels without it.

    The two flushes are medians in the directory of the bench. `commit` is what was checked out,
    and ends in "+" when the tree had changes besides; it is None outside a repository.
    """

    cores: int
    cpu: str
    system: str
    python: str
    fdatasync_ms: float
    dsync_write_ms: float
    commit: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One bench that can be run, read but not yet imported."""

    name: str
    question: str
    module: str

    def load(self) -> Callable[[Bench], Iterable[Result]]:
        """Import the module; what it measures only needs to be installed from here on."""
        run: Callable[[Bench], Iterable[Result]] = import_module(self.module).run
        return run

    def parts(self) -> list[str]:
        """The names of its parts, if it can be measured in parts; imports the module."""
        return list(getattr(import_module(self.module), "PARTS", ()))


def entries(root: Path = HERE, package: str = "bench") -> dict[str, Entry]:
    """Every bench by its name on the command line: the module's, with dashes."""
    paths = [path for folder in FOLDERS for path in sorted((root / folder).glob("[!_]*.py"))]
    found = [_entry(path, f"{package}.{path.parent.name}.{path.stem}") for path in paths]
    names = [entry.name for entry in found]
    assert len(names) == len(set(names)), f"two benches share a name: {sorted(names)}"
    return {entry.name: entry for entry in found}


def machine(directory: Path) -> Machine:
    """This machine, with the flush times of the disk that `directory` is on."""
    return Machine(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        cpu=_cpu(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        fdatasync_ms=round(percentile(append_flushes_s(directory, FLUSHES), 0.5) * 1e3, 4),
        dsync_write_ms=round(percentile(page_writes_s(directory, FLUSHES), 0.5) * 1e3, 4),
        commit=_commit(),
    )


def progress(what: str) -> None:
    """Tell whoever waits how far a bench has come; it is no figure."""
    print(what, file=sys.stderr, flush=True)


async def arrivals(
    per_s: float, one: Callable[[float], Awaitable[None]], *, is_over: Callable[[], bool]
) -> None:
    """
    Start `one` so many times a second, whoever is still at it; all have ended when this returns.

    Args:
        one: given the time by trio's clock at which it was due.
        is_over: whether no more are to be started.
    """
    async with trio.open_nursery() as nursery:
        due = trio.current_time()
        while not is_over():
            await trio.sleep_until(due)
            while due <= trio.current_time():
                nursery.start_soon(one, due)
                due += 1 / per_s


async def punctual(
    per_s: float, one: Callable[[float], Awaitable[None]], *, is_over: Callable[[], bool]
) -> None:
    """
    As `arrivals`, for some hundreds a second, each of which arrives as requests do: from outside.

    A timer of trio's loop ends up to a millisecond late, as epoll counts in these, and so half of
    what arrived by it was 0.6 ms late before anybody had seen it.  A process of its own says when.
    """
    ours, theirs = os.pipe()
    command = [sys.executable, "-I", "-S", str(HERE / "metronome.py"), str(per_s), str(theirs)]
    process = await trio.lowlevel.open_process(command, pass_fds=[theirs])
    os.close(theirs)
    async with trio.lowlevel.FdStream(ours) as ticks, trio.open_nursery() as nursery:
        (began,) = START.unpack(await ticks.receive_some(START.size))
        due = began + trio.current_time() - time.perf_counter()
        while not is_over():
            for _ in await ticks.receive_some():
                nursery.start_soon(one, due)
                due += 1 / per_s
    await process.wait()


def percentile(samples: Sequence[float], share: float) -> float:
    """
    The smallest sample that at least `share` (above 0, up to 1) of all samples do not exceed.

    Raises:
        ValueError: there are no samples, or `share` is out of bounds.
    """
    if not samples or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(samples)} samples")
    return sorted(samples)[ceil(share * len(samples)) - 1]


def _entry(path: Path, module: str) -> Entry:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    if not docstring:
        raise ValueError(f"{path}: the docstring of a bench opens with the question it answers")
    return Entry(
        name=path.stem.replace("_", "-"),
        question=docstring.splitlines()[0],
        module=module,
    )


def _cores() -> int:
    return os.cpu_count() or 1


def resident_mb() -> float:
    """What this process has of memory, without pages of files, which the kernel takes back."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1_024 / 1e6


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def _commit() -> str | None:
    head = _git("rev-parse", "HEAD")
    return head and head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
