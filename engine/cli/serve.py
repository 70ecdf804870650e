"""
`headrace serve`: an application in production.

    start     re-executed with the hash seed of the data directory; listens at once, and /readyz
              answers 503 until the first push is done
    SIGHUP    reads the application again and pushes it; the version before serves meanwhile
    SIGTERM   sends clients away and finishes what runs, for `drain_s` at most
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from engine.cli.failures import Exit, only, told
from engine.cli.output import note
from engine.cli.project import add_app, find_project, new_verb
from engine.errors import EngineError, UsageError

if TYPE_CHECKING:
    from engine.serving import Served

PORT: Final = 3210
SEED_FILE: Final = "hash.seed"
SEED_VARIABLE: Final = "PYTHONHASHSEED"
SEED_MAX: Final = 2**32 - 1
REEXECUTED_VARIABLE: Final = "HEADRACE_REEXECUTED"
"""Set in the process that was started anew, so that it is not again."""
STUCK_EXIT: Final = 70
"""Ended although something still ran. That is safe: whatever was acknowledged is durable."""
STUCK_S: Final = 1.0
"""On top of `drain_s`, for what is cut off to end in order."""


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
            "at most and ends; what hangs longer is cut off, which is safe."
        ),
    )
    add_app(parser)
    parser.add_argument("--data", metavar="DIR", required=True, help="made if it is not there")
    parser.add_argument("--port", type=int, default=PORT, help=f"{PORT}; 0 is any free one")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1; 0.0.0.0 is everywhere")
    parser.add_argument(
        "--allow-shell", action="store_true", help="let administrators evaluate Python in it"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    app = find_project(options.app).required_app()
    data = Path(options.data)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to push anew
    reexecute_with_seed(data)
    trio.run(
        partial(_serve, app, data, f"{options.host}:{options.port}", options.allow_shell),
        restrict_keyboard_interrupt_to_checkpoints=True,
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


async def _serve(app: str, data: Path, bind: str, allow_shell: bool) -> None:
    from engine.serving import serving

    os.environ.pop(REEXECUTED_VARIABLE, None)
    async with (
        serving(data, app=app, bind=bind, deferred=True, allow_shell=allow_shell) as served,
        trio.open_nursery() as nursery,
    ):
        note(f"serving {app} at {served.url}, data in {data}")
        if served.is_new_key:
            note(f"admin key (kept in {data / 'admin.key'}): {served.admin_key}")
        nursery.start_soon(_push_at_start, served)
        nursery.start_soon(_push_on_hangup, served)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
        end_in(served.engine.node.limits.drain_s + STUCK_S)
        note("draining")
        nursery.cancel_scope.cancel()


async def _push_at_start(served: Served) -> None:
    changes = await served.push()
    application = served.deployer.application
    for warning in application.warnings:
        note(f"warning: {warning}")
    for change in changes:
        note(change)
    note(f"pushed {application.digest}; ready")


async def _push_on_hangup(served: Served) -> None:
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            try:
                await _push_at_start(served)
            except EngineError as error:
                for line in told(only(error)):
                    note(line)
                note("not pushed; the version before serves on")


def end_in(seconds: float) -> None:
    """End the process by then, whatever hangs."""
    timer = threading.Timer(seconds, os._exit, (STUCK_EXIT,))
    timer.daemon = True
    timer.start()
