"""
Ends the loading of modules that take too long to be imported.

A thread waits beside the one that imports, and raises `LoadTookTooLong` in it,
in code of the application or of what it imports, again and again until it is
out.  A call that does not come back to the interpreter is waited for.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from types import FrameType
from typing import Final

from engine.functions import shims
from engine.functions.slots import UNINTERRUPTED
from engine.kernel.trace import tracer

trace = tracer(__name__)

REPEAT_S: Final = 0.05
"""Between two injections: time for `finally` blocks."""
_UNINTERRUPTED: Final = (*UNINTERRUPTED, "<frozen ")

_DOORS: Final = shims.__file__
"""What a module calls instead of `time.sleep` and the like, and may be in for ever."""

_inject_exception = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def _is_uninterrupted(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file != _DOORS and file.startswith(_UNINTERRUPTED)


class LoadTookTooLong(BaseException):
    """Raised in a module that is being imported; no handler of errors is meant to catch it."""


class limited:  # noqa: N801 - used as a function is
    """
    In the block: it may take this long, in seconds; nothing is raised in this thread after it.

    Raises:
        LoadTookTooLong: it took longer, wherever it was by then.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._thread_id = threading.get_ident()
        self._lock = threading.Lock()
        """Held to inject, and to say that it is over."""
        self._over = threading.Event()
        self._is_injected = False
        self._is_begun = False
        self._watcher = threading.Thread(target=self._watch, name="load limit", daemon=True)

    def __enter__(self) -> None:
        self._watcher.start()
        self._is_begun = True

    def __exit__(self, *raised: object) -> None:
        """Inject no more; what was injected and is not raised yet is raised in here, and caught."""
        while not self._over.is_set():
            try:
                with self._lock:
                    self._over.set()
                while self._is_injected:
                    self._inject()
            except LoadTookTooLong:
                continue  # if it was raised before the event was set, once more
        self._watcher.join()

    def _watch(self) -> None:
        wait_s = self._limit_s
        while not self._over.wait(wait_s):
            wait_s = REPEAT_S
            frame = sys._current_frames().get(self._thread_id)
            if not self._is_begun or frame is None or _is_uninterrupted(frame):
                continue
            with self._lock:
                if self._over.is_set():
                    return
                if not self._is_injected:
                    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                    trace.warning("loader.interrupted", where=where, limit_s=self._limit_s)
                self._is_injected = True
                self._inject()

    def _inject(self) -> None:
        _inject_exception(self._thread_id, LoadTookTooLong)
