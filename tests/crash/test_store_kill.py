"""What a process killed with -9 leaves: all batches that were acknowledged, none in part."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import pytest
import trio

from engine import Engine
from engine.errors import StoreFailed, StoreLocked
from engine.host import readiness
from engine.model.limits import ORPHAN_WRITER_S_MAX
from engine.store.directory_lock import LOCK_FILE, WRITER_FILE, FileLock
from engine.store.lmdb_store import LMDB_FOLDER, LmdbStore, read_lock
from tests.crash.store_load import batch_of, last_batch

Where = Literal["process", "thread"]
both_writers = pytest.mark.parametrize("writer", ["thread", "process"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A process that writes batches."""

    process: subprocess.Popen[str]
    lines: IO[str]
    writer_pid: int

    def read_upto(self, n: int) -> int:
        """Wait until batch n is acknowledged; which one it was in the end."""
        while (acknowledged := int(self.lines.readline())) < n:
            pass
        return acknowledged

    def read_rest(self) -> list[int]:
        """What else it had acknowledged before it ended."""
        return [int(line) for line in self.lines.read().splitlines(keepends=True) if "\n" in line]


@contextmanager
def load(directory: Path, writer: Where, *options: str) -> Iterator[Load]:
    command = [sys.executable, "-m", "tests.crash.store_load", str(directory), "--writer", writer]
    with subprocess.Popen(
        [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            opened = process.stdout.readline().split()
            assert "open" == opened[0]
            yield Load(process=process, lines=process.stdout, writer_pid=int(opened[1]))
        finally:
            process.kill()


@both_writers
def test_what_was_acknowledged_outlives_a_killed_engine(tmp_path: Path, writer: Where) -> None:
    dice = random.Random(1)
    reached = 0
    for _ in range(4):
        with load(tmp_path, writer) as engine:
            seen = engine.read_upto(reached + dice.randrange(5, 60))
            time.sleep(dice.random() * 0.02)
            engine.process.send_signal(signal.SIGKILL)
            acknowledged = max(engine.read_rest(), default=seen)
            with LmdbStore.open(tmp_path, writer=writer) as store:  # while the dead is not buried
                found = last_batch(store)
        # One more may have been written, whose answer was not read or not sent.
        assert acknowledged <= found <= acknowledged + 1
        reached = found


@both_writers
async def test_a_store_goes_on_after_a_kill(tmp_path: Path, writer: Where) -> None:
    with load(tmp_path, writer) as engine:
        engine.read_upto(20)

    with LmdbStore.open(tmp_path, writer=writer) as store:
        found = last_batch(store)
        await store.apply(batch_of(found + 1))

        assert found + 1 == last_batch(store)


def test_the_writer_of_a_killed_engine_ends_by_itself(tmp_path: Path) -> None:
    with load(tmp_path, "process") as engine:
        engine.read_upto(5)
        engine.process.kill()

        assert engine.process.pid != engine.writer_pid
        FileLock(tmp_path / WRITER_FILE, patience_s=ORPHAN_WRITER_S_MAX).release()


@both_writers
def test_an_orphaned_writer_is_waited_for(tmp_path: Path, writer: Where) -> None:
    with load(tmp_path, "process") as engine:
        engine.read_upto(5)
        os.kill(engine.writer_pid, signal.SIGSTOP)
        engine.process.kill()
        engine.process.wait()
        resume = threading.Timer(0.5, os.kill, [engine.writer_pid, signal.SIGCONT])
        resume.start()
        began = time.monotonic()
        with LmdbStore.open(tmp_path, writer=writer) as store:
            waited_s = time.monotonic() - began
            found = last_batch(store)
        resume.join()

    assert 0.3 < waited_s < ORPHAN_WRITER_S_MAX
    assert found >= 5


def test_a_writer_that_does_not_end_is_named(tmp_path: Path) -> None:
    with load(tmp_path, "process") as engine:
        engine.read_upto(5)
        os.kill(engine.writer_pid, signal.SIGSTOP)
        try:
            engine.process.kill()
            engine.process.wait()
            began = time.monotonic()
            with pytest.raises(StoreLocked) as refused:
                LmdbStore.open(tmp_path)
            waited_s = time.monotonic() - began
        finally:
            os.kill(engine.writer_pid, signal.SIGCONT)

        assert engine.writer_pid == refused.value.pid
        assert ORPHAN_WRITER_S_MAX <= waited_s < ORPHAN_WRITER_S_MAX + 2
        LmdbStore.open(tmp_path).close()


def test_a_directory_in_use_is_refused_at_once(tmp_path: Path) -> None:
    with load(tmp_path, "process") as engine:
        engine.read_upto(1)
        began = time.monotonic()
        with pytest.raises(StoreLocked) as refused:
            LmdbStore.open(tmp_path)

        assert engine.process.pid == refused.value.pid
        assert time.monotonic() - began < 1


def test_what_a_killed_engine_wrote_in_its_lock_is_not_believed(tmp_path: Path) -> None:
    with load(tmp_path, "process") as engine:
        engine.read_upto(1)
        engine.process.kill()
        engine.process.wait()

        assert str(engine.process.pid) in (tmp_path / LOCK_FILE).read_text()
        assert read_lock(tmp_path) is None


def test_the_writer_says_who_it_is(tmp_path: Path) -> None:
    with load(tmp_path, "process") as engine:
        assert str(engine.writer_pid) in (tmp_path / WRITER_FILE).read_text()


async def test_without_its_writer_a_store_fails_and_says_why(tmp_path: Path) -> None:
    with LmdbStore.open(tmp_path) as store:
        await store.apply(batch_of(1))
        pid = store.describe()["writer_pid"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)

        with pytest.raises(StoreFailed, match=f"writer process {pid} is gone"):
            for n in range(2, 10_000):
                await store.apply(batch_of(n))
        with pytest.raises(StoreFailed):
            await store.apply(batch_of(2))

        assert last_batch(store) >= 1  # what is durable can still be read
    with LmdbStore.open(tmp_path) as again:
        await again.apply(batch_of(last_batch(again) + 1))


async def test_an_engine_without_its_writer_is_not_ready_and_ends_though_nobody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.node.STORE_CHECK_EVERY_S", 0.5)

    with pytest.raises(BaseExceptionGroup) as ended:
        async with Engine.open(tmp_path, app=[]) as engine:
            pid = engine.node.store.describe()["writer_pid"]
            assert isinstance(pid, int)
            os.kill(pid, signal.SIGKILL)
            while (ready := await readiness(engine.node)).is_ready:  # noqa: ASYNC110 - a process ends
                await trio.sleep(0.01)
            await trio.sleep(10)

    assert not ready.is_ready
    assert f"writer process {pid} is gone" in str(ready.progress["reason"])
    assert ended.group_contains(StoreFailed, match=f"writer process {pid} is gone")


async def test_a_writer_killed_in_mid_load_leaves_no_batch_in_part(tmp_path: Path) -> None:
    dice = random.Random(2)
    for _ in range(4):
        with LmdbStore.open(tmp_path) as store:
            pid = store.describe()["writer_pid"]
            killer = threading.Timer(dice.random() / 4, os.kill, [pid, signal.SIGKILL])
            killer.start()
            n = acknowledged = last_batch(store)
            with pytest.raises(StoreFailed):
                while True:
                    n += 1
                    await store.apply(batch_of(n))
                    acknowledged = n
            killer.join()

        with LmdbStore.open(tmp_path) as again:
            assert acknowledged <= last_batch(again) <= acknowledged + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_that_are_sent_to_all_do_not_end_the_writer(
    tmp_path: Path, number: signal.Signals
) -> None:
    with LmdbStore.open(tmp_path) as store:
        pid = store.describe()["writer_pid"]
        assert isinstance(pid, int)
        os.kill(pid, number)
        for n in range(1, 20):
            await store.apply(batch_of(n))

        assert 19 == last_batch(store)


READER = """
import sys
from pathlib import Path
from engine.store.lmdb_environment import open_environment
with open_environment(Path(sys.argv[1]), readonly=True, sync=True) as env, env.begin() as txn:
    print(txn.id(), flush=True)
    sys.stdin.read()
"""
"""Another process that reads, as a worker would."""


@both_writers
def test_what_a_killed_reader_held_is_freed_by_a_check(tmp_path: Path, writer: Where) -> None:
    with LmdbStore.open(tmp_path, writer=writer) as store:
        command = [sys.executable, "-c", READER, str(tmp_path / LMDB_FOLDER)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            alive = store.reader_check()
            reader.kill()
        leaked = store.describe()["readers"]
        freed = store.reader_check()

        assert (0, 1, 1) == (alive, leaked, freed)
        assert 0 == store.describe()["readers"]
