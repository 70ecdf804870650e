"""
How a batch gets from trio's thread to LMDB: by a thread, or by a process of its own.

Both run the same `LmdbWriter` and give the same answers. engine/README.md has the measurement
that chose between them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Final, Literal, NoReturn, Protocol

import outcome
import trio

from engine.errors import StoreDamaged, StoreFailed
from engine.store import writer_process
from engine.store.answer import BATCH_HEAD, Answer, Fate, unpack
from engine.store.children import command_of

_STARTING_S_MAX: Final = 30.0
"""A machine that needs longer to start a small Python is not one to begin on."""
_CLOSING_S_MAX: Final = 10.0
"""No batch is being written when a store is closed; what is left is to end a process."""
_SEND_BUFFER_BYTES: Final = 4 << 20
_RECEIVE_BYTES: Final = 1 << 16


class Writer(Protocol):
    """Takes one batch at a time to LMDB."""

    async def write(self, batch: bytes) -> Answer:
        """Write `batch`; waits for the answer whatever is cancelled."""

    def obstacle(self) -> str | None:
        """Why it will not write any more, if so."""

    def describe(self) -> dict[str, object]:
        """Where it runs, and the flags of its environment."""

    def close(self) -> None:
        """End it; not while it writes."""

    def abandon(self) -> None:
        """In a forked child: let go of what belongs to the parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSettings:
    """What a writer has to know to open the environment; see `LmdbWriter`."""

    path: str
    sync: bool
    data_bytes_max: int
    created_by: str


class ThreadWriter:
    """
    A thread that does nothing else. Shares the interpreter with trio's thread.

    Args:
        write: called on the thread, one batch after another.
        opened: what there is to say of the environment.
    """

    def __init__(self, write: Callable[[bytes], Answer], *, opened: dict[str, object]) -> None:
        self._write = write
        self._opened = opened
        self._work: SimpleQueue[tuple[bytes, trio.lowlevel.Task, trio.lowlevel.TrioToken] | None]
        self._work = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="headrace writer", daemon=True)
        self._thread.start()

    @trio.lowlevel.enable_ki_protection  # the thread will wake a task that waits
    async def write(self, batch: bytes) -> Answer:
        task = trio.lowlevel.current_task()
        self._work.put((batch, task, trio.lowlevel.current_trio_token()))
        answer = await trio.lowlevel.wait_task_rescheduled(_cannot_be_cancelled)
        assert isinstance(answer, Answer)
        return answer

    def obstacle(self) -> str | None:
        return None

    def describe(self) -> dict[str, object]:
        return {"writer": "thread", "writer_pid": os.getpid(), **self._opened}

    def close(self) -> None:
        self._work.put(None)
        self._thread.join(_CLOSING_S_MAX)

    def abandon(self) -> None:
        """The thread was not copied into this process."""

    def _run(self) -> None:
        while work := self._work.get():
            batch, task, token = work
            answer = outcome.capture(self._write, batch)
            with suppress(trio.RunFinishedError):  # nobody is left to be told
                token.run_sync_soon(trio.lowlevel.reschedule, task, answer)


def _cannot_be_cancelled(_: object) -> Literal[trio.lowlevel.Abort.FAILED]:
    return trio.lowlevel.Abort.FAILED


class ProcessWriter:
    """
    A process that does nothing else. Shares only the disk's cache with this one.

    Args:
        settings: of the environment. lock: a descriptor that it keeps open while it lives.

    Raises:
        StoreDamaged, StoreFailed: as `LmdbWriter`; or the process could not be started.
    """

    def __init__(self, settings: WriterSettings, *, lock: int) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs.fileno(), lock)
        try:
            self._opened = self._greet(settings)
        except BaseException:
            self.close()
            raise
        self._socket.setblocking(False)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @trio.lowlevel.enable_ki_protection  # half a batch, or half an answer, cannot be taken up again
    async def write(self, batch: bytes) -> Answer:
        with trio.CancelScope(shield=True):
            try:
                await self._send(BATCH_HEAD.pack(len(batch)), batch)
                answer = await self._receive()
            except OSError as error:
                return self._gone(str(error))
        return answer or self._gone("it ended")

    def obstacle(self) -> str | None:
        return None if self._process.poll() is None else self._gone("it ended").message

    def describe(self) -> dict[str, object]:
        return {"writer": "process", "writer_pid": self.pid, **self._opened}

    def close(self) -> None:
        with suppress(OSError):  # it is gone already
            # Not only closed: a process that was forked may hold the socket too.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        try:
            self._process.wait(_CLOSING_S_MAX)
        except subprocess.TimeoutExpired:
            # Stuck in a flush. It keeps the lock, so that whoever opens next waits for it.
            self._process.returncode = 0

    def abandon(self) -> None:
        # Else this child would keep the writer from seeing that the parent is gone.
        self._socket.close()
        self._process.returncode = 0  # not our child: nothing to wait for

    def _greet(self, settings: WriterSettings) -> dict[str, object]:
        data = json.dumps(asdict(settings)).encode()
        self._socket.settimeout(_STARTING_S_MAX)
        try:
            self._socket.sendall(BATCH_HEAD.pack(len(data)) + data)
            received = b""
            while (answer := unpack(received)) is None:
                more = self._socket.recv(_RECEIVE_BYTES)
                if not more:
                    self._refuse_to_start("it ended")
                received += more
        except OSError as error:
            self._refuse_to_start(str(error))
        match answer.fate:
            case Fate.WRITTEN:
                opened: dict[str, object] = json.loads(answer.message)
                return opened
            case Fate.DAMAGED:
                raise StoreDamaged(answer.message)
            case _:
                raise StoreFailed(answer.message)

    def _refuse_to_start(self, why: str) -> NoReturn:
        raise StoreFailed(
            f"the writer process {self.pid} did not start: {why}{self._exit_code()};"
            " what it wrote to stderr may say more"
        )

    async def _send(self, head: bytes, batch: bytes) -> None:
        try:
            sent = self._socket.sendmsg([head, batch])
        except BlockingIOError:
            sent = 0
        rest = memoryview(head + batch if sent < len(head) else batch)
        rest = rest[sent if sent < len(head) else sent - len(head) :]
        while rest:
            await trio.lowlevel.wait_writable(self._socket)
            with suppress(BlockingIOError):
                rest = rest[self._socket.send(rest) :]

    async def _receive(self) -> Answer | None:
        """The next answer, or None if the process ended instead."""
        received = b""
        while (answer := unpack(received)) is None:
            await trio.lowlevel.wait_readable(self._socket)
            with suppress(BlockingIOError):
                more = self._socket.recv(_RECEIVE_BYTES)
                if not more:
                    return None
                received += more
        return answer

    def _gone(self, why: str) -> Answer:
        message = f"the writer process {self.pid} is gone: {why}{self._exit_code()}"
        return Answer(fate=Fate.UNKNOWN, message=message)

    def _exit_code(self) -> str:
        code = self._process.poll()
        return "" if code is None else f" (exit code {code})"


def _start(connection: int, lock: int) -> subprocess.Popen[bytes]:
    command = command_of(writer_process.__name__, str(connection))
    # Until it ignores them itself, the signals that are sent to all must not end it.
    blocked = signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    )
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(connection, lock),
        )
    except OSError as error:
        raise StoreFailed(f"the writer process cannot be started: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
