"""How long this disk takes to make something durable: the floor under every commit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter

RECORD_BYTES = 175
"""A small commit record."""
PAGE_BYTES = 4096
"""What LMDB writes last in each commit, its meta page."""

# macOS has no fdatasync, and there LMDB flushes with fsync too.
_flush = os.fsync if sys.platform == "darwin" else os.fdatasync


def append_flushes_s(directory: Path, count: int) -> list[float]:
    """Append a small record and flush it, `count` times; seconds of each."""
    record = os.urandom(RECORD_BYTES)
    file = os.open(directory / "appended", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        return [_timed_append(file, record) for _ in range(count)]
    finally:
        os.close(file)


def page_writes_s(directory: Path, count: int) -> list[float]:
    """Write one page in place through O_DSYNC, `count` times; seconds of each."""
    page = os.urandom(PAGE_BYTES)
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_DSYNC
    file = os.open(directory / "page", flags, 0o600)
    try:
        os.pwrite(file, page, 0)  # the first one also allocates
        return [_timed_write(file, page) for _ in range(count)]
    finally:
        os.close(file)


def _timed_append(file: int, record: bytes) -> float:
    began = perf_counter()
    os.write(file, record)
    _flush(file)
    return perf_counter() - began


def _timed_write(file: int, page: bytes) -> float:
    began = perf_counter()
    os.pwrite(file, page, 0)
    return perf_counter() - began
