"""`headrace logs`: what functions of a running server print, log and raise."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, Final

from engine.cli.calls import header, lines_of, lines_with_costs
from engine.cli.client import AdminClient
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import json_text
from engine.cli.project import new_verb
from engine.functions.history import of_json

WAIT_S: Final = 20


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "logs",
        "show the last calls of a running server and their log lines",
        "headrace logs",
        "headrace logs --follow",
        "headrace logs --executions --json | tail -1",
        "headrace logs --request 0ccef06340a2755b",
        "headrace logs --executions --url https://example.com --admin-key 'headrace|...'",
        description=(
            "Show the last calls of a running server and their log lines. They are kept in its "
            "memory: a directory that nobody has open has none. With --executions each of the last "
            "1,000 calls is a line with what it cost; the answers that a query gave from the cache "
            "are one line. Errors name their request, by which also clients in production are told "
            "of them; --request shows that one, with all that it called."
        ),
    )
    parser.add_argument("--follow", "-f", action="store_true", help="go on as more are made")
    parser.add_argument("--executions", action="store_true", help="every call, with its costs")
    parser.add_argument("--request", metavar="ID", help="only calls of the request of that id")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # One of our own would have none to show, and with --follow keep others out of the directory.
    with connected(options, opens=False) as client:
        if options.executions and not options.json:
            print(header())
        cursor = _show(client, 0, 0, options)
        while options.follow:
            cursor = _show(client, cursor, WAIT_S, options)
    return Exit.DONE


def _show(client: AdminClient, after: int, wait_s: int, options: argparse.Namespace) -> int:
    """Print what ran since `after`; return the cursor for what comes next."""
    answer = client.get("executions", after=after, wait=wait_s)
    for each in answer["executions"]:
        for line in _lines(each, options):
            print(line, flush=True)
    return int(answer["cursor"])


def _lines(found: dict[str, Any], options: argparse.Namespace) -> Iterable[str]:
    execution = of_json(found)
    if options.request is not None and execution.request_id != options.request:
        return ()
    has_said = execution.log_lines or execution.error is not None
    if not (options.executions or options.request or has_said):
        return ()
    if options.json:
        return [json_text(found)]
    return lines_with_costs(execution) if options.executions else lines_of(execution)
