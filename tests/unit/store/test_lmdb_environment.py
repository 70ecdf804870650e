"""What the writer answers, and what it leaves of a store that was begun."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from engine.errors import StoreFailed
from engine.store.answer import Answer, Fate
from engine.store.interface import Batch, Tree
from engine.store.lmdb_environment import DATA_FILE, READERS_FILE, LmdbWriter, bytes_in_use


def writer_of(path: Path) -> LmdbWriter:
    return LmdbWriter(path, sync=True, data_bytes_max=1 << 30, created_by="tests")


def put(key: bytes, size_bytes: int) -> bytes:
    batch = Batch()
    batch.put(Tree.ROWS, key, bytes(size_bytes))
    return batch.encode()


def test_a_full_map_refuses_the_batch_and_takes_the_next(tmp_path: Path) -> None:
    with writer_of(tmp_path / "store") as writer:
        writer.env.set_mapsize(1 << 20)
        refused = writer.write(put(b"large", 2 << 20))
        taken = writer.write(put(b"small", 10))
        with writer.env.begin() as txn:
            found = [txn.get(key, None, writer.trees[Tree.ROWS]) for key in (b"large", b"small")]

    assert Fate.REFUSED == refused.fate
    assert "MDB_MAP_FULL" in refused.message
    assert Answer(fate=Fate.WRITTEN, flushes=2) == taken
    assert [None, bytes(10)] == found


def test_bytes_in_use_are_those_of_the_trees_pages(tmp_path: Path) -> None:
    with writer_of(tmp_path / "store") as writer:
        with writer.env.begin() as txn:
            before = bytes_in_use(txn, writer.trees)
        writer.write(put(b"large", 1 << 20))
        with writer.env.begin() as txn:
            after = bytes_in_use(txn, writer.trees)

    # The value with its header in whole pages, and one leaf with its key.
    assert (1 << 20) + 2 * 4096 == after - before


@pytest.mark.skipif(sys.platform == "darwin", reason="cannot be asked for there")
def test_the_table_of_readers_has_its_room_before_a_disk_is_full(tmp_path: Path) -> None:
    with writer_of(tmp_path / "store"):
        found = (tmp_path / "store" / READERS_FILE).stat()

    # Else mapping a part of it would end the process, and not raise.
    assert found.st_size <= found.st_blocks * 512


def test_a_table_of_readers_for_which_there_is_no_room_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", _no_room, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")

    with pytest.raises(StoreFailed, match="No space left"):
        writer_of(tmp_path / "store")


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_bytes_that_are_no_batch_are_no_refusal(tmp_path: Path) -> None:
    with writer_of(tmp_path / "store") as writer:
        assert Fate.UNKNOWN == writer.write(b"\xff").fate


@pytest.mark.parametrize("left", ["nothing", "a torn file", "a whole store"])
def test_a_store_that_was_not_finished_is_made_anew(tmp_path: Path, left: str) -> None:
    unfinished = tmp_path / "store.new"
    if left == "a torn file":
        unfinished.mkdir()
        (unfinished / DATA_FILE).write_bytes(b"\0" * 5000)
    elif left == "a whole store":
        writer_of(unfinished).close()

    with writer_of(tmp_path / "store") as writer:
        assert Fate.WRITTEN == writer.write(put(b"k", 1)).fate
    assert not unfinished.exists()


def test_a_folder_that_lost_its_data_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    writer_of(tmp_path / "store").close()
    (tmp_path / "store" / DATA_FILE).unlink()

    with pytest.raises(StoreFailed, match="cannot be made"):
        writer_of(tmp_path / "store")
