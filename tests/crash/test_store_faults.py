"""What the store says became of a batch when the system fails it, call by call, and two flushes."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from engine.errors import StoreDamaged, StoreFailed, StoreFull
from engine.store.interface import Batch, Tree
from engine.store.lmdb_store import LMDB_FOLDER, LmdbStore
from tests.crash.store_load import batch_of, last_batch

Where = Literal["process", "thread"]

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")

META_BYTES = 120
"""What LMDB writes of a meta page."""


@contextmanager
def injected(store: LmdbStore, *faults: str) -> Iterator[None]:
    """Make calls of the writer process fail: `writev:error=ENOSPC:when=1`, as strace says it."""
    options = [option for fault in faults for option in ("-e", f"inject={fault}")]
    calls = ",".join(fault.partition(":")[0] for fault in faults)
    pid = str(store.describe()["writer_pid"])
    command = [STRACE or "strace", "-p", pid, "-e", f"trace={calls}", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"processes cannot be traced here: {said.strip()}")
        try:
            yield
        finally:
            tracer.terminate()
            tracer.stderr.read()


def rows(count: int, *, size_bytes: int = 3000) -> bytes:
    """A batch whose pages are next to each other, in a store that is new."""
    batch = Batch()
    for n in range(count):
        batch.put(Tree.ROWS, b"%06d" % n, bytes(size_bytes))
    return batch.encode()


def found(store: LmdbStore) -> int:
    with store.snapshot() as snapshot:
        return sum(1 for _ in snapshot.range(Tree.ROWS, b"", None))


@needs_strace
@pytest.mark.parametrize(
    "fault",
    [
        "writev:error=ENOSPC:when=1",
        "writev:error=EDQUOT:when=1",
        "writev:retval=4096:when=1",  # cut short, which LMDB calls an I/O error
    ],
)
async def test_pages_that_find_no_room_are_a_full_disk(tmp_path: Path, fault: str) -> None:
    with LmdbStore.open(tmp_path) as store:
        await store.apply(batch_of(1))
        with injected(store, fault), pytest.raises(StoreFull, match="took nothing"):
            await store.apply(rows(100))
        assert 1 == last_batch(store)

        await store.apply(batch_of(2))

        assert 2 == last_batch(store)
    with LmdbStore.open(tmp_path) as again:
        assert 2 == last_batch(again)


@needs_strace
async def test_a_flush_that_fails_is_of_unknown_outcome(tmp_path: Path) -> None:
    with LmdbStore.open(tmp_path) as store:
        await store.apply(batch_of(1))
        with injected(store, "fdatasync:error=EIO:when=1+"), pytest.raises(StoreFailed):
            await store.apply(batch_of(2))
        with pytest.raises(StoreFailed, match="may or may not"):
            await store.apply(batch_of(2))

    with LmdbStore.open(tmp_path) as again:
        await again.apply(batch_of(last_batch(again) + 1))


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_a_meta_page_that_fails_is_of_unknown_outcome(tmp_path: Path, error: str) -> None:
    # Pages of a new store go through writev, so that the one pwrite64 is the meta page's.
    fault = f"pwrite64:error={error}:when=1"
    with LmdbStore.open(tmp_path) as store, injected(store, fault), pytest.raises(StoreFailed):
        await store.apply(rows(100))

    with LmdbStore.open(tmp_path) as again:
        assert found(again) in {0, 100}
        await again.apply(rows(100))
        assert 100 == found(again)


@needs_strace
def test_a_disk_that_fails_while_opening_is_said_so(tmp_path: Path) -> None:
    LmdbStore.open(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from engine.store.lmdb_store import LmdbStore\n"
        "LmdbStore.open(Path(sys.argv[1]))"
    )
    tracing = [STRACE or "strace", "-f", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO"]
    ended = subprocess.run(
        [*tracing, sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )

    assert 1 == ended.returncode
    assert "StoreFailed" in ended.stderr.splitlines()[-1]
    LmdbStore.open(tmp_path).close()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process need Linux")
async def test_a_disk_that_fills_in_earnest_is_a_full_disk(tmp_path: Path) -> None:
    with LmdbStore.open(tmp_path) as store:
        pid = store.describe()["writer_pid"]
        assert isinstance(pid, int)
        await store.apply(batch_of(1))
        file_bytes = (tmp_path / LMDB_FOLDER / "data.mdb").stat().st_size
        free = resource.RLIM_INFINITY
        # In the middle of a page: what is written up to there is a write cut short.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes + 100_100, free))
        refused = 0
        for _ in range(3):
            with pytest.raises(StoreFull):
                await store.apply(rows(1000))
            refused += 1
        assert 1 == last_batch(store)
        await store.apply(batch_of(2))  # what is small still finds room
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (free, free))
        await store.apply(batch_of(3))

        assert (3, 3) == (refused, last_batch(store))


@needs_strace
@pytest.mark.parametrize("writer", ["thread", "process"])
def test_a_batch_is_a_flush_of_its_pages_and_one_of_the_meta_page(
    tmp_path: Path, writer: Where
) -> None:
    load = [sys.executable, "-m", "tests.crash.store_load", str(tmp_path / "data")]
    counted = {
        batches: flushes_of(tmp_path, [*load, "--writer", writer], batches) for batches in (2, 9)
    }

    # Opening and making the store flushes too, but the same however many batches follow.
    assert (7, 7) == (counted[9][0] - counted[2][0], counted[9][1] - counted[2][1])


def flushes_of(tmp_path: Path, load: list[str], batches: int) -> tuple[int, int]:
    """How many fdatasync and how many O_DSYNC writes of a meta page a run of `load` makes."""
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    trace = tmp_path / "trace"
    watched = "trace=openat,fdatasync,fsync,sync_file_range,msync,pwrite64,pwritev,writev"
    tracing = [STRACE or "strace", "-f", "-y", "-o", str(trace), "-e", watched]
    subprocess.run([*tracing, *load, "--batches", str(batches)], check=True, capture_output=True)
    lines = [line for line in trace.read_text().splitlines() if "data.mdb" in line]
    synchronous = {m[1] for line in lines if (m := re.search(r"O_DSYNC.* = (\d+)<", line))}
    assert synchronous, "the meta page is written through a descriptor of its own"
    flushes = sum(" fdatasync(" in line for line in lines)
    metas = sum(
        bool((m := re.search(r" pwrite64\((\d+)<", line)) and m[1] in synchronous)
        and line.endswith(f" = {META_BYTES}")
        for line in lines
    )
    return flushes, metas


def test_a_file_that_was_cut_off_is_refused_and_not_read(tmp_path: Path) -> None:
    """Reading a page past its end would end the process."""
    store = LmdbStore.open(tmp_path, data_bytes_max=1 << 30)
    store.close()
    file = next(tmp_path.rglob("data.mdb"))
    with file.open("r+b") as data:
        data.truncate(file.stat().st_size // 2)

    with pytest.raises(StoreDamaged, match=r"cut off; restore a backup"):
        LmdbStore.open(tmp_path, data_bytes_max=1 << 30)
