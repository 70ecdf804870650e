"""
Ends functions that run too long.

The driver marks the slices in which a thread runs code of the application.  The
watchdog, a thread of its own, looks at the mark, and interrupts a slice that
is over its limit:

    first                   `TimeIsUp` is raised in it, once; `finally` still runs
    50 ms later, and so on  again; once that is caught, every further line of the
                            application raises it, so that no handler can go on
    after `stuck_s_max`     the slice is in a call that nothing can interrupt:
                            stacks on stderr, and the process aborts

A call that holds the GIL keeps the watchdog from running at all.  For that
case a timer of the operating system counts the processor time of the driving
thread, and aborts the process unless the watchdog comes by in time to wind it
up again.  Where the system has no such timer (macOS), such a call is waited for.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from math import inf
from time import perf_counter
from typing import Final

from engine.functions.slots import UNINTERRUPTED, Running, Slot, slot_here
from engine.kernel.trace import tracer
from engine.model.limits import Limits

trace = tracer(__name__)

REPEAT_S: Final = 0.05
"""Between two injections: time for `finally` blocks, short enough for nobody to notice."""
LOOK_S_MAX: Final = 0.1
LOOK_S_MIN: Final = 0.002
ASLEEP_AFTER_LOOKS: Final = 20
"""Without a slice in so many looks the watchdog sleeps until there is one."""


class Watchdog:
    """
    Interrupts code of the application that runs too long, on one thread.

    Args:
        limits: `stuck_s_max` is how long an interrupted slice may still go on.
    """

    def __init__(self, limits: Limits) -> None:
        self._stuck_s_max = limits.stuck_s_max
        self._look_s = max(LOOK_S_MIN, min(LOOK_S_MAX, limits.user_time_s_max / 4))
        self._slot: Slot | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._is_closing = False
        self._is_traced = False
        self._timer: CpuTimer | None = None
        self._slice: float = inf
        self._idle_looks = 0
        self._overdue_s = 0.0
        self._looked_at = 0.0
        self.is_asleep = True

    @property
    def slot(self) -> Slot:
        """The slot of the thread that is watched."""
        assert self._slot is not None, "a watchdog is started before anything is driven"
        return self._slot

    def start(self) -> None:
        """Watch the calling thread, the one that will drive, until `close`."""
        assert self._thread is None, "a watchdog is started once"
        self._slot = slot_here()
        if not faulthandler.is_enabled():
            faulthandler.enable(2)
        self._timer = CpuTimer.of_this_thread()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; returns when the watchdog's thread has ended."""
        if self._thread is not None:
            self._is_closing = True
            self._wake.set()
            self._thread.join()
        if self._timer is not None:
            self._timer.delete()
            self._timer = None

    def wake(self) -> None:
        """A slice begins after a time without any."""
        self.is_asleep = False
        self._idle_looks = 0
        if self._timer is not None and not self._is_traced:
            self._timer.wind(self._stuck_s_max)
        self._wake.set()

    def notice_tracer(self) -> None:
        """A debugger or tracer is attached: people may take their time, and steps are slow."""
        if not self._is_traced:
            self._is_traced = True
            if self._timer is not None:
                self._timer.wind(0)
            trace.warning(
                "watchdog.disabled", reason="a debugger or tracer is attached; no time limit holds"
            )

    def _run(self) -> None:
        wait_s: float | None = self._look_s
        while not self._is_closing:
            self._wake.wait(wait_s)
            self._wake.clear()
            wait_s = self._look()

    def _look(self) -> float | None:
        """What there is to do now; returns the seconds until the next look, `None` is for ever."""
        slot = self.slot
        now = perf_counter()
        with slot.lock:
            execution = slot.execution
            if slot.deadline != self._slice:
                self._slice, self._idle_looks, self._overdue_s = slot.deadline, 0, 0.0
            if execution is None or execution.watchdog is not self:
                return self._idle()
            if now < slot.deadline:
                wait_s = min(slot.deadline - now, self._look_s)
            else:
                self._overdue_s += min(now - self._looked_at, 2 * REPEAT_S)
                wait_s = self._interrupt(slot, execution)
        self._looked_at = now
        if self._timer is not None and not self._is_traced:
            self._timer.wind(self._stuck_s_max)
        if self._overdue_s > self._stuck_s_max:
            self._abort(execution)
        return wait_s

    def _idle(self) -> float | None:
        self._idle_looks += 1
        if self._idle_looks < ASLEEP_AFTER_LOOKS:
            if self._timer is not None and not self._is_traced:
                self._timer.wind(self._stuck_s_max)
            return self._look_s
        self.is_asleep = True
        if self.slot.execution is not None:  # a slice began just now, and saw us awake
            self.is_asleep = False
            return self._look_s
        if self._timer is not None:
            self._timer.wind(0)
        return None

    def _interrupt(self, slot: Slot, execution: Running) -> float:
        if slot.trapped:  # every line raises by itself, and the trap's own code must not
            return REPEAT_S
        frame = sys._current_frames().get(slot.thread_id)
        if frame is not None and frame.f_code.co_filename.startswith(UNINTERRUPTED):
            return LOOK_S_MIN
        execution.interruptions += 1
        slot.inject()
        return REPEAT_S

    def _abort(self, execution: Running) -> None:
        text = (
            f"headrace: {execution.path} has been over its time limit for {self._overdue_s:.0f} s "
            "and is in a call that cannot be interrupted (stuck_s_max); the process aborts\n"
        )
        os.write(2, text.encode())
        os.abort()


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal_number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("unused", ctypes.c_byte * 48),
    )


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class CpuTimer:
    """
    Aborts the process when one thread has used so much processor time.

    Processor time, so that a process that is stopped, or a thread that waits
    while others hold the GIL, is not taken for one that is stuck.
    """

    def __init__(self, libc: ctypes.PyDLL, clock: int) -> None:
        self._libc = libc
        self._id = ctypes.c_void_p()
        event = _SigEvent(signal_number=signal.SIGABRT, notify=0)
        if libc.timer_create(clock, ctypes.byref(event), ctypes.byref(self._id)):
            raise OSError("timer_create failed")

    @classmethod
    def of_this_thread(cls) -> CpuTimer | None:
        """A timer on the clock of the calling thread; `None` if the system has none."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            clock = time.pthread_getcpuclockid(threading.get_ident())
            return cls(ctypes.PyDLL(None), clock)
        except (OSError, AttributeError) as error:
            trace.warning("watchdog.no_timer", error=repr(error))
            return None

    def wind(self, seconds: float) -> None:
        """Go off after `seconds` from now; 0 stops it."""
        whole, part = divmod(seconds, 1)
        spec = _TimerSpec(value_s=int(whole), value_ns=int(part * 1e9))
        self._libc.timer_settime(self._id, 0, ctypes.byref(spec), None)

    def delete(self) -> None:
        self._libc.timer_delete(self._id)
