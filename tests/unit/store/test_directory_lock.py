"""Who has a directory, and who is told."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from engine.errors import StoreFailed, StoreLocked
from engine.store.directory_lock import LOCK_FILE, FileLock, LockHolder, read_lock


def test_a_lock_is_had_once_at_a_time(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK_FILE), pytest.raises(StoreLocked):
        FileLock(tmp_path / LOCK_FILE)

    FileLock(tmp_path / LOCK_FILE).release()


def test_the_holder_can_be_read_while_it_holds(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK_FILE) as lock:
        silent = read_lock(tmp_path)
        lock.set_url("http://a-long-name.example:3210")
        lock.set_url("http://short:1")
        listening = read_lock(tmp_path)

    assert LockHolder(pid=os.getpid(), url=None) == silent
    assert LockHolder(pid=os.getpid(), url="http://short:1") == listening
    assert read_lock(tmp_path) is None


def test_a_holder_that_has_not_said_who_it_is_still_holds(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK_FILE):
        (tmp_path / LOCK_FILE).write_text('{"pid": 1')
        holder = read_lock(tmp_path)

    assert LockHolder(pid=None, url=None) == holder


def test_a_lock_that_is_released_is_free_although_a_copy_of_it_is_open(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / LOCK_FILE)
    of_a_forked_process = os.dup(lock.descriptor)
    lock.release()

    FileLock(tmp_path / LOCK_FILE).release()

    os.close(of_a_forked_process)


def test_a_patient_opener_gets_the_lock_once_it_is_free(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / LOCK_FILE)
    releasing = threading.Timer(0.3, lock.release)
    releasing.start()

    FileLock(tmp_path / LOCK_FILE, patience_s=10).release()

    releasing.join()


def test_reading_who_holds_keeps_nobody_out(tmp_path: Path) -> None:
    FileLock(tmp_path / LOCK_FILE).release()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            read_lock(tmp_path)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(100):
            FileLock(tmp_path / LOCK_FILE).release()
    finally:
        stop.set()
        reader.join()


def test_a_directory_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="cannot be opened"):
        FileLock(tmp_path / "missing" / LOCK_FILE)


def test_a_lock_is_had_also_where_there_is_no_room_to_say_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", _no_room)

    with FileLock(tmp_path / LOCK_FILE) as lock, pytest.raises(StoreLocked):
        lock.set_url("http://here:1")
        FileLock(tmp_path / LOCK_FILE)

    FileLock(tmp_path / LOCK_FILE).release()


def test_the_room_that_a_lock_has_taken_is_kept_for_whoever_opens_next(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / LOCK_FILE)
    held_bytes = (tmp_path / LOCK_FILE).stat().st_size
    lock.release()

    assert (tmp_path / LOCK_FILE).stat().st_size == held_bytes > 0


def _no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
