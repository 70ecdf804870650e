"""
Writes a byte each time that something is due: `harness.punctual` has it in a process of its own.

    python metronome.py PER_S FD      first the time of the first one, as eight bytes
"""

from __future__ import annotations

import os
import struct
import sys
import time

START = struct.Struct("d")
"""By `time.perf_counter`, which all processes of a machine share."""


def main(per_s: float, fd: int) -> None:
    due = time.perf_counter()
    try:
        os.write(fd, START.pack(due))
        while True:
            time.sleep(max(0.0, due - time.perf_counter()))
            os.write(fd, b".")
            due += 1 / per_s
    except OSError:
        return  # nobody reads any more


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
