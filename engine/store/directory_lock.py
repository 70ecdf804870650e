"""
Who has a data directory open: one engine, and the writer that works for it.

Two files, each locked by `flock` for as long as its holder lives, however it dies:

    LOCK     by the engine; says which process it is and where it listens
    WRITER   by whoever writes to LMDB, which may be a process that outlives a killed engine by
             the batch it is at

So a directory that is in use is refused at once, and one whose engine was killed is waited for.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from engine.errors import StoreFailed, StoreLocked

LOCK_FILE: Final = "LOCK"
WRITER_FILE: Final = "WRITER"

_PROBE_S: Final = 0.2
"""`read_lock` takes the lock for an instant; whoever opens meanwhile must not take it for held."""
_POLL_S: Final = 0.01
_HOLDER_BYTES_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """
    The process that has a directory open.

    pid: None in the instant before it has said so, and where the disk had no room to.
    url: None if it does not listen.
    """

    pid: int | None
    url: str | None


class FileLock:
    """
    A file locked by this process, and by those that inherit its descriptor.

    Args:
        path: made if missing; readable by its owner only.
        patience_s: how long to wait for another holder to go.

    Raises:
        StoreLocked: it did not go; names its pid and URL.
        StoreFailed: the file cannot be opened.
    """

    def __init__(self, path: Path, *, patience_s: float = _PROBE_S) -> None:
        self._path = path
        self.holder = LockHolder(pid=os.getpid(), url=None)
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreFailed(f"{path} cannot be opened: {error}") from error
        if not _wait_until(lambda: _take(self.descriptor, fcntl.LOCK_EX), patience_s):
            found = _read_holder(self.descriptor)
            os.close(self.descriptor)
            raise StoreLocked(str(path.parent), found.pid, found.url)
        self._write()

    def set_url(self, url: str | None) -> None:
        """Say where the holder listens, to those whom it keeps out."""
        self.holder = LockHolder(pid=self.holder.pid, url=url)
        self._write()

    def hand_over(self, pid: int) -> None:
        """Leave the lock to the process `pid`, which has inherited the descriptor."""
        self.holder = LockHolder(pid=pid, url=None)
        self._write()
        os.close(self.descriptor)

    def release(self) -> None:
        """Let others have it, also if a process that was forked has not let go of it yet."""
        self._put(b"")
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)

    def abandon(self) -> None:
        """In a forked child: forget the lock, which stays with the parent."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _write(self) -> None:
        self._put(json.dumps({"pid": self.holder.pid, "url": self.holder.url}).encode())

    def _put(self, data: bytes) -> None:
        """Write over what is there, which a full disk has room for; spaces are nothing in JSON."""
        with suppress(OSError):  # it is locked all the same; who has it is said where there is room
            os.pwrite(self.descriptor, data.ljust(os.fstat(self.descriptor).st_size), 0)


def read_lock(directory: Path) -> LockHolder | None:
    """
    Who has `directory` open, or None if no engine has.

    Raises:
        OSError: the lock file is there and cannot be read, as when it belongs to another user.
    """
    try:
        descriptor = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _take(descriptor, fcntl.LOCK_SH):
            return None
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(descriptor: int) -> LockHolder:
    """What the holder wrote, as soon as it is there whole."""
    found: list[LockHolder] = []

    def is_there() -> bool:
        try:
            said = json.loads(os.pread(descriptor, _HOLDER_BYTES_MAX, 0))
        except ValueError:
            return False
        found.append(LockHolder(pid=said["pid"], url=said["url"]))
        return True

    return found[0] if _wait_until(is_there, _PROBE_S) else LockHolder(pid=None, url=None)


def _wait_until(is_so: Callable[[], bool], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True
