"""`headrace run`: call a function, its value on stdout as JSON, its log lines on stderr."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.json_input import read_json
from engine.cli.output import json_text, note
from engine.cli.project import new_verb
from engine.errors import UsageError
from engine.model.text import brief


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "run",
        "call a query, mutation or action",
        "headrace run messages:list",
        """headrace run messages:send '{"author": "ada", "body": "hello"}'""",
        """headrace run users:me --identity '{"issuer": "example.com", "subject": "ada"}'""",
        "headrace run messages:purge --url https://example.com --admin-key 'headrace|...'",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION")
    parser.add_argument("args", nargs="?", default="{}", metavar="JSON", help="its arguments")
    parser.add_argument(
        "--identity", metavar="JSON", help="act as this user: issuer and subject, and other claims"
    )
    parser.add_argument("--component", default="", metavar="PATH", help="where it is mounted")
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    args = _object("the arguments", "are", options.args)
    identity = _object("--identity", "is", options.identity) if options.identity else None
    with connected(options, needs_app=True) as client:
        envelope = client.call(
            options.function, args, component=options.component, identity=identity
        )
    for line in envelope.get("logLines", ()):
        note(line)
    if envelope["status"] == "success":
        print(json_text(envelope["value"], indent=2))
        return Exit.DONE
    note(envelope["errorMessage"])
    if "errorData" in envelope:
        note(f"data: {json_text(envelope['errorData'])}")
    return Exit.FAILED


def _object(what: str, verb: str, text: str) -> dict[str, Any]:
    """
    Raises:
        UsageError: it is no JSON object.
    """
    found = read_json(f"{what} {brief(text)!r} {verb}", text)
    if not isinstance(found, dict):
        raise UsageError(f"{what} {verb} no JSON object, but {brief(text)!r}")
    return found
