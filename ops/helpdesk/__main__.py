"""`ops/demo`: serve the help desk, or, with --check, see for oneself that it does what it says."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import trio

from engine.cli.failures import only
from engine.errors import EngineError
from ops.helpdesk import check, serve

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="ops/demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="do it without a person")
    parser.add_argument("--port", type=int, default=3210)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / ".headrace" / "demo")
    parser.add_argument("--empty", action="store_true", help="do not load the documents")
    options = parser.parse_args()
    if options.check:
        return check.run()
    code = 0
    try:
        trio.run(serve.run, options.data, options.port, not options.empty)
    except* KeyboardInterrupt:
        print("Stopped.")
    except* (OSError, EngineError) as failed:
        print(f"The help desk cannot be served: {only(failed)}", file=sys.stderr)
        code = 1
    return code


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a text file
    code = main()
    sys.stdout.flush()
    os._exit(code)
