"""
`headrace serve`: an application in production.

    start     re-executed with the hash seed of the data directory, before anything large is
              imported; listens at once, and /readyz answers 503 until the first push is done
    SIGHUP    reads the application again and pushes it; the version before serves meanwhile
    SIGTERM   sends clients away and finishes what runs, for `drain_s` at most
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any, Final

from engine.app.environment import DEV_VARIABLE
from engine.cli.failures import Exit
from engine.cli.project import add_app, find_project, new_verb, port_number
from engine.errors import UsageError

PORT: Final = 3210
SEED_FILE: Final = "hash.seed"
SEED_VARIABLE: Final = "PYTHONHASHSEED"
SEED_MAX: Final = 2**32 - 1
REEXECUTED_VARIABLE: Final = "HEADRACE_REEXECUTED"
"""Set in the process that was started anew, so that it is not again."""


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "serve",
        "serve an application in production",
        "headrace serve --data /var/lib/headrace",
        "headrace serve backend --data /var/lib/headrace --host 0.0.0.0 --port 3210",
        "kill -HUP PID    # read the application again and push it",
        description=(
            "Serve an application in production: clients learn that a function failed, and not "
            "why. SIGHUP pushes the application as its files are then; SIGTERM drains for 10 s "
            "at most and ends; what hangs longer is cut off, which is safe. Limits are those of "
            "[tool.headrace.limits] in pyproject.toml."
        ),
    )
    add_app(parser)
    parser.add_argument("--data", metavar="DIR", required=True, help="made if it is not there")
    parser.add_argument("--port", type=port_number, default=PORT, help=f"{PORT}; 0 is any free one")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1; 0.0.0.0 is everywhere")
    parser.add_argument(
        "--allow-shell", action="store_true", help="let administrators evaluate Python in it"
    )
    parser.set_defaults(begin=begin, run=run)


def begin(options: argparse.Namespace) -> None:
    find_project(options.app).required_app()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to push anew
    reexecute_with_seed(Path(options.data))


def run(options: argparse.Namespace) -> int:
    from engine.cli.service import run_service

    project, data = find_project(options.app), Path(options.data)
    os.environ[DEV_VARIABLE] = ""  # this is production, whatever .env.local says
    run_service(
        project.required_app(),
        data,
        f"{options.host}:{options.port}",
        allow_shell=options.allow_shell,
        limits=project.limits,
    )
    return Exit.DONE


def reexecute_with_seed(data: Path) -> None:
    """
    Go on in this process's place with the hash seed that is kept in `data`.

    So sets of strings have one order in all runs on this data, and a function that is run
    again does what it did.

    Raises:
        UsageError: the directory or its seed cannot be written or read.
    """
    seed = _kept_seed(data)
    if os.environ.get(SEED_VARIABLE) == seed or REEXECUTED_VARIABLE in os.environ:
        os.environ.pop(REEXECUTED_VARIABLE, None)
        return
    environment = {**os.environ, SEED_VARIABLE: seed, REEXECUTED_VARIABLE: "1"}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _kept_seed(data: Path) -> str:
    file = data / SEED_FILE
    try:
        data.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(f"{secrets.randbelow(SEED_MAX) + 1}\n")
        return str(int(file.read_text()))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be kept: {error}") from None
