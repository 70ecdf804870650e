"""When a process that is to end does end, whatever hangs in it."""

from __future__ import annotations

import os
import threading
from typing import Final

STUCK_EXIT: Final = 70
"""Ended although something still ran. That is safe: whatever was acknowledged is durable."""
STUCK_S: Final = 1.0
"""On top of `drain_s`, for what is cut off to end in order."""


def end_in(seconds: float) -> None:
    """End the process by then, whatever hangs."""
    timer = threading.Timer(seconds, os._exit, (STUCK_EXIT,))
    timer.daemon = True
    timer.start()
