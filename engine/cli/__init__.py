"""The command line: `main` does what its arguments say."""

from __future__ import annotations

import sys

from engine import check_platform

try:
    check_platform()
except ImportError as error:
    print(error, file=sys.stderr)
    raise SystemExit(4) from None  # refused, as in `failures.Exit`, which is not there yet

from engine.cli.command import main  # after the check: what it imports needs more than Windows has

__all__ = ["main"]
