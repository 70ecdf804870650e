"""A process forked from an engine finds the store closed, and leaves the parent's as it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import trio

from engine.errors import Stopped
from engine.store.directory_lock import read_lock
from engine.store.interface import Tree
from engine.store.lmdb_store import LmdbStore
from tests.crash.store_load import batch_of, last_batch

pytestmark = pytest.mark.filterwarnings(
    # Python 3.12 warns whoever forks with threads running, which is what is tried here.
    "ignore:.*multi-threaded:DeprecationWarning"
)

Where = Literal["process", "thread"]
both_writers = pytest.mark.parametrize("writer", ["thread", "process"])


def in_a_child(check: Callable[[], None]) -> bool:
    """Run `check` in a forked child; whether it passed."""
    pid = os.fork()
    if pid == 0:
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@both_writers
def test_a_forked_child_finds_the_store_closed(tmp_path: Path, writer: Where) -> None:
    store = LmdbStore.open(tmp_path, writer=writer)
    store.set_url("http://here:1")
    trio.run(store.apply, batch_of(1))
    snapshot = store.snapshot()
    walk = snapshot.range(Tree.ROWS, b"", None)
    next(walk)
    uses: list[Callable[[], object]] = [
        store.snapshot,
        store.size_bytes,
        store.describe,
        store.reader_check,
        lambda: store.set_url(None),
        lambda: trio.run(store.apply, batch_of(2)),
        lambda: snapshot.get(Tree.ROWS, b"\0"),
        lambda: snapshot.range(Tree.ROWS, b"", None),
        lambda: snapshot.last(Tree.LOG),
        lambda: next(walk),
    ]

    def check() -> None:
        for use in uses:
            with pytest.raises(Stopped, match=r"Engine.connect\('http://here:1'\)"):
                use()
        snapshot.close()
        store.close()

    assert in_a_child(check)
    assert snapshot.get(Tree.ROWS, b"\0") is not None
    trio.run(store.apply, batch_of(2))
    assert 2 == last_batch(store)
    snapshot.close()
    store.close()


@both_writers
def test_a_snapshot_of_the_parent_outlives_its_children(tmp_path: Path, writer: Where) -> None:
    with LmdbStore.open(tmp_path, writer=writer) as store:
        trio.run(store.apply, batch_of(1))
        with store.snapshot() as snapshot:
            assert in_a_child(lambda: snapshot.close())
            before = list(snapshot.range(Tree.ROWS, b"", None))
            readers = store.describe()["readers"]
            for n in range(2, 40):  # enough to use pages again that nobody reads
                trio.run(store.apply, batch_of(n))

            assert before == list(snapshot.range(Tree.ROWS, b"", None))
            assert 1 == readers


@both_writers
def test_a_child_that_lives_on_keeps_no_lock(tmp_path: Path, writer: Where) -> None:
    store = LmdbStore.open(tmp_path, writer=writer)
    waiting, done = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(done)
        os.read(waiting, 1)
        os._exit(0)
    store.close()
    holder = read_lock(tmp_path)
    with LmdbStore.open(tmp_path, writer=writer) as again:
        trio.run(again.apply, batch_of(1))
        found = last_batch(again)
    os.close(waiting)
    os.close(done)
    os.waitpid(child, 0)

    assert holder is None
    assert 1 == found


@both_writers
def test_a_child_may_open_a_store_of_its_own(tmp_path: Path, writer: Where) -> None:
    def check() -> None:
        with LmdbStore.open(tmp_path / "child", writer=writer) as own:
            trio.run(own.apply, batch_of(1))
            assert 1 == last_batch(own)

    with LmdbStore.open(tmp_path / "parent", writer=writer):
        assert in_a_child(check)


FORKER = """
import os, signal, sys, time
from pathlib import Path
from engine.store.lmdb_store import LmdbStore
store = LmdbStore.open(Path(sys.argv[1]), writer=sys.argv[2])
waiting, done = os.pipe()
child = os.fork()
if child == 0:
    os.write(done, b"up")
    time.sleep(60)
    os._exit(0)
os.read(waiting, 2)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""An engine that is killed and leaves behind a child that knows nothing of it."""


@both_writers
def test_a_child_left_behind_keeps_nobody_out(tmp_path: Path, writer: Where) -> None:
    command = [sys.executable, "-c", FORKER, str(tmp_path), writer]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        child = int(engine.stdout.readline())
        try:
            LmdbStore.open(tmp_path, writer=writer).close()
        finally:
            os.kill(child, signal.SIGKILL)
