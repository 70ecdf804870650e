"""`headrace logs`: what functions of a running server print, log and raise."""

from __future__ import annotations

import argparse
from typing import Any, Final

from engine.cli.calls import lines_of
from engine.cli.client import AdminClient
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.project import new_verb
from engine.functions.history import ExecutionRecord

WAIT_S: Final = 20


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "logs",
        "show the last calls of a running server and their log lines",
        "headrace logs",
        "headrace logs --follow",
        "headrace logs --executions --url https://example.com --admin-key 'headrace|...'",
        description=(
            "Show the last calls of a running server and their log lines. They are kept in its "
            "memory: a directory that nobody has open has none."
        ),
    )
    parser.add_argument("--follow", "-f", action="store_true", help="go on as more are made")
    parser.add_argument("--executions", action="store_true", help="every call, with its costs")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # One of our own would have none to show, and with --follow keep others out of the directory.
    with connected(options, opens=False) as client:
        cursor = _show(client, 0, 0, options)
        while options.follow:
            cursor = _show(client, cursor, WAIT_S, options)
    return Exit.DONE


def _show(client: AdminClient, after: int, wait_s: int, options: argparse.Namespace) -> int:
    """Print what ran since `after`; return the cursor for what comes next."""
    answer = client.get("executions", after=after, wait=wait_s)
    for each in answer["executions"]:
        execution = ExecutionRecord(**{**each, "log_lines": tuple(each["log_lines"])})
        if not (options.executions or execution.log_lines or execution.error is not None):
            continue
        for line in lines_of(execution, with_costs=options.executions):
            print(line, flush=True)
    return int(answer["cursor"])
