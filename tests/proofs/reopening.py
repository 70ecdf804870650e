"""
What an engine makes of a directory in which another has ended: `check(directory, told)`.

It can be had in a process of its own, by a `Checker`: what is read of a damaged store can end a
process, or keep it busy for ever, and that is a finding like any other.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import trio

from engine.functions.loader import load
from engine.functions.watchdog import Watchdog
from engine.indexes.verify import verify
from engine.kernel.runtime import SystemRuntime
from engine.model.limits import Limits
from engine.node import running_node
from engine.store.interface import Store
from engine.store.lmdb_store import LmdbStore
from tests.proofs.ledger import APP, credit_once, read_ledger

CHECK_S_MAX: Final = 60.0

OPENING: Final = "opening"
LEDGER: Final = "the ledger"
VERIFY: Final = "verify"
SHOWN: Final = "what was shown"


class Problem(NamedTuple):
    """What a check has found."""

    check: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """
    What the outside world had been told when the engine ended.

    acknowledged: for each worker, the first number that was not. shown: for each, the greatest
    total that a subscription had shown.
    """

    acknowledged: tuple[int, ...]
    shown: tuple[int, ...]


@dataclass
class Checker:
    """A process that looks at one directory after the other, and is replaced when it dies."""

    _process: multiprocessing.process.BaseProcess | None = None
    _pipe: multiprocessing.connection.Connection | None = None
    _context: multiprocessing.context.SpawnContext = field(
        default_factory=lambda: multiprocessing.get_context("spawn")
    )

    def check(self, directory: Path, told: Told) -> list[Problem]:
        """Open `directory`, compare, go on writing, compare again."""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._pipe is not None
        self._pipe.send((directory, told))
        if not self._pipe.poll(CHECK_S_MAX):
            self.close()
            return [Problem(OPENING, f"after {CHECK_S_MAX:g} s it was still busy")]
        try:
            problems: list[Problem] = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self.close()
            return [Problem(OPENING, f"it ended the process with {code}")]
        return problems

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._pipe is not None
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process = self._pipe = None

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_check_all, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()


def _check_all(pipe: multiprocessing.connection.Connection) -> None:
    while True:
        try:
            directory, told = pipe.recv()
        except EOFError:
            return
        pipe.send(list(check(directory, told)))


def check(directory: Path, told: Told) -> Iterator[Problem]:
    """Everything that is wrong with `directory`, which is written to."""
    try:
        with LmdbStore.open(directory, writer="thread") as store:
            yield from _compare(store, told, retried=False)
            trio.run(_retry, store, told)
            yield from _compare(store, told, retried=True)
    except Exception as error:
        yield Problem(OPENING, f"it fails with {_told(error)}")


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _compare(store: Store, told: Told, *, retried: bool) -> Iterator[Problem]:
    when = "when every client had sent again what was not answered, " if retried else ""
    *_, findings = verify(store.snapshot)
    for text in findings.problems:
        yield Problem(VERIFY, when + text)
    lines, totals = read_ledger(store)
    for worker, first in enumerate(told.acknowledged):
        numbers = [number for of, number in lines.elements() if of == worker]
        for text in _differences(numbers, first, is_answered=retried):
            yield Problem(LEDGER, f"{when}worker {worker}: {text}")
        total, shown = totals.get(worker, 0), told.shown[worker]
        if total != len(numbers):
            text = f"a total of {total} for {len(numbers)} lines"
            yield Problem(LEDGER, f"{when}worker {worker}: {text}")
        if total < shown:
            yield Problem(SHOWN, f"{when}worker {worker}: {total} where {shown} were shown")


def _differences(numbers: list[int], first: int, *, is_answered: bool) -> Iterator[str]:
    """
    What is wrong with a worker's numbers.

    Args:
        first: it was sent; all before it were acknowledged. is_answered: by now it was, too.
    """
    wanted, found = set(range(first + is_answered)), set(numbers)
    if missing := wanted - found:
        yield f"{sorted(missing)[:5]} were acknowledged and lost"
    if beyond := found - set(range(first + 1)):
        yield f"{sorted(beyond)[:5]} were never sent"
    if len(found) < len(numbers):
        yield f"{[n for n, times in Counter(numbers).items() if times > 1][:5]} are there twice"


async def _retry(store: Store, told: Told) -> None:
    """Every client sends again what was not answered, and the engine goes on from here."""
    limits = Limits()
    watchdog = Watchdog(limits)
    watchdog.start()
    try:
        async with running_node(
            store, runtime=SystemRuntime(), limits=limits, watchdog=watchdog
        ) as node:
            await node.push(load(APP))
            async with trio.open_nursery() as nursery:
                for worker, number in enumerate(told.acknowledged):
                    nursery.start_soon(credit_once, node, worker, number)
    finally:
        watchdog.close()
