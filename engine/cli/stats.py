"""`headrace stats`: the numbers that a running server counts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import json_text, print_table
from engine.cli.project import new_verb


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "stats",
        "show what a running server counts",
        "headrace stats",
        "headrace stats --json",
        description=(
            "Show the numbers that a running server keeps: how late scheduled functions and crons "
            "are, how many run, wait and have ended, by function; executions, commits, and what is "
            "cached and shown. Counts begin when it was started."
        ),
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # One of our own would have counted nothing.
    with connected(options, opens=False) as client:
        found = client.get("stats")
    if options.json:
        for number in found:
            print(json_text(number))
    else:
        rows = [(one["name"], _labels(one["labels"]), f"{one['value']:,.10g}") for one in found]
        print_table(("number", "of", "value"), rows)
    return Exit.DONE


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
