"""`headrace openapi`: the OpenAPI description of the HTTP API, functions included."""

from __future__ import annotations

import argparse
import json
from typing import Any

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.project import new_verb


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "openapi",
        "print an OpenAPI description of the HTTP API",
        "headrace openapi > openapi.json",
        "headrace openapi --app chat.py --internal",
        description="Print an OpenAPI 3.1 description of the HTTP API, with an operation for each "
        "public function: of the server that has the data open, else of the application.",
    )
    parser.add_argument("--internal", action="store_true", help="with internal functions")
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with connected(options, needs_app=True, without_data=True) as client:
        print(json.dumps(client.description(internal=options.internal), indent=2))
    return Exit.DONE
