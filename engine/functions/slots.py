"""
Whose code a thread is running: the mark that the driver sets, and how a slice is broken off.

A slice is a time in which code of the application runs.  Only while its slot is
marked may `TimeIsUp` be injected into a thread, and only under the slot's lock.
Who leaves a slice takes the same lock, clears the mark, and catches under it
what was injected and not raised yet.  So nothing is ever raised in code of the
engine or of trio that runs outside a slice.
"""

from __future__ import annotations

import ctypes
import os
import random
import sysconfig
import threading
from math import inf
from types import FrameType
from typing import Any, Final, NoReturn, Protocol

import trio

from engine.functions.log_lines import Level
from engine.functions.tracebacks import ENGINE

_TRIO = os.path.dirname(os.path.abspath(trio.__file__)) + os.sep
UNINTERRUPTED: Final = (ENGINE, _TRIO)
"""Code that an exception out of nowhere could leave in pieces, also within a slice."""
_UNTRAPPED: Final = (*UNINTERRUPTED, sysconfig.get_path("stdlib") + os.sep, "<frozen ")
"""Code that is let to the end of its `finally` blocks: it may hold locks of the whole process."""

_api = ctypes.pythonapi
_inject_exception = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", _api)
)

_set_tracer = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.py_object)(("PyEval_SetTrace", _api))
_delete_item = ctypes.cast(_api.PyObject_DelItem, ctypes.c_void_p)


class Releasable(Protocol):
    """Something that others hear of only when the answer is given."""

    def release(self) -> None: ...


class Running(Protocol):
    """A run of a query or mutation, as those know it who find it by `active`."""

    path: str
    interruptions: int
    """How often it was told that its time is up."""

    @property
    def name(self) -> str: ...
    @property
    def random(self) -> random.Random: ...
    @property
    def watchdog(self) -> object: ...
    def read_clock(self) -> int: ...
    def log(self, level: Level, *parts: Any) -> None: ...
    def hold(self, one: Releasable, /) -> None: ...
    def lift_limit(self) -> None: ...


class TimeIsUp(BaseException):
    """
    Raised in code of the application that ran over its limit.

    It is instantiated by the interpreter in the interrupted thread, when it is
    about to be caught (3.11) or raised (later ones).  That is where a slice
    that has been interrupted before is stopped for good.
    """

    def __init__(self) -> None:
        super().__init__("the time limit of this function is used up")
        slot = slot_here()
        if slot.execution is not None and slot.execution.interruptions > 1:
            slot.trap()


class Slot:
    """
    Where one thread says whose code it runs.

    `execution` is the mark: set only while code of the application runs.
    `is_disturbed` says that there may be something to `flush` when it is cleared.
    """

    __slots__ = ("deadline", "execution", "is_disturbed", "lock", "thread_id", "trapped")

    def __init__(self) -> None:
        self.thread_id = threading.get_ident()
        self.lock = threading.Lock()
        self.execution: Running | None = None
        self.deadline = inf
        self.is_disturbed = False
        self.trapped = False

    def inject(self) -> None:
        """Have `TimeIsUp` raised in the thread, by whatever it runs next."""
        self.is_disturbed = True
        _inject_exception(self.thread_id, TimeIsUp)

    def trap(self) -> None:
        """
        From here on every line of the application raises.

        `sys.settrace` would not do: the interpreter removes a trace function
        that raises, and a handler around the raise could go on.  One that is
        set from C stays; any C function that calls back and returns -1 for an
        exception will do, and `del object[frame]` is one.
        """
        self.is_disturbed = True
        self.trapped = True
        _set_tracer(_delete_item, _TRAP)

    def flush(self) -> NoReturn:
        """
        Have what was injected raised here, where it does no harm; to be called within a `try`.

        To withdraw it would leave the interpreter looking for it at every
        instruction, for ever; so one more is injected, and at the latest that is raised.
        """
        while True:
            self.inject()

    def release(self) -> None:
        """Nothing is left to be raised: undo `trap`."""
        self.is_disturbed = False
        if self.trapped:
            self.trapped = False
            _set_tracer(None, ctypes.py_object())


class _Trap:
    def __delitem__(self, frame: FrameType) -> None:
        if slot_here().execution is None or frame.f_code.co_filename.startswith(_UNTRAPPED):
            return
        raise TimeIsUp


_TRAP: Final = _Trap()

_threads = threading.local()


def slot_here() -> Slot:
    """The slot of this thread."""
    slot: Slot | None = getattr(_threads, "slot", None)
    if slot is None:
        slot = _threads.slot = Slot()
    return slot


def active() -> Running | None:
    """The query or mutation whose code this thread is running, if any."""
    return slot_here().execution
