"""`headrace verify`: is what is on disk what was written?"""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.output import note, progress
from engine.cli.project import new_verb
from engine.errors import StoreDamaged


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "verify",
        "check the log, the rows and the indexes against each other",
        "headrace verify",
        "headrace verify --data /var/lib/headrace",
        description=(
            "Check every log record and how it continues the one before, the rows against the "
            "log's state hash, and every index against the documents. Files of text and vector "
            "indexes that were damaged when the engine opened are a problem too, though they have "
            "been replaced since. A server goes on meanwhile."
        ),
    )
    add_connection(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    found: dict[str, Any] = {}
    with connected(options) as client, progress("verifying") as advance:
        for found in client.lines("verify"):
            advance(found["records"] + found["rows"] + found["entries"])
    if not found.get("done"):
        raise StoreDamaged("the server ended the check before it was done; its trace says more")
    print(
        f"{found['records']} records, {found['rows']} rows, {found['entries']} entries, "
        f"up to ts {found['ts']}"
    )
    for problem in found["problems"]:
        note(f"problem: {problem}")
    count = len(found["problems"])
    print("sound" if not count else "1 problem" if count == 1 else f"{count} problems")
    return Exit.FAILED if found["problems"] else Exit.DONE
