"""What an engine sets of the interpreter, for the whole process, and what it was before."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_before: list[tuple[float, tuple[int, int, int]]] = []
"""What there was when each of the engines that are open came; the first is nobody's of them."""


@contextmanager
def tuned(
    switch_interval_s: float | None, gc_thresholds: tuple[int, int, int] | None
) -> Iterator[None]:
    """Set what is not `None`; whoever leaves last sets back what there was before the first."""
    with _lock:
        _before.append((sys.getswitchinterval(), gc.get_threshold()))
        if switch_interval_s is not None:
            sys.setswitchinterval(switch_interval_s)
        if gc_thresholds is not None:
            gc.set_threshold(*gc_thresholds)
    try:
        yield
    finally:
        with _lock:
            first = _before[0]
            _before.pop()
            if not _before:
                sys.setswitchinterval(first[0])
                gc.set_threshold(*first[1])
