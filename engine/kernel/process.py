"""Which process this is, without asking the system each time."""

from __future__ import annotations

import os

_pid = os.getpid()


def _note() -> None:
    global _pid
    _pid = os.getpid()


os.register_at_fork(after_in_child=_note)


def current_pid() -> int:
    """As `os.getpid`; a forked child has its own."""
    return _pid
