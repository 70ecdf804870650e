"""`headrace run`: call a function, its value on stdout as JSON, its log lines on stderr."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.json_input import read_json
from engine.cli.output import json_text, note, print_table
from engine.cli.project import new_verb
from engine.errors import InvalidValue, UsageError
from engine.model.text import brief
from engine.model.timestamps import ts_of


def add(verbs: Any) -> None:
    parser = new_verb(
        verbs,
        "run",
        "call a query, mutation or action",
        "headrace run messages:list",
        """headrace run messages:send '{"author": "ada", "body": "hello"}'""",
        """headrace run users:me --identity '{"issuer": "example.com", "subject": "ada"}'""",
        "headrace run messages:list --explain",
        "headrace run messages:list --at 2026-11-25T18:00:00Z",
        "headrace run messages:purge --url https://example.com --admin-key 'headrace|...'",
        description=(
            "Call a query, mutation or action. In a directory that nobody serves the application "
            "is pushed first, as its files are now. --explain and --at only look: they take its "
            "code as it is and push nothing, and its tables and indexes have to be those of the "
            "last push."
        ),
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION")
    parser.add_argument("args", nargs="?", default="{}", metavar="JSON", help="its arguments")
    parser.add_argument(
        "--identity", metavar="JSON", help="act as this user: issuer and subject, and other claims"
    )
    parser.add_argument(
        "--explain", action="store_true", help="of a query: which indexes it reads, and how much"
    )
    parser.add_argument(
        "--at",
        type=moment,
        metavar="TS",
        help="of a query: on the state as it was; nanoseconds, as `headrace log tail` lists them, "
        "or an ISO time, which is local unless it says otherwise",
    )
    parser.add_argument("--component", default="", metavar="PATH", help="where it is mounted")
    add_connection(parser, with_app=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    args = _object("the arguments", "are", options.args)
    identity = _object("--identity", "is", options.identity) if options.identity else None
    if options.explain:
        if options.at is not None:
            raise UsageError("--explain is about the newest state; leave out --at")
        return _explain(options, args)
    with connected(options, needs_app=True, looks=options.at is not None) as client:
        envelope = client.call(
            options.function, args, component=options.component, identity=identity, at=options.at
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


def _explain(options: argparse.Namespace, args: dict[str, Any]) -> int:
    call = {"path": options.function, "args": args, "component": options.component}
    with connected(options, needs_app=True, looks=True) as client:
        found = client.post("explain", call)
    for line in found["logLines"]:
        note(line)
    if found["error"] is None or found["documentsRead"]:
        _print_reads(found)
    if found["error"] is not None:
        note(found["error"])
        return Exit.FAILED
    return Exit.DONE


def _print_reads(found: Mapping[str, Any]) -> None:
    print_table(
        ("table", "index", "range", "order", "filters", "read", "returned"),
        [_reading(each) for each in found["readings"]],
    )
    by_id = found["documentsRead"] - sum(each["read"] for each in found["readings"])
    print(
        f"{found['documentsRead']:g} documents, {found['bytesRead']:g} bytes"
        f"{f', {by_id:g} of them by id' if by_id else ''}; {found['durationMs']:.1f} ms"
    )


def _reading(reading: Mapping[str, Any]) -> list[str]:
    counts = [f"{reading[name]:g}" for name in ("filters", "read", "returned")]
    where = reading["range"] or "all"
    return [reading["table"], reading["index"], where, reading["order"], *counts]


def moment(text: str) -> int:
    """
    The ts that a user wrote.

    Raises:
        ArgumentTypeError: it is neither nanoseconds nor an ISO time.
    """
    try:
        return ts_of(int(text) if text.isdecimal() else datetime.fromisoformat(text).astimezone())
    except (ValueError, OverflowError, InvalidValue):
        raise argparse.ArgumentTypeError(
            f"{brief(text)!r} is no time: write 2026-11-25T18:00:00Z, or nanoseconds"
        ) from None


def _object(what: str, verb: str, text: str) -> dict[str, Any]:
    """
    Raises:
        UsageError: it is no JSON object.
    """
    found = read_json(f"{what} {brief(text)!r} {verb}", text)
    if not isinstance(found, dict):
        raise UsageError(f"{what} {verb} no JSON object, but {brief(text)!r}")
    return found
