"""`headrace push`: deploy the application as its files are now."""

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
        "push",
        "deploy the application as its files are now",
        "headrace push",
        "headrace push --url https://example.com --admin-key 'headrace|...'",
        description=(
            "Let a running server read the files of its application again and deploy them, while "
            "the version before serves; or deploy to a directory that nobody has open. A push "
            "that is refused changes nothing."
        ),
    )
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options, needs_app=True, deploys=False) as client:
        answer = client.post("push", {})
    for warning in answer["warnings"]:
        note(f"warning: {warning}")
    for change in answer["changes"]:
        print(change)
    note("pushed")
    return Exit.DONE
