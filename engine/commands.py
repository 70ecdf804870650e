"""
What verbs are made of that a component, or whoever else, adds to the command line.

    [project.entry-points."headrace.commands"]
    limits = "my_limits.command:main"           # headrace limits ...

`main` is given the arguments after the verb, and returns an exit code or `None`.  What it raises
is told as the errors of other verbs are.

    parser = verb_parser("headrace limits", "List limits.", "headrace limits list")
    parts = parser.add_subparsers(metavar="list", required=True)
    parts.add_parser("list").set_defaults(run=_list)    # _list(client, mount, options) -> Exit
    return run_part(parser, parts, arguments, "functions:limit")
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from engine.cli.client import AdminClient
from engine.cli.connection import add_connection, connected
from engine.cli.failures import Exit
from engine.cli.jobs import when
from engine.cli.output import json_text, note, print_table, progress
from engine.cli.project import add_count, examples, number_from
from engine.errors import FunctionFailed, UsageError

__all__ = [
    "AdminClient",
    "Exit",
    "add_connection",
    "add_count",
    "connected",
    "examples",
    "json_text",
    "mount_of",
    "note",
    "number_from",
    "print_table",
    "progress",
    "run_part",
    "value_of",
    "verb_parser",
    "when",
]


def verb_parser(prog: str, description: str, *shown: str) -> argparse.ArgumentParser:
    """
    Args:
        prog: "headrace limits".
        shown: command lines, as examples.
    """
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=examples(*shown),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run_part(
    parser: argparse.ArgumentParser,
    parts: Any,
    arguments: Sequence[str],
    function: str,
) -> int:
    """
    Do what one part of a verb does with a component; every part gets the options of a connection.

    Args:
        parts: of `parser.add_subparsers`; each has set `run`, which is given a client, the path of
            the mount and the options, and returns an exit code.
        function: as in `mount_of`.

    Raises:
        UsageError: as `mount_of`.
    """
    for part in parts.choices.values():
        part.add_argument("--component", metavar="PATH", help="where it is mounted, if several are")
        add_connection(part, with_app=True)
    options = parser.parse_args(arguments)
    with connected(options, needs_app=True) as client:
        code: int = options.run(client, mount_of(client, function, options.component), options)
        return code


def mount_of(client: AdminClient, function: str, named: str | None = None) -> str:
    """
    Where a component is mounted.

    Args:
        function: the path of one that it has and others have not, "functions:limit".
        named: what the user has said; needed where it is mounted several times.

    Raises:
        UsageError: it is not mounted, not there, or mounted several times.
    """
    found = [each["component"] for each in client.get("functions") if each["path"] == function]
    mounts = sorted(str(place) for place in found if place)
    if named in mounts:
        return str(named)
    if not mounts:
        raise UsageError(
            f"no component that has {function} is mounted here; an application mounts one by "
            "app.use(...), and is pushed then"
        )
    choice = f"say --component {' or --component '.join(mounts)}"
    if named is not None:
        raise UsageError(f"no component that has {function} is mounted as {named!r}: {choice}")
    if len(mounts) > 1:
        raise UsageError(f"there are several: {choice}")
    return mounts[0]


def value_of(
    client: AdminClient,
    path: str,
    args: dict[str, Any],
    *,
    component: str = "",
    at: int | None = None,
) -> Any:
    """
    What a function returns, called as the administrator; its log lines are told on stderr.

    Args:
        at: of a query: the state to read, as `client.newest_ts` tells it; what takes several
            queries is consistent then.

    Raises:
        FunctionFailed: it did.
    """
    envelope = client.call(path, args, component=component, at=at)
    for line in envelope.get("logLines", ()):
        note(line)
    if envelope["status"] != "success":
        raise FunctionFailed(envelope["errorMessage"])
    return envelope["value"]
