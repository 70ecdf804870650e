"""
A file grows past 4 GiB while snapshots are open, and none of them notices.

The first gigabytes are a hole in the file, which LMDB is told is in use; the rest is written. On a
file system without holes it takes 5 GB and is slow, so it is left out with `-m "not slow"`, and
skipped where the disk has no such room.
"""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path
from typing import Final, Literal

import pytest

from engine.store.interface import Batch, Snapshot, Tree
from engine.store.lmdb_environment import DATA_FILE
from engine.store.lmdb_store import LMDB_FOLDER, LmdbStore

GIB_4: Final = 1 << 32
BEFORE_BYTES: Final = 100 << 20
AFTER_BYTES: Final = 300 << 20
VALUE_BYTES: Final = 8 << 20
SMALL_ROWS: Final = 1000

PAGE_BYTES: Final = 4096
LAST_PAGE: Final = struct.Struct("<Q")
LAST_PAGE_AT: Final = 136
"""Of the number of the last page, in each of the two meta pages that LMDB 0.9 has."""


def batch_of(n: int) -> bytes:
    batch = Batch()
    batch.put(Tree.ROWS, b"large %04d" % n, n.to_bytes(VALUE_BYTES, "little"))
    batch.merge(Tree.ENTRIES, {b"%04d" % row: b"%d" % n for row in range(SMALL_ROWS)})
    return batch.encode()


def entries(snapshot: Snapshot) -> set[bytes]:
    return {value for _, value in snapshot.range(Tree.ENTRIES, b"", None)}


def file_bytes(store: LmdbStore) -> int:
    size = store.describe()["file_bytes"]
    assert isinstance(size, int)
    return size


def use_up(file: Path, size_bytes: int) -> None:
    """Make LMDB believe that the first `size_bytes` of its file are in use."""
    with file.open("r+b") as data:
        data.truncate(size_bytes)
        for page in range(2):
            data.seek(page * PAGE_BYTES + LAST_PAGE_AT)
            data.write(LAST_PAGE.pack(size_bytes // PAGE_BYTES - 1))


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["thread", "process"])
async def test_growth_past_4_gib_ends_no_snapshot(
    tmp_path: Path, writer: Literal["process", "thread"]
) -> None:
    if shutil.disk_usage(tmp_path).free < 2 * GIB_4:
        pytest.skip("needs 9 GB of free disk")
    LmdbStore.open(tmp_path, writer=writer).close()
    use_up(tmp_path / LMDB_FOLDER / DATA_FILE, GIB_4 - BEFORE_BYTES)
    dice = random.Random(1)
    held: dict[int, Snapshot] = {}
    with LmdbStore.open(tmp_path, writer=writer) as store:
        assert GIB_4 - BEFORE_BYTES == file_bytes(store)
        await store.apply(batch_of(0))
        walk = store.snapshot().range(Tree.ENTRIES, b"", None)
        next(walk)

        n = 0
        while file_bytes(store) < GIB_4 + AFTER_BYTES:
            if dice.random() < 0.3:
                held[n] = store.snapshot()
            n += 1
            await store.apply(batch_of(n))

        assert {b"0"} == {value for _, value in walk}
        assert len(held) > 5
        for then, snapshot in held.items():
            assert {b"%d" % then} == entries(snapshot)
            newest = snapshot.get(Tree.ROWS, b"large %04d" % then)
            assert then == int.from_bytes(newest or b"", "little")
            assert snapshot.get(Tree.ROWS, b"large %04d" % (then + 1)) is None
        with store.snapshot() as last:
            assert {b"%d" % n} == entries(last)
    (tmp_path / LMDB_FOLDER / DATA_FILE).unlink()
