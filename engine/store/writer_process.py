"""
The writer as a process of its own: takes batches from a socket and writes them to LMDB.

Its parent is the engine, in `writers.ProcessWriter`. It imports no more than it needs, ends when
the engine's end of the socket closes, however the engine came to its end, and ignores the signals
that a terminal or a supervisor sends to all: the batch at hand is always finished.

    engine  ── settings as JSON ──▶  writer
            ◀── Answer: started ───
            ── batch ─────────────▶
            ◀── Answer ────────────   and so on, one at a time
"""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Final

from engine.errors import EngineError, StoreDamaged
from engine.store.answer import BATCH_HEAD, Answer, Fate, pack
from engine.store.lmdb_environment import LmdbWriter

_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(descriptor: str) -> int:
    """Write what comes through the socket `descriptor` until it ends; the exit code."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)  # as the parent started it
    with socket.socket(fileno=int(descriptor)) as connection:
        try:
            return _serve(connection)
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the engine is gone, and nobody waits for an answer


def _serve(connection: socket.socket) -> int:
    settings = json.loads(_receive(connection) or b"{}")
    try:
        writer = LmdbWriter(
            Path(settings["path"]),
            sync=settings["sync"],
            data_bytes_max=settings["data_bytes_max"],
            created_by=settings["created_by"],
        )
    except EngineError as error:
        fate = Fate.DAMAGED if isinstance(error, StoreDamaged) else Fate.UNKNOWN
        connection.sendall(pack(Answer(fate=fate, message=str(error))))
        return 1
    with writer:
        opened = Answer(fate=Fate.WRITTEN, message=json.dumps(writer.describe()))
        connection.sendall(pack(opened))
        while batch := _receive(connection):
            connection.sendall(pack(writer.write(batch)))
    return 0


def _receive(connection: socket.socket) -> bytes | None:
    """The next message, or None if the other end has closed, be it in the middle of one."""
    head = connection.recv(BATCH_HEAD.size, socket.MSG_WAITALL)
    if len(head) < BATCH_HEAD.size:
        return None
    (length,) = BATCH_HEAD.unpack(head)
    data = connection.recv(length, socket.MSG_WAITALL)
    return data if len(data) == length else None
