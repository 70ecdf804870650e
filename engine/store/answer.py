"""What the writer says became of a batch, and how it says so from another process."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Fate(IntEnum):
    """What became of a batch. The numbers travel between processes of one version."""

    WRITTEN = 0
    """All of it is durable."""
    REFUSED = 1
    """Nothing of it was written, and the writer goes on."""
    UNKNOWN = 2
    """It may or may not have been written."""
    DAMAGED = 3
    """The environment cannot be read; no batch was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    The answer to one batch, or, as the first of a writer process, to being started.

    message: why, in words; of a writer that has started, what it opened, as JSON.
    flushes: how many times the disk was made to write.
    """

    fate: Fate
    message: str = ""
    flushes: int = 0


_HEAD: Final = struct.Struct("!BBI")
BATCH_HEAD: Final = struct.Struct("!Q")
"""In front of each batch on its way to a writer process: its bytes."""


def pack(answer: Answer) -> bytes:
    """The answer as bytes that tell their own length."""
    message = answer.message.encode(errors="replace")
    return _HEAD.pack(answer.fate, answer.flushes, len(message)) + message


def unpack(data: bytes) -> Answer | None:
    """The answer at the start of `data`, or None if it has not arrived whole."""
    if len(data) < _HEAD.size:
        return None
    fate, flushes, length = _HEAD.unpack_from(data)
    end = _HEAD.size + length
    if len(data) < end:
        return None
    return Answer(fate=Fate(fate), message=data[_HEAD.size : end].decode(), flushes=flushes)
