"""`headrace pause`: no function is called until `headrace resume`."""

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
        "pause",
        "call no function until `resume`",
        "headrace pause",
        description=(
            "Refuse new calls of functions, let scheduled ones wait and crons skip, also over a "
            "restart. What runs comes to its end; pushes, imports and what only looks work."
        ),
    )
    add_connection(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options) as client:
        answer = client.post("state", {"paused": True})
    note("paused" if answer["changed"] else "it was paused already")
    return Exit.DONE
