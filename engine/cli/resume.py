"""`headrace resume`: functions are called again after `headrace pause`."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import note
from engine.cli.project import new_verb


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "resume",
        "call functions again after `pause`",
        "headrace resume",
        description=(
            "Functions are called again. What was scheduled and is overdue runs, and of each cron "
            "one time: those that it missed are skipped and counted."
        ),
    )
    add_connection(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options) as client:
        answer = client.post("state", {"paused": False})
    note("resumed" if answer["changed"] else "it was not paused")
    return Exit.DONE
